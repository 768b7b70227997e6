//! What operators, filers and desktops put into the directories keeps no server from starting, and
//! stays where it is.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use common::{Bytes, TempDir, body, txn};
use zab_proto::{Epoch, EpochKind, Recovered, Storage, Ticket, Zxid};
use zab_storage::{Disk, Error, Mode, Options, Store};

fn start(dir: &TempDir) -> Result<(Disk, Recovered), Error> {
    let options = Options::new(dir.path()).with(|options| options.prealloc_bytes = 64 << 10);
    let mut store = Store::open(options)?;
    let recovered = store.recover(&mut Bytes::new())?;
    Ok((store.into_disk(Mode::Inline)?, recovered))
}

/// A directory with three transactions.
fn used() -> TempDir {
    let dir = TempDir::new();
    let (mut disk, _) = start(&dir).unwrap();
    disk.set_epoch(Ticket(1), EpochKind::Accepted, Epoch(0));
    for n in 1..=3 {
        disk.append(Ticket(1 + n), Zxid::from_raw(n.cast_signed()), &txn(n.cast_signed(), 10));
    }
    disk.submit();
    disk.close().unwrap();
    dir
}

/// Starts, writes everything there is to write, purges, and starts again.
fn live(dir: &TempDir, what: &str) {
    for round in 0..5 {
        let (mut disk, recovered) = start(dir).unwrap_or_else(|error| panic!("{what}: {error}"));
        let n = 3 + round;
        assert_eq!(recovered.last().raw(), n, "{what}");
        disk.append(Ticket(1), Zxid::from_raw(n + 1), &txn(n + 1, 10));
        disk.submit();
        assert_eq!(disk.poll().unwrap(), Some(Ticket(1)), "{what}");
        disk.snapshot_begin(Zxid::from_raw(n + 1));
        disk.snapshot_piece(&body(b"state"));
        disk.snapshot_finish(None);
        disk.close().unwrap();
        zab_storage::purge(dir.path(), dir.path(), 3).unwrap();
    }
    // Of five snapshots and the first one, three are kept.
    let own = dir.names().into_iter().filter(|name| {
        name.strip_prefix("snapshot.").is_some_and(|n| ["4", "5", "6", "7", "8"].contains(&n))
    });
    assert_eq!(own.collect::<Vec<_>>(), ["snapshot.6", "snapshot.7", "snapshot.8"], "{what}");
}

fn directory(path: &Path) {
    fs::create_dir_all(path.join("inside")).unwrap();
}

fn file(path: &Path) {
    fs::write(path, b"not ours").unwrap();
}

fn nowhere(path: &Path) {
    symlink("/nowhere/at/all", path).unwrap();
}

fn itself(path: &Path) {
    symlink(path, path).unwrap();
}

fn device(path: &Path) {
    symlink("/dev/zero", path).unwrap();
}

fn socket(path: &Path) {
    drop(UnixListener::bind(path).unwrap());
}

/// A kind of thing, and how to make one.
type Kind = (&'static str, fn(&Path));

#[test]
fn what_is_not_ours_is_left_alone() {
    let kinds: [Kind; 6] = [
        ("directory", directory),
        ("file", file),
        ("link to nowhere", nowhere),
        ("link to itself", itself),
        ("device", device),
        ("socket", socket),
    ];
    // Any kind of thing under these; things that are no files under names that are ours.
    let any = [
        "lost+found",
        ".snapshot",
        ".snapshot.1",
        ".stage",
        ".install.9",
        ".DS_Store",
        ".lock",
        ".log.1.swp",
        "log.1~",
        "log.1.bak",
        "log.",
        "log.xyz",
        "snapshot.old",
        "snapshot.",
        "snapshot.1.tmp",
        "set-aside.log.0",
        ".zab-snapshot.x",
        ".zab-snapshot.",
        ".zab-install.",
        "zab-set-aside.log",
        "#log.1#",
        "ein Verzeichnis für später",
    ];
    let ours = [
        "log.99",
        "snapshot.99",
        "snapshot.99.gz",
        ".zab-snapshot.7",
        ".zab-snapshot",
        ".zab-install.99",
        "zab-set-aside.log.0",
        "initialize",
    ];
    for (kind, make) in kinds {
        let dir = used();
        let names = any.iter().chain(ours.iter().filter(|_| kind != "file"));
        let paths: Vec<_> = names.map(|name| dir.version_2().join(name)).collect();
        paths.iter().for_each(|path| make(path));
        live(&dir, kind);
        for path in paths {
            assert!(fs::symlink_metadata(&path).is_ok(), "{kind} {} is gone", path.display());
        }
    }
}

/// A snapshot without content is what a full disk leaves. It is none, and older ones are used.
#[test]
fn an_empty_snapshot_is_none() {
    for name in ["snapshot.2", "snapshot.3.gz", "snapshot.3.snappy", "snapshot.99"] {
        let dir = used();
        fs::write(dir.version_2().join(name), b"").unwrap();
        live(&dir, name);
    }
}

#[test]
fn an_empty_log_is_kept_for_the_operator() {
    let dir = used();
    fs::write(dir.version_2().join("log.9"), b"").unwrap();
    start(&dir).unwrap();
    assert!(dir.names().contains(&"zab-set-aside.log.9".to_owned()));
}

/// Snapshots hold digests of passwords: nobody but the group reads them.
#[test]
fn files_are_not_for_everybody() {
    let dir = used();
    live(&dir, "modes");
    for entry in fs::read_dir(dir.version_2()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "{:?} has mode {mode:o}", entry.file_name());
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_refused_at_the_start() {
    let dir = TempDir::new();
    // A file system without a single file that can be made: whoever runs this test, root included.
    let options = Options::new(dir.path()).with(|options| options.log_dir = "/proc/self".into());
    fs::create_dir_all(dir.version_2()).unwrap();
    let error = Store::open(options).unwrap_err();
    assert!(error.to_string().contains("/proc/self/version-2"), "{error}");
    // A directory in the place of the file that is tried.
    let dir = used();
    fs::create_dir(dir.version_2().join(".zab-probe")).unwrap();
    let Err(error @ Error::Unwritable { .. }) = start(&dir) else { panic!("started") };
    let version_2 = dir.version_2();
    assert!(error.to_string().starts_with(&format!("cannot write in {}: ", version_2.display())));
    assert!(!error.is_mendable(), "it is there on purpose");
}
