//! Scenarios: scripts that bring servers into one situation that has broken ZooKeeper, or could.
//!
//! A script is a text of commands, one a line; `#` begins a comment. Servers are named by sid.
//!
//! | command | meaning |
//! |---|---|
//! | `servers V [O]` | V voters and O observers; first line |
//! | `spares N` | N more servers, which are no members yet; the members may change |
//! | `oracle` | all servers have an oracle; what it says, until told otherwise, is no |
//! | `grant I`, `deny I` | the oracle of server I says yes, or no |
//! | `heartbeat N` | N ms between heartbeats; 0: none, as Apache's servers |
//! | `service N` | the ZooKeeper service, with N clients that ask by themselves all the time |
//! | `retain N` | committed transactions kept for DIFF |
//! | `snapshots N` | a snapshot every N transactions |
//! | `unmarked` | empty directories have no marker that makes them trustworthy |
//! | `start I…`, `kill I…`, `power I…` | a process starts or dies; `power` loses what is not synced |
//! | `wipe I` | a dead server gets an empty disk |
//! | `epochs I A [C]` | a dead server's files say that it has accepted epoch A (and is in epoch C) |
//! | `cut A B`, `cut A > B`, `mend …` | both directions of a link, or one |
//! | `isolate I`, `rejoin I` | all links of a server |
//! | `stall I`, `unstall I` | its disk completes nothing |
//! | `write I [N]`, `read I`, `sync I` | clients of server I write N times, read, read after sync |
//! | `until leader I` | I leads with an established epoch |
//! | `until serves I [MODE]` | I serves, having been synchronised by that (`Diff`, `Trunc`, `Snap`) |
//! | `until looks I` | I looks for a leader |
//! | `until epoch I N` | I is in epoch N, or looks with that current epoch |
//! | `until committed N` | N transactions are committed |
//! | `until applied I N` | I has applied N |
//! | `until logged I N` | N transactions are in I's log or snapshot, asked for or durable |
//! | `until voters I J…` | I goes by a configuration with these voters |
//! | `until STEP I` | I takes a step: `newleader`, `looking`, `set_epoch`, `truncate`, … |
//! | `patience N ms` | from here on `until` waits so long, and not for a minute |
//! | `now …`, `not …` | what `until` waits for (but a step) holds at this moment, or does not |
//! | `pause I`, `unpause I` | its process does nothing, its connections stay open |
//! | `fail I` | the next thing its disk does fails, which ends the process |
//! | `unresolved I`, `resolved I` | its name cannot be resolved, so nobody can dial it |
//! | `inject A > B PORT HEX` | bytes that A never meant reach B on their connection of that port |
//! | `knock I PORT [HEX]` | a stranger dials I, sends these bytes, and is never heard of again |
//! | `hold A > B`, `release A > B` | once A has opened a snapshot, its bytes to B wait |
//! | `drop KIND A > B` | the next packet of that kind does not arrive |
//! | `members I J…` | the leader I is asked to change the members to these voters, and observers (`3:observer`) |
//! | `activate A > B N` | the next N commits also activate a configuration |
//! | `window N` | bytes in flight and unread per connection |
//! | `counter N` | the counter at which a new epoch begins |
//! | `run N ms` | time passes |
//! | `heal` | all faults end; everything must recover |
//! | `breaks FAULT INVARIANT` | with that fault put into the code, this script finds it |

use zab_proto::wire::packet::PacketType;
use zab_proto::{Channel, Epoch, Membership, Phase, Role, ServerState, Sid};

use crate::check::Failure;
use crate::counter::{Counter, CounterClient};
use crate::members::{member, server_of};
use crate::mutation::Mutation;
use crate::net::Side;
use crate::options::Options;
use crate::plan::Death;
use crate::queue::{Event, HostIx, MILLI};
use crate::recovery::converge;
use crate::replica::{Ask, Replica};
use crate::run::{Outcome, guarded};
use crate::subject::Subject;
use crate::tamper::{PacketRule, Verdict};
use crate::trace::Trace;
use crate::world::World;
use crate::zk::Zk;

/// A named script.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name in the catalogue of failures.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

impl Scenario {
    /// The faults put in on purpose that this script is to find, and the invariants they break.
    pub fn mutations(&self) -> impl Iterator<Item = (Mutation, &'static str)> {
        let breaks = self.lines().filter(|words| words[0] == "breaks");
        breaks.filter_map(|words| Some((Mutation::named(words[1])?, words[2])))
    }

    /// The first line: what it is about.
    #[must_use]
    pub fn title(&self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches(['#', ' '])
    }

    fn lines(&self) -> impl Iterator<Item = Vec<&'static str>> {
        self.text.lines().filter_map(|line| {
            let words: Vec<_> = line.split('#').next()?.split_whitespace().collect();
            (!words.is_empty()).then_some(words)
        })
    }

    /// Plays the script.
    #[must_use]
    pub fn play(&self, mutation: Option<Mutation>, lines: usize) -> Outcome {
        let mut options = Options { mutation, requests: 0, clients: 0, ..Options::calm(1, 3) };
        let mut service = false;
        options.disk.batch = 1;
        options.disk.kill_keeps_all = true;
        for words in self.lines() {
            match words[0] {
                "servers" => {
                    options.voters = number(&words, 1);
                    options.observers = words.get(2).map_or(0, |_| number(&words, 2));
                }
                "service" => {
                    service = true;
                    options.clients = number(&words, 1);
                    options.requests = u32::MAX;
                }
                "oracle" => options.oracle = true,
                "spares" => options.spares = number(&words, 1),
                "heartbeat" => options.heartbeat = number(&words, 1) as u64,
                "retain" => options.retained_txns = number(&words, 1),
                "snapshots" => options.disk.snapshot_every = number(&words, 1),
                "window" => options.net.window = number(&words, 1),
                "counter" => {
                    options.counter_max = u32::try_from(number(&words, 1)).unwrap_or(u32::MAX);
                }
                _ => {}
            }
        }
        if service {
            let mut world = World::<Zk>::asleep(options, Trace::new(lines));
            for client in 0..world.clients.len() {
                world.queue.push(1000, Event::Client { client });
            }
            return self.run(world, |world, _, ask| {
                let text = format!("clients of the service cannot be told to {ask:?}");
                world.checker.borrow_mut().fail("script", text);
            });
        }
        options.clients = options.servers();
        let world = World::<Replica<Counter>>::asleep(options, Trace::new(lines));
        self.run(world, |world, server, ask| {
            world.with_client(server, |client: &mut CounterClient, wish| {
                client.ask(server, ask, wish);
            });
        })
    }

    fn run<A: Subject>(&self, mut world: World<A>, ask: fn(&mut World<A>, HostIx, Ask)) -> Outcome {
        world.has_packet_rules = self.lines().any(|words| matches!(words[0], "drop" | "activate"));
        if !self.lines().any(|words| words[0] == "unmarked") {
            world.initialize();
        }
        guarded(&mut world, |world| {
            for words in self.lines() {
                if world.failure().is_none() {
                    world.command(&words, ask);
                }
            }
        });
        world.conclude()
    }
}

fn number(words: &[&str], at: usize) -> usize {
    let text = words.get(at).copied().unwrap_or_default();
    text.parse().unwrap_or_else(|_| panic!("a number is missing in {words:?}"))
}

fn integer(words: &[&str], at: usize) -> i64 {
    words[at].parse().unwrap_or_else(|_| panic!("a number is missing in {words:?}"))
}

fn server(words: &[&str], at: usize) -> HostIx {
    number(words, at) - 1
}

impl<A: Subject> World<A> {
    fn command(&mut self, words: &[&str], ask: fn(&mut Self, HostIx, Ask)) {
        self.trace.at(self.now);
        self.trace.say(|| format!("---- {}", words.join(" ")));
        let all = || (1..words.len()).map(|at| server(words, at));
        match words[0] {
            "start" => all().for_each(|server| self.start(server)),
            "kill" => all().for_each(|server| self.die(server, Death::Kill)),
            "power" => all().for_each(|server| self.die(server, Death::Power)),
            "wipe" => self.disks[server(words, 1)].wipe(),
            "epochs" => {
                let accepted = Epoch(integer(words, 2));
                let current = words.get(3).map(|_| Epoch(integer(words, 3)));
                self.disks[server(words, 1)].damage_epochs(accepted, current);
            }
            "cut" | "mend" => self.link(words),
            "isolate" | "rejoin" => self.surround(server(words, 1), words[0] == "isolate"),
            "stall" => self.disks[server(words, 1)].stall(true),
            "unstall" => {
                self.disks[server(words, 1)].stall(false);
                self.kick(server(words, 1));
            }
            "grant" | "deny" => {
                self.checker.borrow_mut().granted[server(words, 1)] = words[0] == "grant";
            }
            "pause" => self.pause(server(words, 1)),
            "unpause" => self.unpause(server(words, 1)),
            "fail" => self.disks[server(words, 1)].fail(),
            "unresolved" | "resolved" => {
                self.nameless[server(words, 1)] = words[0] == "unresolved";
            }
            "inject" => self.inject(words),
            "knock" => self.knock(words),
            "hold" => self.held.push((server(words, 1), server(words, 3))),
            "release" => self.release(server(words, 1), server(words, 3)),
            "drop" | "activate" => self.packet_rule(words),
            "members" => self.ask_members(words),
            "patience" => self.patience = number(words, 1) as u64 * MILLI,
            "write" => {
                let times = words.get(2).map_or(1, |_| number(words, 2));
                (0..times).for_each(|_| ask(self, server(words, 1), Ask::Write));
            }
            "read" => ask(self, server(words, 1), Ask::Read),
            "sync" => ask(self, server(words, 1), Ask::SyncRead),
            "until" => self.wait(words),
            "now" | "not" => {
                if self.holds(words) != Some(words[0] == "now") && self.failure().is_none() {
                    self.checker.borrow_mut().fail("script", format!("wrong: {}", words.join(" ")));
                }
            }
            "run" => {
                let until = self.now + number(words, 1) as u64 * MILLI;
                self.run_until(until, |_| false);
            }
            "heal" => converge(self),
            "servers" | "oracle" | "service" | "spares" | "retain" | "snapshots" | "window"
            | "counter" | "unmarked" | "breaks" => {}
            _ => panic!("unknown command {words:?}"),
        }
    }

    fn link(&mut self, words: &[&str]) {
        let one_way = words[2] == ">";
        let (a, b) = (server(words, 1), server(words, if one_way { 3 } else { 2 }));
        let directions = if one_way { vec![(a, b)] } else { vec![(a, b), (b, a)] };
        for (from, to) in directions {
            if words[0] == "cut" {
                self.net.cut(from, to);
            } else {
                self.net.mend(self.now, from, to, &mut self.queue);
            }
        }
    }

    fn inject(&mut self, words: &[&str]) {
        let (from, to) = (server(words, 1), server(words, 3));
        let done = self.inject_bytes(from, to, channel(words[4]), &bytes(words[5]));
        assert!(done, "there is no connection for {words:?}");
    }

    /// A connection of client 1's host, of which that client knows nothing.
    fn knock(&mut self, words: &[&str]) {
        let (from, to, channel) = (self.servers.len(), server(words, 1), channel(words[2]));
        let conn = self.net.dial(self.now, from, None, to, channel, &mut self.queue);
        let hex = words.get(3).copied().unwrap_or_default();
        self.net.write(self.now, conn, Side::Dialler, &bytes(hex), &mut self.queue);
    }

    fn release(&mut self, from: HostIx, to: HostIx) {
        self.held.retain(|held| *held != (from, to));
        for (conn, side) in self.net.of_host(from) {
            if self.net.conn(conn).end(side.other()).host == to {
                self.queue.push(self.now, Event::Writable { conn, from: side });
            }
        }
    }

    fn packet_rule(&mut self, words: &[&str]) {
        let (verdict, kinds, at) = match words {
            ["drop", "PROPOSAL", ..] => (Verdict::Drop, vec![PacketType::PROPOSAL], 2),
            ["drop", "COMMIT", ..] => (Verdict::Drop, vec![PacketType::COMMIT], 2),
            ["drop", "COMMITANDACTIVATE", ..] => {
                (Verdict::Drop, vec![PacketType::COMMITANDACTIVATE], 2)
            }
            ["activate", ..] => {
                (Verdict::Activate, vec![PacketType::COMMIT, PacketType::INFORM], 1)
            }
            _ => panic!("unknown packet {words:?}"),
        };
        let (from, to) = (server(words, at), server(words, at + 2));
        let times = words.get(at + 3).map_or(1, |_| number(words, at + 3));
        let times = u32::try_from(times).unwrap_or(u32::MAX);
        let rules = kinds.into_iter().map(|kind| PacketRule { from, to, kind, verdict, times });
        self.packet_rules.extend(rules);
    }

    /// The leader is asked for other members: `3` votes, `3:observer` does not.
    fn ask_members(&mut self, words: &[&str]) {
        let mut next = Membership::default();
        for word in &words[2..] {
            let (sid, role) = match word.split_once(':') {
                Some((sid, "observer")) => (sid, Role::Observer),
                _ => (*word, Role::Participant),
            };
            let sid = Sid(sid.parse().unwrap_or_else(|_| panic!("no member: {words:?}")));
            next.members.insert(sid, member(server_of(sid), role));
        }
        if self.propose_members(server(words, 1), next).is_none() {
            self.checker.borrow_mut().fail("script", format!("refused: {}", words.join(" ")));
        }
    }

    fn surround(&mut self, server: HostIx, cut: bool) {
        for other in (0..self.servers.len()).filter(|other| *other != server) {
            for (from, to) in [(server, other), (other, server)] {
                if cut {
                    self.net.cut(from, to);
                } else {
                    self.net.mend(self.now, from, to, &mut self.queue);
                }
            }
        }
    }

    fn wait(&mut self, words: &[&str]) {
        let deadline = self.now + self.patience;
        let done = if self.holds(words).is_some() {
            self.run_until(deadline, |world| world.holds(words) == Some(true))
        } else {
            let (who, step) = (server(words, words.len() - 1), words[1..words.len() - 1].join(" "));
            self.steps.clear();
            self.run_until(deadline, |world| {
                world.steps.iter().any(|(server, hook)| *server == who && *hook == step.as_str())
            })
        };
        if !done && self.failure().is_none() {
            let text = format!("the script waits in vain: {}", words.join(" "));
            self.checker.borrow_mut().fail("script", text);
        }
    }

    /// Whether a condition holds; `None` if it is a step.
    fn holds(&self, words: &[&str]) -> Option<bool> {
        let checker = self.checker.borrow();
        let status = || checker.server(server(words, 2)).status;
        Some(match words[1] {
            "leader" => self.leader() == Some(server(words, 2)),
            "serves" => status().is_some_and(|status| {
                let mode = format!("{:?}", status.sync);
                let wanted = words.get(3).is_none_or(|wanted| mode == format!("Some({wanted})"));
                status.phase == Phase::Broadcast && wanted
            }),
            "looks" => status().is_some_and(|status| status.state == ServerState::Looking),
            "voters" => {
                let voters = checker.views[server(words, 2)].in_force.voters();
                voters.map(|sid| sid.to_string()).eq(words[3..].iter().copied())
            }
            "epoch" => status().is_some_and(|status| status.epoch.0 == integer(words, 3)),
            "committed" => checker.committed() >= number(words, 2),
            "applied" => checker.server(server(words, 2)).position >= number(words, 3),
            "logged" => {
                let image = &self.disks[server(words, 2)].issued;
                checker.position_of(image.base()) + image.log.len() >= number(words, 3)
            }
            _ => return None,
        })
    }
}

fn channel(name: &str) -> Channel {
    if name == "election" { Channel::Election } else { Channel::Quorum }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(digits).collect()
}

/// Plays a scenario as it is, and with each fault that it is to find.
///
/// # Errors
/// What broke, or was not found.
pub fn verify(scenario: &Scenario) -> Result<(), Failure> {
    if let Some(failure) = scenario.play(None, 0).failure {
        return Err(failure);
    }
    for (mutation, invariant) in scenario.mutations() {
        let found = scenario.play(Some(mutation), 0).failure.map(|failure| failure.invariant);
        if found != Some(invariant) {
            let text = format!("{mutation:?} is found by {found:?}, not by {invariant}");
            return Err(Failure { invariant: "script", text });
        }
    }
    Ok(())
}
