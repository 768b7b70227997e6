//! ZooKeeper's throttles: of handshakes, of requests under way, and of large ones.

mod harness;

use std::time::Duration;

use harness::{Client, World, reply};
use zab_harness::client::{Connect, create, read, request};
use zk_service::{ConnectionThrottle, LargeRequests, Opcode, RequestThrottle, ServiceOptions};

const CREATE: i32 = Opcode::Create.wire();
const CLOSE: i32 = Opcode::CloseSession.wire();

fn options() -> ServiceOptions {
    ServiceOptions::default().with(|options| {
        options.tick_time = Duration::from_secs(2);
        options.max_client_cnxns = 0;
    })
}

fn requests(max_requests: usize, wait_max: Duration) -> ServiceOptions {
    options().with(|options| {
        options.request_throttle = RequestThrottle { max_requests, wait_max };
    })
}

/// A figure of `mntr`.
fn figure(world: &mut World, name: &str) -> u64 {
    let client = world.connect(0).expect("accepted");
    world.send(client, b"mntr");
    let text = world.text(client);
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("zk_{name}\t")));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
}

fn with_words(options: ServiceOptions) -> ServiceOptions {
    options.with(|options| options.four_letter_whitelist = vec!["*".into()])
}

/// Twice as many clients as there are tokens shake hands; the bucket fills, and they come again.
#[test]
fn handshakes_take_tokens() {
    let throttle = ConnectionThrottle::default();
    let options = with_words(options()).with(|options| {
        options.connection_throttle = throttle.clone();
        options.connection_throttle.tokens = 5;
        options.connection_throttle.fill_time = Duration::from_secs(1);
    });
    let mut world = World::standalone(options);
    let shake = |world: &mut World| {
        let client = world.connect(0).expect("accepted");
        world.send(client, &Connect::new(10_000).to_vec());
        world.frame(client).is_some()
    };
    let granted = (0..10).filter(|_| shake(&mut world)).count();
    assert_eq!(granted, 5);
    assert_eq!(figure(&mut world, "connection_rejected"), 5);
    assert_eq!(figure(&mut world, "sum_connection_token_deficit"), 1 + 2 + 3 + 4 + 5);
    world.pass(Duration::from_millis(2100));
    let more = (0..10).filter(|_| shake(&mut world)).count();
    assert!(matches!(more, 2 | 3), "{more}: the first second had begun before");
}

/// A handshake that waits for room in the window takes one token, however often it asks.
#[test]
fn who_waits_takes_one_token() {
    let options = with_words(options()).with(|options| {
        options.connection_throttle.tokens = 500;
        options.connection_throttle.fill_time = Duration::from_secs(1000);
    });
    let mut world = World::with_window(options, 1 << 20);
    let writers: Vec<Client> = (0..10).map(|_| world.open(0, 10_000).0).collect();
    world.disks[0].stalled = true;
    for client in writers {
        let record = create("/w", &[7; 100_000], 2);
        let frames: Vec<u8> = (1..=3).flat_map(|xid| request(xid, CREATE, &record)).collect();
        world.send(client, &frames);
    }
    let clients: Vec<Client> = (0..40)
        .map(|_| {
            let client = world.connect(0).expect("accepted");
            world.send(client, &Connect::new(10_000).to_vec());
            client
        })
        .collect();
    assert!(clients.iter().any(|client| world.unconsumed(*client) > 0), "some wait");
    world.disks[0].stalled = false;
    world.run();
    for client in clients {
        assert!(world.frame(client).is_some());
    }
    assert_eq!(figure(&mut world, "max_connection_token_deficit"), 50);
}

/// A member without its quorum has requests under way; those of others wait, and all are answered, in the order of
/// their clients, when it is back.
#[test]
fn requests_wait_for_answers_to_others() {
    let mut world = World::ensemble(3, 0, &with_words(requests(10, Duration::ZERO)));
    let leader = world.leader();
    let clients: Vec<Client> = (0..20).map(|_| world.open(leader, 30_000).0).collect();
    world.disks.iter_mut().for_each(|disk| disk.stalled = true);
    for round in 0..3 {
        for (at, client) in clients.iter().enumerate() {
            let record = create(&format!("/n{at}-{round}"), b"", 0);
            world.send(*client, &request(round, CREATE, &record));
        }
    }
    let waiting =
        |world: &World| clients.iter().filter(|client| world.unconsumed(**client) > 0).count();
    // The first ten have one request under way each; what they ask further waits as well.
    assert_eq!(waiting(&world), 20);
    // One that waits goes away, and another one is silent for good.
    world.hang_up(clients[10]);
    world.disks.iter_mut().for_each(|disk| disk.stalled = false);
    world.run();
    world.pass(Duration::from_millis(100));
    assert_eq!(waiting(&world), 1, "who has gone away left what it had sent");
    for (at, client) in clients.iter().enumerate().filter(|(at, _)| *at != 10) {
        for round in 0..3 {
            let frame = world.frame(*client).unwrap_or_else(|| panic!("{at}, {round}"));
            let (xid, _, code, _) = reply(&frame);
            assert_eq!((xid, code), (round, 0), "{at}");
        }
    }
}

/// As many as may be under way at once, of one client that asks ahead, and of a reader that does not
/// read its answers: nobody is stuck for ever.
#[test]
fn who_asks_ahead_is_served() {
    for max in [1, 2, 7] {
        let mut world = World::ensemble(3, 0, &requests(max, Duration::ZERO));
        let clients: Vec<Client> = (0..4).map(|server| world.open(server % 3, 30_000).0).collect();
        world.set_deaf(clients[0], true);
        for client in &clients {
            let frames: Vec<u8> = (0..100)
                .flat_map(|n| {
                    let read = read("/", false);
                    let record = create(&format!("/c{}-", client.server), b"", 2);
                    [request(2 * n, CREATE, &record), request(2 * n + 1, 4, &read)].concat()
                })
                .collect();
            world.send(*client, &frames);
        }
        world.set_deaf(clients[0], false);
        world.pass(Duration::from_millis(500));
        for client in &clients {
            for xid in 0..200 {
                let frame = world.frame(*client).unwrap_or_else(|| panic!("{max}: {xid}"));
                assert_eq!((reply(&frame).0, reply(&frame).2), (xid, 0));
            }
        }
    }
}

#[test]
fn who_has_waited_too_long_is_told() {
    let mut world = World::ensemble(3, 0, &with_words(requests(1, Duration::from_millis(300))));
    let leader = world.leader();
    let [a, b, c, d, calm] = [(); 5].map(|()| world.open(leader, 30_000).0);
    world.disks.iter_mut().for_each(|disk| disk.stalled = true);
    world.send(a, &request(1, CREATE, &create("/a", b"", 0)));
    world.send(b, &request(1, CREATE, &create("/b", b"", 0)));
    world.send(c, &request(1, CLOSE, &[]));
    world.pass(Duration::from_millis(301));
    world.send(d, &request(1, CREATE, &create("/d", b"", 0)));
    // A ping is answered meanwhile.
    assert_eq!(world.call(calm, 11, &[]).0, 0);
    world.disks.iter_mut().for_each(|disk| disk.stalled = false);
    world.run();
    let mut code = |client| world.frame(client).map(|frame| reply(&frame).2);
    assert_eq!([code(a), code(b), code(c), code(d)], [Some(0), Some(-127), Some(0), Some(0)]);
}

/// Large requests under way have a bound of their own; who sends one more is disconnected at its
/// length, and others go on.
#[test]
fn large_requests_have_a_bound() {
    let options = options().with(|options| {
        options.large_requests.threshold = Some(1000);
        options.large_requests.max_bytes = 10_000;
    });
    assert_eq!(LargeRequests::default().threshold, None);
    let mut world = World::ensemble(3, 0, &with_words(options));
    let leader = world.leader();
    let clients: Vec<Client> = (0..20).map(|_| world.open(leader, 30_000).0).collect();
    let small = world.open(leader, 30_000).0;
    world.disks.iter_mut().for_each(|disk| disk.stalled = true);
    for (at, client) in clients.iter().enumerate() {
        world.send(*client, &request(1, CREATE, &create(&format!("/l{at}"), &[7; 1900], 0)));
    }
    world.send(small, &request(1, CREATE, &create("/small", &[7; 900], 0)));
    let ended = clients.iter().filter(|client| world.has_ended(**client)).count();
    assert_eq!(ended, 15, "five fit");
    world.disks.iter_mut().for_each(|disk| disk.stalled = false);
    world.run();
    let frame = world.frame(small).expect("answered");
    assert_eq!(reply(&frame).2, 0);
    // What is answered is not counted any more.
    let (first, ..) = world.open(leader, 30_000);
    for n in 0..20 {
        let record = create(&format!("/again{n}"), &[7; 1900], 0);
        assert_eq!(world.call(first, CREATE, &record).0, 0, "{n}");
    }
    let client = world.connect(leader).expect("accepted");
    world.send(client, b"mntr");
    assert!(world.text(client).contains("zk_large_requests_rejected\t15\n"));
}
