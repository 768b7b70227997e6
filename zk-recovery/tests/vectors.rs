//! Directories that ZooKeeper wrote: what a backup holds is what a server would start with.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use zab_storage::{Compression, Options, Store};
use zk_recovery::{Member, backup, restore};
use zk_service::{Service, ServiceOptions};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

/// What a server that starts on the directory has: all of the log, applied; its nodes and its digest.
fn started(data: &Path) -> Option<(i64, usize, Option<u64>)> {
    let options = Options::new(data).with(|options| options.alone = true);
    let mut service = Service::new(ServiceOptions::default());
    let mut recovered = Store::open(options).unwrap().recover(&mut service).ok()?;
    let last = recovered.last();
    recovered.deliver(last, |zxid, txn| {
        zab_proto::Application::deliver(&mut service, zab_proto::Instant::ZERO, zxid, txn);
    });
    let tree = &service.database().tree;
    Some((last.raw(), tree.node_count(), tree.digest()))
}

#[test]
fn a_backup_of_zookeepers_files_is_what_a_server_starts_with() {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../zk-service/tests/vectors/storage");
    let root = std::env::temp_dir().join(format!("zk-recovery-{}", std::process::id()));
    let (mut equal, mut refused) = (0, 0);
    for entry in fs::read_dir(vectors).unwrap() {
        let from = entry.unwrap().path();
        if !from.is_dir() {
            continue;
        }
        let name = from.file_name().unwrap().to_str().unwrap();
        let data = root.join(name);
        copy(&from, &data.join("version-2"));
        let names = fs::read_dir(&from).unwrap().map(|e| e.unwrap().file_name());
        if !names.into_iter().any(|name| name.to_string_lossy().starts_with("snapshot.")) {
            continue;
        }
        let source = backup::Source {
            member: Member::new(&data),
            server: None,
            alone: true,
            committed_only: false,
        };
        let target = root.join(format!("{name}.backup"));
        let made = backup::create(&source, &target, Compression::Gz, &mut |_| {});
        match (made, started(&data)) {
            (Ok(manifest), Some((last, nodes, digest))) => {
                let found = (manifest.zxid.raw(), manifest.nodes, manifest.digest);
                assert_eq!(found, (last, nodes as u64, digest.unwrap()), "{name}");
                let restored = Member {
                    data_dir: root.join(format!("{name}.data")),
                    log_dir: root.join(format!("{name}.log")),
                };
                let dirs: [PathBuf; 2] = [restored.data_dir.clone(), restored.log_dir.clone()];
                restore::into(&[restored], &target, None, &mut |_| {}).unwrap();
                let options =
                    Options::new(&dirs[0]).with(|options| options.log_dir = dirs[1].clone());
                let mut service = Service::new(ServiceOptions::default());
                let recovered = Store::open(options).unwrap().recover(&mut service).unwrap();
                assert_eq!(recovered.last().raw(), last, "{name}");
                assert_eq!(service.database().tree.digest(), digest, "{name}");
                equal += 1;
            }
            (Err(_), None) => refused += 1,
            (made, started) => panic!("{name}: {made:?}, and a server starts with {started:?}"),
        }
    }
    fs::remove_dir_all(root).unwrap();
    assert!(equal >= 5, "{equal} directories were saved, {refused} refused");
}
