//! A backup that is taken under load is the tree at the zxid that it names.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use zk_client::CreateMode;
use zk_client::blocking::Client;

use crate::ensemble::{Dir, Ensemble, Tree, patiently, read_tree, zabd_ok, zabd_refuses};

/// The value of `/counter-N` behind each zxid that changed it.
type Values = BTreeMap<i64, Vec<u8>>;

/// Creates nodes and counts in one node until told to stop.
fn load(client: &Client, writer: usize, stop: &AtomicBool) -> (String, Values) {
    let counter = format!("/counter-{writer}");
    let mut values = Values::new();
    client.create(&counter, Vec::new(), CreateMode::Persistent).unwrap();
    let stat = client.exists(&counter, false).unwrap().unwrap();
    values.insert(stat.czxid, Vec::new());
    for n in 0_u32.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let path = format!("/node-{writer}-{n}");
        client.create(&path, vec![b'x'; 100], CreateMode::Persistent).unwrap();
        let value = n.to_string().into_bytes();
        let stat = client.set(&counter, value.clone(), -1).unwrap();
        values.insert(stat.mzxid, value);
    }
    (counter, values)
}

/// What the tree must be at a zxid, from what it has become and what is known of its counters.
fn tree_at(
    zxid: i64,
    last: &Tree,
    counters: &BTreeMap<String, Values>,
) -> BTreeMap<String, Vec<u8>> {
    let mut expected = BTreeMap::new();
    for (path, (data, stat)) in last {
        if stat.czxid <= zxid {
            let value = counters.get(path).map(|values| values.range(..=zxid).next_back().unwrap());
            expected.insert(path.clone(), value.map_or_else(|| data.clone(), |(_, v)| v.clone()));
        }
    }
    expected
}

fn zxid_of(json: &str) -> i64 {
    let line = json.lines().find(|line| line.contains("\"zxid\"")).unwrap();
    i64::from_str_radix(line.split("\"0x").nth(1).unwrap().trim_end_matches("\","), 16).unwrap()
}

#[test]
fn a_backup_under_load_is_the_tree_at_the_zxid_that_it_names() {
    let dir = Dir::new();
    let mut ensemble = Ensemble::new(dir.0.join("old"), 3);
    ensemble.start_all();
    let stop = Arc::<AtomicBool>::default();
    let writers = Vec::from_iter((0..3).map(|writer| {
        let (client, stop) = (ensemble.client(), Arc::clone(&stop));
        thread::spawn(move || load(&client, writer, &stop))
    }));
    let mut backups = Vec::new();
    // Each member has its turn, the leader among them; more than one snapshot is written meanwhile.
    for (n, sid) in [1, 2, 3, 1, 2, 3].into_iter().enumerate() {
        thread::sleep(Duration::from_millis(400));
        let target = dir.path(&format!("backup-{n}"));
        let config = ensemble.config(sid);
        let mut arguments = vec!["backup", "--json", &config, &target];
        if n % 2 == 1 {
            arguments.push("--gzip");
        }
        let json = zabd_ok(&arguments);
        assert!(json.contains("all of it: 127.0.0.1:"), "{json}");
        assert!(json.contains("has the digest that the leader has logged"), "{json}");
        backups.push((zxid_of(&json), target));
    }
    stop.store(true, Ordering::Relaxed);
    let counters = BTreeMap::from_iter(writers.into_iter().map(|writer| writer.join().unwrap()));
    let last = read_tree(&ensemble.client());
    ensemble.kill_all();
    let zxids = Vec::from_iter(backups.iter().map(|(zxid, _)| *zxid));
    assert!(zxids.windows(2).all(|pair| pair[0] < pair[1]), "{zxids:?}");

    for (n, (zxid, backup)) in backups.iter().enumerate() {
        let expected = tree_at(*zxid, &last, &counters);
        assert!(expected.len() > 10 && expected.len() < last.len(), "{} nodes", expected.len());
        // An ensemble of three for the first one, servers of their own for the others.
        let count = if n == 0 { 3 } else { 1 };
        let mut restored = Ensemble::new(dir.0.join(format!("new-{n}")), count);
        let configs = Vec::from_iter((1..=count).map(|sid| restored.config(sid)));
        let mut arguments = vec!["restore", backup];
        arguments.extend(configs.iter().map(String::as_str));
        zabd_ok(&arguments);
        restored.start_all();
        let client = restored.client();
        let found = read_tree(&client);
        let values = found.iter().map(|(path, (data, _))| (path.clone(), data.clone()));
        assert_eq!(BTreeMap::from_iter(values), expected, "backup {n} as of {zxid:x}");
        for (path, (_, stat)) in &found {
            assert!(stat.mzxid <= *zxid && stat.czxid == last[path].1.czxid, "{path}: {stat:?}");
        }
        // It goes on from there.
        patiently(|| client.create("/after", Vec::new(), CreateMode::Persistent));
        let after = patiently(|| client.exists("/after", false)).unwrap();
        assert!(after.czxid > *zxid);
    }
}

#[test]
fn nothing_is_overwritten_and_damage_is_found() {
    let dir = Dir::new();
    let mut ensemble = Ensemble::new(dir.0.join("old"), 1);
    ensemble.start_all();
    let client = ensemble.client();
    for n in 0..20 {
        client.create(&format!("/n{n}"), Vec::new(), CreateMode::Persistent).unwrap();
    }
    drop(client);
    ensemble.kill_all();
    let (config, target) = (ensemble.config(1), dir.path("backup"));
    zabd_ok(&["backup", &config, &target]);
    zabd_ok(&["restore", "--check", &target]);

    // A directory that has something in it, whatever it is.
    assert!(zabd_refuses(&["backup", &config, &target]).contains("nothing is overwritten"));
    assert!(zabd_refuses(&["restore", &target, &config]).contains("not overwritten"));
    let foreign = dir.0.join("foreign");
    fs::create_dir_all(&foreign).unwrap();
    fs::write(foreign.join("precious"), "").unwrap();
    zabd_refuses(&["backup", &config, foreign.to_str().unwrap()]);
    assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1);
    // Epochs alone are promises.
    for name in ["acceptedEpoch", "snapshot.0", "log.1", "zab-set-aside.log.1"] {
        let promised = dir.0.join(format!("promised-{name}"));
        fs::create_dir_all(promised.join("version-2")).unwrap();
        fs::write(promised.join("version-2").join(name), "7").unwrap();
        let refused = zabd_refuses(&["restore", &target, promised.to_str().unwrap()]);
        assert!(refused.contains("not overwritten"), "{name}: {refused}");
    }
    // An epoch that is too low, or beyond belief.
    let new = dir.path("new");
    zabd_refuses(&["restore", "--epoch", "-1", &target, &new]);
    zabd_refuses(&["restore", "--epoch", "200000", &target, &new]);
    zabd_ok(&["restore", "--epoch", "50000", &target, &new]);
    let epoch = fs::read_to_string(dir.0.join("new/version-2/acceptedEpoch")).unwrap();
    assert_eq!(epoch, "50000");

    let snapshot = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().path());
    let snapshot = snapshot.into_iter().find(|path| !path.ends_with("backup.json")).unwrap();
    let good = fs::read(&snapshot).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for bad in [&flipped[..], &good[..good.len() - 1], &[&good[..], &[0]].concat(), &[]] {
        fs::write(&snapshot, bad).unwrap();
        assert!(zabd_refuses(&["restore", "--check", &target]).contains("SHA-256"));
        zabd_refuses(&["restore", &target, &dir.path("other")]);
        assert!(!dir.0.join("other/version-2").exists());
    }
    fs::write(&snapshot, &good).unwrap();
    zabd_ok(&["restore", "--check", &target]);
}
