//! A healthy ensemble among strangers: what a process that is no member says on the ports of the peers,
//! and a member that comes back with the directory of another ensemble, or with a damaged promise.
//!
//! Whoever is not in the quorum changes no role of those who are, and keeps nobody from writing for
//! longer than a bound (rules R19 to R24). The draws are a stream of their own: what happens before does
//! not depend on them.

use zab_proto::wire::body::LearnerInfo;
use zab_proto::wire::handshake::{Form, Handshake};
use zab_proto::wire::notification::Notification;
use zab_proto::wire::packet::{Packet, PacketType};
use zab_proto::{Channel, EnsembleId, Epoch, Identity, Limits, Sid, Zxid};

use crate::members::sid_of;
use crate::mutation::Mutation;
use crate::net::Side;
use crate::options::Options;
use crate::plan::Death;
use crate::queue::{Event, HostIx, MILLI, SECOND};
use crate::recovery::{patience, tick};
use crate::rng::Rng;
use crate::subject::{Client, Subject};
use crate::world::World;

/// Whether the ensemble of a run has an id, and is besieged at its end.
pub(crate) fn drawn(seed: u64) -> bool {
    Rng::new(seed, 0x51_e6e).chance(200)
}

/// Another ensemble than any of those that are simulated.
const FOREIGN: Identity = Identity { id: EnsembleId::new(u128::MAX), confirmed: true };

/// Besieges an ensemble in good health.
pub(crate) fn besiege<A: Subject>(world: &mut World<A>) {
    let rng = &mut Rng::new(world.options.seed, 0x5_1e6e);
    let Some(leader) = world.leader() else { return };
    // Within a window of a few bytes a member may lag, or a client wait, without any stranger: that is
    // known, and would be taken for the strangers' doing.
    let (limits, default) = (world.options.limits, Limits::default());
    let narrow = limits.window_len_max_bytes < default.window_len_max_bytes
        || limits.requests_len_max_bytes < default.requests_len_max_bytes
        || world.options.limits_differ;
    if narrow {
        return;
    }
    world.checker.borrow_mut().coverage.count("besieged");
    let others: Vec<HostIx> = (0..world.options.voters).filter(|s| *s != leader).collect();
    // Without it there has to be a quorum.
    let odd = (world.options.voters >= 3).then(|| rng.pick(&others));
    match odd {
        Some(server) if rng.chance(250) => without_leader(world, rng, server),
        Some(server) if rng.chance(200) => beside_a_liar(world, rng, leader, server),
        _ => among_strangers(world, rng, leader, odd),
    }
}

/// Strangers at all ports, and perhaps an odd member, while the ensemble serves.
fn among_strangers<A: Subject>(
    world: &mut World<A>,
    rng: &mut Rng,
    leader: HostIx,
    odd: Option<HostIx>,
) {
    let mut odd = odd.filter(|_| rng.chance(600));
    let hosts = world.client_hosts();
    let is_foreign = rng.chance(500);
    if let Some(server) = odd {
        let came = if is_foreign {
            bring_foreign(world, rng, server)
        } else {
            bring_damaged(world, rng, server)
        };
        odd = odd.filter(|_| came);
    }
    if let Some(server) = odd {
        world.queue.push(world.now + 10 * MILLI, Event::Start { server });
        if is_foreign && world.options.mutation == Some(Mutation::ForeignHistoryTaken) {
            yield_to_claims(world, leader);
        }
    }
    let before = Before { began: world.now, changes: world.role_changes(), hosts };
    let mut strangers = Vec::new();
    let until = world.now + 4 * SECOND + 8 * tick(&world.options);
    let (mut committed, mut since, mut longest) = (0, world.now, 0);
    while world.now < until && world.failure().is_none() {
        strangers.extend(accost(world, rng, leader, odd));
        let pause = world.now + rng.exponential(100 * MILLI).max(MILLI);
        world.run_until(pause.min(until), |world| {
            let now = world.checker.borrow().committed();
            if now > committed {
                longest = longest.max(world.now - since);
                (committed, since) = (now, world.now);
            }
            false
        });
    }
    longest = longest.max(world.now - since);
    let shows = world.failure().is_none();
    if shows {
        judge(world, odd, &before, longest);
    }
    for conn in strangers {
        world.net.close(world.now, conn, Side::Dialler, &mut world.queue);
    }
    if shows {
        let gone = world.now + SECOND;
        world.run_until(gone, |_| false);
        lead_again(world, leader, odd);
    }
    send_home(world, odd.filter(|_| is_foreign));
}

/// How everybody was before anybody strange came.
struct Before {
    began: u64,
    changes: Vec<u32>,
    hosts: Vec<Option<HostIx>>,
}

/// E6: nobody but the odd one has changed its role; L6: nobody has waited for long.
fn judge<A: Subject>(world: &mut World<A>, odd: Option<HostIx>, before: &Before, longest: u64) {
    let now = world.role_changes();
    let fits = |server: &usize| Some(*server) != odd && now[*server] != before.changes[*server];
    if let Some(server) = (0..now.len()).find(fits) {
        let text = format!("strangers disturb s{}", server + 1);
        world.checker.borrow_mut().fail("E6", text);
    }
    let hosts = world.client_hosts();
    let elsewhere = |seat: usize| {
        let stays = |host: Option<HostIx>| host.is_some() && host != odd;
        let client = &world.clients[seat].client;
        // Who sends something that is refused waits in vain before it goes on.
        stays(hosts[seat]) && stays(before.hosts[seat]) && client.in_vain_until() < before.began
    };
    let writes = (0..world.clients.len()).any(elsewhere);
    if writes && longest > SECOND + 2 * tick(&world.options) {
        let text = format!("strangers kept all from writing for {} ms", longest / MILLI);
        world.checker.borrow_mut().fail("L6", text);
    }
}

/// What strangers have said has no effect later either: without the leader the others elect another one.
fn lead_again<A: Subject>(world: &mut World<A>, leader: HostIx, odd: Option<HostIx>) {
    if world.failure().is_some() || world.options.voters < 3 || odd.is_some() {
        return;
    }
    world.die(leader, Death::Kill);
    let deadline = world.now + patience(&world.options);
    let led = world.run_until(deadline, |world| {
        let others = (0..world.options.voters).filter(|server| *server != leader);
        others.into_iter().all(|server| world.serves(server))
    });
    if !led && world.failure().is_none() {
        let text = format!("no leader after what strangers said{}", world.describe());
        world.checker.borrow_mut().fail("E6", text);
    }
    world.queue.push(world.now, Event::Start { server: leader });
}

/// A follower acknowledges what it cannot have. Its leader believes it nothing any more: it loses its connection,
/// nobody else anything, and finds its way back.
///
/// (A follower that acknowledges what it was sent and has not on its disk cannot be told from an honest one by
/// anybody; with it as one of a quorum, what is lost with the others' disks is lost.)
fn beside_a_liar<A: Subject>(world: &mut World<A>, rng: &mut Rng, leader: HostIx, liar: HostIx) {
    // Nothing is under way, in whose middle the lie would stand.
    if !spare_one(world) {
        return;
    }
    let epoch =
        world.checker.borrow().server(leader).status.map_or(Epoch(0), |status| status.epoch);
    let last = world.disks[leader].issued.last().0.max(Zxid::new(epoch, 0));
    let ahead = rng.pick(&[1000, 1 << 20, 1 << 31, 1 << 32]);
    let mut bytes = Vec::new();
    Packet::new(PacketType::ACK, Zxid::from_raw(last.raw() + ahead), None).write(&mut bytes);
    let before =
        Before { began: world.now, changes: world.role_changes(), hosts: world.client_hosts() };
    world.quiet = true;
    if !world.serves(liar) || !world.inject_bytes(liar, leader, Channel::Quorum, &bytes) {
        world.quiet = false;
        return;
    }
    world.checker.borrow_mut().coverage.count("besieged: a liar");
    let deadline = world.now + patience(&world.options);
    world.run_until(deadline, |world| world.role_changes()[liar] != before.changes[liar]);
    if world.role_changes()[liar] == before.changes[liar] && world.failure().is_none() {
        let text = format!("s{} acknowledges what it was not sent, and is heard on", liar + 1);
        world.checker.borrow_mut().fail("R19", text);
    }
    world.quiet = false;
    (0..world.clients.len())
        .for_each(|client| world.queue.push(world.now, Event::Client { client }));
    if !world.run_until(deadline, |world| world.serves(liar)) && world.failure().is_none() {
        let text = format!("s{} is not back after its lie\n{}", liar + 1, world.describe());
        world.checker.borrow_mut().fail("L1", text);
    }
    if world.failure().is_none() {
        judge(world, Some(liar), &before, 0);
    }
}

/// All are down, and the one with the foreign directory is there first.
fn without_leader<A: Subject>(world: &mut World<A>, rng: &mut Rng, server: HostIx) {
    if !bring_foreign(world, rng, server) {
        return;
    }
    world.checker.borrow_mut().coverage.count("besieged: foreign directory, no leader");
    let n = world.servers.len();
    (0..n).for_each(|other| world.die(other, Death::Kill));
    world.queue.push(world.now + MILLI, Event::Start { server });
    let mut at = world.now + rng.below(SECOND);
    for other in (0..n).filter(|other| *other != server) {
        world.queue.push(at, Event::Start { server: other });
        at += rng.pick(&[0, 10 * MILLI, SECOND, 5 * SECOND]);
    }
    let deadline = at + patience(&world.options);
    let led = world.run_until(deadline, |world| {
        (0..n).filter(|other| *other != server).all(|other| world.serves(other))
    });
    if !led && world.failure().is_none() {
        let text = format!("no leader beside s{}, a foreigner{}", server + 1, world.describe());
        world.checker.borrow_mut().fail("E7", text);
    }
    send_home(world, Some(server));
}

/// A foreign member gets an empty directory, as the error says, and all are to be well again.
fn send_home<A: Subject>(world: &mut World<A>, foreign: Option<HostIx>) {
    if world.failure().is_some() {
        return;
    }
    if let Some(server) = foreign {
        world.die(server, Death::Kill);
        world.disks[server].wipe();
    }
    let before = world.completed();
    world.heal();
    world.await_health(&before);
}

/// A server is down, and its disk that of another ensemble, which has had more elections; false if the
/// others cannot spare what it had, or have no id to tell it by.
fn bring_foreign<A: Subject>(world: &mut World<A>, rng: &mut Rng, server: HostIx) -> bool {
    let spared = spare_one(world);
    let voters = world.options.voters;
    let has_id = |disk: &crate::disk::Disk| disk.durable.identity.is_some_and(|id| id.confirmed);
    if !spared || !world.disks[..voters].iter().all(has_id) {
        return false;
    }
    world.checker.borrow_mut().coverage.count("besieged: foreign directory");
    world.die(server, Death::Power);
    world.disks[server].wipe();
    let highest = world.disks.iter().map(|disk| disk.durable.accepted.unwrap_or_default()).max();
    let epoch = Epoch(highest.unwrap_or_default().0 + rng.pick(&[5, 100, 1 << 15]));
    let hidden = matches!(
        world.options.mutation,
        Some(Mutation::IdentityNotCompared | Mutation::ForeignHistoryTaken)
    );
    let identity = (!hidden).then_some(FOREIGN);
    world.disks[server].make_foreign(epoch, rng.pick(&[1, 5, 50]), identity);
    world.compare();
    true
}

/// Waits, without clients, until nothing relies on what one of the disks has; whether that came.
fn spare_one<A: Subject>(world: &mut World<A>) -> bool {
    world.quiet = true;
    let until = world.now + 2 * SECOND;
    let spared = world.run_until(until, |world| world.can_spare_one());
    world.quiet = false;
    (0..world.clients.len())
        .for_each(|client| world.queue.push(world.now, Event::Client { client }));
    spared
}

/// A server is down, and its `acceptedEpoch` damaged. Beyond belief that is a promise forgotten, and what
/// the leader sends is to replace the history: it must not be behind what the server has, for the
/// observer's sake. (For the server it may be: it votes only when it has the rest, too.)
fn bring_damaged<A: Subject>(world: &mut World<A>, rng: &mut Rng, server: HostIx) -> bool {
    if !spare_one(world) {
        return false;
    }
    world.checker.borrow_mut().coverage.count("besieged: accepted epoch damaged");
    world.die(server, Death::Kill);
    let accepted = world.disks[server].durable.accepted.unwrap_or_default();
    let rise = rng.pick(&[1, 2, 100, 1 << 20, i64::from(i32::MAX)]);
    world.disks[server].damage_epochs(Epoch(accepted.0.saturating_add(rise)), None);
    true
}

/// As a leader did that steps down for a claim: its learners are lost, and an election begins.
fn yield_to_claims<A: Subject>(world: &mut World<A>, leader: HostIx) {
    for (conn, _) in world.net.of_host(leader) {
        if world.net.conn(conn).channel == Channel::Quorum {
            world.net.reset(world.now, conn, &mut world.queue);
        }
    }
}

/// A stranger dials a server and says something; the number of its connection. Votes go to servers that
/// serve: one that looks for a leader has to believe whoever has a member's id.
fn accost<A: Subject>(
    world: &mut World<A>,
    rng: &mut Rng,
    leader: HostIx,
    odd: Option<HostIx>,
) -> Option<u32> {
    let to = if rng.chance(500) { leader } else { rng.index(world.servers.len()) };
    let epoch = world.checker.borrow().server(leader).status.map_or(0, |status| status.epoch.0);
    let claim = rng.pick(&[epoch + 1, epoch + 50, epoch + (1 << 20), 0x7fff_fffe, 0x7fff_ffff, -1]);
    let (channel, bytes) = if rng.chance(500) {
        let sid = claimed_sid(rng, &world.options);
        let deposed = world.options.mutation == Some(Mutation::LeaderLeavesForClaim)
            && to == leader
            && claim > epoch
            && (0..world.options.voters).any(|voter| sid_of(voter) == sid);
        if deposed {
            yield_to_claims(world, leader);
        }
        (Channel::Quorum, introduction(rng, sid, claim))
    } else {
        if Some(to) == odd || !world.serves(to) {
            return None;
        }
        let sid = claimed_sid(rng, &world.options);
        let believed = world.options.mutation == Some(Mutation::VoteConfigBelieved);
        let (bytes, configured) = vote(rng, sid, claim);
        world.servers[to].misled |= believed && configured && to != leader;
        (Channel::Election, bytes)
    };
    Some(say(world, to, channel, &bytes))
}

/// The same while anything may happen, by somebody who claims no member's id: a server that looks for a leader
/// has to believe those, and one that leads takes them for a member that is not there otherwise.
pub(super) fn accost_in_trouble<A: Subject>(world: &mut World<A>, to: HostIx, words: u64) {
    let rng = &mut Rng::new(words, 0);
    let sid = strange_sid(rng);
    let epoch = rng.pick(&[0, 1, 2, 3, 50, 1 << 20, 0x7fff_fffe, 0x7fff_ffff, -1]);
    let (channel, bytes) = if rng.chance(500) {
        (Channel::Quorum, introduction(rng, sid, epoch))
    } else {
        (Channel::Election, vote(rng, sid, epoch).0)
    };
    say(world, to, channel, &bytes);
}

/// A stranger dials a server and writes; the number of its connection.
fn say<A: Subject>(world: &mut World<A>, to: HostIx, channel: Channel, bytes: &[u8]) -> u32 {
    let from = world.servers.len();
    let conn = world.net.dial(world.now, from, None, to, channel, &mut world.queue);
    world.net.write(world.now, conn, Side::Dialler, bytes, &mut world.queue);
    conn
}

/// A member's id twice of three times.
fn claimed_sid(rng: &mut Rng, options: &Options) -> Sid {
    match rng.below(3) {
        0 => strange_sid(rng),
        _ => sid_of(rng.index(options.servers())),
    }
}

/// An id of nobody.
fn strange_sid(rng: &mut Rng) -> Sid {
    Sid(rng.pick(&[0, 77, -5, i64::MAX, i64::MIN]))
}

/// FOLLOWERINFO or OBSERVERINFO, and perhaps an ACKEPOCH with a history ahead of everybody's.
fn introduction(rng: &mut Rng, sid: Sid, epoch: i64) -> Vec<u8> {
    let kinds = [PacketType::FOLLOWERINFO, PacketType::FOLLOWERINFO, PacketType::OBSERVERINFO];
    let mut bytes = Vec::new();
    let zxid = Zxid::from_raw(epoch << 32);
    let info = LearnerInfo::encode(sid, 0);
    Packet::new(rng.pick(&kinds), zxid, Some(&info)).write(&mut bytes);
    if rng.chance(500) {
        let current = i32::try_from(epoch).unwrap_or(-1).to_be_bytes();
        let last = Zxid::from_raw(zxid.raw().saturating_add(5));
        Packet::new(PacketType::ACKEPOCH, last, Some(&current)).write(&mut bytes);
        Packet::new(PacketType::ACK, last, None).write(&mut bytes);
    }
    bytes
}

/// A vote for whoever casts it, and whether it comes with a newer configuration of other members.
fn vote(rng: &mut Rng, sid: Sid, epoch: i64) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    Handshake { form: Form::V1, sid, text: "127.0.0.1:1" }.write(&mut bytes);
    let configured = rng.chance(500);
    let other = b"server.1=x:1:2:participant\nserver.9=x:3:4:participant\nversion=7fffffff00000001";
    let config: &[u8] = if configured { other } else { b"version=0" };
    let vote = Notification {
        state: rng.pick(&[0, 0, 0, 1, 2, 3, 9]),
        leader: sid,
        zxid: Zxid::from_raw(epoch << 32 | 7),
        election_epoch: rng.pick(&[0, 1, 1 << 40, i64::MAX]),
        peer_epoch: Epoch(epoch),
        version: 2,
        config: Some(config),
    };
    vote.write_frame(&mut bytes);
    (bytes, configured)
}
