//! Processes that stop and go on, and what must not follow from that (T1, T2).

use std::time::Duration;

use zab_proto::{CloseReason, ConnId, Epoch, Input, Instant, Phase, ServerState, Status};

use crate::mutation::Mutation;
use crate::options::Options;
use crate::queue::{HostIx, MILLI};
use crate::rng::Rng;
use crate::subject::Subject;
use crate::world::{Seat, World};

/// Heartbeats of a run: how often, and which servers have none, as Apache's.
///
/// Drawn apart from everything else, so that a seed's other circumstances stay what they are.
pub(crate) fn draw_heartbeats(options: &mut Options) {
    let rng = &mut Rng::new(options.seed, 0xbea7);
    options.heartbeat = rng.pick(&[50, 50, 50, 10, 0]).min(half_tick_ms(options));
    if rng.chance(250) {
        options.without_heartbeat = (0..options.servers()).filter(|_| rng.chance(400)).collect();
    }
}

/// How often leaders are asked to make way, in one run of four.
pub(crate) fn resignations(seed: u64) -> u32 {
    Rng::new(seed, 0x2e51).pick(&[0, 0, 0, 0, 0, 0, 300, 2000])
}

fn half_tick_ms(options: &Options) -> u64 {
    u64::try_from(options.tick_time.as_millis() / 2).unwrap_or(u64::MAX)
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

impl Options {
    /// The pause between heartbeats of a server.
    pub(crate) fn heartbeat_of(&self, server: HostIx) -> Duration {
        let has = !self.without_heartbeat.contains(&server);
        Duration::from_millis(if has { self.heartbeat } else { 0 })
    }

    /// A leader that was away for so long must know it: twice a heartbeat if all have them, else a tick more
    /// than others wait for. (Clocks drift by a twentieth at most.)
    fn noticed_after(&self) -> u64 {
        let all = self.heartbeat > 0 && self.without_heartbeat.is_empty();
        let span = match all {
            true => Duration::from_millis(2 * self.heartbeat),
            false => self.tick_time * (self.sync_limit + 1),
        };
        nanos(span)
    }
}

impl<A: Subject> World<A> {
    /// A process does nothing any more. Its connections stay open.
    pub(crate) fn pause(&mut self, server: HostIx) {
        let s = &mut self.servers[server];
        if !s.paused {
            s.paused = true;
            s.paused_at = self.now;
        }
    }

    /// It goes on, with everything that has come meanwhile.
    pub(crate) fn unpause(&mut self, server: HostIx) {
        let now = self.now;
        self.checker.borrow_mut().servers[server].resumed_at = now;
        let s = &mut self.servers[server];
        if std::mem::take(&mut s.paused) {
            s.pause = (s.paused_at, now);
            let state = self.checker.borrow().server(server).status.map(|status| status.state);
            match (self.options.mutation, state) {
                (Some(Mutation::ClockStandsStill), Some(ServerState::Leading)) => {
                    s.stood_still += now - s.paused_at;
                }
                (Some(Mutation::PauseConcealed), Some(ServerState::Following)) => {
                    self.conceal_pause(server);
                }
                _ => {}
            }
        }
        for event in std::mem::take(&mut self.servers[server].deferred) {
            self.queue.push(now, event);
        }
    }

    /// A mutation: the core hears of the time that has passed, bit by bit, before it hears of anything else.
    fn conceal_pause(&mut self, server: HostIx) {
        let (mut at, end) = self.servers[server].pause;
        while at < end {
            at = (at + 2 * MILLI).min(end);
            let s = &mut self.servers[server];
            let now: Instant = s.clock(at);
            if let Some(node) = &mut s.node {
                node.handle_input(now, Input::Timeout);
            }
        }
        self.settle(server);
    }

    /// A server's role or phase changes.
    pub(crate) fn note_reign(&mut self, status: &Status) {
        let established = status.state == ServerState::Leading && status.phase == Phase::Broadcast;
        if established {
            self.established_at.push((status.epoch, self.now));
        }
    }

    /// T1: a leader that was away for so long that it must know it answers no client if another leader was
    /// established meanwhile.
    pub(crate) fn judge_answer(&mut self, server: HostIx) {
        let status = self.checker.borrow().server(server).status;
        let Some(Status { state: ServerState::Leading, epoch, .. }) = status else { return };
        let (paused, resumed) = self.servers[server].pause;
        if resumed - paused < self.options.noticed_after() {
            return;
        }
        let newer = |(other, at): &&(Epoch, u64)| *other > epoch && (paused..resumed).contains(at);
        if let Some((other, _)) = self.established_at.iter().find(newer) {
            let text = format!(
                "s{} was away when epoch {other} began, and answers clients as leader of {epoch}",
                server + 1
            );
            self.checker.borrow_mut().fail("T1", text);
        }
    }

    /// A server closes a connection. Whether it should is the application's to say, if it is a client's that
    /// has not left it.
    pub(crate) fn judge_closing(&mut self, server: HostIx, name: ConnId, conn: u32) {
        let is_there = |seat: &Seat<A::Client>| seat.conn == Some(conn);
        if !name.is_client() || !self.clients.iter().any(is_there) {
            return;
        }
        let s = &self.servers[server];
        let now = s.clock(self.now);
        if let Some(failure) = s.node.as_ref().and_then(|node| node.app().app.closes(now, name)) {
            let text = format!("s{}: {}", server + 1, failure.text);
            self.checker.borrow_mut().fail(failure.invariant, text);
        }
    }

    /// T2: who was away itself suspects nobody for what it has not heard.
    pub(crate) fn judge_suspicion(&mut self, server: HostIx, reason: CloseReason) {
        let CloseReason::Suspected { .. } = reason else { return };
        let every = nanos(self.options.heartbeat_of(server));
        let status = self.checker.borrow().server(server).status;
        let leader = status.and_then(|status| usize::try_from(status.leader?.0 - 1).ok());
        let gone = leader.is_none_or(|leader| {
            let s = &self.servers[leader];
            s.paused
                || s.node.is_none()
                || self.net.is_cut(leader, server)
                || self.now - s.pause.1 < nanos(self.options.tick_time)
        });
        let what =
            if gone { "suspicion: the leader is away" } else { "suspicion: the leader runs" };
        let mut checker = self.checker.borrow_mut();
        checker.coverage.count(what);
        // Three heartbeats must be missing, by a clock that may be a twentieth too fast.
        let awake = self.now - checker.server(server).resumed_at;
        let (paused, resumed) = self.servers[server].pause;
        // A pause that began right after a look at the clock is noticed when it is longer than one and a half
        // heartbeats; five are missed before anybody is suspected.
        let noticed = resumed - paused >= every * 3 / 2 * 21 / 20;
        if noticed && awake < 3 * every * 19 / 20 {
            let ms = awake / MILLI;
            let text = format!("s{} suspects its leader, and runs for {ms} ms itself", server + 1);
            checker.fail("T2", text);
        }
    }
}
