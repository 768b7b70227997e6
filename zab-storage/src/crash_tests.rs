//! Changes of the history, stopped between any two system calls: by a kill, which leaves all that
//! was written, and by a power cut, which may leave no more than what was synced.

use std::collections::{BTreeMap, BTreeSet};
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
    /// The most bytes of one file that waited for a sync.
    unsynced_max: usize,
    files: Vec<Content>,
    /// Names as they are, and as they are on the medium.
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// Changes of names since then.
    pending: Vec<NameChange>,
}

/// What went, what came.
type NameChange = (Option<PathBuf>, Option<(PathBuf, usize)>);

#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    position: usize,
    unsynced: usize,
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
                self.name(None, Some((path.to_path_buf(), at)));
            }
            Change::Open(path) => self.file(path).position = 0,
            Change::Write(path, bytes) | Change::WriteDirect(path, bytes) => {
                let at = self.names[path];
                let file = &mut self.files[at];
                let end = file.position + bytes.len();
                if file.bytes.len() < end {
                    file.bytes.resize(end, 0);
                }
                file.bytes[file.position..end].copy_from_slice(bytes);
                file.position = end;
                // Past the page cache it is on its way, but nothing says that it arrived.
                if matches!(change, Change::Write(..)) {
                    file.unsynced += bytes.len();
                }
                self.unsynced_max = file.unsynced.max(self.unsynced_max);
            }
            Change::Resize(path, len) => {
                self.file(path).bytes.resize(usize::try_from(len).unwrap(), 0);
            }
            Change::Sync(path) => {
                let file = self.file(path);
                file.durable = file.bytes.clone();
                file.unsynced = 0;
            }
            Change::Rename(from, to) => {
                let at = self.names[from];
                self.name(Some(from.to_path_buf()), Some((to.to_path_buf(), at)));
            }
            Change::Remove(path) => {
                self.name(Some(path.to_path_buf()), None);
            }
            Change::SyncDir(dir) => {
                assert!(self.names.keys().all(|path| path.parent() == Some(dir)));
                self.durable_names = self.names.clone();
                self.pending.clear();
            }
        }
    }

    fn name(&mut self, gone: Option<PathBuf>, new: Option<(PathBuf, usize)>) {
        rename(&mut self.names, gone.as_deref(), new.as_ref());
        self.pending.push((gone, new));
    }

    fn file(&mut self, path: &Path) -> &mut Content {
        let at = self.names[path];
        &mut self.files[at]
    }
}

#[path = "../tests/common/mod.rs"]
mod common;

use std::fs;
use std::sync::Arc;

pub(crate) use common::TempDir;
use common::{Bytes, body, txn};
use zab_proto::{Epoch, EpochKind, Storage, Ticket, Zxid};

use crate::error::Error;
use crate::fs::Fs;
use crate::names::Compression;
use crate::snapshot::{PIECE_LEN, Pace, SnapshotWriter};
use crate::{Disk, Mode, Options, Store};

impl Probe {
    /// All of a directory is on the medium at the start.
    fn new(dir: &Path, left: u64) -> Arc<Self> {
        let mut state = State { left, ..State::default() };
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            state.names.insert(path, state.files.len());
            state.files.push(Content { durable: bytes.clone(), bytes, ..Content::default() });
        }
        state.durable_names = state.names.clone();
        Arc::new(Self { state: Mutex::new(state) })
    }

    fn steps(&self) -> u64 {
        self.state.lock().unwrap().steps
    }

    /// Everything a crash may leave: the names of now, those synced last, or these with any one of
    /// the changes since; and the contents of now or those synced.
    fn images(&self) -> BTreeSet<Image> {
        let state = self.state.lock().unwrap();
        let mut names = vec![state.names.clone(), state.durable_names.clone()];
        for (gone, new) in state.pending.iter().rev().skip(1) {
            let mut one = state.durable_names.clone();
            rename(&mut one, gone.as_deref(), new.as_ref());
            names.push(one);
        }
        let image = |names: &BTreeMap<PathBuf, usize>, synced: bool| {
            let content = |at: &usize| {
                let file = &state.files[*at];
                if synced { file.durable.clone() } else { file.bytes.clone() }
            };
            let file = |(path, at): (&PathBuf, _)| (path.file_name().unwrap().into(), content(at));
            Image(names.iter().map(file).collect())
        };
        names.iter().flat_map(|names| [image(names, false), image(names, true)]).collect()
    }
}

/// Names and contents of files.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Image(BTreeMap<PathBuf, Vec<u8>>);

impl Image {
    fn write(&self) -> TempDir {
        let dir = TempDir::new();
        fs::create_dir(dir.version_2()).unwrap();
        for (name, bytes) in &self.0 {
            fs::write(dir.version_2().join(name), bytes).unwrap();
        }
        dir
    }
}

fn rename(
    names: &mut BTreeMap<PathBuf, usize>,
    gone: Option<&Path>,
    new: Option<&(PathBuf, usize)>,
) {
    if let Some(gone) = gone {
        names.remove(gone);
    }
    if let Some((path, at)) = new {
        names.insert(path.clone(), *at);
    }
}

/// A file system that nothing stops.
fn modelled(dir: &TempDir) -> Fs {
    fs::create_dir_all(dir.version_2()).unwrap();
    probed(&Probe::new(&dir.version_2(), u64::MAX))
}

fn probed(probe: &Arc<Probe>) -> Fs {
    Fs { probe: Some(Arc::clone(probe)), ..Fs::default() }
}

/// What is known of a history after recovery.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    epochs: (Option<i64>, Option<i64>),
    snapshot: Option<i64>,
    last: i64,
    state: Vec<u8>,
}

fn options(dir: &TempDir) -> Options {
    Options { prealloc_bytes: 1 << 10, autocreate: false, ..Options::new(dir.path()) }
}

fn see(dir: &TempDir, fs: Fs) -> Result<Seen, Error> {
    let mut app = Bytes::new();
    let mut store = Store::open(options(dir))?;
    store.fs = fs;
    let recovered = store.recover(&mut app)?;
    Ok(Seen {
        epochs: (
            recovered.accepted_epoch.map(|epoch| epoch.0),
            recovered.current_epoch.map(|epoch| epoch.0),
        ),
        snapshot: recovered.snapshot.map(Zxid::raw),
        last: recovered.last().raw(),
        state: app.state,
    })
}

/// Runs `change` after `base`, stopped after each number of steps, and shows `check` the highest
/// acknowledged ticket and what every possible crash leaves, also after a second crash during the
/// recovery.
fn crash_everywhere(
    base: impl Fn(&mut Disk),
    change: impl Fn(&mut Disk),
    check: impl Fn(u64, &Seen),
) {
    let run = |dir: &TempDir, fs: Fs, change: &dyn Fn(&mut Disk)| -> u64 {
        let mut store = Store::open(options(dir)).unwrap();
        store.fs = fs;
        if store.recover(&mut Bytes::new()).is_err() {
            return 0;
        }
        let mut disk = store.into_disk(Mode::Inline).unwrap();
        change(&mut disk);
        disk.submit();
        disk.executor_durable()
    };
    let mut looked_at = BTreeSet::new();
    for left in 0.. {
        let dir = TempDir::new();
        run(&dir, modelled(&dir), &base);
        let probe = Probe::new(&dir.version_2(), left);
        let acked = run(&dir, probed(&probe), &change);
        for image in probe.images() {
            // What was looked at before needs no second look.
            if !looked_at.insert((acked, image.clone())) {
                continue;
            }
            let dir = image.write();
            let again = Probe::new(&dir.version_2(), left % 7);
            let _ = see(&dir, probed(&again));
            for image in again.images() {
                let dir = image.write();
                let seen = see(&dir, modelled(&dir))
                    .unwrap_or_else(|error| panic!("after {left} steps: {error}"));
                check(acked, &seen);
            }
        }
        if probe.steps() < left {
            assert!(left > 5, "nothing was done");
            return;
        }
    }
}

fn append(disk: &mut Disk, ticket: u64, zxid: i64) {
    disk.append(Ticket(ticket), Zxid::from_raw(zxid), &txn(zxid, 100));
}

fn twenty(disk: &mut Disk) {
    for n in 1..=10 {
        append(disk, n, n.cast_signed());
    }
    disk.snapshot_begin(Zxid::from_raw(5));
    disk.snapshot_piece(&body(b"five"));
    disk.snapshot_finish(None);
    for n in 11..=20 {
        append(disk, n, n.cast_signed());
    }
}

const EPOCH_1: i64 = 1 << 32;

#[test]
fn epochs_and_appends() {
    let change = |disk: &mut Disk| {
        disk.set_epoch(Ticket(1), EpochKind::Accepted, Epoch(1));
        disk.set_epoch(Ticket(2), EpochKind::Current, Epoch(1));
        disk.submit();
        append(disk, 3, EPOCH_1 + 1);
        append(disk, 4, EPOCH_1 + 2);
        disk.submit();
        append(disk, 5, EPOCH_1 + 3);
        disk.set_epoch(Ticket(6), EpochKind::Accepted, Epoch(2));
        disk.set_epoch(Ticket(7), EpochKind::Current, Epoch(2));
        append(disk, 8, 2 * EPOCH_1 + 1);
    };
    // What there is after each ticket.
    let (one, two) = (Some(1), Some(2));
    let after = [
        (None, None, 0),
        (one, None, 0),
        (one, one, 0),
        (one, one, EPOCH_1 + 1),
        (one, one, EPOCH_1 + 2),
        (one, one, EPOCH_1 + 3),
        (two, one, EPOCH_1 + 3),
        (two, two, EPOCH_1 + 3),
        (two, two, 2 * EPOCH_1 + 1),
    ];
    crash_everywhere(
        |_| {},
        change,
        |acked, seen| {
            let found = (seen.epochs.0, seen.epochs.1, seen.last);
            let at = after.iter().position(|&state| state == found);
            assert!(at.is_some_and(|at| at as u64 >= acked), "{acked} acknowledged: {seen:?}");
        },
    );
}

#[test]
fn epochs_of_every_length() {
    let base = |disk: &mut Disk| disk.set_epoch(Ticket(1), EpochKind::Accepted, Epoch(8));
    let change = |disk: &mut Disk| {
        for ticket in 1..=3 {
            disk.set_epoch(Ticket(ticket), EpochKind::Accepted, Epoch(ticket.cast_signed() + 8));
        }
    };
    crash_everywhere(base, change, |acked, seen| {
        let epoch = seen.epochs.0.unwrap();
        assert!(epoch >= 8 + acked.cast_signed() && epoch <= 11, "{acked} acknowledged: {seen:?}");
    });
}

#[test]
fn truncation() {
    for to in [15, 10, 8, 5] {
        let change = |disk: &mut Disk| {
            disk.truncate(Ticket(1), Zxid::from_raw(to));
            append(disk, 2, EPOCH_1 + 1);
        };
        crash_everywhere(twenty, change, |acked, seen| {
            let range = match acked {
                0 => to..=EPOCH_1 + 1,
                1 => to..=to,
                _ => EPOCH_1 + 1..=EPOCH_1 + 1,
            };
            let partly = seen.last > 20 && seen.last < EPOCH_1 + 1;
            assert!(
                !partly && (range.contains(&seen.last) || acked == 1 && seen.last > 20),
                "{acked} acknowledged: {seen:?}"
            );
            assert_eq!(seen.state, body(b"five"));
        });
    }
    // Below the newer snapshot, which has to go too.
    let change = |disk: &mut Disk| disk.truncate(Ticket(1), Zxid::from_raw(3));
    crash_everywhere(twenty, change, |acked, seen| {
        assert!(if acked == 1 { seen.last == 3 } else { (3..=20).contains(&seen.last) });
        assert!(acked == 0 || seen.snapshot == Some(0));
    });
}

#[test]
fn installation() {
    // Above, inside and below what the log holds.
    for zxid in [EPOCH_1 + 5, 12, 2] {
        let next = EPOCH_1 + 6;
        let change = |disk: &mut Disk| {
            let tree = body(b"from the leader");
            let (first, second) = tree.split_at(20);
            disk.stage(first);
            disk.submit();
            disk.stage(second);
            disk.install(Ticket(1), Zxid::from_raw(zxid), None);
            append(disk, 2, next);
        };
        crash_everywhere(twenty, change, |acked, seen| {
            let new = seen.state == body(b"from the leader");
            if new {
                assert_eq!(seen.snapshot, Some(zxid));
                let done = if acked == 2 { seen.last == next } else { true };
                assert!(done && [zxid, next].contains(&seen.last), "{acked}: {seen:?}");
            } else {
                assert_eq!((acked, seen.snapshot, seen.last), (0, Some(5), 20), "{seen:?}");
            }
        });
    }
}

/// What follows a leader's snapshot takes effect with it, or not at all.
#[test]
fn installation_with_what_follows() {
    for zxid in [EPOCH_1 + 5, 12, 2] {
        let next = EPOCH_1 + 6;
        let change = |disk: &mut Disk| {
            disk.stage(&body(b"from the leader"));
            disk.submit();
            for n in 0..3 {
                disk.stage_txn(Zxid::from_raw(next + n), &txn(next + n, 100));
            }
            disk.install(Ticket(1), Zxid::from_raw(zxid), None);
            append(disk, 2, next + 3);
        };
        crash_everywhere(twenty, change, |acked, seen| {
            if seen.state == body(b"from the leader") {
                assert_eq!(seen.snapshot, Some(zxid));
                let done = acked < 2 || seen.last == next + 3;
                assert!(done && [next + 2, next + 3].contains(&seen.last), "{acked}: {seen:?}");
            } else {
                assert_eq!((acked, seen.snapshot, seen.last), (0, Some(5), 20), "{seen:?}");
            }
        });
    }
}

/// What was staged for a synchronisation that was cut short belongs to no other.
#[test]
fn what_was_staged_and_discarded_is_forgotten() {
    let change = |disk: &mut Disk| {
        disk.stage(&body(b"cut short"));
        disk.stage_txn(Zxid::from_raw(EPOCH_1 + 1), &txn(EPOCH_1 + 1, 100));
        disk.discard_stage();
        disk.submit();
        disk.stage(&body(b"from the leader"));
        disk.install(Ticket(1), Zxid::from_raw(30), None);
    };
    crash_everywhere(twenty, change, |acked, seen| {
        let old = (Some(5), 20);
        assert!(
            (Some(30), 30) == (seen.snapshot, seen.last)
                || acked == 0 && old == (seen.snapshot, seen.last),
            "{seen:?}"
        );
    });
}

#[test]
fn own_snapshots() {
    let change = |disk: &mut Disk| {
        append(disk, 1, 21);
        disk.snapshot_begin(Zxid::from_raw(21));
        disk.snapshot_piece(&body(b"twenty-one"));
        disk.snapshot_finish(None);
        append(disk, 2, 22);
    };
    crash_everywhere(twenty, change, |acked, seen| {
        assert!(seen.last >= 20 + acked.cast_signed() && seen.last <= 22, "{acked}: {seen:?}");
        match seen.snapshot {
            Some(5) => assert_eq!(seen.state, body(b"five")),
            Some(21) => assert_eq!(seen.state, body(b"twenty-one")),
            _ => panic!("{seen:?}"),
        }
    });
}

#[test]
fn nothing_is_written_after_an_error() {
    let dir = TempDir::new();
    let mut store = Store::open(options(&dir)).unwrap();
    store.recover(&mut Bytes::new()).unwrap();
    let probe = Probe::new(&dir.version_2(), 9);
    store.fs = probed(&probe);
    let mut disk = store.into_disk(Mode::Inline).unwrap();
    for n in 1..=5 {
        append(&mut disk, n, n.cast_signed());
        disk.submit();
    }
    assert!(matches!(disk.poll(), Err(Error::Io { .. })));
    assert!(matches!(disk.poll(), Err(Error::Stopped)));
    assert_eq!(probe.steps(), 9);
    probe.state.lock().unwrap().left = 100;
    append(&mut disk, 6, 6);
    disk.submit();
    drop(disk);
    assert_eq!(probe.steps(), 9);
}

#[test]
fn a_snapshot_leaves_the_log_no_more_than_a_piece_to_wait_for() {
    let dir = TempDir::new();
    let path = dir.version_2().join("tmp");
    for only_cached in [true, false] {
        for (compression, len, pace) in [
            (Compression::None, 8 << 20, Pace::Full),
            (Compression::None, 8 << 20, Pace::Half),
            (Compression::None, 100, Pace::Full),
            (Compression::Gz, 100, Pace::Half),
            (Compression::Snappy, 8 << 20, Pace::Full),
        ] {
            let fs = Fs { only_cached, ..modelled(&dir) };
            let mut writer = SnapshotWriter::create(&fs, &path, compression, pace).unwrap();
            for piece in vec![7; 8 << 20].chunks(len) {
                writer.write(piece).unwrap();
            }
            writer.finish(None, None).unwrap();
            let state = fs.probe.as_ref().unwrap().state.lock().unwrap();
            let written = &state.files[state.names[&path]];
            let (len, most) = (written.bytes.len(), state.unsynced_max);
            assert!(most <= PIECE_LEN, "{compression:?}: {most} of {len} bytes waited");
            assert_eq!(written.bytes, written.durable, "{compression:?}: not synced");
            assert!(compression != Compression::None || len > 2 * PIECE_LEN);
            assert!(
                fs::read(&path).unwrap() == written.bytes,
                "{compression:?}: other bytes on the disk"
            );
        }
    }
}
