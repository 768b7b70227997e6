//! Reading a stretch of the log for a learner.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use common::{Bytes, TempDir, body, captured, txn};
use zab_proto::{LogReady, Storage, Ticket, Zxid};
use zab_storage::{Disk, Mode, Options, Store};

const EPOCH_1: i64 = 1 << 32;

fn start(dir: &TempDir, thread: bool, factor: f64) -> (Disk, Receiver<()>) {
    let options = Options::new(dir.path()).with(|options| {
        options.prealloc_bytes = 64 << 10;
        options.snapshot_size_factor = factor;
    });
    let mut store = Store::open(options).unwrap();
    store.recover(&mut Bytes::new()).unwrap();
    let (sender, woken) = channel();
    let wake = Box::new(move || {
        let _ = sender.send(());
    });
    (store.into_disk(if thread { Mode::Thread { wake } } else { Mode::Inline }).unwrap(), woken)
}

#[derive(PartialEq, Eq, Debug)]
enum Outcome {
    Refused,
    Unavailable,
    Read(Vec<i64>),
}

/// Reads a stretch to its end, if it is not too long.
fn read(disk: &mut Disk, woken: &Receiver<()>, after: i64, through: i64) -> Outcome {
    read_up_to(disk, woken, after, through, false)
}

fn read_up_to(
    disk: &mut Disk,
    woken: &Receiver<()>,
    after: i64,
    through: i64,
    any_length: bool,
) -> Outcome {
    let log = disk.log_open(Zxid::from_raw(after), Zxid::from_raw(through), any_length);
    let Some(log) = log else { return Outcome::Refused };
    let wait = |disk: &mut Disk| loop {
        match disk.log_ready(log) {
            LogReady::Whole => return true,
            LogReady::Incomplete => return false,
            LogReady::NotYet => woken.recv_timeout(Duration::from_secs(60)).expect("an answer"),
        }
    };
    let mut zxids = Vec::new();
    if !wait(disk) {
        disk.log_close(log);
        return Outcome::Unavailable;
    }
    let mut payload = Vec::new();
    loop {
        assert!(wait(disk));
        let Some(zxid) = disk.log_read(log, &mut payload) else { break };
        assert_eq!(payload[12..20], zxid.raw().to_be_bytes());
        zxids.push(zxid.raw());
    }
    disk.log_close(log);
    Outcome::Read(zxids)
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
            assert_eq!(read, Outcome::Read(zxids), "{from}..{to}");
        }
        // A learner with a tail that this history has not; an idle leader of old.
        assert_eq!(read(&mut disk, &woken, 705, EPOCH_1 + 1), Outcome::Unavailable);
        let one = Outcome::Read(vec![EPOCH_1 + 1]);
        assert_eq!(read(&mut disk, &woken, EPOCH_1, EPOCH_1 + 1), one);
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
    assert_eq!(read(&mut disk, &woken, 0xc, 0x12), Outcome::Read(zxids));
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
    let expected = Outcome::Read(zxids);
    assert_eq!(read(&mut disk, &woken, EPOCH_1, EPOCH_1 + 5), expected);
}

#[test]
fn a_snapshot_is_better_than_a_long_log() {
    let dir = TempDir::new();
    let (mut disk, woken) = start(&dir, true, 0.33);
    let mut ticket = 0;
    append(&mut disk, &mut ticket, 1..=40, 800_000);
    settle(&mut disk, &woken, ticket);
    assert_eq!(read(&mut disk, &woken, 0, 40), Outcome::Unavailable);
    // 16 MiB are always sent.
    assert_eq!(read(&mut disk, &woken, 19, 40), Outcome::Unavailable);
    assert_eq!(read(&mut disk, &woken, 20, 40), Outcome::Read((21..=40).collect()));
    // But not for who was sent a part already.
    let all = Outcome::Read((1..=40).collect());
    assert_eq!(read_up_to(&mut disk, &woken, 0, 40, true), all);
    drop(disk);
    let (mut disk, woken) = start(&dir, true, -1.0);
    assert_eq!(read(&mut disk, &woken, 20, 40), Outcome::Refused);
    assert!(matches!(read_up_to(&mut disk, &woken, 20, 40, true), Outcome::Read(_)));
}

#[test]
fn a_reader_that_stops_reading_stops_nothing() {
    let dir = TempDir::new();
    let (mut disk, woken) = start(&dir, true, 0.33);
    let mut ticket = 0;
    append(&mut disk, &mut ticket, 1..=900, 1000);
    settle(&mut disk, &woken, ticket);
    let closed = disk.log_open(Zxid::ZERO, Zxid::from_raw(900), false).unwrap();
    let kept = disk.log_open(Zxid::ZERO, Zxid::from_raw(900), false).unwrap();
    disk.log_close(closed);
    while disk.log_ready(kept) == LogReady::NotYet {
        woken.recv_timeout(Duration::from_secs(60)).expect("the proof");
    }
    assert_eq!(read(&mut disk, &woken, 890, 900), Outcome::Read((891..=900).collect()));
    // Closing ends the thread, which waits for its reader.
    disk.close().unwrap();
}
