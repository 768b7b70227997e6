//! The oracle of two voters (`oraclePath`): whoever is asked, and how without waiting for the answer (rule R13).

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;

/// Who says whether one of two voters is a quorum while it does not hear the other.
///
/// At no time may it grant that to both: each would lead, and what one of them commits meanwhile is lost. And
/// who was granted it has to lead again before the other one does, or what it has committed alone is lost
/// (`docs/election.md`).
pub trait Oracle: Send + Sync + fmt::Debug {
    /// Whether this server is a quorum now. May take its time, as it has a thread; an answer that takes a
    /// tick comes too late.
    fn grants(&self) -> bool;
}

/// ZooKeeper's oracle: a file that others write. It grants if its first byte is `1`.
#[derive(Debug)]
pub struct OracleFile {
    path: PathBuf,
    /// It could not be read the last time, which is said.
    unreadable: AtomicBool,
}

impl OracleFile {
    /// The file at `path`, which need not exist.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), unreadable: AtomicBool::new(false) }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn first_byte(&self) -> io::Result<Option<u8>> {
        let mut first = [0];
        match File::open(&self.path)?.read_exact(&mut first) {
            Ok(()) => Ok(Some(first[0])),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Oracle for OracleFile {
    fn grants(&self) -> bool {
        let read = self.first_byte();
        if let Err(error) = &read
            && !self.unreadable.load(Ordering::Relaxed)
        {
            let path = self.path.display();
            log::warn!("{path} (oraclePath) cannot be read, and so grants nothing: {error}");
        }
        self.unreadable.store(read.is_err(), Ordering::Relaxed);
        read.is_ok_and(|first| first == Some(b'1'))
    }
}

/// A question that is under way, on a thread of its own: a file may be on a disk that hangs. The core asks no
/// second time before it has the answer, so that there is one thread at most.
pub(crate) struct Asking {
    oracle: Option<Arc<dyn Oracle>>,
    wake: Arc<dyn Fn() + Send + Sync>,
    answer: Option<Receiver<bool>>,
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking").field("oracle", &self.oracle).finish_non_exhaustive()
    }
}

impl Asking {
    pub(crate) fn new(oracle: Option<Arc<dyn Oracle>>, wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { oracle, wake, answer: None }
    }

    /// Asks. The loop turns when the answer has come.
    pub(crate) fn ask(&mut self) {
        let (tells, answer) = channel();
        let wake = Arc::clone(&self.wake);
        self.answer = Some(answer);
        let Some(oracle) = self.oracle.clone() else {
            drop(tells);
            return wake();
        };
        let ask = move || {
            // The server may have ended.
            let _ = tells.send(oracle.grants());
            wake();
        };
        if let Err(error) = thread::Builder::new().name("oracle".into()).spawn(ask) {
            log::warn!("The oracle (oraclePath) cannot be asked, and so grants nothing: {error}");
            (self.wake)();
        }
    }

    /// The answer, if it has come. Without anybody to ask it is no.
    pub(crate) fn poll(&mut self) -> Option<bool> {
        let answer = match self.answer.as_ref()?.try_recv() {
            Ok(granted) => granted,
            Err(TryRecvError::Disconnected) => false,
            Err(TryRecvError::Empty) => return None,
        };
        self.answer = None;
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Mutex;
    use std::sync::mpsc::RecvTimeoutError;
    use std::time::Duration;

    use super::*;

    /// As `QuorumOracleMaj.askOracle` reads it: the first character, and nothing else.
    #[test]
    fn a_file_grants_if_its_first_byte_is_1() {
        let dir = std::env::temp_dir().join(format!("zab-oracle-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = OracleFile::new(dir.join("mastership"));
        assert!(!file.grants(), "not there");
        let cases: [(&[u8], bool); 9] = [
            (b"1", true),
            (b"1\n", true),
            (b"10", true),
            (b"0", false),
            (b"0\n1", false),
            (b"", false),
            (b" 1", false),
            (b"\xef\xbb\xbf1", false),
            (b"yes", false),
        ];
        for (text, grants) in cases {
            fs::write(file.path(), text).unwrap();
            assert_eq!(file.grants(), grants, "{text:?}");
        }
        assert!(!OracleFile::new(&dir).grants(), "a directory");
        fs::remove_dir_all(dir).unwrap();
    }

    /// Answers when it is told what.
    #[derive(Debug)]
    struct Slow(Mutex<Receiver<bool>>);

    impl Oracle for Slow {
        fn grants(&self) -> bool {
            self.0.lock().unwrap().recv().unwrap()
        }
    }

    fn asking(oracle: Option<Arc<dyn Oracle>>) -> (Asking, Receiver<()>) {
        let (woken, wakes) = channel();
        (Asking::new(oracle, Arc::new(move || woken.send(()).unwrap())), wakes)
    }

    #[test]
    fn the_loop_is_woken_by_the_answer_and_does_not_wait_for_it() {
        let (says, heard) = channel();
        let (mut asking, wakes) = asking(Some(Arc::new(Slow(Mutex::new(heard)))));
        assert_eq!(asking.poll(), None);
        for granted in [true, false] {
            asking.ask();
            let waits = wakes.recv_timeout(Duration::from_millis(50));
            assert_eq!(waits, Err(RecvTimeoutError::Timeout));
            assert_eq!(asking.poll(), None);
            says.send(granted).unwrap();
            wakes.recv_timeout(Duration::from_secs(30)).unwrap();
            assert_eq!(asking.poll(), Some(granted));
            assert_eq!(asking.poll(), None);
        }
        // It ends without an answer.
        drop(says);
        asking.ask();
        let ended = (0..3000).find_map(|_| {
            thread::sleep(Duration::from_millis(10));
            asking.poll()
        });
        assert_eq!(ended, Some(false));
    }

    #[test]
    fn nobody_to_ask_is_a_no() {
        let (mut asking, wakes) = asking(None);
        asking.ask();
        wakes.recv_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(asking.poll(), Some(false));
    }
}
