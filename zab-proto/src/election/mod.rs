//! The election port of a server: its connections and the election itself.
//!
//! [`connections`] knows who dials whom and keeps one notification for each server, [`algorithm`]
//! is fast leader election on decoded votes, [`bootstrap`] keeps servers without a trusted history
//! out of it, [`overtaken`] and [`failed_leaders`] end and avoid elections that come to nothing. This file joins them.

mod algorithm;
mod bootstrap;
mod connections;
mod failed_leaders;
mod overtaken;
#[cfg(test)]
mod tests;

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use self::algorithm::{Algorithm, CastVote, Decision, Step};
use self::bootstrap::Bootstrap;
use self::connections::{Connections, Frame};
use self::overtaken::Overtaken;
use crate::identity::{Identity, differ};
use crate::quorums::Quorums;
use crate::reconfig;
use crate::wire::extension::{self, Tag};
use crate::wire::notification::Notification;
use crate::{
    CloseReason, Config, ConnId, Epoch, Instant, Member, Membership, Notice, Role, ServerState,
    Sid, Vote, Zxid,
};

/// What the election port asks of the world.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ElectionOutput {
    /// Dial the election port of a server.
    Connect {
        /// Name of the new connection.
        conn: ConnId,
        /// `host:port`, several joined by `|`.
        addresses: String,
    },
    /// There is something to send where there was nothing.
    Transmit {
        /// The connection to ask [`ElectionPort::poll_transmit`] for.
        conn: ConnId,
    },
    /// Close a connection, which is forgotten already.
    Close {
        /// The connection.
        conn: ConnId,
        /// Why, for the log.
        reason: CloseReason,
    },
    /// The election is over.
    Decided {
        /// What this server becomes.
        state: ServerState,
        /// The vote that won.
        vote: Vote,
    },
    /// A member has a newer configuration in force.
    NewerConfig(Membership),
    /// A candidate that no configuration known here names, and where it is.
    Newcomer(Sid, Member),
    /// For the log.
    Notice(Notice),
    /// The election just decided cannot succeed: the elected leader, or so many of its voters that no
    /// quorum is left, now vote for another server. Comes only before
    /// [`established`](ElectionPort::established), at most once; start again.
    Overtaken,
}

/// Things that went wrong without harm, for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct ElectionCounters {
    /// Notifications that could not be read.
    pub(crate) malformed: u64,
    /// Configurations in them that could not.
    pub(crate) malformed_config: u64,
    /// Configurations newer than ours. A vote is no proof of them (rule R20): a change of the members
    /// is believed of the leader that this server has dialled.
    pub(crate) newer_config: u64,
}

/// The election port of one server.
#[derive(Debug)]
pub(crate) struct ElectionPort {
    me: Sid,
    algorithm: Algorithm,
    connections: Connections,
    /// Which ensemble this server's directory belongs to.
    identity: Option<Identity>,
    /// Present while this server looks for a leader without a trusted history.
    bootstrap: Option<Bootstrap>,
    bootstrapped: bool,
    /// Present from a decision until the epoch is established.
    overtaken: Option<Overtaken>,
    /// The last role ended before its epoch was established.
    in_vain: bool,
    /// Whether a newer configuration in a vote may be believed (`Config::reconfig`).
    reconfig: bool,
    /// Whose notification has come last, and whether it looks for a leader (and has not just connected,
    /// as then it may repeat something long past).
    voice: Option<(Sid, bool)>,
    /// A voter has said in this election that this server is a voter of a configuration that is being
    /// introduced.
    needed: bool,
    counters: ElectionCounters,
}

impl ElectionPort {
    pub(crate) fn new(config: &Config, quorums: Arc<Quorums>) -> Self {
        let init_limit = config.ticks(config.init_limit);
        Self {
            me: config.sid,
            connections: Connections::new(config, &quorums),
            algorithm: Algorithm::new(config.sid, quorums, config.election, init_limit)
                .with_reconfig(config.reconfig),
            identity: None,
            bootstrap: None,
            bootstrapped: false,
            overtaken: None,
            in_vain: false,
            reconfig: config.reconfig,
            voice: None,
            needed: false,
            counters: ElectionCounters::default(),
        }
    }

    /// Which ensemble this server's directory belongs to. Only a confirmed id is worth a byte.
    pub(crate) fn set_identity(&mut self, identity: Option<Identity>) {
        self.identity = identity.filter(|identity| identity.confirmed);
        let mut extension = Vec::new();
        if let Some(identity) = self.identity {
            extension::begin(&mut extension);
            extension::put(&mut extension, Tag::IDENTITY, &identity.encode());
        }
        self.connections.set_extension(extension);
    }

    /// Others count from now on.
    pub(crate) fn reconfigure(&mut self, now: Instant, config: &Config, quorums: Arc<Quorums>) {
        self.connections.reconfigure(config, &quorums);
        self.algorithm.reconfigure(quorums);
        let decided = self.algorithm.evaluate(now, |sid| self.connections.is_gone(sid));
        self.carry_out(now, Step { decided, ..Step::default() });
    }

    /// The same configurations, of which others are a quorum, as the oracle says.
    pub(crate) fn set_quorums(&mut self, now: Instant, quorums: Arc<Quorums>) {
        self.algorithm.set_quorums(quorums);
        let decided = self.algorithm.evaluate(now, |sid| self.connections.is_gone(sid));
        self.carry_out(now, Step { decided, ..Step::default() });
    }

    /// Whether this server looks for a leader, and stands for itself with a history that counts.
    pub(crate) fn stands(&self) -> bool {
        let own = self.algorithm.vote().vote;
        self.algorithm.is_looking() && own.leader == self.me && own.zxid != Zxid::NONE
    }

    /// Whether nothing is heard of a voter in this election.
    pub(crate) fn lacks(&self, sid: Sid) -> bool {
        self.connections.is_gone(sid) || !self.algorithm.has_vote_of(sid)
    }

    /// There is a leader without an election: a change of the members has named it.
    pub(crate) fn designate(&mut self, state: ServerState, vote: Vote) {
        self.bootstrap = None;
        self.overtaken = Some(Overtaken::designated());
        self.connections.stop();
        self.algorithm.designate(state, vote);
    }

    /// What the name of a member means now.
    pub(crate) fn resolved(&mut self, host: &str, addresses: &[IpAddr]) {
        self.connections.resolved(host, addresses);
    }

    /// Whether a connection belongs to an election port.
    pub(crate) fn owns(conn: ConnId) -> bool {
        connections::owns(conn)
    }

    /// The role that the last election gave has ended. Until the next one starts, nobody is told
    /// of a leader any more.
    pub(crate) fn end(&mut self) {
        self.algorithm.end();
        let elected = |overtaken: Overtaken| !overtaken.designated;
        self.in_vain = self.overtaken.take().is_some_and(elected);
    }

    /// An election begins. `initial` has the last durable zxid and the current epoch of this
    /// server. Without `trusted` they are not to be counted (rule R14). `lost` is the leader whose
    /// loss ended the last role, and whether that was for its silence.
    pub(crate) fn start(
        &mut self,
        now: Instant,
        initial: Vote,
        trusted: bool,
        lost: Option<(Sid, bool)>,
    ) {
        self.bootstrapped = false;
        self.bootstrap = None;
        self.overtaken = None;
        self.needed = false;
        match lost {
            Some((leader, _)) if self.in_vain => self.algorithm.avoid(leader),
            // It was elected itself without those that it avoids, and was not followed by enough.
            None if self.in_vain => self.algorithm.avoid_nobody(),
            _ => {}
        }
        self.connections.start(lost);
        let mut initial = self.initial_vote(initial);
        if !trusted && !self.algorithm.quorums().is_observer(self.me) {
            // One that has a history and forgot its promise is not at an ensemble's birth.
            let empty = initial.zxid == Zxid::ZERO && initial.peer_epoch == Epoch(0);
            self.bootstrap = empty.then(Bootstrap::default);
            initial.zxid = Zxid::NONE;
            initial.peer_epoch = Epoch(0);
        }
        self.begin(now, initial);
        self.try_bootstrap(now);
    }

    /// The epoch of the elected leader is established, on it or with it (ZOOKEEPER-1732).
    pub(crate) fn established(&mut self, now: Instant, epoch: Epoch) {
        self.overtaken = None;
        if self.algorithm.established(epoch) {
            // Who heard one server before and another after it has two votes that do not agree.
            self.tell_waiting(now);
        }
    }

    /// See [`Algorithm::waiting`].
    fn tell_waiting(&mut self, now: Instant) {
        let vote = self.algorithm.vote();
        self.algorithm.waiting().for_each(|sid| self.connections.send(now, sid, vote));
    }

    /// Whether the epoch may need this server as a voter, by what voters have said in this election.
    pub(crate) fn is_needed(&self) -> bool {
        self.needed
    }

    /// Whether a server that started untrusted has since found the whole ensemble to be empty, and
    /// takes part in the election like any other. Holds until the next start, which must be told.
    pub(crate) fn is_bootstrapped(&self) -> bool {
        self.bootstrapped
    }

    /// The voters whose word an election waits for: those that cannot be reached or whose vote has
    /// not come in this round (a link that swallows everything looks whole), or, with an empty
    /// directory, those that are not known to be empty, too.
    pub(crate) fn missing(&self) -> impl Iterator<Item = Sid> + '_ {
        let bootstrap = self.bootstrap.as_ref();
        let voters = self.algorithm.quorums().voters().iter().copied();
        voters.filter(move |sid| *sid != self.me).filter(move |sid| match bootstrap {
            Some(bootstrap) => !bootstrap.is_complete(self.me, &[*sid]),
            None if self.connections.is_foreign(*sid) => false,
            None => self.connections.is_gone(*sid) || !self.algorithm.has_vote_of(*sid),
        })
    }

    /// The voters that belong to another ensemble, as far as they were heard.
    pub(crate) fn foreign(&self) -> impl Iterator<Item = Sid> + '_ {
        let voters = self.algorithm.quorums().voters().iter().copied();
        voters.filter(|sid| self.connections.is_foreign(*sid))
    }

    /// Whether this server's directory is empty, and it does not vote before all others are seen to
    /// be empty, too.
    pub(crate) fn awaits_birth(&self) -> bool {
        self.bootstrap.is_some()
    }

    /// What went wrong so far.
    #[cfg(test)]
    pub(crate) fn counters(&self) -> ElectionCounters {
        self.counters
    }

    /// Somebody has connected; `None` means: close it, there are too many.
    pub(crate) fn accept(&mut self, now: Instant, remote: Option<IpAddr>) -> Option<ConnId> {
        self.connections.accept(now, remote)
    }

    /// A dial has succeeded.
    pub(crate) fn opened(&mut self, now: Instant, conn: ConnId) {
        self.connections.opened(now, conn);
    }

    /// A dial has failed or a connection is lost.
    pub(crate) fn closed(&mut self, now: Instant, conn: ConnId) {
        self.connections.closed(now, conn);
        let decided = self.algorithm.evaluate(now, |sid| self.connections.is_gone(sid));
        self.carry_out(now, Step { decided, ..Step::default() });
        self.watch_overtaken();
    }

    /// Feeds bytes received on `conn` and returns how many were consumed.
    pub(crate) fn handle_bytes(&mut self, now: Instant, conn: ConnId, bytes: &[u8]) -> usize {
        let mut used = 0;
        while used < bytes.len() {
            let (n, frame) = self.connections.receive(now, conn, &bytes[used..]);
            used += n;
            match frame {
                Some(frame) => self.on_frame(now, &frame),
                None if n == 0 => break,
                None => {}
            }
        }
        used
    }

    /// Whom the last bytes came from, if they held a notification of this ensemble, and whether that
    /// server looks for a leader.
    pub(crate) fn take_voice(&mut self) -> Option<(Sid, bool)> {
        self.voice.take()
    }

    /// Fills `buf` with bytes for `conn`; 0: nothing to send now. A handshake is not split unless
    /// `buf` is smaller.
    pub(crate) fn poll_transmit(&mut self, conn: ConnId, buf: &mut [u8]) -> usize {
        self.connections.poll_transmit(conn, buf)
    }

    /// The next thing to be done, if any.
    pub(crate) fn poll_output(&mut self) -> Option<ElectionOutput> {
        self.connections.poll_output()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [self.connections.poll_timeout(), self.algorithm.poll_timeout()].into_iter().flatten().min()
    }

    /// The deadline has passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for sid in self.connections.handle_timeout(now) {
            if let Some(vote) = self.algorithm.answer() {
                self.connections.answer(now, sid, vote);
            }
        }
        let step = self.algorithm.handle_timeout(now, |sid| self.connections.is_gone(sid));
        self.carry_out(now, step);
    }

    /// The first vote of a server, for itself or whom it made way for. One that does not vote is no
    /// candidate either.
    fn initial_vote(&self, own: Vote) -> Vote {
        let quorums = self.algorithm.quorums();
        if quorums.is_observer(self.me) {
            return Vote { leader: NOBODY, zxid: Zxid::MIN, peer_epoch: Epoch(i64::MIN) };
        }
        let leader = if quorums.is_voter(self.me) { own.leader } else { NOBODY };
        Vote { leader, ..own }
    }

    fn begin(&mut self, now: Instant, initial: Vote) {
        self.algorithm.start(now, initial);
        let broadcast = Some(self.algorithm.vote());
        let decided = self.algorithm.evaluate(now, |sid| self.connections.is_gone(sid));
        self.carry_out(now, Step { broadcast, decided, ..Step::default() });
    }

    fn on_frame(&mut self, now: Instant, frame: &Frame<'_>) {
        let Ok(notification) = Notification::parse(frame.payload) else {
            self.counters.malformed += 1;
            return;
        };
        if self.is_foreign(now, frame, &notification) {
            return;
        }
        let is_voter = self.algorithm.quorums().is_voter(frame.from);
        if self.note_config(frame.from, notification.config) {
            return;
        }
        self.note_candidate(frame, &notification);
        let state = match notification.server_state() {
            Some(state) => state,
            None if is_voter => {
                self.counters.malformed += 1;
                return;
            }
            // It is answered whatever it says.
            None => ServerState::Looking,
        };
        self.voice = Some((frame.from, state == ServerState::Looking && !frame.first));
        let heard = CastVote {
            state,
            vote: notification.vote(),
            election_epoch: notification.election_epoch,
            version: notification.version,
        };
        if is_voter && frame.first {
            self.algorithm.hurry(now);
        }
        if is_voter
            && let Some(bootstrap) = &mut self.bootstrap
            && bootstrap.hear(frame.from, &heard, frame.first)
        {
            self.connections.answer(now, frame.from, self.algorithm.vote());
        }
        self.on_vote(now, frame, heard);
        self.try_bootstrap(now);
    }

    /// Whether a notification comes from a member of another ensemble: it is no vote (rule R24). The
    /// sender hears of it by our answer, which names this ensemble.
    fn is_foreign(&mut self, now: Instant, frame: &Frame<'_>, heard: &Notification<'_>) -> bool {
        let value = extension::field(Some(frame.payload), heard.known_len(), Tag::IDENTITY);
        let other = differ(self.identity, value.and_then(Identity::decode));
        let changed = self.connections.set_foreign(frame.from, other.is_some());
        let Some((ours, theirs)) = other else { return false };
        let notice = Notice::OtherEnsemble { sid: frame.from, theirs, ours };
        self.connections.push(ElectionOutput::Notice(notice));
        if frame.first
            && let Some(vote) = self.algorithm.answer()
        {
            self.connections.answer(now, frame.from, vote);
        }
        if changed {
            let decided = self.algorithm.evaluate(now, |sid| self.connections.is_gone(sid));
            self.carry_out(now, Step { decided, ..Step::default() });
            self.watch_overtaken();
        }
        true
    }

    /// Whether the sender's configuration is newer and believed, so that this election is over.
    fn note_config(&mut self, from: Sid, text: Option<&[u8]>) -> bool {
        let Some(text) = text.filter(|text| *text != self.connections.text()) else {
            return false;
        };
        match Membership::parse_text(text) {
            Ok(other) if other.version > self.algorithm.quorums().version() => {
                self.counters.newer_config += 1;
                let own = self.algorithm.quorums();
                let believed = self.reconfig
                    && self.algorithm.is_looking()
                    && own.is_member(from)
                    && reconfig::is_newer(other.version, own.committed());
                if believed {
                    self.connections.push(ElectionOutput::NewerConfig(other));
                    return true;
                }
                let notice = Notice::NewerConfig { from, version: other.version };
                self.connections.push(ElectionOutput::Notice(notice));
            }
            Ok(_) => {}
            Err(_) => self.counters.malformed_config += 1,
        }
        false
    }

    /// A voter knows of a change that this server has not heard of: it makes this server a voter, or one that
    /// it votes for.
    fn note_candidate(&mut self, frame: &Frame<'_>, vote: &Notification<'_>) {
        let (algorithm, leader) = (&mut self.algorithm, vote.leader);
        let believed = self.reconfig && algorithm.quorums().is_voter(frame.from);
        let marked = extension::field(Some(frame.payload), vote.known_len(), Tag::VOTER).is_some();
        self.needed |= believed && marked;
        if !believed || algorithm.is_candidate(leader) || algorithm.newcomers.len() >= NEWCOMERS_MAX
        {
            return;
        }
        let line = extension::field(Some(frame.payload), vote.known_len(), Tag::CANDIDATE);
        let line = line.and_then(|line| core::str::from_utf8(line).ok());
        let member = line.and_then(|line| Member::parse(leader, line).ok());
        if let Some(member) = member.filter(|member| member.role == Role::Participant) {
            algorithm.newcomers.insert(leader);
            self.connections.newcomers.insert(leader, member.to_string());
            self.connections.push(ElectionOutput::Newcomer(leader, member));
        }
    }

    fn on_vote(&mut self, now: Instant, frame: &Frame<'_>, heard: CastVote) {
        if let Some(overtaken) = &mut self.overtaken {
            overtaken.hear(frame.from, &heard, frame.first, &self.algorithm);
        }
        let gone = |sid| self.connections.is_gone(sid);
        let step = self.algorithm.on_notification(now, frame.from, heard, gone);
        if let Some(vote) = step.answer {
            self.connections.answer(now, frame.from, vote);
        }
        self.carry_out(now, step);
        self.watch_overtaken();
    }

    fn carry_out(&mut self, now: Instant, step: Step) {
        if let Some(vote) = step.broadcast {
            for sid in self.algorithm.quorums().voters() {
                self.connections.send(now, *sid, vote);
            }
            // They need it to lead, and are in no configuration from which they would be known.
            for sid in &self.algorithm.newcomers {
                self.connections.send(now, *sid, vote);
            }
        }
        if let Some(Decision { state, vote }) = step.decided {
            self.bootstrap = None;
            self.overtaken = Some(Overtaken::default());
            self.connections.stop();
            self.tell_waiting(now);
            self.connections.push(ElectionOutput::Decided { state, vote });
        }
    }

    /// Joins the election once every voter is known to be empty.
    fn try_bootstrap(&mut self, now: Instant) {
        let quorums = self.algorithm.quorums();
        let complete = |bootstrap: &mut Bootstrap| {
            quorums.is_voter(self.me) && bootstrap.is_complete(self.me, quorums.voters())
        };
        if self.bootstrap.take_if(complete).is_some() {
            self.bootstrapped = true;
            self.begin(now, Vote { leader: self.me, zxid: Zxid::ZERO, peer_epoch: Epoch(0) });
        }
    }

    fn watch_overtaken(&mut self) {
        let gone = |sid| self.connections.is_gone(sid);
        let deserted = |overtaken: &mut Overtaken| overtaken.is_complete(&self.algorithm, gone);
        if self.overtaken.take_if(deserted).is_some() {
            self.connections.push(ElectionOutput::Overtaken);
        }
    }
}

/// More candidates than this that no configuration names are not believed.
const NEWCOMERS_MAX: usize = 64;

/// The candidate named in votes of servers that cannot be elected.
const NOBODY: Sid = Sid(i64::MIN);
