//! Random schedules: crashes, restarts, partitions and bad timing, then peace, in which everybody
//! must come to agree. Soundness (E1, E2, E5) is checked at every step by the network.

use core::time::Duration;

use super::net::{MS, Net, ensemble};
use crate::{Epoch, ServerState, Sid};

/// What the roles do that an election leads to: a leader needs a quorum that follows it and a
/// learner needs a leader that leads, or they look again. Checked every `patience`.
fn supervise(net: &mut Net, patience: Duration) {
    for sid in net.running() {
        let Some(outcome) = net.servers[&sid].outcome else { continue };
        if net.now < outcome.at + patience {
            continue;
        }
        let follows = |other: Sid| {
            net.servers.get(&other).is_some_and(|server| {
                server.running && server.outcome.is_some_and(|o| o.leader == outcome.leader)
            })
        };
        let leader = &net.servers[&outcome.leader];
        let lost = match outcome.state {
            ServerState::Leading => !net.ensemble.is_quorum(follows),
            // A leader that ends its reign hangs up on all learners, even if it is elected again.
            _ => {
                !leader.running
                    || leader.outcome.is_none_or(|o| o.state != ServerState::Leading)
                    || (net.servers[&sid].established && leader.epoch != net.servers[&sid].epoch)
            }
        };
        if lost {
            let leader = Some(outcome.leader).filter(|leader| *leader != sid);
            net.look(sid, leader);
        } else if !net.servers[&sid].established && (sid == outcome.leader || leader.established) {
            let newest = net.servers.values().map(|server| server.epoch).max().unwrap_or(0);
            let epoch = if sid == outcome.leader { newest + 1 } else { leader.epoch };
            let (zxid, now) = (leader.zxid, net.now);
            let server = net.server(sid);
            server.established = true;
            server.trusted = true;
            server.zxid = zxid;
            server.epoch = epoch;
            server.port.established(now, Epoch(epoch));
            net.drain(sid);
        }
    }
}

fn reboot(net: &mut Net, sid: Sid) {
    let server = &net.servers[&sid];
    let (epoch, zxid, trusted) = (server.epoch, server.zxid, server.trusted);
    net.boot(sid.0, epoch, zxid, trusted);
}

fn trouble(net: &mut Net, n: i64) {
    let below = u64::try_from(n).unwrap();
    let mut pick = || Sid(1 + i64::try_from(net.random(below)).unwrap());
    let (a, b) = (pick(), pick());
    match net.random(6) {
        0 if net.servers[&a].running => net.kill(a.0),
        1 if net.servers[&a].running => {
            let lost = net.servers[&a].outcome.map(|outcome| outcome.leader);
            net.look(a, lost.filter(|leader| *leader != a));
        }
        2 if a != b => {
            net.cut.insert((a.min(b), a.max(b)));
        }
        3 => net.heal(),
        // At most one disk is lost at a time, as in life one hopes.
        4 if !net.servers[&a].running
            && net.servers.values().all(|server| server.trusted && server.epoch > 0) =>
        {
            net.boot(a.0, 0, 0, false);
        }
        _ if !net.servers[&a].running => reboot(net, a),
        _ if net.servers[&a].trusted => {
            let more = i64::try_from(net.random(3)).unwrap();
            net.server(a).zxid += more;
        }
        _ => {}
    }
}

fn schedule(seed: u64, n: i64, chunk: usize) {
    let mut net = Net::new(ensemble(n, &[], &[]), seed);
    net.chunk = chunk;
    for sid in 1..=n {
        net.boot(sid, 0, 0, true);
    }
    for _ in 0..60 {
        let pause = net.random(if seed.is_multiple_of(2) { 3_000 } else { 300_000 });
        net.run_for(Duration::from_micros(pause));
        supervise(&mut net, 100 * MS);
        trouble(&mut net, n);
    }
    net.heal();
    for sid in 1..=n {
        if !net.servers[&Sid(sid)].running {
            reboot(&mut net, Sid(sid));
        }
    }
    // Dials into the dark end after 5 s; then two elections, and the patience between them.
    let end = net.now + 8000 * MS;
    while net.agreed().is_none() || !net.is_stable() {
        assert!(net.now < end, "seed {seed}: {:#?}", net.outcomes());
        net.run_for(10 * MS);
        supervise(&mut net, 100 * MS);
    }
}

#[test]
fn three_servers() {
    (0..200).for_each(|seed| schedule(seed, 3, 4096));
}

#[test]
fn five_servers() {
    (0..100).for_each(|seed| schedule(seed, 5, 4096));
}

#[test]
fn small_pieces() {
    (0..20).for_each(|seed| schedule(seed, 3, 7));
}
