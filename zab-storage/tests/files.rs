//! Formats: what real servers wrote is decoded and written again, byte for byte.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::path::PathBuf;

use common::{Bytes, TempDir, captured, txn, vectors};
use zab_proto::{Application, Storage, Ticket, Zxid};
use zab_storage::{
    Compression, End, Error, LogReader, Mode, Options, SnapshotReader, Store, Trailer,
};

const WHOLE: [&str; 17] = [
    "basic-crud",
    "ephemerals-sessions",
    "multi",
    "ttl-container",
    "acls",
    "quota",
    "quorum-reconfig",
    "fuzzy-snapshot",
    "no-digest",
    "closesession-nobody",
    "legacy-txns",
    "foreign-writer",
    "compressed/gz",
    "compressed/snappy",
    "v39",
    "v39-nodigest",
    "truncate",
];

fn captured_files(prefix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for scenario in WHOLE {
        for entry in fs::read_dir(vectors().join(scenario).join("version-2")).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap().starts_with(prefix) {
                found.push(path);
            }
        }
    }
    found
}

/// A few zeros are padding, however short; a few other bytes are the beginning of a record.
#[test]
fn the_last_bytes_of_a_log() {
    let path = vectors().join("basic-crud/version-2/log.1");
    let whole = fs::read(path).unwrap();
    let dir = TempDir::new();
    let path = dir.path().join("log.1");
    let end_with = |rest: &[u8]| {
        let end = whole.iter().rposition(|&byte| byte != 0).unwrap() + 1;
        fs::write(&path, [&whole[..end], rest].concat()).unwrap();
        let mut reader = LogReader::open(&path).unwrap();
        while reader.next().unwrap().is_some() {}
        assert_eq!(reader.offset(), end as u64);
        reader.end()
    };
    assert_eq!(end_with(&[]), Some(End::File));
    for len in 1..30 {
        assert_eq!(end_with(&vec![0; len]), Some(End::Padding), "{len}");
    }
    for len in 1..11 {
        assert_eq!(end_with(&[&vec![0; len][..], &[1]].concat()), Some(End::Torn), "{len}");
    }
}

#[test]
fn logs_are_written_as_they_were_read() {
    let files = captured_files("log.");
    assert!(files.len() > 25);
    for path in files {
        let mut records = Vec::new();
        let mut reader = LogReader::open(&path).unwrap();
        while let Some(record) = reader.next().unwrap() {
            records.push((record.zxid, record.txn.to_vec()));
        }
        assert_eq!(reader.end(), Some(End::Padding), "{}", path.display());
        let original = fs::read(&path).unwrap();
        let end = usize::try_from(reader.offset()).unwrap();
        assert!(original[end..].iter().all(|&byte| byte == 0));

        let dir = TempDir::new();
        let mut options = Options::new(dir.path());
        options.prealloc_bytes = 0;
        let mut store = Store::open(options).unwrap();
        store.recover(&mut Bytes::new()).unwrap();
        let mut disk = store.into_disk(Mode::Inline).unwrap();
        for (n, (zxid, txn)) in (1..).zip(&records) {
            disk.append(Ticket(n), *zxid, txn);
        }
        disk.submit();
        assert_eq!(disk.poll().unwrap(), Some(Ticket(records.len() as u64)));
        let written = fs::read(dir.version_2().join(path.file_name().unwrap())).unwrap();
        assert!(written == original[..end], "{}", path.display());
    }
}

/// The application's bytes of a snapshot, and what follows.
fn read(path: &std::path::Path) -> (Vec<u8>, Trailer) {
    let mut reader = SnapshotReader::open(path).unwrap();
    let mut app = Bytes::new();
    loop {
        let progress = app.install(reader.bytes()).unwrap();
        reader.consume(progress.consumed);
        if progress.done {
            break;
        }
        reader.fill().unwrap().expect("more");
    }
    app.install_commit(Zxid::ZERO, None);
    (app.state, reader.finish().unwrap())
}

/// Writes a snapshot by way of an installation.
fn install(body: &[u8], trailer: &Trailer, zxid: Zxid, compression: Compression) -> TempDir {
    let dir = TempDir::new();
    let mut options = Options::new(dir.path());
    options.zxid_section = trailer.last_processed.is_some();
    options.compression = compression;
    let mut store = Store::open(options).unwrap();
    store.recover(&mut Bytes::new()).unwrap();
    let mut disk = store.into_disk(Mode::Inline).unwrap();
    for piece in body.chunks(100) {
        disk.stage(piece);
    }
    disk.install(Ticket(1), zxid, trailer.digest);
    disk.submit();
    assert_eq!(disk.poll().unwrap(), Some(Ticket(1)));
    dir
}

#[test]
fn snapshots_are_written_as_they_were_read() {
    let files = captured_files("snapshot.");
    assert!(files.len() > 25);
    for path in files {
        let (body, trailer) = read(&path);
        let name = path.file_name().unwrap().to_str().unwrap();
        let zxid = i64::from_str_radix(name.split('.').nth(1).unwrap(), 16).unwrap();
        let compression = match name.rsplit('.').next() {
            Some("gz") => Compression::Gz,
            Some("snappy") => Compression::Snappy,
            _ => Compression::None,
        };
        let dir = install(&body, &trailer, Zxid::from_raw(zxid), compression);
        let written = dir.version_2().join(name);
        // ZooKeeper with digests disabled leaves the section out; we always write it.
        let expected = Trailer {
            digest: trailer.digest.or_else(|| read(&written).1.digest),
            seals: 2 + u32::from(trailer.last_processed.is_some()),
            ..trailer
        };
        assert_eq!(read(&written), (body, expected), "{}", path.display());
        if compression == Compression::None && trailer.digest.is_some() {
            assert!(fs::read(&written).unwrap() == fs::read(&path).unwrap(), "{}", path.display());
        }
    }
}

#[test]
fn truncation_keeps_exactly_what_is_at_or_below() {
    for (after, log_1, log_7, log_d, snapshots) in [
        (0x9, 842, Some(301), None, &["snapshot.0", "snapshot.6"][..]),
        (0xc, 842, Some(586), None, &["snapshot.0", "snapshot.6", "snapshot.c"]),
        (0x7, 842, Some(77), None, &["snapshot.0", "snapshot.6"]),
        (0x12, 842, Some(842), Some(586), &["snapshot.0", "snapshot.6", "snapshot.c"]),
        (0x6, 586, None, None, &["snapshot.0", "snapshot.6"]),
    ] {
        let dir = captured("truncate");
        let mut store = Store::open(Options::new(dir.path())).unwrap();
        store.recover(&mut Bytes::new()).unwrap();
        let mut disk = store.into_disk(Mode::Inline).unwrap();
        disk.truncate(Ticket(1), Zxid::from_raw(after));
        disk.submit();
        assert_eq!(disk.poll().unwrap(), Some(Ticket(1)), "{after:#x}");
        drop(disk);
        let len = |name: &str| fs::metadata(dir.version_2().join(name)).ok().map(|m| m.len());
        assert_eq!(len("log.1"), Some(log_1), "{after:#x}");
        assert_eq!(len("log.7"), log_7, "{after:#x}");
        assert_eq!(len("log.d"), log_d, "{after:#x}");
        let mut names = dir.names();
        names.retain(|name| name.starts_with("snapshot."));
        assert_eq!(names, snapshots, "{after:#x}");
        let mut app = Bytes::new();
        let recovered = Store::open(Options::new(dir.path())).unwrap().recover(&mut app).unwrap();
        assert_eq!(recovered.last().raw(), after);
    }
}

#[test]
fn truncation_to_nothing_and_to_what_is_not_there() {
    let truncate = |dir: &TempDir, after: i64| {
        let mut store = Store::open(Options::new(dir.path())).unwrap();
        store.recover(&mut Bytes::new()).unwrap();
        let mut disk = store.into_disk(Mode::Inline).unwrap();
        disk.truncate(Ticket(1), Zxid::from_raw(after));
        disk.submit();
        disk.poll()
    };
    let dir = captured("truncate");
    assert_eq!(truncate(&dir, 0).unwrap(), Some(Ticket(1)));
    assert!(!dir.names().iter().any(|name| name.starts_with("log.")));

    let dir = captured("truncate");
    let before = dir.names();
    assert!(truncate(&dir, 0x20).is_err());
    assert_eq!(dir.names(), before);

    let dir = captured("truncate");
    fs::remove_file(dir.version_2().join("snapshot.0")).unwrap();
    assert!(truncate(&dir, 3).is_err());
}

#[test]
fn purge_keeps_what_recovery_needs() {
    const LOGS: &str = "1 125 151 189 1b4 1db 20a 231 25b 28 284 2bc 2f8 322 348 369 399 3c4 3ee \
                        40d 43c 477 49b 4c0 4e9 510 546 566 5a0 5ca 63 98 be f9";
    const SNAPSHOTS: &str = "0 111 135 1d6 25 3f4 64 94 b3";
    for (retain, logs, snapshots, removed) in [
        (3, LOGS, SNAPSHOTS, "log 1 28 63 98 be f9 snapshot 0 111 25 64 94 b3"),
        (1, LOGS, SNAPSHOTS, "log 1 28 63 98 be f9 snapshot 0 111 25 64 94 b3"),
        (4, LOGS, SNAPSHOTS, "log 1 28 63 98 be snapshot 0 25 64 94 b3"),
        (6, LOGS, SNAPSHOTS, "log 1 28 snapshot 0 25 64"),
        (20, LOGS, SNAPSHOTS, "log snapshot"),
        (3, &LOGS[2..LOGS.len() - 12], SNAPSHOTS, "log 28 snapshot 0 111 25 64 94 b3"),
        (3, "1 7 d", "0 6 c!", "log snapshot"),
    ] {
        let dir = TempDir::new();
        fs::create_dir(dir.version_2()).unwrap();
        for log in logs.split_whitespace() {
            fs::write(dir.version_2().join(format!("log.{log}")), "").unwrap();
        }
        for snapshot in snapshots.split_whitespace() {
            let whole = !snapshot.ends_with('!');
            let path = dir.version_2().join(format!("snapshot.{}", snapshot.trim_end_matches('!')));
            fs::write(path, if whole { "0123456789\0\0\0\u{1}/" } else { "0123456789" }).unwrap();
        }
        let mut kind = "";
        let mut expected = Vec::new();
        for word in removed.split_whitespace() {
            match word {
                "log" | "snapshot" => kind = word,
                number => expected.push(dir.version_2().join(format!("{kind}.{number}"))),
            }
        }
        expected.sort();
        assert_eq!(zab_storage::purge(dir.path(), dir.path(), retain).unwrap(), expected);
        assert!(expected.iter().all(|path| !path.exists()));
    }
}

/// With a large `jute.maxbuffer` a record may be longer than any that a default server writes. Cut off by
/// a crash it ends the log like a short one; a length that is wrong is told by the header behind it.
#[test]
fn a_long_record_may_be_cut_off_like_a_short_one() {
    let dir = TempDir::new();
    let path = dir.path().join("log.1");
    let record = |len: u32, txn: &[u8]| {
        let mut bytes = u64::from(simd_adler32::adler32(&txn)).to_be_bytes().to_vec();
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(txn);
        bytes
    };
    let mut log = b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0\0".to_vec();
    let first = txn(1, 100);
    log.extend(record(u32::try_from(first.len()).unwrap(), &first));
    log.push(b'B');
    for (zxid, kept, torn) in [(2, 5000, true), (2, 10, true), (7, 5000, false)] {
        let long = record(200 << 20, &txn(zxid, 10_000)[..kept]);
        fs::write(&path, [log.clone(), long].concat()).unwrap();
        let mut reader = LogReader::open(&path).unwrap();
        assert!(reader.next().unwrap().is_some());
        match reader.next() {
            Ok(None) => assert!(torn && reader.end() == Some(End::Torn)),
            Ok(Some(_)) => panic!("half a record"),
            Err(error) => assert!(!torn && matches!(error, Error::Damaged { .. }), "{error}"),
        }
    }
}
