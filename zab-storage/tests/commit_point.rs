//! What is known to be committed of the log is applied while it is read, and not kept.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;

use common::{Bytes, TempDir, txn};
use zab_proto::{Recovered, Storage, Ticket, Zxid};
use zab_storage::{Disk, Mode, Options, Store};

const EPOCH: i64 = 1 << 32;

fn begin(dir: &TempDir) -> Disk {
    let mut store = Store::open(Options::new(dir.path())).unwrap();
    store.recover(&mut Bytes::new()).unwrap();
    store.into_disk(Mode::Inline).unwrap()
}

/// Logs `count` transactions of 10 KiB from `first` on.
fn log(disk: &mut Disk, first: i64, count: i64, ticket: &mut u64) {
    for zxid in first..first + count {
        *ticket += 1;
        disk.append(Ticket(*ticket), Zxid::from_raw(zxid), &txn(zxid, 10 << 10));
    }
    disk.submit();
}

fn recover(dir: &TempDir, alone: bool) -> (Recovered, Bytes) {
    let mut app = Bytes::new();
    let mut store =
        Store::open(Options::new(dir.path()).with(|options| options.alone = alone)).unwrap();
    let recovered = store.recover(&mut app).unwrap();
    (recovered, app)
}

/// The zxid up to which a recovery applies the log, which ends at `last` in any case.
fn applied(dir: &TempDir, alone: bool, last: i64) -> i64 {
    let (recovered, app) = recover(dir, alone);
    assert_eq!(recovered.last().raw(), last);
    let applied = app.delivered.last().map_or(0, |zxid| zxid.raw());
    assert_eq!(recovered.delivered().raw(), applied);
    assert!(app.delivered.is_sorted_by(|a, b| a < b));
    // What is applied and kept all the same serves to synchronise learners.
    let kept = recovered.txns().filter(|(zxid, _)| zxid.raw() <= applied);
    assert!(kept.map(|(_, txn)| txn.len()).sum::<usize>() <= 1 << 20);
    let waiting = recovered.txns().filter(|(zxid, _)| zxid.raw() > applied).count();
    assert_eq!(app.delivered.len() + waiting, usize::try_from(last).unwrap());
    applied
}

#[test]
fn the_commit_point_is_kept() {
    let dir = TempDir::new();
    let mut disk = begin(&dir);
    let mut ticket = 0;
    log(&mut disk, 1, 1000, &mut ticket);
    disk.committed(Zxid::from_raw(900));
    log(&mut disk, 1001, 1, &mut ticket);
    drop(disk);
    let applied = applied(&dir, false, 1001);
    assert!(
        (790..=900).contains(&applied),
        "at most a mebibyte behind 900, and never above: {applied}"
    );
}

#[test]
fn nothing_is_known_without_it() {
    let dir = TempDir::new();
    log(&mut begin(&dir), 1, 300, &mut 0);
    assert_eq!(applied(&dir, false, 300), 0);
}

#[test]
fn alone_everything_is_committed() {
    let dir = TempDir::new();
    log(&mut begin(&dir), 1, 300, &mut 0);
    assert_eq!(applied(&dir, true, 300), 300);
}

#[test]
fn what_lies_in_front_of_a_later_epoch_is_committed() {
    let dir = TempDir::new();
    let mut disk = begin(&dir);
    log(&mut disk, EPOCH + 1, 200, &mut 0);
    log(&mut disk, 2 * EPOCH + 1, 100, &mut 200);
    drop(disk);
    let (recovered, app) = recover(&dir, false);
    assert_eq!(recovered.delivered().raw(), EPOCH + 200);
    assert_eq!(app.delivered.len(), 200);
    assert_eq!(recovered.last().raw(), 2 * EPOCH + 100);
}

/// A commit point is believed only beside the log that it was written for.
#[test]
fn a_commit_point_of_another_log_counts_for_nothing() {
    let (ours, theirs) = (TempDir::new(), TempDir::new());
    let mut disk = begin(&theirs);
    let mut ticket = 0;
    log(&mut disk, 1, 500, &mut ticket);
    disk.committed(Zxid::from_raw(500));
    log(&mut disk, 501, 1, &mut ticket);
    drop(disk);
    let point = theirs.version_2().join(".zab-committed");
    // A log that ends before, one that has another record in its place, and one that begins behind it.
    let mut disk = begin(&ours);
    log(&mut disk, 1, 50, &mut 0);
    drop(disk);
    fs::copy(&point, ours.version_2().join(".zab-committed")).unwrap();
    assert_eq!(applied(&ours, false, 50), 0);
    let mut disk = begin(&ours);
    for zxid in 51..=600 {
        let ticket = u64::try_from(zxid).unwrap();
        disk.append(Ticket(ticket), Zxid::from_raw(zxid), &txn(zxid, 100));
    }
    disk.submit();
    drop(disk);
    assert_eq!(applied(&ours, false, 600), 0);
    // And beside the right one it is.
    assert!(applied(&theirs, false, 501) > 390);
}

/// A server of Apache's that synchronises again may log again what it has, also far behind.
#[test]
fn what_is_logged_twice_is_not_missed() {
    let dir = TempDir::new();
    let mut disk = begin(&dir);
    let mut ticket = 0;
    log(&mut disk, 1, 500, &mut ticket);
    disk.committed(Zxid::from_raw(500));
    log(&mut disk, 501, 1, &mut ticket);
    drop(disk);
    let mut disk = begin(&dir);
    log(&mut disk, 300, 203, &mut 0);
    drop(disk);
    // All is kept, as nothing else can tell a repeated record from a wrong one.
    assert_eq!(applied(&dir, false, 502), 0);
}
