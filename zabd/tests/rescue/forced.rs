//! A majority is lost for good, and what is left goes on.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use zk_client::CreateMode;

use crate::ensemble::{Dir, Ensemble, files, patiently, read_tree, zabd_ok, zabd_refuses};

fn token_of(plan: &str) -> String {
    plan.split("--execute ").nth(1).unwrap().trim().to_owned()
}

/// Writes nodes while fewer and fewer members run: the first one stopped has the oldest history.
fn histories(ensemble: &mut Ensemble, order: &[usize]) {
    ensemble.start_all();
    let all = Vec::from_iter(1..=5);
    for (n, &sid) in order.iter().enumerate() {
        let running = Vec::from_iter(all.iter().copied().filter(|s| !order[..n].contains(s)));
        let client = ensemble.client_of(&running);
        for i in 0..20 {
            let path = format!("/with-{}-{i}", running.len());
            patiently(|| match client.create(&path, Vec::new(), CreateMode::Persistent) {
                // The answer of an earlier attempt was lost.
                Err(error) if error.code == zk_client::Code::NodeExists => Ok(path.clone()),
                result => result,
            });
        }
        // All of them have it on disk before one is lost.
        for &one in &running {
            patiently(|| ensemble.client_of(&[one]).sync("/"));
        }
        ensemble.kill(sid);
    }
    ensemble.kill_all();
}

/// Five voters of which two are left. One of them was lost to the others before, so the other one has the
/// newer history, and the three that are gone have a newer one still.
fn survivors_go_on(older: usize, newer: usize) {
    let dir = Dir::new();
    let mut old = Ensemble::new(dir.0.clone(), 5);
    histories(&mut old, &[older, newer]);
    // What is lost behind the newer one's end, it alone could have told.
    let gone = Vec::from_iter((1..=5).filter(|sid| ![older, newer].contains(sid)));
    let attic = dir.0.join("attic");
    fs::create_dir_all(&attic).unwrap();
    for sid in &gone {
        fs::rename(old.data(*sid), attic.join(sid.to_string())).unwrap();
    }
    drop(old);

    let data = |sid: usize| dir.path(&format!("data-{sid}"));
    let config = |sid: usize| dir.path(&format!("zoo-{sid}.cfg"));
    let (first, second) = (data(older), data(newer));
    let before = files(Path::new(&first)).into_iter().chain(files(Path::new(&second)));
    let before = std::collections::BTreeMap::from_iter(before);
    assert!(zabd_ok(&["recover", &first, &second]).contains("nobody knows"));
    let (first_config, second_config) = (config(older), config(newer));
    let plan = zabd_ok(&["recover", &first_config, &second_config]);
    let line = plan.lines().find(|line| line.contains("the newest history")).unwrap();
    assert!(line.contains(&format!("(member {newer})")), "{plan}");
    assert!(plan.contains("the 3 lost voters of 5"), "{plan}");
    assert!(plan.contains("Nothing was changed"), "{plan}");
    let after = files(Path::new(&first)).into_iter().chain(files(Path::new(&second)));
    assert_eq!(std::collections::BTreeMap::from_iter(after), before, "a dry run changes nothing");

    // Not by a guess, and not by the plan of other directories.
    let refuses =
        |token: &str| zabd_refuses(&["recover", "--execute", token, &first_config, &second_config]);
    assert!(refuses("yes").contains("token"));
    refuses(&token_of(&zabd_ok(&["recover", &second_config])));
    let token = token_of(&plan);
    zabd_ok(&["recover", "--execute", &token, &first_config, &second_config]);
    // Once.
    refuses(&token);
    // A recovery that was cut short in front of the newest directory goes on from there.
    let newest = Path::new(&second);
    fs::remove_dir_all(newest.join("version-2")).unwrap();
    fs::rename(newest.join("version-2.replaced-1"), newest.join("version-2")).unwrap();
    fs::remove_file(newest.join("forced-recovery.log")).unwrap();
    let plan = zabd_ok(&["recover", &first_config, &second_config]);
    let token = token_of(&plan);
    zabd_ok(&["recover", "--execute", &token, &first_config, &second_config]);
    for (data, times) in [(&first, 2), (&second, 1)] {
        let journal = fs::read_to_string(Path::new(data).join("forced-recovery.log")).unwrap();
        assert_eq!(journal.lines().count(), times, "{journal}");
        assert!(Path::new(data).join("version-2.replaced-1").is_dir());
    }

    new_ensemble(&dir, [older, newer], gone[0], &attic);
}

/// The two that are left and one more, which is a lost one that has turned up with a newer history.
fn new_ensemble(dir: &Dir, left: [usize; 2], gone: usize, attic: &Path) {
    let new_dir = dir.0.join("new");
    fs::create_dir_all(&new_dir).unwrap();
    for (sid, from) in (1..).zip(left.map(|sid| dir.0.join(format!("data-{sid}")))) {
        fs::rename(from, new_dir.join(format!("data-{sid}"))).unwrap();
    }
    fs::rename(attic.join(gone.to_string()), new_dir.join("data-3")).unwrap();
    let mut new = Ensemble::new(new_dir, 3);
    new.start_all();
    let client = new.client_of(&[1, 2]);
    let tree = read_tree(&client);
    let has = |running: usize| tree.contains_key(&format!("/with-{running}-19"));
    assert!(has(5) && has(4), "the newest history that was left");
    assert!(!tree.keys().any(|path| path.starts_with("/with-3")), "what nobody had brought");
    patiently(|| client.create("/after", Vec::new(), CreateMode::Persistent));
    let stat = patiently(|| client.exists("/after", false)).unwrap();
    assert!(stat.czxid >> 32 > 1000, "fenced by an epoch far above: {:x}", stat.czxid);
    // The third one neither overrules them nor serves.
    thread::sleep(Duration::from_secs(2));
    assert!(patiently(|| client.exists("/after", false)).is_some());
    assert!(new.log(3).contains("nsemble"), "it is said why: {}", new.log(3));

    // With nothing in its directory it is one of them.
    new.kill(3);
    fs::remove_dir_all(new.data(3).join("version-2")).unwrap();
    new.start(3);
    let tree = read_tree(&new.client_of(&[3]));
    assert!(tree.contains_key("/after"));
}

#[test]
fn the_newest_history_is_on_the_first_survivor() {
    survivors_go_on(2, 1);
}

#[test]
fn the_newest_history_is_on_the_second_survivor() {
    survivors_go_on(1, 4);
}

#[test]
fn what_may_be_lost_is_what_a_majority_may_have_hidden() {
    let dir = Dir::new();
    let mut old = Ensemble::new(dir.0.clone(), 5);
    histories(&mut old, &[1, 2]);
    let data = Vec::from_iter((1..=5).map(|sid| old.data(sid).to_str().unwrap().to_owned()));
    let configs = Vec::from_iter((1..=5).map(|sid| old.config(sid)));
    // Three of five: every majority has one of them in it.
    let plan = zabd_ok(&["recover", &configs[0], &data[1], &data[2]]);
    assert!(plan.contains("nothing that was acknowledged: 3 of 5"), "{plan}");
    let plan = zabd_ok(&["recover", "--voters", "5", &data[0], &data[1]]);
    assert!(plan.contains("the 3 lost voters of 5"), "{plan}");
    let plan = zabd_ok(&["recover", &configs[2]]);
    assert!(plan.contains("the 4 lost voters of 5"), "{plan}");
    let json = zabd_ok(&["recover", "--json", "--voters", "1", &data[2]]);
    assert!(json.contains("\"loss\": \"Nothing\""), "{json}");

    // Members of two ensembles are not mixed.
    let foreign_dir = Dir::new();
    let mut foreign = Ensemble::new(foreign_dir.0.clone(), 3);
    foreign.start_all();
    let client = foreign.client();
    patiently(|| client.create("/foreign", Vec::new(), CreateMode::Persistent));
    let other = foreign.data(1).to_str().unwrap().to_owned();
    assert!(zabd_refuses(&["recover", &data[2], &other]).contains("a server runs there"));
    foreign.kill_all();
    assert!(zabd_refuses(&["recover", &data[2], &other]).contains("not members of one ensemble"));
    // A directory that cannot be read as a whole is not passed over.
    let logs =
        files(&old.data(3)).into_keys().filter(|path| path.to_str().unwrap().contains("log."));
    let log = logs.max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap()).unwrap();
    let mut bytes = fs::read(&log).unwrap();
    bytes[16 + 12 + 40] ^= 1;
    fs::write(&log, bytes).unwrap();
    assert!(zabd_refuses(&["recover", &data[2], &data[1]]).contains("damaged"));
}
