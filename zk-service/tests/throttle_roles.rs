//! Every bound on what clients may ask, exceeded twofold, by clients of a server in each role.

mod harness;

use std::time::Duration;

use harness::{Client, World, reply};
use zab_harness::client::{Connect, create, request};
use zk_service::{Opcode, RequestThrottle, ServiceOptions};

const CREATE: i32 = Opcode::Create.wire();
/// Nothing else ends a session meanwhile.
const TIMEOUT_MS: i32 = 30_000;

fn options() -> ServiceOptions {
    ServiceOptions::default().with(|options| {
        options.tick_time = Duration::from_secs(2);
        options.max_client_cnxns = 0;
        options.four_letter_whitelist = vec!["*".into()];
    })
}

/// Does the same to a server in each role that takes writes: its name, its world, and which server it is.
fn in_each_role(options: &ServiceOptions, test: impl Fn(&str, &mut World, usize)) {
    test("standalone", &mut World::standalone(options.clone()), 0);
    for role in ["leader", "follower", "observer"] {
        let mut world = World::ensemble(3, 1, options);
        let leader = world.leader();
        let server = match role {
            "leader" => leader,
            "follower" => (leader + 1) % 3,
            _ => 3,
        };
        test(role, &mut world, server);
        assert_eq!(world.leader(), leader, "{role}: nobody else leads");
    }
}

/// A figure of `mntr`.
fn figure(world: &mut World, server: usize, name: &str) -> u64 {
    let client = world.connect(server).expect("accepted");
    world.send(client, b"mntr");
    let text = world.text(client);
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("zk_{name}\t")));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
}

fn stall(world: &mut World, stalled: bool) {
    world.disks.iter_mut().for_each(|disk| disk.stalled = stalled);
    world.run();
}

/// Requests of one client that are all of the same length.
fn creates(count: usize) -> Vec<u8> {
    let node = |xid: usize| create(&format!("/{xid:04}-"), b"", 2);
    let xids = 1..=count;
    xids.flat_map(|xid| request(xid.try_into().expect("few"), CREATE, &node(xid))).collect()
}

/// Sends them; returns how many are taken.
fn ask(world: &mut World, client: Client, count: usize) -> usize {
    let frames = creates(count);
    world.send(client, &frames);
    taken(world, client, count)
}

/// How many of so many requests a server has taken.
fn taken(world: &World, client: Client, count: usize) -> usize {
    let len = creates(count).len() / count;
    let left = world.unconsumed(client);
    assert_eq!(left % len, 0, "whole requests");
    count - left / len
}

/// All so many requests are answered, in order and with success.
fn assert_answered(world: &mut World, client: Client, count: usize) {
    for xid in 1..=i32::try_from(count).expect("few") {
        let frame = world.frame(client).unwrap_or_else(|| panic!("no answer to {xid}"));
        assert_eq!((reply(&frame).0, reply(&frame).2), (xid, 0));
    }
    assert_eq!(world.frame(client), None);
}

/// `globalOutstandingLimit`: voters have their part of it, others all. Who has nothing under way may ask one thing,
/// however many others do; nobody is refused.
#[test]
fn who_has_requests_under_way_waits_when_all_have_too_many() {
    const LIMIT: usize = 40;
    let options = options().with(|options| options.global_outstanding_limit = LIMIT);
    in_each_role(&options, |role, world, server| {
        let limit = if matches!(role, "leader" | "follower") { LIMIT / 2 } else { LIMIT };
        let clients: Vec<Client> = (0..4).map(|_| world.open(server, TIMEOUT_MS).0).collect();
        stall(world, true);
        // Of the first, the request with which the limit is exceeded is taken, and none behind it.
        let counts: Vec<usize> =
            clients.iter().map(|client| ask(world, *client, 2 * LIMIT)).collect();
        assert_eq!(counts, [limit + 1, 1, 1, 1], "{role}");
        assert!(figure(world, server, "zab_outstanding_stalls") >= 4, "{role}");
        stall(world, false);
        for client in clients {
            assert_eq!(taken(world, client, 2 * LIMIT), 2 * LIMIT, "{role}");
            assert_answered(world, client, 2 * LIMIT);
        }
    });
}

/// With 0 each client has one request under way at a time, and all are served.
#[test]
fn with_no_requests_under_way_allowed_each_client_has_one() {
    let options = options().with(|options| options.global_outstanding_limit = 0);
    in_each_role(&options, |role, world, server| {
        let clients: Vec<Client> = (0..3).map(|_| world.open(server, TIMEOUT_MS).0).collect();
        stall(world, true);
        for client in &clients {
            assert_eq!(ask(world, *client, 10), 1, "{role}");
        }
        stall(world, false);
        for client in clients {
            assert_answered(world, client, 10);
        }
    });
}

/// `request_throttle_max_requests`: the rest waits, in order.
#[test]
fn requests_above_the_throttle_wait() {
    const MAX: usize = 10;
    let options = options().with(|options| {
        options.request_throttle = RequestThrottle { max_requests: MAX, ..Default::default() };
    });
    in_each_role(&options, |role, world, server| {
        let clients: Vec<Client> = (0..2 * MAX).map(|_| world.open(server, TIMEOUT_MS).0).collect();
        stall(world, true);
        let asked: usize = clients.iter().map(|client| ask(world, *client, 2)).sum();
        assert_eq!(asked, MAX, "{role}");
        assert_eq!(
            figure(world, server, "request_throttle_wait_count"),
            3 * MAX as u64 / 2,
            "{role}"
        );
        stall(world, false);
        world.pass(Duration::from_millis(100));
        for client in clients {
            assert_answered(world, client, 2);
        }
    });
}

/// `throttled_op_wait_time`: who has waited more than twice as long is told so, and nothing is done.
#[test]
fn requests_that_wait_too_long_are_refused() {
    let options = options().with(|options| {
        options.request_throttle.max_requests = 1;
        options.request_throttle.wait_max = Duration::from_millis(100);
    });
    in_each_role(&options, |role, world, server| {
        let [first, late] = [(); 2].map(|()| world.open(server, TIMEOUT_MS).0);
        stall(world, true);
        assert_eq!([ask(world, first, 1), ask(world, late, 1)], [1, 0], "{role}");
        world.pass(Duration::from_millis(201));
        stall(world, false);
        assert_answered(world, first, 1);
        let frame = world.frame(late).expect("an answer");
        assert_eq!((reply(&frame).0, reply(&frame).2), (1, -127), "{role}");
        assert_eq!(figure(world, server, "throttled_ops"), 1, "{role}");
    });
}

/// `largeRequestMaxBytes`: who sends one more is disconnected.
#[test]
fn large_requests_above_their_bytes_end_their_connections() {
    let options = options().with(|options| {
        options.large_requests.threshold = Some(1000);
        options.large_requests.max_bytes = 10_000;
    });
    in_each_role(&options, |role, world, server| {
        let clients: Vec<Client> = (0..20).map(|_| world.open(server, TIMEOUT_MS).0).collect();
        stall(world, true);
        for (at, client) in clients.iter().enumerate() {
            world.send(*client, &request(1, CREATE, &create(&format!("/l{at}"), &[7; 1900], 0)));
        }
        let ended = clients.iter().filter(|client| world.has_ended(**client)).count();
        assert_eq!(ended, 15, "{role}: five fit");
        stall(world, false);
        let answers = clients.iter().filter_map(|client| world.frame(*client)).count();
        assert_eq!(answers, 5, "{role}");
        assert_eq!(figure(world, server, "large_requests_rejected"), 15, "{role}");
    });
}

/// `connection_throttle_*`: as many handshakes as there are tokens, by weight if asked for.
#[test]
fn handshakes_above_the_tokens_are_refused() {
    for weighed in [false, true] {
        let options = options().with(|options| {
            options.connection_throttle.tokens = 5;
            options.connection_throttle.fill_time = Duration::from_secs(1);
            options.connection_throttle.weighed = weighed;
        });
        in_each_role(&options, |role, world, server| {
            // The time that counts begins with the first handshake after a filling.
            world.pass(Duration::from_millis(1001));
            let mut shake = |session, password| {
                let client = world.connect(server).expect("accepted");
                world.send(client, &Connect::again(TIMEOUT_MS, session, password).to_vec());
                let frame = world.frame(client)?;
                assert!(!world.has_ended(client));
                let session = i64::from_be_bytes(frame[8..16].try_into().expect("eight bytes"));
                Some((session, frame[20..36].try_into().expect("sixteen bytes")))
            };
            let granted: Vec<(i64, [u8; 16])> = (0..10).filter_map(|_| shake(0, [0; 16])).collect();
            assert_eq!(granted.len(), 5, "{role}");
            let (session, password) = granted[0];
            assert!(shake(session, password).is_none(), "{role}: a session that goes on");
            assert_eq!(figure(world, server, "connection_rejected"), 6, "{role}");
            world.pass(Duration::from_millis(1001));
            // A second brings a token, or what a new session costs: three, of which one that goes on takes two.
            let mut shake = |session, password| {
                let client = world.connect(server).expect("accepted");
                world.send(client, &Connect::again(TIMEOUT_MS, session, password).to_vec());
                world.frame(client).is_some()
            };
            assert!(shake(session, password), "{role}");
            assert!(!shake(0, [0; 16]), "{role}");
        });
    }
}

/// `maxClientCnxns` and `maxCnxns`: twice as many connections as there may be.
#[test]
fn connections_above_their_number_are_refused() {
    for (of_address, in_all) in [(5, 0), (0, 5)] {
        let options = options().with(|options| {
            options.max_client_cnxns = of_address;
            options.max_cnxns = in_all;
        });
        in_each_role(&options, |role, world, server| {
            let clients: Vec<Client> = (0..10).filter_map(|_| world.connect(server)).collect();
            assert_eq!(clients.len(), 5, "{role}");
            world.hang_up(clients[0]);
            assert!(world.connect(server).is_some(), "{role}: one has gone");
            assert!(world.connect(server).is_none(), "{role}");
        });
    }
}
