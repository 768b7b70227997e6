//! Reading a stretch of the log for a learner.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use common::{Bytes, TempDir, body, captured, txn};
use zab_proto::{Storage, Ticket, Zxid};
use zab_storage::{Disk, HistoryStep, Mode, Options, Store};

const EPOCH_1: i64 = 1 << 32;

fn start(dir: &TempDir, thread: bool, factor: f64) -> (Disk, Receiver<()>) {
    let options = Options {
        prealloc_bytes: 64 << 10,
        snapshot_size_factor: factor,
        ..Options::new(dir.path())
    };
    let mut store = Store::open(options).unwrap();
    store.recover(&mut Bytes::new()).unwrap();
    let (sender, woken) = channel();
    let wake = Box::new(move || {
        let _ = sender.send(());
    });
    (store.into_disk(if thread { Mode::Thread { wake } } else { Mode::Inline }), woken)
}

#[derive(PartialEq, Eq, Debug)]
enum Outcome {
    Refused,
    Unavailable,
    Read { anchor: i64, zxids: Vec<i64> },
}

/// Reads a stretch to its end.
fn read(disk: &mut Disk, woken: &Receiver<()>, after: i64, through: i64) -> Outcome {
    let stretch = disk.history(Zxid::from_raw(after), Zxid::from_raw(through));
    let Some(mut history) = stretch else { return Outcome::Refused };
    let (mut anchor, mut zxids) = (None, Vec::new());
    loop {
        match history.poll() {
            HistoryStep::Wait => {
                let _ = woken.recv_timeout(Duration::from_millis(1));
            }
            HistoryStep::Proven { anchor: at } => {
                assert!(anchor.replace(at.raw()).is_none() && zxids.is_empty());
            }
            HistoryStep::Txn { zxid, txn } => {
                assert!(anchor.is_some());
                assert_eq!(txn[12..20], zxid.raw().to_be_bytes());
                zxids.push(zxid.raw());
            }
            HistoryStep::End => return Outcome::Read { anchor: anchor.unwrap(), zxids },
            HistoryStep::Unavailable => return Outcome::Unavailable,
        }
    }
}

fn append(disk: &mut Disk, ticket: &mut u64, zxids: impl IntoIterator<Item = i64>, len: usize) {
    for zxid in zxids {
        *ticket += 1;
        disk.append(Ticket(*ticket), Zxid::from_raw(zxid), &txn(zxid, len));
    }
    disk.submit();
}

fn settle(disk: &mut Disk, woken: &Receiver<()>, ticket: u64) {
    let mut durable = Ticket(0);
    while durable < Ticket(ticket) {
        match disk.poll().unwrap() {
            Some(through) => durable = through,
            None => drop(woken.recv_timeout(Duration::from_secs(60))),
        }
    }
}

#[test]
fn any_stretch_across_files_epochs_and_restarts() {
    for thread in [false, true] {
        let dir = TempDir::new();
        let all: Vec<i64> = (1..=700).chain(EPOCH_1 + 1..=EPOCH_1 + 300).collect();
        for run in all.chunks(250) {
            let (mut disk, woken) = start(&dir, thread, 0.33);
            let mut ticket = 0;
            append(&mut disk, &mut ticket, run.iter().copied(), 300);
            settle(&mut disk, &woken, ticket);
            disk.close().unwrap();
        }
        let (mut disk, woken) = start(&dir, thread, 0.33);
        for (from, to) in
            [(0, 1000), (0, 1), (249, 252), (250, 251), (699, 701), (700, 1000), (998, 999)]
        {
            let after = if from == 0 { 0 } else { all[from - 1] };
            let zxids = all[from..to].to_vec();
            let read = read(&mut disk, &woken, after, all[to - 1]);
            assert_eq!(read, Outcome::Read { anchor: after, zxids }, "{from}..{to}");
        }
        // A learner with a tail that this history has not, and an idle leader of old.
        for after in [705, EPOCH_1] {
            let zxids = vec![EPOCH_1 + 1];
            let expected = Outcome::Read { anchor: 700, zxids };
            assert_eq!(read(&mut disk, &woken, after, EPOCH_1 + 1), expected);
        }
        // Not logged yet.
        assert_eq!(read(&mut disk, &woken, 5, EPOCH_1 + 301), Outcome::Unavailable);
    }
}

#[test]
fn no_proof_no_stretch() {
    let dir = captured("truncate");
    let (mut disk, woken) = start(&dir, false, 0.33);
    // Below the snapshot nobody has looked.
    assert_eq!(read(&mut disk, &woken, 0xb, 0x12), Outcome::Refused);
    let zxids = (0xd..=0x12).collect();
    assert_eq!(read(&mut disk, &woken, 0xc, 0x12), Outcome::Read { anchor: 0xc, zxids });
    // A file goes, or is damaged.
    let log = dir.version_2().join("log.d");
    let mut bytes = fs::read(&log).unwrap();
    bytes[200] ^= 1;
    fs::write(&log, &bytes).unwrap();
    assert_eq!(read(&mut disk, &woken, 0xc, 0x12), Outcome::Unavailable);
    fs::remove_file(&log).unwrap();
    assert_eq!(read(&mut disk, &woken, 0xc, 0x12), Outcome::Unavailable);
}

#[test]
fn an_installed_snapshot_begins_a_new_history() {
    let dir = TempDir::new();
    let (mut disk, woken) = start(&dir, true, 0.33);
    let mut ticket = 0;
    append(&mut disk, &mut ticket, 1..=10, 10);
    disk.stage(&body(b"leader"));
    ticket += 1;
    disk.install(Ticket(ticket), Zxid::from_raw(EPOCH_1), None);
    append(&mut disk, &mut ticket, EPOCH_1 + 1..=EPOCH_1 + 5, 10);
    settle(&mut disk, &woken, ticket);
    assert_eq!(read(&mut disk, &woken, 10, EPOCH_1 + 5), Outcome::Refused);
    let zxids = (EPOCH_1 + 1..=EPOCH_1 + 5).collect();
    let expected = Outcome::Read { anchor: EPOCH_1, zxids };
    assert_eq!(read(&mut disk, &woken, EPOCH_1, EPOCH_1 + 5), expected);
}

#[test]
fn a_snapshot_is_better_than_a_long_log() {
    let dir = TempDir::new();
    let (mut disk, woken) = start(&dir, true, 0.33);
    let mut ticket = 0;
    append(&mut disk, &mut ticket, 1..=30, 50_000);
    settle(&mut disk, &woken, ticket);
    assert_eq!(read(&mut disk, &woken, 0, 30), Outcome::Unavailable);
    assert!(matches!(read(&mut disk, &woken, 20, 30), Outcome::Read { anchor: 20, .. }));
    drop(disk);
    let (mut disk, woken) = start(&dir, true, -1.0);
    assert_eq!(read(&mut disk, &woken, 20, 30), Outcome::Refused);
}

#[test]
fn a_reader_that_stops_reading_stops_nothing() {
    let dir = TempDir::new();
    let (mut disk, woken) = start(&dir, true, 0.33);
    let mut ticket = 0;
    append(&mut disk, &mut ticket, 1..=900, 1000);
    settle(&mut disk, &woken, ticket);
    let dropped = disk.history(Zxid::ZERO, Zxid::from_raw(900)).unwrap();
    let mut kept = disk.history(Zxid::ZERO, Zxid::from_raw(900)).unwrap();
    drop(dropped);
    while kept.poll() == HistoryStep::Wait {
        let _ = woken.recv_timeout(Duration::from_secs(60));
    }
    // Closing ends the thread, which waits for its reader.
    disk.close().unwrap();
}
