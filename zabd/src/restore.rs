//! The command `restore` of the AdminServer: the server ends, the uploaded state takes the place of its own, and
//! another server begins with it. What keeps that safe is in [`zk_recovery::in_place`].

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zk_admin::{Restorable, Restore, Restored};
use zk_recovery::Member;
use zk_recovery::in_place::{self, Replaced, Upload};

use crate::config::ServerConfig;
use crate::running::Running;
use crate::server::leave;

/// What is restored, and how far that has come.
#[derive(Clone)]
pub(crate) struct Restoring(Arc<Inner>);

struct Inner {
    member: Member,
    /// A server alone has no others to agree with.
    alone: bool,
    tick: Duration,
    running: Running,
    step: Mutex<Step>,
}

/// Who waits for the outcome.
type Waits = Sender<Result<Restored, String>>;

#[derive(Default)]
enum Step {
    #[default]
    Idle,
    /// The upload is whole.
    Ready(Upload),
    /// The server is asked to end.
    Asked(Upload, Waits),
    /// The new state has its place, and nobody has loaded it yet.
    Placed(Replaced, Waits),
}

impl Restoring {
    pub(crate) fn new(config: &ServerConfig, running: Running) -> Self {
        let member =
            Member { data_dir: config.data_dir.clone(), log_dir: config.data_log_dir.clone() };
        let (alone, tick) = (config.standalone, config.tick_time);
        let restoring =
            Self(Arc::new(Inner { member, alone, tick, running, step: Mutex::default() }));
        // What a process has left that was stopped in between.
        restoring.0.discard();
        restoring
    }

    /// What the AdminServer calls.
    pub(crate) fn command(&self) -> Arc<dyn Restore> {
        Arc::<Inner>::clone(&self.0)
    }

    /// The server has ended well. Whether it was for a new state, which has its place now if it could be put
    /// there: then it begins anew.
    pub(crate) fn place(&self) -> bool {
        let mut step = self.0.step();
        let Step::Asked(upload, waits) = std::mem::take(&mut *step) else { return false };
        match in_place::replace(&upload, &self.0.member, self.0.alone) {
            Ok(replaced) => {
                log::warn!(
                    "The restored state is in its place, as of {} ({:#x}), ensemble {}; the old one is kept in {}",
                    replaced.zxid,
                    replaced.zxid.raw(),
                    replaced.ensemble,
                    shown(&replaced.kept)
                );
                *step = Step::Placed(replaced, waits);
            }
            Err(error) => {
                log::error!("The state is not restored, the old one stays: {error}");
                tell(&waits, Err(error.to_string()));
            }
        }
        true
    }

    /// A server has loaded what is there.
    pub(crate) fn loaded(&self) {
        if let Step::Placed(replaced, waits) = std::mem::take(&mut *self.0.step()) {
            let Replaced { zxid, ensemble, kept, .. } = replaced;
            tell(&waits, Ok(Restored { zxid, ensemble: ensemble.to_string(), kept }));
        }
    }

    /// A server has ended with an error. Whether it is worth another try: with the old state, if it was the new one
    /// that could not be loaded.
    pub(crate) fn failed(&self, error: &str) -> bool {
        match std::mem::take(&mut *self.0.step()) {
            Step::Idle | Step::Ready(_) => false,
            Step::Asked(_, waits) => {
                tell(&waits, Err(format!("the server has ended with an error: {error}")));
                false
            }
            Step::Placed(replaced, waits) => {
                log::error!("The restored state cannot be loaded, the old one comes back: {error}");
                let back = in_place::put_back(&self.0.member, &replaced);
                let is_back = back.is_ok();
                let back = back.map_or_else(
                    |error| format!("nor can the old one be put back: {error}"),
                    |()| "the old one is in its place again".into(),
                );
                tell(&waits, Err(format!("the state cannot be loaded ({error}); {back}")));
                is_back
            }
        }
    }

    /// The process is asked to end.
    pub(crate) fn give_up(&self) {
        if let Step::Asked(_, waits) = std::mem::take(&mut *self.0.step()) {
            log::warn!("The state is not restored: this server is shutting down");
            tell(&waits, Err("the server is shutting down".into()));
        }
    }
}

fn tell(waits: &Waits, outcome: Result<Restored, String>) {
    // Whoever has asked may be gone.
    let _ = waits.send(outcome);
}

fn shown(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and ")
}

impl Inner {
    fn step(&self) -> MutexGuard<'_, Step> {
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where an upload goes.
    fn file(&self) -> PathBuf {
        self.member.data_dir.join(UPLOAD)
    }

    fn ask(&self) -> Result<Receiver<Result<Restored, String>>, String> {
        let mut step = self.step();
        let Step::Ready(upload) = std::mem::take(&mut *step) else {
            return Err("there is no snapshot to be restored".into());
        };
        let Some(handle) = self.running.get() else {
            return Err("no server runs in this process at the moment".into());
        };
        let (waits, outcome) = channel();
        *step = Step::Asked(upload, waits);
        drop(step);
        leave(handle, self.tick);
        Ok(outcome)
    }
}

impl Restore for Inner {
    fn begin(&self, len: Option<u64>) -> io::Result<File> {
        self.discard();
        self.check_room(len.unwrap_or(0))?;
        File::create(self.file())
    }

    fn check_room(&self, len: u64) -> io::Result<()> {
        let space = rustix::fs::statvfs(&self.member.data_dir)?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if free < len.saturating_add(RESERVE_LEN) {
            let text = format!(
                "{} MiB are free, of which {} are kept for the server's log",
                free >> 20,
                RESERVE_LEN >> 20
            );
            return Err(io::Error::new(io::ErrorKind::StorageFull, text));
        }
        Ok(())
    }

    fn inspect(&self) -> Result<Restorable, String> {
        let upload = in_place::inspect(&self.file()).map_err(|error| error.to_string())?;
        let (zxid, is_fuzzy, census) = (upload.zxid, upload.is_fuzzy, upload.census.clone());
        *self.step() = Step::Ready(upload);
        Ok(Restorable { zxid, is_fuzzy, census })
    }

    fn replace(&self) -> Result<Restored, String> {
        let outcome = self.ask()?;
        outcome.recv().unwrap_or_else(|_| Err("the server has ended".into()))
    }

    fn discard(&self) {
        for ending in ["", ".gz", ".snappy"] {
            // Mostly it is not there.
            let _ = fs::remove_file(self.member.data_dir.join(format!("{UPLOAD}{ending}")));
        }
    }
}

/// In `dataDir`; no server reads it.
const UPLOAD: &str = ".zab-restore";
/// Bytes of the disk that an upload leaves: for two log files.
const RESERVE_LEN: u64 = 128 << 20;
