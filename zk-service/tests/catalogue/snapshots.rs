//! Snapshots: our own, which are cut at one point, and those that ZooKeeper writes while transactions
//! are applied.

use std::time::Duration;

use zk_service::acl::Acl;

use crate::harness::Image;
use crate::schedule::{SESSION, Schedule, load};

type Step = fn(&mut Schedule);

/// Opens a snapshot after each step, reads it in pieces while the other steps are made, and recovers
/// from it.
fn cut_everywhere(steps: &[Step]) {
    for cut in 0..=steps.len() {
        for piece in [1, 40, 1000] {
            let mut schedule = Schedule::new();
            steps[..cut].iter().for_each(|step| step(&mut schedule));
            let (zxid, at_cut) = (schedule.database.last_zxid(), schedule.seen());
            let id = schedule.database.snapshot_open().unwrap();
            let digest = schedule.database.snapshot_digest(id);
            let mut snapshot = Vec::new();
            for step in &steps[cut..] {
                schedule.read(id, piece, &mut snapshot);
                step(&mut schedule);
            }
            schedule.read(id, usize::MAX, &mut snapshot);
            let image = Image { snapshot, zxid, digest, log: Vec::new() };
            assert_eq!(load(&image), at_cut, "cut after {cut} steps, read by {piece}");
            if piece == 40 {
                schedule.assert_recovered(vec![image]);
            }
        }
    }
}

/// ZK-3144: a session begins or ends in the tree first and in the table of sessions after. A snapshot
/// that is cut between has the zxid of both and the effect of one: a server that recovers from it has
/// lost a session, or kept one, with its ephemerals.
#[test]
fn b31_sessions_and_tree_are_cut_at_one_point() {
    cut_everywhere(&[
        |s| s.create("/a"),
        Schedule::create_session,
        |s| s.create_ephemeral("/a/e"),
        |s| s.create_ephemeral("/f"),
        Schedule::close_session,
        |s| s.create("/b"),
        Schedule::create_session,
    ]);
}

/// ZK-3144: a snapshot of a server with the bug, in which the session is missing although its
/// ephemerals follow. Whoever leads closes it, and on no server anything is left of it.
#[test]
fn b31_a_session_that_a_snapshot_has_lost_leaves_nothing_behind() {
    let mut schedule = Schedule::new();
    schedule.create("/a");
    let mut cut = schedule.fuzzy();
    schedule.create_session();
    cut.zxid = schedule.database.last_zxid();
    cut.node(&schedule, "/");
    cut.node(&schedule, "/a");
    let cut = cut.end(&schedule);
    schedule.create_ephemeral("/a/e");
    let world = schedule.recover(vec![cut.clone(), cut.clone(), cut]);
    crate::assert_equal_trees(&world);
    let database = world.service(0).database();
    assert!(database.tree.node("/a/e").is_none(), "no ephemeral without its session");
    assert!(database.last_zxid() > schedule.database.last_zxid(), "by a transaction");
}

/// ZK-3144, the other way round: the session has ended, but the snapshot that says so still has it in
/// its table. Nobody is heard for it, so it ends once more.
#[test]
fn b31_a_session_that_a_snapshot_has_kept_expires() {
    let mut schedule = Schedule::new();
    schedule.create_session();
    let mut cut = schedule.fuzzy();
    schedule.close_session();
    cut.zxid = schedule.database.last_zxid();
    cut.node(&schedule, "/");
    let cut = cut.end(&schedule);
    let mut world = schedule.recover(vec![cut.clone(), cut.clone(), cut]);
    assert_eq!(world.service(0).database().sessions.get(SESSION), Some(4000));
    world.pass(Duration::from_secs(10));
    crate::assert_equal_trees(&world);
    assert_eq!(world.service(0).database().sessions.get(SESSION), None);
}

/// ZK-3127: the tree has a multi's zxid from its first part on. A snapshot cut there counts as having
/// the multi, and has a part of it.
#[test]
fn b32_a_multi_is_in_a_snapshot_whole_or_not_at_all() {
    cut_everywhere(&[
        |s| s.create("/a"),
        |s| s.multi("/a", "/a/c", "/b"),
        |s| s.set_data("/b", b"later", 1),
        |s| s.multi("/b", "/b/c", "/d"),
    ]);
}

/// ZK-3127: half of a multi is inside a snapshot of ZooKeeper's, which is named before it; the replay
/// makes it whole.
#[test]
fn b32_half_a_multi_in_a_fuzzy_snapshot_becomes_whole() {
    let mut schedule = Schedule::new();
    schedule.create("/a");
    let initial = schedule.image();
    let mut cut = schedule.fuzzy();
    cut.node(&schedule, "/");
    schedule.multi("/a", "/a/c", "/b");
    cut.node(&schedule, "/a");
    cut.node(&schedule, "/a/c");
    let fuzzy = cut.end(&schedule);
    assert_ne!(load(&fuzzy), schedule.seen(), "half is missing");
    schedule.set_data("/b", b"later", 1);
    schedule.assert_recovered(vec![initial, fuzzy.clone(), fuzzy]);
}

/// ZK-3125: the deletion of a node that the snapshot no longer has does not set its parent's pzxid, or
/// sets an older one. ZK-3249: the creation of a node that is deleted again behind sets its parent's
/// cversion back.
#[test]
fn b33_a_replay_does_not_turn_back_the_numbers_of_parents() {
    let mut schedule = Schedule::new();
    ["/p", "/q", "/r", "/p/x", "/q/x"].iter().for_each(|path| schedule.create(path));
    let initial = schedule.image();
    let mut cut = schedule.fuzzy();
    cut.node(&schedule, "/");
    cut.node(&schedule, "/q");
    cut.node(&schedule, "/r");
    // Gone before its turn, and its parent was written before.
    schedule.delete("/q/x");
    schedule.create("/p/z");
    schedule.delete("/p/x");
    schedule.create("/p/y");
    schedule.delete("/p/z");
    // All of it is inside.
    cut.node(&schedule, "/p");
    cut.node(&schedule, "/p/y");
    // There already, while its parent does not know.
    schedule.create("/r/y");
    cut.node(&schedule, "/r/y");
    let fuzzy = cut.end(&schedule);
    schedule.assert_recovered(vec![initial, fuzzy.clone(), fuzzy]);
}

/// ZK-3306, ZK-4846, ZK-4689, ZK-4799: the table of ACLs is written before the nodes, which may use
/// lists that it does not have. Their numbers are given again for other lists, the counts of their
/// users drift, or the replay ends with an exception.
#[test]
fn b34_lists_that_a_fuzzy_snapshot_lacks_come_from_the_log() {
    let users = |names: &[&str]| -> Vec<Acl> {
        names.iter().map(|name| Acl::new(31, "digest", name)).collect()
    };
    let mut schedule = Schedule::new();
    ["/a", "/b", "/c"].iter().for_each(|path| schedule.create(path));
    schedule.set_acl("/c", &users(&["first"]));
    let initial = schedule.image();
    let mut cut = schedule.fuzzy();
    // New lists in another order than that of the nodes.
    schedule.set_acl("/b", &users(&["b"]));
    schedule.set_acl("/a", &users(&["a"]));
    schedule.create_with("/d", &users(&["d", "a"]), false);
    // A list that has no user any more, and one that is used again.
    schedule.set_acl("/c", &users(&["a"]));
    schedule.set_acl("/b", &users(&["d", "a"]));
    ["/", "/a", "/b", "/c", "/d"].iter().for_each(|path| cut.node(&schedule, path));
    let fuzzy = cut.end(&schedule);
    schedule.set_acl("/a", &users(&["new"]));
    schedule.create_with("/e", &users(&["newer"]), false);
    schedule.assert_recovered(vec![initial, fuzzy.clone(), fuzzy]);
}
