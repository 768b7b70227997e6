//! The figures of this server's own, each provoked: why a role was lost and how long its phases took, how far a
//! follower is behind, who was held, and whose memory it is.

mod harness;

use std::time::Duration;

use harness::{Client, World};
use zab_harness::client::{any_version, create, multi, read, request, set_data, string};
use zab_proto::Phase;
use zk_service::{Opcode, ServiceOptions};

const CREATE: i32 = Opcode::Create.wire();
const GET: i32 = Opcode::GetData.wire();
/// The flag of a sequential create.
const SEQUENTIAL: i32 = 2;

fn options() -> ServiceOptions {
    ServiceOptions::default().with(|options| {
        options.tick_time = Duration::from_secs(2);
        options.four_letter_whitelist = vec!["*".into()];
    })
}

/// A figure of `mntr`, without `zk_`; none if it is not shown.
fn figure(world: &mut World, server: usize, name: &str) -> Option<i64> {
    let client = world.connect(server)?;
    world.send(client, b"mntr");
    let text = world.text(client);
    let line = text.lines().find_map(|line| line.strip_prefix("zk_")?.strip_prefix(name));
    line?.strip_prefix('\t')?.parse().ok()
}

fn write(world: &mut World, client: Client, data: &[u8]) {
    assert_eq!(world.call(client, CREATE, &create("/n-", data, SEQUENTIAL)).0, 0);
}

/// Until one of the others leads and all of them serve, a second at most.
fn wait_for_others(world: &mut World, gone: usize) {
    for _ in 0..100 {
        world.run();
        let rest = (0..world.nodes.len()).filter(|server| *server != gone);
        if rest.clone().all(|server| world.nodes[server].peer().status().phase == Phase::Broadcast)
        {
            return;
        }
        world.pass(Duration::from_millis(10));
    }
    panic!("no service");
}

#[test]
fn a_lost_leader_has_its_cause_and_its_phases() {
    let mut world = World::ensemble(3, 0, &options());
    let leader = world.leader();
    let rest = [(leader + 1) % 3, (leader + 2) % 3];
    let clients = rest.map(|server| world.open(server, 12_000).0);
    for server in rest {
        assert_eq!(figure(&mut world, server, "leader_closed_zab_failovers"), None);
        assert_eq!(figure(&mut world, server, "cnt_zab_failover_time"), Some(0));
        assert_eq!(figure(&mut world, server, "cnt_follower_sync_time"), Some(1));
        assert_eq!(figure(&mut world, server, "zab_held"), Some(0));
    }
    world.kill(leader);
    wait_for_others(&mut world, leader);
    for server in rest {
        assert_eq!(figure(&mut world, server, "leader_closed_zab_failovers"), Some(1));
        assert_eq!(figure(&mut world, server, "cnt_zab_failover_time"), Some(1));
        let of = |world: &mut World, name: &str| figure(world, server, name).expect("shown");
        // Service was lost before the election began, and came back after the last phase.
        let total = of(&mut world, "sum_zab_failover_time");
        let unavailable = of(&mut world, "max_unavailable_time");
        assert!((0..1000).contains(&total) && unavailable >= total, "{total} {unavailable}");
        assert!(of(&mut world, "looking_count") >= 2);
        assert!(of(&mut world, "cnt_zab_discovery_time") >= 2);
        assert!(of(&mut world, "cnt_zab_synchronization_time") >= 2);
        assert_eq!(of(&mut world, "zab_held"), 1);
        let synchronisations = if world.leads(server) { 1 } else { 2 };
        assert_eq!(of(&mut world, "cnt_follower_sync_time"), synchronisations);
        let lost = if world.leads(server) { 1 } else { 0 };
        assert_eq!(of(&mut world, "cnt_leader_unavailable_time"), lost);
    }
    for client in clients {
        write(&mut world, client, b"x");
    }
}

#[test]
fn a_follower_that_hears_nothing_is_behind() {
    let mut world = World::ensemble(3, 0, &options());
    let leader = world.leader();
    let (near, far) = ((leader + 1) % 3, (leader + 2) % 3);
    let (client, ..) = world.open(leader, 12_000);
    let behind = |world: &mut World, server: usize| {
        let id = world.nodes[server].peer().config().sid;
        figure(world, leader, &format!("{id}_zab_behind"))
    };
    write(&mut world, client, b"x");
    assert_eq!((behind(&mut world, near), behind(&mut world, far)), (Some(0), Some(0)));
    let proposed = figure(&mut world, leader, "cnt_proposal_latency").expect("shown");
    world.cut = vec![(leader, far), (far, leader)];
    for _ in 0..5 {
        write(&mut world, client, b"x");
    }
    assert_eq!((behind(&mut world, near), behind(&mut world, far)), (Some(0), Some(5)));
    // The two others are a quorum, which acknowledges; a follower measures no such thing.
    for name in ["cnt_proposal_latency", "cnt_quorum_ack_latency"] {
        assert_eq!(figure(&mut world, leader, name), Some(proposed + 5));
        assert_eq!(figure(&mut world, near, name), Some(0));
    }
    assert_eq!(figure(&mut world, near, "zab_unapplied"), Some(0));
    world.heal();
    world.run();
    assert_eq!((behind(&mut world, near), behind(&mut world, far)), (Some(0), Some(0)));
}

/// What nobody commits waits between log and tree.
#[test]
fn what_is_not_committed_is_not_applied() {
    let mut world = World::ensemble(3, 0, &options());
    let leader = world.leader();
    let (client, ..) = world.open(leader, 12_000);
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    // Nothing comes back from the followers.
    world.cut = others.map(|other| (other, leader)).to_vec();
    for xid in 1..=4 {
        let record = create(&format!("/late-{xid}"), b"", 0);
        world.send(client, &request(xid, CREATE, &record));
    }
    assert_eq!(figure(&mut world, leader, "zab_unapplied"), Some(4));
    assert!(figure(&mut world, leader, "window_zab_memory_bytes").expect("shown") > 0);
    world.heal();
    world.run();
    assert_eq!(figure(&mut world, leader, "zab_unapplied"), Some(0));
}

/// Replies that a client does not read are its own.
#[test]
fn memory_has_its_owner() {
    let mut world = World::ensemble(3, 0, &options());
    let server = world.leader();
    let (client, ..) = world.open(server, 12_000);
    assert_eq!(world.call(client, CREATE, &create("/big", &[b'x'; 100_000], 0)).0, 0);
    assert_eq!(figure(&mut world, server, "unsent_zab_memory_bytes"), Some(0));
    let before = figure(&mut world, server, "clients_zab_memory_bytes").expect("shown");
    world.set_deaf(client, true);
    for xid in 1..=3 {
        let record = read("/big", false);
        world.send(client, &request(xid, GET, &record));
    }
    let unsent = figure(&mut world, server, "unsent_zab_memory_bytes").expect("shown");
    let clients = figure(&mut world, server, "clients_zab_memory_bytes").expect("shown");
    assert!((300_000..400_000).contains(&unsent), "{unsent}");
    assert!(clients - before >= unsent, "{clients} {before} {unsent}");
    world.set_deaf(client, false);
    assert_eq!(figure(&mut world, server, "unsent_zab_memory_bytes"), Some(0));
}

/// The five numbers of a namespace, of reads or writes: count, sum, least, greatest; none if it is not shown.
fn of_namespace(world: &mut World, server: usize, name: &str) -> Option<[i64; 4]> {
    let all = ["cnt", "sum", "min", "max"]
        .map(|prefix| figure(world, server, &format!("{prefix}_{name}_per_namespace")));
    let [Some(count), Some(sum), Some(min), Some(max)] = all else { return None };
    Some([count, sum, min, max])
}

/// Every kind of read and write, and its bytes as ZooKeeper 3.8 and 3.9 count them: `DataTree.updateReadStat` and
/// `updateWriteStat`.
#[test]
fn reads_and_writes_have_their_namespace() {
    let mut world = World::ensemble(3, 0, &options());
    let leader = world.leader();
    let other = (leader + 1) % 3;
    let (client, session, ..) = world.open(other, 12_000);
    let watch = |path: &str| read(path, false);
    assert_ne!(session, 0);
    for (path, data) in [("/app", &b"0123456789"[..]), ("/app/a", b"xyz"), ("/app/bc", b"")] {
        assert_eq!(world.call(client, CREATE, &create(path, data, 0)).0, 0);
    }
    let data = set_data("/app/a", &[7]);
    assert_eq!(world.call(client, Opcode::SetData.wire(), &data).0, 0);
    // 4 + 10, 6 + 3, 7 and 6 + 1, on every server.
    for server in 0..3 {
        assert_eq!(of_namespace(&mut world, server, "app_write"), Some([4, 37, 7, 14]));
        assert_eq!(of_namespace(&mut world, server, "app_read"), None);
    }
    let delete = any_version("/app/a");
    assert_eq!(world.call(client, Opcode::Delete.wire(), &delete).0, 0);
    assert_eq!(of_namespace(&mut world, leader, "app_write"), Some([5, 43, 6, 14]));
    // An ephemeral node that goes with its session, and one in a multi that is refused.
    let (other_client, ..) = world.open(other, 12_000);
    assert_eq!(world.call(other_client, CREATE, &create("/eph", b"12", 1)).0, 0);
    assert_eq!(world.call(other_client, Opcode::CloseSession.wire(), b"").0, 0);
    assert_eq!(of_namespace(&mut world, leader, "eph_write"), Some([2, 4 + 2 + 4, 4, 6]));
    assert_ne!(world.call(client, CREATE, &create("/no/parent", b"12", 0)).0, 0);
    assert_eq!(of_namespace(&mut world, leader, "no_write"), None);

    // Reads, where the client is: 68 more than the path and the data, or the names of the children.
    let read =
        |world: &mut World, op: Opcode, path: &str| world.call(client, op.wire(), &watch(path)).0;
    for op in [Opcode::GetData, Opcode::Exists, Opcode::GetChildren, Opcode::GetChildren2] {
        assert_eq!(read(&mut world, op, "/app"), 0);
    }
    let lens = [4 + 10, 4, 4 + 2, 4 + 2].map(|len| len + 68);
    let expected = [4, lens.iter().sum(), 72, 82];
    assert_eq!(of_namespace(&mut world, other, "app_read"), Some(expected));
    assert_eq!(of_namespace(&mut world, leader, "app_read"), None);
    // What is not there, and the root, which has no namespace, are not counted; nor are ACLs.
    assert_ne!(read(&mut world, Opcode::GetData, "/app/none"), 0);
    assert_eq!(read(&mut world, Opcode::GetChildren, "/"), 0);
    assert_eq!(world.call(client, Opcode::GetAcl.wire(), &string("/app")).0, 0);
    assert_eq!(of_namespace(&mut world, other, "app_read"), Some(expected));
    // A multiRead of both kinds.
    let parts = [Opcode::GetData, Opcode::GetChildren].map(|op| (op.wire(), watch("/app")));
    let record = multi(parts);
    assert_eq!(world.call(client, Opcode::MultiRead.wire(), &record).0, 0);
    let expected = [6, lens.iter().sum::<i64>() + 82 + 74, 72, 82];
    assert_eq!(of_namespace(&mut world, other, "app_read"), Some(expected));
    assert_eq!(figure(&mut world, other, "zab_unlisted_namespaces"), Some(0));
}

/// A list that is made once for all who ask counts for each of them, and once.
#[test]
fn a_long_list_of_children_is_counted_once() {
    let mut world = World::ensemble(3, 0, &options());
    let server = world.leader();
    let (client, ..) = world.open(server, 12_000);
    assert_eq!(world.call(client, CREATE, &create("/l", b"", 0)).0, 0);
    for n in 0..2_100 {
        assert_eq!(world.call(client, CREATE, &create(&format!("/l/{n:04}"), b"", 0)).0, 0);
    }
    let record = read("/l", false);
    for asked in 1..3 {
        assert_eq!(world.call(client, Opcode::GetChildren.wire(), &record).0, 0);
        let len = 2 + 4 * 2_100 + 68;
        let expected = [asked, asked * len, len, len];
        assert_eq!(of_namespace(&mut world, server, "l_read"), Some(expected));
    }
}

/// Twice as many namespaces as have figures of their own.
#[test]
fn namespaces_are_bounded() {
    let mut world = World::standalone(options());
    let (client, ..) = world.open(0, 12_000);
    let shown = |world: &mut World| {
        let asker = world.connect(0).expect("accepted");
        world.send(asker, b"mntr");
        world.text(asker).matches("zk_cnt_").count()
    };
    let before = shown(&mut world);
    for n in 0..512 {
        assert_eq!(world.call(client, CREATE, &create(&format!("/n{n}"), b"", 0)).0, 0);
    }
    // One of them is `/zookeeper`, if its configuration was written.
    let zookeeper = usize::from(of_namespace(&mut world, 0, "zookeeper_write").is_some());
    assert_eq!(shown(&mut world), before + 256 - zookeeper);
    let unlisted = i64::try_from(256 + zookeeper).expect("small");
    assert_eq!(figure(&mut world, 0, "zab_unlisted_namespaces"), Some(unlisted));
    let quiet = world.connect(0).expect("accepted");
    world.send(quiet, b"srst");
    assert_eq!(figure(&mut world, 0, "zab_unlisted_namespaces"), Some(0));
    assert_eq!(of_namespace(&mut world, 0, "n0_write"), None);
}
