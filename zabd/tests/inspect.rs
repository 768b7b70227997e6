//! `zabd inspect` on files that ZooKeeper wrote, whole and damaged.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use zabd::exit;
use zabd::inspect::{Kind, run};

fn storage() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../zab-storage/tests/vectors")
}

fn service() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../zk-service/tests/vectors/storage")
}

/// Exit code, what was printed, what was complained of.
fn inspect(kind: Kind, file: &Path, json: bool) -> (u8, String, String) {
    let (mut out, mut complaints) = (Vec::new(), Vec::new());
    let code = run(kind, file, json, &mut out, &mut complaints);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(complaints).unwrap())
}

fn kind_of(file: &Path) -> Option<Kind> {
    let name = file.file_name()?.to_str()?;
    match name.split_once('.')? {
        ("log", zxid) if !zxid.contains('.') => Some(Kind::Log),
        ("snapshot", _) if !name.ends_with(".tmp") => Some(Kind::Snapshot),
        _ => None,
    }
}

/// Logs and snapshots below a directory.
fn files(dir: &Path) -> Vec<(Kind, PathBuf)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if let Some(kind) = kind_of(&path) {
            found.push((kind, path));
        }
    }
    found.sort_by(|a, b| a.1.cmp(&b.1));
    found
}

#[test]
fn whole_files_are_whole() {
    let mut seen = [0; 2];
    for (kind, file) in files(&service()) {
        let (code, text, complaints) = inspect(kind, &file, false);
        assert_eq!((code, complaints.as_str()), (exit::OK, ""), "{}\n{text}", file.display());
        let (code, json, _) = inspect(kind, &file, true);
        assert_eq!(code, exit::OK);
        match kind {
            Kind::Log => {
                let lines = text.lines().count();
                // A first line in front of the records, a last one behind.
                assert_eq!(lines, json.lines().count() + 1);
                assert!(text.ends_with(&format!("EOF reached after {} txns.\n", lines - 2)));
                seen[0] += lines - 2;
            }
            Kind::Identity => unreachable!("no file of ZooKeeper's"),
            Kind::Snapshot => {
                let nodes = json.lines().filter(|line| line.starts_with("{\"path\":")).count();
                assert!(text.starts_with(&format!("ZNode Details (count={nodes}):\n----\n/\n")));
                assert_eq!(text.matches("\n  cZxid = ").count(), nodes);
                seen[1] += nodes;
            }
        }
    }
    assert!(seen[0] > 300 && seen[1] > 100, "{seen:?}");
}

#[test]
fn transactions_read_as_in_zookeepers_tools() {
    let file = service().join("basic-crud/log.1");
    let (_, text, _) = inspect(Kind::Log, &file, false);
    let (_, json, _) = inspect(Kind::Log, &file, true);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "ZooKeeper Transactional Log File with dbid 0 txnlog format version 2");
    assert!(lines[1].contains(" cxid 0x0 zxid 0x1 createSession "), "{}", lines[1]);
    assert!(text.contains(",v{s{31,s{'world,'anyone}}},F,"), "{text}");
    for part in ["\"type\":\"create\"", "\"type\":\"setData\"", "\"type\":\"delete\""] {
        assert!(json.contains(part), "{part} is not in\n{json}");
    }
    assert!(json.contains("\"acl\":[{\"perms\":31,\"scheme\":\"world\",\"id\":\"anyone\"}]"));
    let multi = service().join("multi");
    let all: String = files(&multi)
        .into_iter()
        .filter(|(kind, _)| *kind == Kind::Log)
        .map(|(_, file)| inspect(Kind::Log, &file, true).1)
        .collect();
    assert!(all.contains("\"type\":\"multi\",\"parts\":[{\"type\":\""), "{all}");
}

#[test]
fn a_torn_tail_is_not_damage() {
    let torn = storage().join("torn-tail");
    for (case, expected) in [
        ("intact/version-2/log.d", exit::OK),
        ("header-only/log.d", exit::OK),
        ("header-version-3/log.d", exit::OK),
        ("cut-after-crc/log.d", exit::TORN),
        ("cut-mid-record/log.d", exit::TORN),
        ("cut-mid-record-older-log/log.7", exit::TORN),
        ("crc-then-zeros/log.d", exit::TORN),
        ("eor-zero-last-record/log.d", exit::TORN),
        ("zeros-from-mid-record/log.d", exit::TORN),
        ("bad-magic/log.d", exit::DAMAGED),
        ("bitflip-last-record/log.d", exit::DAMAGED),
        ("bitflip-mid-log/log.7", exit::DAMAGED),
        ("header-cut/log.d", exit::DAMAGED),
        ("header-zeros/log.d", exit::DAMAGED),
        ("last-log-empty/log.d", exit::DAMAGED),
        ("length-huge/log.d", exit::DAMAGED),
        ("length-minus-one/log.d", exit::DAMAGED),
        ("no-such-file/log.1", exit::UNEXPECTED),
    ] {
        let (code, text, complaints) = inspect(Kind::Log, &torn.join(case), false);
        assert_eq!(code, expected, "{case}: {complaints}\n{text}");
        assert_eq!(complaints.is_empty(), code == exit::OK, "{case}");
        let (_, json, _) = inspect(Kind::Log, &torn.join(case), true);
        let end = json.lines().last().unwrap_or_default();
        if code == exit::TORN {
            assert!(end.starts_with("{\"end\":\"torn\","), "{case}: {end}");
        }
    }
    // What is before the damage is shown.
    let (_, text, complaints) = inspect(Kind::Log, &torn.join("bitflip-mid-log/log.7"), false);
    assert!(text.contains(" zxid 0x7 ") && text.contains("damaged at byte "), "{text}");
    assert!(complaints.contains("checksum mismatch"), "{complaints}");
}

#[test]
fn damaged_snapshots() {
    let damage = storage().join("snapshot-damage");
    for (case, expected) in [
        ("intact/version-2/snapshot.c", exit::OK),
        ("bad-magic/snapshot.c", exit::DAMAGED),
        ("bitflip/snapshot.c", exit::DAMAGED),
        ("digest-bitflip/snapshot.c", exit::DAMAGED),
        ("digest-section-cut/snapshot.c", exit::DAMAGED),
        ("digest-section-missing/snapshot.c", exit::OK),
        ("only-snapshot-truncated/snapshot.c", exit::DAMAGED),
        ("trailing-junk/snapshot.c", exit::DAMAGED),
        ("truncated/snapshot.c", exit::DAMAGED),
    ] {
        let (code, text, complaints) = inspect(Kind::Snapshot, &damage.join(case), false);
        assert_eq!(code, expected, "{case}: {complaints}\n{text}");
        assert_eq!(complaints.is_empty(), code == exit::OK, "{case}");
    }
    let (code, text, _) =
        inspect(Kind::Snapshot, &storage().join("compressed/gz/version-2/snapshot.20.gz"), false);
    assert_eq!(code, exit::OK);
    assert!(text.ends_with("Last zxid: 0x20\n"), "{text}");
    let cut = std::env::temp_dir().join(format!("zabd-inspect-{}.gz", std::process::id()));
    let whole = std::fs::read(storage().join("compressed/gz/version-2/snapshot.20.gz")).unwrap();
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let (code, _, complaints) = inspect(Kind::Snapshot, &cut, true);
    std::fs::remove_file(&cut).unwrap();
    assert_eq!(code, exit::DAMAGED, "{complaints}");
}

#[test]
fn from_the_command_line() {
    let zabd = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_zabd"));
        command.args(arguments).output().unwrap()
    };
    let log = service().join("basic-crud/log.1");
    let log = log.to_str().unwrap();
    let output = zabd(&["inspect", "log", log, "--json"]);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.starts_with(b"{\"offset\":16,\"zxid\":\"0x1\","));
    assert_eq!(zabd(&["inspect", "snapshot", log]).status.code(), Some(exit::DAMAGED.into()));
    assert_eq!(zabd(&["inspect", "log"]).status.code(), Some(exit::INVALID.into()));
    assert_eq!(zabd(&["inspect"]).status.code(), Some(exit::INVALID.into()));
    let help = zabd(&["inspect", "--help"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("torn record"));
}

#[test]
fn the_id_of_an_ensemble() {
    let dir = std::env::temp_dir().join(format!("zabd-inspect-identity-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("ensembleId");
    let id = "000000000000000000000000000000ff";
    for (state, code, text, json) in [
        ("confirmed b7e70a44", exit::OK, "(confirmed)", r#""confirmed":true"#),
        ("tentative", exit::DAMAGED, "", ""),
    ] {
        std::fs::write(&file, format!("{id} {state}\n")).unwrap();
        let (found, out, complaints) = inspect(Kind::Identity, &file, false);
        assert_eq!(found, code, "{out} {complaints}");
        assert!(out.contains(text), "{out}");
        let (found, out, _) = inspect(Kind::Identity, &file, true);
        assert_eq!(found, code);
        assert!(out.contains(json), "{out}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(inspect(Kind::Identity, &file, false).0, exit::UNEXPECTED);
}
