//! Ensembles of the ZooKeeper service, on every runtime and on all of them together.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use common::{Client, PATIENCE, assert_equal, assert_everywhere, create, wait_end};
use zab_harness::client::{frame, read, read_frame, request};
use zab_testing::{Builder, Ensemble, Link, Runtime, Service, Sid};
use zk_service::Opcode;

/// Ensembles of each runtime, and a mixed one in which every member uses another.
fn on_all(build: impl Fn(Builder) -> Builder, test: impl Fn(Ensemble<Service>)) {
    let alone = Runtime::ALL.iter().map(|runtime| vec![*runtime]);
    for runtimes in alone.chain([Runtime::ALL.to_vec()]) {
        eprintln!("{runtimes:?}");
        test(build(Ensemble::builder().runtimes(runtimes)).start().unwrap());
    }
}

#[test]
fn every_runtime_leads_and_follows_every_other() {
    let mut ensemble = Ensemble::builder().runtimes(Runtime::ALL.to_vec()).start().unwrap();
    assert_eq!(Runtime::ALL.len(), 3);
    let mut have_led = Vec::new();
    for round in 0..6 {
        let leader = ensemble.wait().unwrap();
        have_led.push(leader);
        for sid in ensemble.members() {
            create(&ensemble, sid, &format!("/{round}-through-{sid}"));
        }
        for sid in ensemble.members() {
            assert_everywhere(&ensemble, &format!("/{round}-through-{sid}"));
        }
        assert_equal(&ensemble);
        ensemble.stop(leader);
        let next = ensemble.wait().unwrap();
        create(&ensemble, next, &format!("/{round}-without-{leader}"));
        ensemble.restart(leader).unwrap();
        ensemble.wait().unwrap();
        assert_everywhere(&ensemble, &format!("/{round}-without-{leader}"));
        // The one that leads now has the highest id beside the stopped one: let the third lead.
        if round % 2 == 1 {
            ensemble.stop(next);
            let third = ensemble.wait().unwrap();
            have_led.push(third);
            ensemble.restart(next).unwrap();
        }
    }
    have_led.sort_unstable();
    have_led.dedup();
    assert!(have_led.len() >= 2, "{have_led:?}");
}

#[test]
fn five_members_outlive_two() {
    on_all(
        |builder| builder.voters(5),
        |mut ensemble| {
            for n in 1..=2 {
                let leader = ensemble.leader().unwrap();
                ensemble.stop(leader);
                let next = ensemble.wait().unwrap();
                create(&ensemble, next, &format!("/without-{n}"));
            }
            let leader = ensemble.leader().unwrap();
            ensemble.stop(leader);
            let left: Vec<Sid> =
                ensemble.members().filter(|sid| ensemble.is_running(*sid)).collect();
            assert_eq!(left.len(), 2);
            for sid in &left {
                let status = ensemble.handle(*sid).status();
                let is_looking = |s: &zab_proto::Status| s.phase != zab_proto::Phase::Broadcast;
                status.wait(PATIENCE, is_looking).expect("two of five cannot serve");
            }
            // Whoever connects now is not given a session.
            assert!(Client::open(ensemble.client_address(left[0])).is_err());
            ensemble.restart(leader).unwrap();
            let leader = ensemble.wait().unwrap();
            create(&ensemble, leader, "/again");
            for path in ["/without-1", "/without-2", "/again"] {
                assert_everywhere(&ensemble, path);
            }
            assert_equal(&ensemble);
        },
    );
}

#[test]
fn sessions_outlive_their_server_and_the_leader() {
    on_all(
        |builder| builder,
        |mut ensemble| {
            let leader = ensemble.leader().unwrap();
            let follower = ensemble.members().find(|sid| *sid != leader).unwrap();
            let mut of_leader = Client::open(ensemble.client_address(leader)).unwrap();
            let mut of_follower = Client::open(ensemble.client_address(follower)).unwrap();
            assert_eq!(of_leader.create("/of-leader", b"", true).unwrap(), 0);
            assert_eq!(of_follower.create("/of-follower", b"", true).unwrap(), 0);
            ensemble.stop(leader);
            let next = ensemble.wait().unwrap();
            // Both go where they are served; neither session has ended.
            let mut of_leader = of_leader.move_to(ensemble.client_address(next)).unwrap();
            let mut of_follower = of_follower.move_to(ensemble.client_address(follower)).unwrap();
            for client in [&mut of_leader, &mut of_follower] {
                client.sync().unwrap();
                assert!(client.get("/of-leader").unwrap().is_some());
                assert!(client.get("/of-follower").unwrap().is_some());
            }
            assert_eq!(of_leader.create("/child", b"", true).unwrap(), 0);
            ensemble.restart(leader).unwrap();
            ensemble.wait().unwrap();
            assert_everywhere(&ensemble, "/child");
            // And moves once more, to the server that has come back.
            let mut of_leader = of_leader.move_to(ensemble.client_address(leader)).unwrap();
            assert!(of_leader.get("/child").unwrap().is_some());
            assert_equal(&ensemble);
        },
    );
}

#[test]
fn malformed_bytes_end_their_own_connection_only() {
    on_all(
        |builder| builder,
        |ensemble| {
            let leader = ensemble.leader().unwrap();
            let epoch = ensemble.handle(leader).status().get().unwrap().epoch;
            let mut good: Vec<Client> = ensemble
                .members()
                .map(|sid| Client::open(ensemble.client_address(sid)).unwrap())
                .collect();
            let mut random = fastrand::Rng::with_seed(1);
            for sid in ensemble.members() {
                let [election, quorum] = ensemble.peer_addresses(sid);
                for addr in [election, quorum, ensemble.client_address(sid)] {
                    let mut pieces: Vec<Vec<u8>> = vec![
                        vec![0xff; 4096],
                        vec![0x7f; 64],
                        vec![0; 64],
                        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(64),
                        frame(&[0xff; 44]),
                    ];
                    pieces.extend((0..10).map(|_| (0..512).map(|_| random.u8(..)).collect()));
                    for piece in pieces {
                        let mut stream = TcpStream::connect(addr).unwrap();
                        stream.set_read_timeout(Some(PATIENCE)).unwrap();
                        // The server may be quicker in closing than we in sending.
                        let _ = stream.write_all(&piece);
                        let _ = stream.shutdown(Shutdown::Write);
                        wait_end(&mut stream);
                    }
                }
                // A session that was fine until now.
                let mut client = Client::open(ensemble.client_address(sid)).unwrap();
                client.0.stream().write_all(&[0xff; 64]).unwrap();
                wait_end(client.0.stream());
            }
            for (i, client) in good.iter_mut().enumerate() {
                assert_eq!(client.create(&format!("/after-{i}"), b"", false).unwrap(), 0);
            }
            assert_eq!(ensemble.wait().unwrap(), leader);
            assert_eq!(ensemble.handle(leader).status().get().unwrap().epoch, epoch);
            assert_equal(&ensemble);
        },
    );
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody() {
    on_all(
        |builder| builder,
        |ensemble| {
            let leader = ensemble.leader().unwrap();
            let mut lazy = Client::open(ensemble.client_address(leader)).unwrap();
            let (data, asked) = (vec![b'z'; 100_000], 400);
            assert_eq!(lazy.create("/large", &data, false).unwrap(), 0);
            for xid in 0..asked {
                let get = request(1000 + xid, Opcode::GetData.wire(), &read("/large", false));
                lazy.0.stream().write_all(&get).unwrap();
            }
            for sid in ensemble.members() {
                create(&ensemble, sid, &format!("/quick-{sid}"));
            }
            for xid in 0..asked {
                let answer = read_frame(lazy.0.stream()).unwrap();
                assert_eq!(answer[..4], (1000 + xid).to_be_bytes());
                assert_eq!(answer[20..20 + data.len()], data);
            }
        },
    );
}

#[test]
fn thousands_of_idle_connections() {
    // Both ends are in this process, and blocking threads come two per connection.
    let room = open_files_max().saturating_sub(500) / 2;
    for runtime in Runtime::ALL {
        let wanted = if *runtime == Runtime::Std { 500 } else { 3000 };
        let ensemble = Ensemble::builder().voters(1).runtime(*runtime).start().unwrap();
        let addr = ensemble.client_address(Sid(1));
        let mut idle: Vec<Client> =
            (0..wanted.min(room)).map(|_| Client::open(addr).unwrap()).collect();
        assert_eq!(ensemble.ask(Sid(1), Service::connections), idle.len());
        let step = (idle.len() / 20).max(1);
        for (i, client) in idle.iter_mut().step_by(step).enumerate() {
            assert_eq!(client.create(&format!("/{i}"), b"", true).unwrap(), 0);
        }
        drop(idle);
        let until = Instant::now() + PATIENCE;
        while ensemble.ask(Sid(1), Service::connections) > 0 {
            assert!(Instant::now() < until, "connections outlive their clients");
            std::thread::sleep(Duration::from_millis(1));
        }
        create(&ensemble, Sid(1), "/and-now");
    }
}

#[test]
fn a_leader_that_is_cut_off_is_replaced() {
    on_all(Builder::links, |ensemble| {
        for (n, link) in [Link::Cut, Link::Frozen].into_iter().enumerate() {
            let leader = ensemble.wait().unwrap();
            let mut of_old = Client::open(ensemble.client_address(leader)).unwrap();
            ensemble.isolate(leader, link);
            let next = ensemble.wait_beside(leader).unwrap();
            assert_ne!(leader, next);
            create(&ensemble, next, &format!("/majority-{n}"));
            // The minority commits nothing.
            let written = of_old.create(&format!("/minority-{n}"), b"", false);
            assert!(written.is_err(), "{written:?}");
            ensemble.heal();
            ensemble.wait().unwrap();
            assert_everywhere(&ensemble, &format!("/majority-{n}"));
            let mut client = Client::open(ensemble.client_address(leader)).unwrap();
            assert_eq!(client.get(&format!("/minority-{n}")).unwrap(), None);
        }
        assert_equal(&ensemble);
    });
}

#[test]
fn followers_that_do_not_hear_each_other_go_on() {
    let ensemble = Ensemble::builder().links().start().unwrap();
    let leader = ensemble.leader().unwrap();
    let followers: Vec<Sid> = ensemble.members().filter(|sid| *sid != leader).collect();
    ensemble.set_link(followers[0], followers[1], Link::Cut);
    create(&ensemble, followers[0], "/x");
    assert_everywhere(&ensemble, "/x");
    assert_eq!(ensemble.leader(), Some(leader));
}

#[test]
fn nothing_is_left_behind() {
    let ensemble = Ensemble::start(3).unwrap();
    let dirs: Vec<_> = ensemble.members().map(|sid| ensemble.data_dir(sid)).collect();
    let addr = ensemble.client_address(Sid(1));
    assert!(dirs.iter().all(|dir| dir.exists()));
    drop(ensemble);
    assert!(dirs.iter().all(|dir| !dir.exists() && !dir.parent().unwrap().exists()));
    assert!(TcpStream::connect(addr).is_err());
}

/// How many files this process may open.
fn open_files_max() -> usize {
    let mut text = String::new();
    let limits = std::fs::File::open("/proc/self/limits");
    limits.and_then(|mut file| file.read_to_string(&mut text)).unwrap();
    let line = text.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(3).and_then(|n| n.parse().ok()).unwrap_or(usize::MAX)
}
