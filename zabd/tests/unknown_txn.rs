//! A committed transaction that this version does not know, in a log with right checksums: the server
//! ends, as without it it would be another member than the others, and says why.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};

fn adler32(bytes: &[u8]) -> u64 {
    let (a, b) = bytes.iter().fold((1, 0), |(a, b), byte| {
        let a = (a + u64::from(*byte)) % 65521;
        (a, (b + a) % 65521)
    });
    b << 16 | a
}

/// A record of the log: a transaction without a body.
fn record(zxid: i64, kind: i32) -> Vec<u8> {
    let mut txn = 7_i64.to_be_bytes().to_vec();
    txn.extend(0_i32.to_be_bytes());
    txn.extend(zxid.to_be_bytes());
    txn.extend(0_i64.to_be_bytes());
    txn.extend(kind.to_be_bytes());
    if kind == -10 {
        txn.extend(10_000_i32.to_be_bytes());
    }
    let mut record = adler32(&txn).to_be_bytes().to_vec();
    record.extend(u32::try_from(txn.len()).unwrap().to_be_bytes());
    record.extend(txn);
    record.push(b'B');
    record
}

#[test]
fn a_server_ends_at_a_transaction_that_it_does_not_know_on_every_runtime() {
    for runtime in ["mio", "smol", "std"] {
        let dir =
            std::env::temp_dir().join(format!("zabd-unknown-{}-{runtime}", std::process::id()));
        fs::create_dir_all(dir.join("version-2")).unwrap();
        let mut log = b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0\0".to_vec();
        for (zxid, kind) in [(1, -10), (2, 77), (3, -10)] {
            log.extend(record(zxid, kind));
        }
        fs::write(dir.join("version-2/log.1"), log).unwrap();
        let port =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let output = Command::new(env!("CARGO_BIN_EXE_zabd"))
            .arg("-Dzookeeper.snapshot.trust.empty=true")
            .args(["--runtime", runtime, &port.to_string(), dir.to_str().unwrap()])
            .stdin(Stdio::null())
            .env("RUST_LOG", "info")
            .output()
            .unwrap();
        let said =
            String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{runtime}: {said}");
        assert!(said.contains("transaction 0x2 cannot be applied"), "{runtime}: {said}");
        assert!(!said.contains("panicked"), "{runtime}: {said}");
        fs::remove_dir_all(dir).unwrap();
    }
}
