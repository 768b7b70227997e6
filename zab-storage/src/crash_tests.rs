//! Changes of the history, stopped between any two system calls: by a kill, which leaves all that
//! was written, and by a power cut, which may leave no more than what was synced.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::fs::Change;

/// Records every change, keeps a model of what is on the medium, and stops all changes after a
/// given number of them.
#[derive(Debug)]
pub(crate) struct Probe {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many changes are still allowed.
    left: u64,
    steps: u64,
    files: Vec<Content>,
    /// Names as they are, and as they are on the medium.
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
}

#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    position: usize,
}

impl Probe {
    pub(crate) fn step(&self, change: &Change<'_>) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.left == 0 {
            return Err(io::Error::other("stopped by the test"));
        }
        state.left -= 1;
        state.steps += 1;
        state.apply(change);
        Ok(())
    }
}

impl State {
    fn apply(&mut self, change: &Change<'_>) {
        match *change {
            Change::Create(path) => {
                let at = self.names.get(path).copied().unwrap_or_else(|| {
                    self.files.push(Content::default());
                    self.files.len() - 1
                });
                self.files[at].bytes.clear();
                self.files[at].position = 0;
                self.names.insert(path.to_path_buf(), at);
            }
            Change::Write(path, bytes) => {
                let file = self.file(path);
                let end = file.position + bytes.len();
                if file.bytes.len() < end {
                    file.bytes.resize(end, 0);
                }
                file.bytes[file.position..end].copy_from_slice(bytes);
                file.position = end;
            }
            Change::Resize(path, len) => self.file(path).bytes.resize(len as usize, 0),
            Change::Sync(path) => {
                let file = self.file(path);
                file.durable = file.bytes.clone();
            }
            Change::Rename(from, to) => {
                let at = self.names.remove(from).expect("a file to rename");
                self.names.insert(to.to_path_buf(), at);
            }
            Change::Remove(path) => {
                self.names.remove(path).expect("a file to remove");
            }
            Change::SyncDir(dir) => {
                let inside = |path: &Path| path.parent() == Some(dir);
                self.durable_names.retain(|path, _| !inside(path));
                let present = self.names.iter().filter(|(path, _)| inside(path));
                self.durable_names.extend(present.map(|(path, &at)| (path.clone(), at)));
            }
        }
    }

    fn file(&mut self, path: &Path) -> &mut Content {
        let at = self.names[path];
        &mut self.files[at]
    }
}
