//! Ensembles of real nodes on loopback in this process, on any of the runtimes.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use runtime_any::{Runtime, Server};
use runtime_core::{Error, Handle, Listen, Listeners, ServerOptions};
use zab_proto::{Config, Sid};

use crate::flow::{Board, Flow, Progress};

/// How long anything may take before a bench gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What the nodes of an ensemble have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setting {
    /// Event loop.
    pub runtime: Runtime,
    /// How many.
    pub nodes: usize,
    /// Decide without waiting when no better vote can come.
    pub early_finalize: bool,
    /// Writes are followed by an fsync.
    pub fsync: bool,
    /// By how much log files are extended in advance.
    pub prealloc_bytes: u64,
}

/// An ensemble. Dropping it ends the nodes and removes their directories.
#[derive(Debug)]
pub struct Nodes {
    setting: Setting,
    config: Config,
    dir: PathBuf,
    bound: Vec<Option<Listeners>>,
    servers: Vec<Option<Server<Flow>>>,
    /// What the nodes have come to.
    pub board: Arc<Board>,
}

impl Nodes {
    /// Binds the ports; starts nobody.
    ///
    /// # Errors
    /// [`Error::Bind`].
    ///
    /// # Panics
    /// If there is no directory for temporary files.
    pub fn new(setting: Setting) -> Result<Self, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("zab-nodes-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).expect("temporary files can be made");
        let (ensemble, bound) = Listeners::local_ensemble(setting.nodes)?;
        let mut config = Config::new(Sid(0), ensemble);
        config.trust_empty = true;
        config.election.early_finalize = setting.early_finalize;
        let bound = bound.into_iter().map(Some).collect();
        let servers = (0..setting.nodes).map(|_| None).collect();
        let board = Arc::new(Board::new(setting.nodes));
        Ok(Self { setting, config, dir, bound, servers, board })
    }

    /// Starts node `i`, again if it was stopped.
    ///
    /// # Errors
    /// What the runtime says.
    ///
    /// # Panics
    /// If it runs.
    pub fn start(&mut self, i: usize) -> Result<(), Error> {
        assert!(self.servers[i].is_none(), "node {i} runs");
        let sid = sids(i + 1).last().expect("at least one");
        let listeners = match self.bound[i].take() {
            Some(listeners) => listeners,
            None => Listeners::bind(&Listen::peers(&self.config.ensemble.members[&sid], false)?)?,
        };
        self.board.reset(i);
        let mut config = self.config.clone();
        config.sid = sid;
        let data = self.dir.join(sid.to_string());
        fs::create_dir_all(&data)?;
        let mut options = ServerOptions::new(config, Listen::default(), data);
        options.storage.prealloc_bytes = self.setting.prealloc_bytes;
        options.storage.force_sync = self.setting.fsync;
        let app = Flow::new(i, Arc::clone(&self.board));
        self.servers[i] = Some(self.setting.runtime.start_on(listeners, options, app)?);
        Ok(())
    }

    /// Stops node `i` at once: its sockets close without a word.
    pub fn stop(&mut self, i: usize) {
        self.servers[i] = None;
    }

    /// The end of node `i` that other threads may hold.
    #[must_use]
    pub fn handle(&self, i: usize) -> Option<&Handle<Flow>> {
        self.servers[i].as_ref().map(Server::handle)
    }

    /// Waits until all that run serve, one leads, and all have delivered its first transaction.
    ///
    /// # Panics
    /// After [`PATIENCE`].
    #[must_use]
    pub fn wait_all(&self) -> Vec<Progress> {
        let runs: Vec<bool> = self.servers.iter().map(Option::is_some).collect();
        let all = |members: &[Progress]| {
            let done = |own: &Progress| own.serves.is_some() && own.delivered.is_some();
            members.iter().zip(&runs).all(|(own, runs)| !runs || done(own))
        };
        let members = self.board.wait(PATIENCE, all);
        members.unwrap_or_else(|| panic!("nobody leads: {:?}", self.board))
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.servers.clear();
        // What is left behind is in the directory for temporary files.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn sids(n: usize) -> impl Iterator<Item = Sid> {
    (1..).map(Sid).take(n)
}
