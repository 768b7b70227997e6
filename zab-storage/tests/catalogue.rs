//! The entries of the catalogue of failures (`docs/catalogue.md`) that are about files: each schedule as
//! it was, on real ones. Those about a crash at some step are in `src/crash_tests.rs`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;

use common::{Bytes, TempDir, body, txn};
use zab_proto::{
    Config, Epoch, EpochKind, Input, Instant, Node, Recovered, Sid, Storage, Ticket, Zxid,
};
use zab_storage::{Disk, Error, Mode, Options, Store};

fn options(dir: &TempDir) -> Options {
    Options::new(dir.path()).with(|options| options.prealloc_bytes = 1 << 16)
}

fn recover(dir: &TempDir) -> Result<(Recovered, Bytes), Error> {
    recover_with(options(dir))
}

fn recover_with(options: Options) -> Result<(Recovered, Bytes), Error> {
    let mut app = Bytes::new();
    let recovered = Store::open(options)?.recover(&mut app)?;
    Ok((recovered, app))
}

fn disk(dir: &TempDir) -> Disk {
    let mut store = Store::open(options(dir)).unwrap();
    store.recover(&mut Bytes::new()).unwrap();
    store.into_disk(Mode::Inline).unwrap()
}

fn zxid(n: u32) -> Zxid {
    Zxid::new(Epoch(1), n)
}

fn append(disk: &mut Disk, ticket: u64, zxid: Zxid) {
    disk.append(Ticket(ticket), zxid, &txn(zxid.raw(), 100));
    disk.submit();
    assert_eq!(disk.poll().unwrap(), Some(Ticket(ticket)));
}

/// Transactions 1 to 35 of epoch 1, with snapshots at 2, 7, … 27, each of which was begun when the
/// log was three transactions further: logs begin at 1, 6, … 31.
fn history(dir: &TempDir) {
    let mut disk = disk(dir);
    disk.set_epoch(Ticket(1), EpochKind::Accepted, Epoch(1));
    disk.set_epoch(Ticket(2), EpochKind::Current, Epoch(1));
    for n in 1..=35 {
        append(&mut disk, u64::from(n) + 2, zxid(n));
        if n % 5 == 0 && n < 35 {
            disk.snapshot_begin(zxid(n - 3));
            disk.snapshot_piece(&body(&[7; 300]));
            disk.snapshot_finish(None);
        }
    }
    disk.close().unwrap();
    let logs = dir.names().into_iter().filter(|name| name.starts_with("log.")).count();
    assert_eq!((logs, snapshots(dir).len()), (7, 7));
}

fn snapshots(dir: &TempDir) -> Vec<String> {
    dir.names().into_iter().filter(|name| name.starts_with("snapshot.")).collect()
}

/// Nothing is missing between the snapshot in use and the last transaction.
fn assert_whole(recovered: &Recovered, last: Zxid) {
    let from = recovered.snapshot.unwrap().counter();
    let found: Vec<_> = recovered.txns().map(|(zxid, _)| zxid).collect();
    assert_eq!(found, (from + 1..=last.counter()).map(zxid).collect::<Vec<_>>());
    assert_eq!(recovered.last(), last);
}

/// ZK-2325, ZK-3056: all snapshots are gone, and of the logs the older ones. A server that begins with
/// the empty tree and applies what is left has a tree that never was.
#[test]
fn b35_what_is_left_of_a_history_is_not_taken_for_all_of_it() {
    let dir = TempDir::new();
    history(&dir);
    for snapshot in snapshots(&dir) {
        fs::remove_file(dir.version_2().join(snapshot)).unwrap();
    }
    let trust = || options(&dir).with(|options| options.trust_empty_snapshot = true);
    fs::rename(dir.version_2().join("log.100000001"), dir.path().join("older")).unwrap();
    assert!(matches!(recover(&dir), Err(Error::NoSnapshot(_))));
    let hole = recover_with(trust()).map(|_| ());
    assert!(matches!(hole, Err(Error::Hole { next, .. }) if next == zxid(6)), "{hole:?}");

    // With all of it the operator's word is enough, ...
    fs::remove_file(dir.version_2().join("snapshot.0")).ok();
    fs::rename(dir.path().join("older"), dir.version_2().join("log.100000001")).unwrap();
    assert!(matches!(recover(&dir), Err(Error::NoSnapshot(_))));
    let (recovered, app) = recover_with(trust()).unwrap();
    assert_eq!((recovered.last(), recovered.txns().count()), (zxid(35), 35));
    assert_eq!(app.state, Bytes::new().state);
    // ... and must be given once: ZK-3781.
    let (recovered, _) = recover(&dir).unwrap();
    assert_eq!((recovered.snapshot, recovered.last()), (Some(Zxid::ZERO), zxid(35)));
}

/// ZK-2574: a purge deletes a log whose name is below the oldest snapshot it keeps, although the log
/// reaches beyond. ZK-3231: all snapshots that it keeps are broken.
#[test]
fn b36_each_snapshot_that_a_purge_keeps_is_enough() {
    let dir = TempDir::new();
    history(&dir);
    // The newest ones are cut short, as by a full disk.
    for n in [27, 22] {
        let path = dir.version_2().join(format!("snapshot.1000000{n:02x}"));
        let bytes = fs::read(&path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }
    let removed = zab_storage::purge(dir.path(), dir.path(), 3).unwrap();
    assert!(!removed.is_empty());
    // One after the other is found to be damaged.
    for kept in [17, 12, 7] {
        let (recovered, app) = recover(&dir).unwrap();
        assert_eq!(recovered.snapshot, Some(zxid(kept)));
        assert_whole(&recovered, zxid(35));
        assert_eq!(app.state, body(&[7; 300]));
        let path = dir.version_2().join(format!("snapshot.1000000{kept:02x}"));
        let mut bytes = fs::read(&path).unwrap();
        bytes[100] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    assert!(matches!(recover(&dir), Err(Error::NoValidSnapshot(_))));
}

/// ZK-582: a snapshot that comes from elsewhere is of a later epoch than the logs. The server goes on
/// in an epoch below it; at the next start the snapshot wins, and all of that is lost.
#[test]
fn b38_a_server_goes_on_behind_the_snapshot_that_it_uses() {
    let dir = TempDir::new();
    history(&dir);
    let other = TempDir::new();
    let foreign = Zxid::new(Epoch(5), 3);
    let mut from = disk(&other);
    from.stage(&body(b"foreign"));
    from.install(Ticket(1), foreign, None);
    from.submit();
    from.close().unwrap();
    let name = "snapshot.500000003";
    fs::copy(other.version_2().join(name), dir.version_2().join(name)).unwrap();

    let mut written = Vec::new();
    for _ in 0..2 {
        let mut store = Store::open(options(&dir)).unwrap();
        let mut app = Bytes::new();
        let recovered = store.recover(&mut app).unwrap();
        assert_eq!(recovered.snapshot, Some(foreign));
        assert_eq!(recovered.txns().map(|(zxid, _)| zxid).collect::<Vec<_>>(), written);
        assert_eq!(app.state, body(b"foreign"));
        let mut disk = store.into_disk(Mode::Inline).unwrap();
        let now = Instant::from_nanos(1);
        let mut node = Node::new(now, Config::standalone(Sid(1)), recovered, app).unwrap();
        let mut run = |node: &mut Node<Bytes>| {
            while node.poll_output(now, &mut disk).is_some() {}
            disk.submit();
            if let Some(through) = disk.poll().unwrap() {
                node.handle_input(now, Input::Persisted { through });
            }
        };
        (0..4).for_each(|_| run(&mut node));
        node.with(now, |_, core| {
            let zxid = core.next_zxid().unwrap();
            assert!(zxid > foreign && written.last().is_none_or(|last| zxid > *last));
            written.push(core.propose(&txn(zxid.raw(), 10)).unwrap());
        });
        (0..4).for_each(|_| run(&mut node));
        disk.close().unwrap();
    }
    assert_eq!(recover(&dir).unwrap().0.last(), written[1]);
}

/// ZK-3496, ZK-4306: what was logged is refused at the next start for its length.
#[test]
fn b54_what_was_logged_is_read_back_whatever_its_length() {
    let dir = TempDir::new();
    let mut disk = disk(&dir);
    let lens = [0, 2_097_150, 5 << 20, 1];
    for (n, len) in (1..).zip(lens) {
        disk.append(Ticket(u64::from(n)), zxid(n), &txn(zxid(n).raw(), len));
    }
    disk.submit();
    assert_eq!(disk.poll().unwrap(), Some(Ticket(4)));
    drop(disk);
    let (recovered, _) = recover(&dir).unwrap();
    for ((at, found), (n, len)) in recovered.txns().zip((1..).zip(lens)) {
        assert!(at == zxid(n) && found == txn(zxid(n).raw(), len), "{len}");
    }
    assert_eq!(recovered.last(), zxid(4));
}
