//! The running storage, on its own thread and on the caller's.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use common::{Bytes, TempDir, body, txn};
use zab_proto::{
    EnsembleId, Epoch, EpochKind, Identity, Recovered, SnapshotDigest, Storage, Ticket, Zxid,
};
use zab_storage::{Disk, Error, Mode, Options, Store};

fn options(dir: &TempDir) -> Options {
    Options::new(dir.path()).with(|options| options.prealloc_bytes = 64 << 10)
}

fn start(options: Options, thread: bool) -> (Disk, Receiver<()>) {
    let mut store = Store::open(options).unwrap();
    store.recover(&mut Bytes::new()).unwrap();
    let (sender, woken) = channel();
    let wake = Box::new(move || {
        let _ = sender.send(());
    });
    (store.into_disk(if thread { Mode::Thread { wake } } else { Mode::Inline }).unwrap(), woken)
}

fn recover(dir: &TempDir) -> (Recovered, Bytes) {
    let mut app = Bytes::new();
    let recovered = Store::open(options(dir)).unwrap().recover(&mut app).unwrap();
    (recovered, app)
}

/// Waits until a ticket is durable.
fn wait(disk: &mut Disk, woken: &Receiver<()>, ticket: u64) {
    disk.submit();
    let mut durable = 0;
    while durable < ticket {
        match disk.poll().unwrap() {
            Some(Ticket(n)) => {
                assert!(n > durable);
                durable = n;
            }
            None => woken.recv_timeout(Duration::from_secs(60)).expect("the ticket"),
        }
    }
    assert_eq!(durable, ticket);
}

#[test]
fn epochs_and_transactions_in_one_order() {
    for thread in [false, true] {
        let dir = TempDir::new();
        let (mut disk, woken) = start(options(&dir), thread);
        let mut ticket = 0;
        let mut next = || {
            ticket += 1;
            Ticket(ticket)
        };
        disk.set_epoch(next(), EpochKind::Accepted, Epoch(1));
        disk.set_epoch(next(), EpochKind::Current, Epoch(1));
        for n in 1..=100 {
            disk.append(next(), Zxid::new(Epoch(1), n), &txn(0x1_0000_0000 + i64::from(n), 100));
            if n % 7 == 0 {
                disk.submit();
            }
        }
        disk.set_epoch(next(), EpochKind::Accepted, Epoch(2));
        wait(&mut disk, &woken, 103);
        disk.close().unwrap();
        let (recovered, _) = recover(&dir);
        assert_eq!(recovered.accepted_epoch, Some(Epoch(2)));
        assert_eq!(recovered.current_epoch, Some(Epoch(1)));
        assert_eq!(recovered.last(), Zxid::new(Epoch(1), 100));
        assert_eq!(dir.names(), ["acceptedEpoch", "currentEpoch", "log.100000001", "snapshot.0"]);
        assert_eq!(std::fs::read(dir.version_2().join("currentEpoch")).unwrap(), b"1");
    }
}

#[test]
fn each_run_begins_a_new_log() {
    let dir = TempDir::new();
    for run in 0..3 {
        let (mut disk, woken) = start(options(&dir), true);
        for n in 1..=10i64 {
            let zxid = run * 10 + n;
            disk.append(Ticket(n.unsigned_abs()), Zxid::from_raw(zxid), &txn(zxid, 10));
        }
        wait(&mut disk, &woken, 10);
    }
    assert_eq!(dir.names(), ["log.1", "log.15", "log.b", "snapshot.0"]);
    assert_eq!(recover(&dir).0.last().raw(), 30);
}

#[test]
fn an_untrusted_directory_is_empty_until_there_is_history() {
    let dir = TempDir::new();
    let options = options(&dir).with(|options| options.autocreate = false);
    let (mut disk, woken) = start(options.clone(), true);
    disk.set_epoch(Ticket(1), EpochKind::Accepted, Epoch(1));
    wait(&mut disk, &woken, 1);
    assert_eq!(dir.names(), ["acceptedEpoch"]);
    disk.append(Ticket(2), Zxid::new(Epoch(1), 1), &txn(0x1_0000_0001, 0));
    wait(&mut disk, &woken, 2);
    drop(disk);
    assert_eq!(dir.names(), ["acceptedEpoch", "log.100000001", "snapshot.0"]);
    let mut app = Bytes::new();
    let recovered = Store::open(options).unwrap().recover(&mut app).unwrap();
    assert_eq!(recovered.last(), Zxid::new(Epoch(1), 1));
    assert_eq!(app.state, Bytes::new().state);
}

#[test]
fn an_installed_snapshot_replaces_the_history() {
    for thread in [false, true] {
        let dir = TempDir::new();
        let (mut disk, woken) = start(options(&dir), thread);
        for n in 1..=20 {
            disk.append(Ticket(n), Zxid::from_raw(n.cast_signed()), &txn(n.cast_signed(), 10));
        }
        let tree = body(&[7; 200_000]);
        disk.stage(b"something that is cut short");
        disk.discard_stage();
        for piece in tree.chunks(30_000) {
            disk.stage(piece);
            disk.submit();
        }
        let zxid = Zxid::new(Epoch(3), 5);
        let digest = Some(SnapshotDigest { zxid, version: 2, digest: 9 });
        disk.install(Ticket(21), zxid, digest);
        let next = Zxid::new(Epoch(3), 6);
        disk.append(Ticket(22), next, &txn(next.raw(), 10));
        wait(&mut disk, &woken, 22);
        drop(disk);
        let names = ["log.300000006", "snapshot.0", "snapshot.300000005", "zab-set-aside.log.1"];
        assert_eq!(dir.names(), names);
        let (recovered, app) = recover(&dir);
        assert_eq!((recovered.snapshot, recovered.last()), (Some(zxid), next));
        assert!(app.state == tree);
        assert_eq!(app.digest, digest);
    }
}

#[test]
fn a_leaders_snapshot_does_not_pile_up() {
    let dir = TempDir::new();
    let (mut disk, woken) = start(options(&dir), true);
    let tree = body(&vec![9; 40 << 20]);
    let room = disk.stage_room();
    let mut left = &tree[..];
    let mut waited = false;
    while !left.is_empty() {
        let n = disk.stage_room().min(left.len());
        assert!(disk.stage_room() <= room);
        if n == 0 {
            waited = true;
            disk.submit();
            woken.recv_timeout(Duration::from_secs(60)).expect("room");
        }
        disk.stage(&left[..n]);
        left = &left[n..];
    }
    assert!(waited);
    disk.install(Ticket(1), Zxid::from_raw(5), None);
    wait(&mut disk, &woken, 1);
    disk.close().unwrap();
    assert!(recover(&dir).1.state == tree);
}

#[test]
fn snapshots_of_our_own() {
    for thread in [false, true] {
        let dir = TempDir::new();
        let few = options(&dir).with(|options| {
            options.snap_count = 10;
            options.seed = 1;
        });
        let (mut disk, woken) = start(few.clone(), thread);
        let mut n = 0;
        while !disk.snapshot_due() {
            n += 1;
            disk.append(Ticket(n), Zxid::from_raw(n.cast_signed()), &txn(n.cast_signed(), 10));
        }
        assert!((6..=10).contains(&n), "{n}");
        let tree = body(&[1; 3_000_000]);
        disk.snapshot_begin(Zxid::from_raw(n.cast_signed()));
        assert!(!disk.snapshot_due());
        // The log goes on meanwhile, in a new file.
        let next = n.cast_signed() + 1;
        disk.append(Ticket(n + 1), Zxid::from_raw(next), &txn(next, 10));
        disk.submit();
        let mut left = &tree[..];
        while !left.is_empty() {
            let piece = disk.snapshot_room().min(left.len()).min(50_000);
            if piece == 0 {
                woken.recv_timeout(Duration::from_secs(60)).expect("room");
                continue;
            }
            disk.snapshot_piece(&left[..piece]);
            left = &left[piece..];
        }
        disk.snapshot_finish(None);
        let path = dir.version_2().join(format!("snapshot.{n:x}"));
        while !path.exists() {
            assert!(thread);
            disk.poll().unwrap();
            std::thread::yield_now();
        }
        disk.close().unwrap();
        let (recovered, app) = recover(&dir);
        assert_eq!(recovered.snapshot.unwrap().raw(), n.cast_signed());
        assert_eq!(recovered.last().raw(), next);
        assert!(app.state == tree);
    }
}

/// A few long transactions make a snapshot due as many short ones do, and a log file ends at its limit
/// with the record that reaches it.
#[test]
fn sizes_make_a_snapshot_due_and_a_log_file_end() {
    const LIMIT: u64 = 100_000;
    let dir = TempDir::new();
    let (mut disk, woken) =
        start(options(&dir).with(|options| options.snap_size_limit = LIMIT), false);
    let append = |disk: &mut Disk, n: u64| {
        disk.append(Ticket(n), Zxid::from_raw(n.cast_signed()), &txn(n.cast_signed(), 10_000));
    };
    let due = (1..).find(|n| {
        append(&mut disk, *n);
        disk.snapshot_due()
    });
    let due = due.expect("a snapshot is due");
    // Between half of the limit and the whole, as each server draws it.
    assert!((5..=11).contains(&due), "after {due} records");
    wait(&mut disk, &woken, due);
    disk.close().unwrap();
    let dir = TempDir::new();
    let (mut disk, woken) =
        start(options(&dir).with(|options| options.txn_log_size_limit = LIMIT), false);
    (1..=20).for_each(|n| {
        append(&mut disk, n);
        wait(&mut disk, &woken, n);
    });
    disk.close().unwrap();
    let logs = std::fs::read_dir(dir.version_2())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("log."));
    assert_eq!(logs.count(), 2, "twice the limit is in two files");
    assert_eq!(recover(&dir).0.last().raw(), 20);
}

#[test]
fn an_unfinished_snapshot_leaves_nothing() {
    for thread in [false, true] {
        let dir = TempDir::new();
        let (mut disk, woken) = start(options(&dir), thread);
        disk.append(Ticket(1), Zxid::from_raw(1), &txn(1, 10));
        disk.snapshot_begin(Zxid::from_raw(1));
        disk.snapshot_piece(&[1; 1000]);
        // The history changes under it.
        disk.truncate(Ticket(2), Zxid::ZERO);
        disk.snapshot_piece(&[1; 1000]);
        disk.snapshot_finish(None);
        wait(&mut disk, &woken, 2);
        disk.close().unwrap();
        assert_eq!(dir.names(), ["snapshot.0"]);
        assert_eq!(recover(&dir).0.last(), Zxid::ZERO);
        let hidden = std::fs::read_dir(dir.version_2()).unwrap();
        let left = hidden.filter(|entry| {
            entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with(".zab-snapshot")
        });
        assert_eq!(left.count(), 0);
    }
}

/// Gives a snapshot to the disk until it has all of it or gives up.
fn write_snapshot(disk: &mut Disk, woken: &Receiver<()>, zxid: i64, tree: &[u8]) {
    disk.snapshot_begin(Zxid::from_raw(zxid));
    let mut left = tree;
    while !left.is_empty() && !disk.snapshot_abandoned() {
        let piece = disk.snapshot_room().min(left.len()).min(50_000);
        if piece == 0 {
            woken.recv_timeout(Duration::from_secs(60)).expect("room, or the end");
            continue;
        }
        disk.snapshot_piece(&left[..piece]);
        left = &left[piece..];
    }
    if left.is_empty() {
        disk.snapshot_finish(None);
    }
}

/// Nothing but a snapshot is lost with it: the server goes on, nothing of it stays, and it is tried
/// again, less and less often.
#[test]
fn a_snapshot_that_cannot_be_written_is_postponed() {
    let tree = body(&[1; 3_000_000]);
    for thread in [false, true] {
        // It cannot be begun, or not be given its name.
        for obstacle in [".zab-snapshot.1", "snapshot.1"] {
            let dir = TempDir::new();
            let retry = Duration::from_millis(50);
            let (mut disk, woken) =
                start(options(&dir).with(|options| options.snapshot_retry = retry), thread);
            disk.append(Ticket(1), Zxid::from_raw(1), &txn(1, 10));
            wait(&mut disk, &woken, 1);
            let obstacle = dir.version_2().join(obstacle);
            std::fs::create_dir_all(obstacle.join("not empty")).unwrap();
            assert!(!disk.snapshot_due());
            write_snapshot(&mut disk, &woken, 1, &tree);
            while !disk.snapshot_due() {
                assert_eq!(disk.poll().unwrap(), None);
                std::thread::yield_now();
            }
            assert!(obstacle.is_dir());
            disk.append(Ticket(2), Zxid::from_raw(2), &txn(2, 10));
            wait(&mut disk, &woken, 2);
            write_snapshot(&mut disk, &woken, 2, &tree);
            while !dir.version_2().join("snapshot.2").exists() {
                disk.poll().unwrap();
                std::thread::yield_now();
            }
            while disk.snapshot_due() {
                std::thread::yield_now();
            }
            disk.close().unwrap();
            std::fs::remove_dir_all(obstacle).unwrap();
            let left = std::fs::read_dir(dir.version_2()).unwrap();
            let unfinished = left.filter(|entry| {
                let name = entry.as_ref().unwrap().file_name();
                name.to_str().unwrap().starts_with(".zab-snapshot")
            });
            assert_eq!(unfinished.count(), 0);
            let (recovered, app) = recover(&dir);
            assert_eq!(recovered.snapshot.unwrap().raw(), 2);
            assert!(app.state == tree);
        }
    }
}

#[test]
fn a_failed_write_stops_everything() {
    for thread in [false, true] {
        let dir = TempDir::new();
        let (mut disk, woken) = start(options(&dir), thread);
        disk.append(Ticket(1), Zxid::from_raw(1), &txn(1, 10));
        wait(&mut disk, &woken, 1);
        // A directory in the place of the next log file.
        disk.snapshot_begin(Zxid::from_raw(1));
        std::fs::create_dir(dir.version_2().join("log.2")).unwrap();
        disk.append(Ticket(2), Zxid::from_raw(2), &txn(2, 10));
        disk.set_epoch(Ticket(3), EpochKind::Current, Epoch(9));
        disk.submit();
        let error = loop {
            match disk.poll() {
                Ok(durable) => assert_eq!(durable, None),
                Err(error) => break error,
            }
            woken.recv_timeout(Duration::from_secs(60)).expect("the error");
        };
        assert!(error.to_string().contains("log.2"), "{error}");
        std::fs::remove_dir(dir.version_2().join("log.2")).unwrap();
        disk.append(Ticket(4), Zxid::from_raw(2), &txn(2, 10));
        disk.submit();
        assert!(matches!(disk.poll(), Err(Error::Stopped)));
        disk.close().unwrap();
        assert_eq!(dir.names(), ["log.1", "snapshot.0"]);
    }
}

/// Whatever the interleaving of pushes, submits and the writer: tickets come back in order, and
/// when one does, everything up to it is on disk.
#[test]
fn group_commit_keeps_the_order() {
    let dir = TempDir::new();
    let (mut disk, woken) = start(options(&dir).with(|options| options.max_batch = 5), true);
    let mut random = fastrand::Rng::with_seed(7);
    let mut below = |n: u32| random.u32(..n);
    let (mut ticket, mut zxid, mut epoch, mut durable) = (0, 0, 0, 0);
    let mut zxid_at = vec![0];
    let mut epoch_at = vec![0];
    for _ in 0..3000 {
        match below(20) {
            0 => {
                epoch += 1;
                ticket += 1;
                disk.set_epoch(Ticket(ticket), EpochKind::Accepted, Epoch(epoch));
            }
            1..=4 => disk.submit(),
            5 => {
                let seen = disk.poll().unwrap();
                if let Some(Ticket(n)) = seen {
                    assert!(n > durable && n <= ticket);
                    durable = n;
                    let text = std::fs::read(dir.version_2().join("acceptedEpoch"));
                    let found: i64 =
                        text.map_or(0, |text| String::from_utf8(text).unwrap().parse().unwrap());
                    assert!(found >= epoch_at[usize::try_from(n).unwrap()]);
                    let log = dir.version_2().join("log.1");
                    if zxid_at[usize::try_from(n).unwrap()] > 0 {
                        let mut reader = zab_storage::LogReader::open(&log).unwrap();
                        let mut last = 0;
                        while let Some(record) = reader.next().unwrap() {
                            assert_eq!(record.zxid.raw(), last + 1);
                            last = record.zxid.raw();
                        }
                        assert!(last >= zxid_at[usize::try_from(n).unwrap()]);
                    }
                }
            }
            _ => {
                zxid += 1;
                ticket += 1;
                let len = usize::try_from(below(300)).unwrap();
                disk.append(Ticket(ticket), Zxid::from_raw(zxid), &txn(zxid, len));
            }
        }
        if zxid_at.len() <= usize::try_from(ticket).unwrap() {
            zxid_at.push(zxid);
            epoch_at.push(epoch);
        }
    }
    let left = ticket;
    disk.submit();
    while durable < left {
        match disk.poll().unwrap() {
            Some(Ticket(n)) => durable = n,
            None => woken.recv_timeout(Duration::from_secs(60)).expect("the rest"),
        }
    }
    disk.close().unwrap();
    let (recovered, _) = recover(&dir);
    assert_eq!(recovered.last().raw(), zxid);
    assert_eq!(recovered.accepted_epoch, Some(Epoch(epoch)));
}

#[test]
fn the_id_of_the_ensemble_is_kept_and_is_no_history() {
    for thread in [false, true] {
        let dir = TempDir::new();
        let identity = |bits, confirmed| Identity { id: EnsembleId::new(bits), confirmed };
        let options = || options(&dir).with(|options| options.autocreate = false);
        let found = || {
            let mut store = Store::open(options()).unwrap();
            store.recover(&mut Bytes::new()).unwrap().identity
        };
        assert_eq!(found(), None);
        let (mut disk, woken) = start(options(), thread);
        disk.set_identity(Ticket(1), identity(7, false));
        disk.set_identity(Ticket(2), identity(7, true));
        wait(&mut disk, &woken, 2);
        disk.close().unwrap();
        assert_eq!(found(), Some(identity(7, true)));
        // The directory is as empty as it was (rule R14).
        assert_eq!(dir.names(), ["ensembleId"]);
        let (mut disk, woken) = start(options(), thread);
        disk.set_epoch(Ticket(1), EpochKind::Accepted, Epoch(1));
        disk.append(Ticket(2), Zxid::new(Epoch(1), 1), &txn(0x1_0000_0001, 8));
        disk.truncate(Ticket(3), Zxid::ZERO);
        wait(&mut disk, &woken, 3);
        disk.close().unwrap();
        assert_eq!(found(), Some(identity(7, true)), "a cut takes only history");
        // Whatever is in the file: the start goes on without.
        std::fs::write(dir.version_2().join("ensembleId"), "7 confirmed\n").unwrap();
        assert_eq!(found(), None);
        let (mut disk, woken) = start(options(), thread);
        disk.set_identity(Ticket(1), identity(8, true));
        wait(&mut disk, &woken, 1);
        disk.close().unwrap();
        assert_eq!(found(), Some(identity(8, true)));
    }
}
