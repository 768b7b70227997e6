//! Directories that real servers left, whole and damaged, and what has to come of each.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;

use common::{Bytes, TempDir, captured, copy, vectors};
use zab_proto::{Recovered, Zxid};
use zab_storage::{Damage, Error, Options, Store};

fn recover(dir: &TempDir, change: impl FnOnce(&mut Options)) -> Result<(Recovered, Bytes), Error> {
    let mut options = Options::new(dir.path());
    change(&mut options);
    let mut app = Bytes::new();
    let recovered = Store::open(options)?.recover(&mut app)?;
    Ok((recovered, app))
}

fn last(dir: &TempDir) -> Result<i64, Error> {
    recover(dir, |_| {}).map(|(recovered, _)| recovered.last().raw())
}

/// A damaged variant of a captured directory.
fn damaged(group: &str, variant: &str, missing: &[&str]) -> TempDir {
    let dir = captured(&format!("{group}/intact"));
    for name in missing {
        fs::remove_file(dir.version_2().join(name)).unwrap();
    }
    let files = vectors().join(group).join(variant);
    if variant != "intact" && files.exists() {
        copy(&files, &dir.version_2());
    }
    dir
}

#[test]
fn every_captured_directory_ends_where_zookeeper_ends() {
    for (name, snapshot, end) in [
        ("basic-crud", 0x16, 0x20),
        ("ephemerals-sessions", 0x11, 0x14),
        ("multi", 0, 0xa),
        ("ttl-container", 0x11, 0x14),
        ("acls", 0x13, 0x16),
        ("quota", 0x18, 0x1a),
        ("quorum-reconfig", 0x1_0000_0005, 0x2_0000_0003),
        ("fuzzy-snapshot", 0x1d6, 0x25a),
        ("no-digest", 5, 8),
        ("closesession-nobody", 0, 4),
        ("legacy-txns", 0, 8),
        ("foreign-writer", 0xa, 0xc),
        ("compressed/gz", 0x20, 0x23),
        ("compressed/snappy", 0x20, 0x23),
        ("v39", 4, 7),
        ("v39-nodigest", 3, 3),
    ] {
        let dir = captured(name);
        let (recovered, app) = recover(&dir, |_| {}).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(recovered.snapshot, Some(Zxid::from_raw(snapshot)), "{name}");
        assert_eq!(app.zxid, recovered.snapshot, "{name}");
        assert_eq!(recovered.last().raw(), end, "{name}: {:#x}", recovered.last().raw());
    }
}

#[test]
fn epochs_and_fuzziness_are_reported() {
    let (recovered, _) = recover(&captured("quorum-reconfig"), |_| {}).unwrap();
    assert_eq!(recovered.accepted_epoch.map(|epoch| epoch.0), Some(2));
    assert_eq!(recovered.current_epoch.map(|epoch| epoch.0), Some(2));
    let (recovered, app) = recover(&captured("fuzzy-snapshot"), |_| {}).unwrap();
    assert_eq!(recovered.accepted_epoch, None);
    assert!(recovered.snapshot_end > recovered.snapshot.unwrap());
    assert_eq!(app.digest.unwrap().zxid, recovered.snapshot_end);
}

#[test]
fn torn_tails_recover_to_the_record_before() {
    for (variant, end) in [
        ("intact", 0x12),
        ("crc-then-zeros", 0x11),
        ("cut-after-crc", 0x11),
        ("cut-mid-record", 0x11),
        ("eor-zero-last-record", 0x11),
        ("zeros-from-mid-record", 0x11),
        ("length-past-eof", 0xe),
        ("header-only", 0xc),
        ("header-version-3", 0x12),
        ("junk-named-log.zzz", 0x12),
        ("copy-named-log.1.bak", 0x12),
        ("extra-empty-tail-log", 0x12),
        ("last-log-empty", 0xc),
        ("header-cut", 0xc),
    ] {
        let dir = damaged("torn-tail", variant, &[]);
        assert_eq!(last(&dir).unwrap(), end, "{variant}");
        // Recovering twice is the same as once.
        assert_eq!(last(&dir).unwrap(), end, "{variant}");
    }
}

#[test]
fn an_unusable_newest_log_is_moved_out_of_the_way() {
    let dir = damaged("torn-tail", "last-log-empty", &[]);
    last(&dir).unwrap();
    assert!(!dir.names().contains(&"log.d".into()));
    let dir = damaged("torn-tail", "header-cut", &[]);
    last(&dir).unwrap();
    assert!(dir.names().contains(&"zab-set-aside.log.d".into()));
    let dir = captured("torn-tail/intact");
    fs::write(dir.version_2().join("log.d"), [0; 700]).unwrap();
    assert_eq!(last(&dir).unwrap(), 0xc);
    assert!(dir.names().contains(&"zab-set-aside.log.d".into()));
}

#[test]
fn damage_that_no_crash_explains_is_refused() {
    for (variant, file, what) in [
        ("bad-magic", "log.d", Damage::BadMagic(0x584b_4c47)),
        ("bitflip-last-record", "log.d", Damage::BadChecksum),
        ("bitflip-mid-log", "log.7", Damage::BadChecksum),
        ("length-huge", "log.d", Damage::BadLength(i32::MAX)),
        ("length-minus-one", "log.d", Damage::BadLength(-1)),
        ("length-minus-two", "log.d", Damage::BadLength(-2)),
        ("middle-log-empty", "log.7", Damage::ShortHeader),
        // A header of zeros, but records behind it.
        ("header-zeros", "log.d", Damage::BadMagic(0)),
    ] {
        let dir = damaged("torn-tail", variant, &[]);
        match last(&dir) {
            Err(Error::Damaged { path, what: found, .. }) => {
                assert_eq!(found, what, "{variant}");
                assert!(path.ends_with(file), "{variant}: {}", path.display());
            }
            other => panic!("{variant}: {other:?}"),
        }
    }
}

#[test]
fn holes_are_refused_unless_the_operator_accepts_them() {
    let hole = |dir: &TempDir, after: i64, next: i64| match last(dir) {
        Err(Error::Hole { after: a, next: n, path }) => {
            assert_eq!((a.raw(), n.raw()), (after, next));
            assert!(path.ends_with("log.d") || path.ends_with("log.7"));
        }
        other => panic!("{other:?}"),
    };
    hole(&damaged("torn-tail", "cut-mid-record-older-log", &[]), 0xb, 0xd);
    hole(&damaged("torn-tail", "eor-zero-mid-older-log", &[]), 8, 0xd);
    let dir = damaged("torn-tail", "missing-middle-log", &["log.7"]);
    hole(&dir, 6, 0xd);
    let (recovered, _) = recover(&dir, |options| options.allow_holes = true).unwrap();
    assert_eq!(recovered.last().raw(), 0x12);
    hole(&damaged("snapshot-damage", "log-gap", &["log.7", "snapshot.c"]), 6, 0xd);
}

/// Servers of 3.8 log transactions twice (ZOOKEEPER-4394).
#[test]
fn what_is_logged_twice_counts_once() {
    let dir = captured("torn-tail/intact");
    fs::copy(dir.version_2().join("log.7"), dir.version_2().join("log.13")).unwrap();
    let (recovered, _) = recover(&dir, |_| {}).unwrap();
    assert_eq!((recovered.last().raw(), recovered.txns().count()), (0x12, 0x12));
    // Another transaction of a zxid that is there already.
    let other = captured("basic-crud");
    fs::copy(other.version_2().join("log.1"), dir.version_2().join("log.13")).unwrap();
    assert!(matches!(last(&dir), Err(Error::Damaged { what: Damage::OutOfOrder(_), .. })));
}

#[test]
fn a_damaged_snapshot_gives_way_to_the_one_before() {
    for (variant, missing, used) in [
        ("intact", &[][..], 0xc),
        ("bad-magic", &[], 6),
        ("bitflip", &[], 6),
        ("digest-bitflip", &[], 6),
        ("digest-section-cut", &[], 6),
        ("digest-section-missing", &[], 0xc),
        ("older-log-bitflip", &[], 0xc),
        ("oldest-log-bitflip", &[], 0xc),
        ("suffix-tmp", &["snapshot.c"], 6),
        ("trailing-junk", &[], 6),
        ("truncated", &[], 6),
    ] {
        let dir = damaged("snapshot-damage", variant, missing);
        let (recovered, app) = recover(&dir, |_| {}).unwrap_or_else(|e| panic!("{variant}: {e}"));
        assert_eq!(recovered.snapshot.unwrap().raw(), used, "{variant}");
        assert_eq!(app.zxid.unwrap().raw(), used, "{variant}");
        assert_eq!(recovered.last().raw(), 0x12, "{variant}");
    }
}

#[test]
fn no_snapshot_to_fall_back_to() {
    let all = ["snapshot.0", "snapshot.6", "snapshot.c"];
    let dir = damaged("snapshot-damage", "no-snapshot", &all);
    assert!(matches!(last(&dir), Err(Error::NoSnapshot(_))));
    let (recovered, _) = recover(&dir, |options| options.trust_empty_snapshot = true).unwrap();
    assert_eq!((recovered.snapshot, recovered.last().raw()), (Some(Zxid::ZERO), 0x12));
    let dir = damaged("snapshot-damage", "only-snapshot-bitflip", &all);
    assert!(matches!(last(&dir), Err(Error::NoValidSnapshot(_))));
    let dir = damaged("snapshot-damage", "only-snapshot-truncated", &all);
    assert!(matches!(last(&dir), Err(Error::NoSnapshot(_))));
    // The same without any log must not become an empty tree.
    for log in ["log.1", "log.7", "log.d"] {
        fs::remove_file(dir.version_2().join(log)).unwrap();
    }
    assert!(matches!(last(&dir), Err(Error::NoValidSnapshot(_))));
}

#[test]
fn falling_back_must_not_lose_what_the_newest_snapshot_promised() {
    let dir = damaged("snapshot-damage", "bitflip", &["log.d"]);
    fs::remove_file(dir.version_2().join("log.7")).unwrap();
    assert!(matches!(last(&dir), Err(Error::Lost { reached, .. }) if reached.raw() == 6));
}

#[test]
fn an_empty_directory() {
    let dir = TempDir::new();
    let (recovered, _) = recover(&dir, |options| options.autocreate = false).unwrap();
    assert_eq!(recovered.snapshot, None);
    assert!(!recovered.initialize);
    assert!(dir.names().is_empty(), "{:?}", dir.names());

    fs::write(dir.path().join("initialize"), "").unwrap();
    let (recovered, _) = recover(&dir, |options| options.autocreate = false).unwrap();
    assert_eq!(recovered.snapshot, Some(Zxid::ZERO));
    assert!(recovered.initialize);
    assert!(!dir.path().join("initialize").exists());
    assert_eq!(dir.names(), ["snapshot.0"]);

    let dir = TempDir::new();
    let (recovered, _) = recover(&dir, |_| {}).unwrap();
    assert_eq!((recovered.snapshot, recovered.last()), (Some(Zxid::ZERO), Zxid::ZERO));
}

#[test]
fn directories_are_checked_and_locked() {
    let dir = TempDir::new();
    let options = Options::new(dir.path());
    let store = Store::open(options.clone()).unwrap();
    assert!(matches!(Store::open(options.clone()), Err(Error::Directory { .. })));
    drop(store);
    Store::open(options.clone()).unwrap();

    let missing =
        Options::new(dir.path().join("no")).with(|options| options.datadir_autocreate = false);
    assert!(matches!(Store::open(missing), Err(Error::Directory { .. })));

    let logs = TempDir::new();
    let two = options.with(|options| options.log_dir = logs.path().into());
    Store::open(two.clone()).unwrap();
    fs::write(dir.version_2().join("log.1"), "").unwrap();
    assert!(matches!(Store::open(two), Err(Error::Directory { .. })));
}

#[test]
fn epoch_files_are_read_strictly() {
    for (text, good) in [("7", true), ("7\n", true), ("", false), ("7x", false), (" 7", false)] {
        let dir = TempDir::new();
        fs::create_dir(dir.version_2()).unwrap();
        fs::write(dir.version_2().join("currentEpoch"), text).unwrap();
        match recover(&dir, |_| {}) {
            Ok((recovered, _)) => {
                assert!(good, "{text:?}");
                assert_eq!(recovered.current_epoch.map(|epoch| epoch.0), Some(7));
            }
            Err(Error::NotANumber(path)) => assert!(!good && path.ends_with("currentEpoch")),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn myid() {
    let dir = TempDir::new();
    assert!(matches!(zab_storage::read_myid(dir.path()), Err(Error::Io { .. })));
    fs::write(dir.path().join("myid"), "3\n").unwrap();
    assert_eq!(zab_storage::read_myid(dir.path()).unwrap(), 3);
    fs::write(dir.path().join("myid"), "three").unwrap();
    assert!(matches!(zab_storage::read_myid(dir.path()), Err(Error::NotANumber(_))));
}
