//! Ensembles of real nodes on loopback in this process, on any of the runtimes.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use runtime_core::{Error, Handle, Listen, Listeners, ServerOptions};
use zab_proto::{Channel, Config, Ensemble, Member, Sid};

use crate::flow::{Board, Flow, Progress};

/// How long anything may take before a bench gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// An event loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Runtime {
    /// One `mio` event loop per node.
    Mio,
    /// `smol` tasks, one thread per node.
    Smol,
    /// Blocking threads.
    Std,
}

impl Runtime {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Mio, Self::Smol, Self::Std];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mio => "mio",
            Self::Smol => "smol",
            Self::Std => "std",
        }
    }
}

/// A running node.
#[derive(Debug)]
enum Server {
    Mio(runtime_mio::Server<Flow>),
    Smol(runtime_smol::Server<Flow>),
    Std(runtime_std::Server<Flow>),
}

impl Server {
    fn start_on(
        runtime: Runtime,
        listeners: Listeners,
        options: ServerOptions,
        app: Flow,
    ) -> Result<Self, Error> {
        Ok(match runtime {
            Runtime::Mio => Self::Mio(runtime_mio::Server::start_on(listeners, options, app)?),
            Runtime::Smol => Self::Smol(runtime_smol::Server::start_on(listeners, options, app)?),
            Runtime::Std => Self::Std(runtime_std::Server::start_on(listeners, options, app)?),
        })
    }

    fn handle(&self) -> &Handle<Flow> {
        match self {
            Self::Mio(server) => server.handle(),
            Self::Smol(server) => server.handle(),
            Self::Std(server) => server.handle(),
        }
    }
}

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
    servers: Vec<Option<Server>>,
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
        let mut config = Config::new(Sid(0), Ensemble::default());
        config.trust_empty = true;
        config.election.early_finalize = setting.early_finalize;
        let mut bound = Vec::new();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        for sid in sids(setting.nodes) {
            let mut listeners = Listeners::default();
            let quorum = listeners.add(Channel::Quorum, any, None)?;
            let election = listeners.add(Channel::Election, any, None)?;
            let line = format!("127.0.0.1:{}:{}", quorum.port(), election.port());
            let member = Member::parse(sid, &line).expect("a good address");
            config.ensemble.members.insert(sid, member);
            bound.push(Some(listeners));
        }
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
        self.servers[i] = Some(Server::start_on(self.setting.runtime, listeners, options, app)?);
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
