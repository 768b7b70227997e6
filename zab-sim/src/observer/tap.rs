//! Reads along on the connections between servers, on the sender's side.

use zab_proto::wire::Parsed;
use zab_proto::wire::notification::{Notification, parse_frame};
use zab_proto::wire::packet::{Packet, PacketType};
use zab_proto::{Epoch, ServerState, Sid, Zxid};

use crate::check::Checker;
use crate::disk::Disk;
use crate::members::{configuration, server_of, sid_of};
use crate::mutation::Mutation;
use crate::net::Side;
use crate::queue::HostIx;
use crate::stream::Stream;
use crate::tamper::{PacketRule, Tamper, Verdict, verdict_of};
use crate::trace::Trace;
use crate::votes::Due;

/// What was read so far on one connection between servers.
#[derive(Debug, Default)]
pub(crate) struct Tap {
    partial: [Vec<u8>; 2],
    /// Quorum port: the epoch its leader proposed.
    epoch: Epoch,
    /// Quorum port: an observer has dialled, and whom it has dialled is an observer master, and no leader.
    observed: bool,
    relayed: bool,
    stream: Stream,
    /// Quorum port: what NEWLEADER said of the members.
    config: Option<String>,
    /// A snapshot is passing.
    in_snapshot: bool,
    /// Bytes of the signature behind a snapshot that are still to pass.
    signature: usize,
    /// Election port: the dialler's handshake has passed.
    shook: bool,
    /// A vote has passed.
    voted: [bool; 2],
    last_vote: [Option<CastVote>; 2],
    tamper: Tamper,
    /// The acknowledgement held back by a mutation.
    held: Vec<u8>,
    held_ack: Option<Zxid>,
    ears: [Ear; 2],
    due: [Option<Due>; 2],
}

/// What has reached one end of an election connection.
#[derive(Debug, Default)]
struct Ear {
    partial: Vec<u8>,
    /// Bytes at the front of what is readable that were heard before.
    ahead: usize,
    shook: bool,
    frames: u32,
}

/// Bytes of "BenWasHere" with its length.
const SIGNATURE_LEN: usize = 14;

/// A vote that was sent.
#[derive(Clone, Copy, Debug)]
struct CastVote {
    round: i64,
    order: (i64, i64, i64),
}

/// Whose bytes are read.
#[derive(Debug)]
pub(crate) struct Flow<'a> {
    /// The sender.
    pub(crate) from: HostIx,
    /// The receiver.
    pub(crate) to: HostIx,
    /// The sender's end.
    pub(crate) side: Side,
    /// All disks.
    pub(crate) disks: &'a [Disk],
    /// The observer.
    pub(crate) checker: &'a mut Checker,
    /// The log for humans.
    pub(crate) trace: &'a mut Trace,
    /// The fault put in on purpose.
    pub(crate) mutation: Option<Mutation>,
    /// What a script has put between servers.
    pub(crate) packet_rules: &'a mut [PacketRule],
    /// Virtual time.
    pub(crate) now: u64,
    /// What is to be sent instead, if packets may be tampered with.
    pub(crate) out: Option<Vec<u8>>,
}

impl Tap {
    /// Reads along on the quorum port. `raw` of the bytes belong to a snapshot, whose end was
    /// among them if `ended`.
    pub(crate) fn quorum(&mut self, bytes: &[u8], raw: usize, ended: bool, flow: &mut Flow<'_>) {
        let ix = flow.side as usize;
        let mut partial = std::mem::take(&mut self.partial[ix]);
        if partial.is_empty() {
            let left = self.packets(bytes, raw, ended, flow);
            partial.extend_from_slice(&bytes[bytes.len() - left..]);
        } else {
            partial.extend_from_slice(bytes);
            let left = self.packets(&partial, raw, ended, flow);
            partial.drain(..partial.len() - left);
        }
        self.partial[ix] = partial;
    }

    /// Reads whole packets and returns how many bytes are left.
    fn packets(
        &mut self,
        mut bytes: &[u8],
        mut raw: usize,
        ended: bool,
        flow: &mut Flow<'_>,
    ) -> usize {
        loop {
            if self.in_snapshot && flow.side == Side::Acceptor {
                let n = raw.min(bytes.len());
                if let Some(out) = &mut flow.out {
                    out.extend_from_slice(&bytes[..n]);
                }
                bytes = &bytes[n..];
                raw -= n;
                if !ended {
                    break;
                }
                self.in_snapshot = false;
                self.signature = SIGNATURE_LEN;
            }
            if self.signature > 0 && flow.side == Side::Acceptor {
                let n = self.signature.min(bytes.len());
                if let Some(out) = &mut flow.out {
                    out.extend_from_slice(&bytes[..n]);
                }
                bytes = &bytes[n..];
                self.signature -= n;
                if self.signature > 0 {
                    break;
                }
            }
            match Packet::parse(bytes, usize::MAX >> 2) {
                Parsed::Complete { value, len } => {
                    self.on_packet(&value, flow);
                    self.pass(&value, &bytes[..len], flow);
                    bytes = &bytes[len..];
                }
                Parsed::Incomplete => break,
                Parsed::Malformed(error) => {
                    flow.checker.fail("R12", format!("s{} sends garbage: {error}", flow.from + 1));
                    break;
                }
            }
        }
        bytes.len()
    }

    fn on_packet(&mut self, packet: &Packet<'_>, flow: &mut Flow<'_>) {
        let Flow { from, to, disks, .. } = *flow;
        flow.trace.say(|| {
            let len = packet.data.map_or(0, <[u8]>::len);
            let (from, to) = (from + 1, to + 1);
            format!("s{from} → s{to}  {} {} ({len} bytes)", packet.kind, packet.zxid)
        });
        let zxid = packet.zxid;
        match packet.kind {
            PacketType::OBSERVERINFO => self.observed = true,
            // Who is asked may have begun to lead before it answers.
            PacketType::LEADERINFO if self.observed && flow.checker.follows(from) => {
                self.relayed = true;
                self.epoch = zxid.epoch();
            }
            PacketType::PROPOSAL | PacketType::INFORM | PacketType::INFORMANDACTIVATE
                if self.relayed =>
            {
                flow.checker.on_relayed(from, to, zxid);
                if let Some(leader) = self.named(packet, flow) {
                    flow.checker.on_told(to, leader);
                }
            }
            PacketType::LEADERINFO => {
                self.epoch = zxid.epoch();
                flow.checker.on_leader_info(from, self.epoch, &disks[from]);
            }
            PacketType::ACKEPOCH => {
                let word = packet.data.and_then(|data| data.first_chunk()).copied();
                let current = i64::from(i32::from_be_bytes(word.unwrap_or([0xff; 4])));
                let claim = (current >= 0).then_some((Epoch(current), zxid));
                flow.checker.on_ack_epoch(from, to, self.epoch, claim, &disks[from]);
                self.stream.promised(zxid);
            }
            PacketType::DIFF => flow.checker.coverage.count("DIFF sent"),
            PacketType::TRUNC => flow.checker.coverage.count("TRUNC sent"),
            PacketType::SNAP => {
                flow.checker.coverage.count("SNAP sent");
                self.in_snapshot = true;
            }
            PacketType::NEWLEADER => {
                flow.checker.hooks.push((to, "newleader"));
                self.config = String::from_utf8(packet.data.unwrap_or_default().to_vec()).ok();
            }
            PacketType::COMMIT
            | PacketType::INFORM
            | PacketType::COMMITANDACTIVATE
            | PacketType::INFORMANDACTIVATE
                if self.stream.is_up_to_date() =>
            {
                flow.checker.on_commit(from, zxid, disks);
                if let Some(leader) = self.named(packet, flow) {
                    flow.checker.on_named((from, to), zxid, leader, disks);
                }
            }
            PacketType::ACK if zxid.counter() == 0 => {
                let through = self.stream.synchronized_through();
                if let Some(told) = self.config.take() {
                    flow.checker.views[from].told = Some(told);
                }
                flow.checker.on_ack_new_leader((from, to), zxid.epoch(), through, disks);
            }
            PacketType::ACK => flow.checker.on_ack(from, to, zxid, disks),
            _ => {}
        }
    }

    /// Sends a packet on, unless a mutation or a script is against it.
    fn pass(&mut self, packet: &Packet<'_>, bytes: &[u8], flow: &mut Flow<'_>) {
        let Flow { from, to, .. } = *flow;
        let mutated = match flow.mutation {
            Some(_) if !self.stream.is_up_to_date() => self.tamper.judge(flow.mutation, packet),
            _ => Verdict::Send,
        };
        if mutated == Verdict::Hold {
            self.held.extend_from_slice(bytes);
            self.held_ack = Some(packet.zxid);
        }
        if mutated != Verdict::Send {
            return;
        }
        self.follow(packet.kind, packet.zxid, flow);
        let verdict = verdict_of(flow.packet_rules, from, to, packet.kind);
        if let Some(zxid) = self.held_ack.take() {
            self.follow(PacketType::ACK, zxid, flow);
        }
        let renamed = self.named(packet, flow);
        let renamed = renamed.filter(|_| flow.mutation == Some(Mutation::SuccessorBehind));
        // A mutation: whoever is told of a change goes by it.
        let activated = flow.mutation == Some(Mutation::ActivatedOnProposal)
            && packet.kind == PacketType::PROPOSAL
            && packet.data.is_some_and(|txn| configuration(txn).is_some());
        let Some(out) = &mut flow.out else { return };
        let early = flow.mutation == Some(Mutation::MasterInformsUncommitted);
        if early && packet.kind == PacketType::PROPOSAL && self.stream.is_up_to_date() {
            out.extend_from_slice(bytes);
            Packet::new(PacketType::COMMIT, packet.zxid, None).write(out);
            return;
        }
        match verdict {
            Verdict::Drop | Verdict::Hold => {}
            Verdict::Send if renamed.is_some() => {
                let sid = renamed.unwrap_or_default().0.to_be_bytes();
                let rest = packet.data.and_then(|data| data.get(8..)).unwrap_or_default();
                let data = [&sid[..], rest].concat();
                Packet::new(packet.kind, packet.zxid, Some(&data)).write(out);
            }
            Verdict::Send => out.extend_from_slice(bytes),
            Verdict::Activate => activate(packet, from, out),
        }
        out.append(&mut self.held);
        if activated {
            activate(&Packet::new(PacketType::COMMIT, packet.zxid, None), from, out);
        }
    }

    /// Whom a committed change names to lead: another one than this leader, or nobody else.
    fn named(&self, packet: &Packet<'_>, flow: &Flow<'_>) -> Option<Sid> {
        let activates = [PacketType::COMMITANDACTIVATE, PacketType::INFORMANDACTIVATE];
        let data = packet.data.filter(|_| activates.contains(&packet.kind))?;
        let named = Sid(i64::from_be_bytes(*data.first_chunk()?));
        if flow.mutation != Some(Mutation::SuccessorBehind) || named == sid_of(flow.from) {
            return Some(named);
        }
        // The mutation: of those that have a vote by the change it is the one that has least.
        let to = flow.checker.changes.get(&packet.zxid)?;
        let others = to.voters().filter(|sid| server_of(*sid) < flow.disks.len());
        let others = others.filter(|sid| server_of(*sid) != flow.from);
        others.min_by_key(|sid| flow.disks[server_of(*sid)].durable.last().0)
    }

    fn follow(&mut self, kind: PacketType, zxid: Zxid, flow: &mut Flow<'_>) {
        if flow.side == Side::Acceptor {
            self.stream.leader_says(kind, zxid, flow.checker);
        } else if kind == PacketType::ACK {
            self.stream.acknowledged(zxid, flow.from + 1, flow.checker);
        }
    }

    /// Reads along on the election port.
    pub(crate) fn election(&mut self, bytes: &[u8], flow: &mut Flow<'_>) {
        let ix = flow.side as usize;
        let mut partial = std::mem::take(&mut self.partial[ix]);
        partial.extend_from_slice(bytes);
        let mut shook = self.shook || flow.side == Side::Acceptor;
        let at = frames(&partial, &mut shook, |vote| self.on_notification(vote, flow));
        self.shook |= flow.side == Side::Dialler && shook;
        partial.drain(..at);
        self.partial[ix] = partial;
    }

    /// Whether nothing has come in part.
    pub(crate) fn is_whole(&self, at: Side) -> bool {
        let ear = &self.ears[at as usize];
        ear.partial.is_empty() && ear.ahead == 0 && (ear.frames > 0 || self.stream.is_up_to_date())
    }

    /// Whether the learner of this connection was sent UPTODATE.
    pub(crate) fn is_up_to_date(&self) -> bool {
        self.stream.is_up_to_date()
    }

    /// The sender found no room: it cannot be blamed for silence.
    pub(crate) fn blocked(&mut self, from: Side) {
        self.due[from as usize] = None;
    }

    /// `readable` has reached the end `at` of an election connection.
    pub(crate) fn hear(
        &mut self,
        at: Side,
        readable: &[u8],
        (server, from, now): (HostIx, HostIx, u64),
        checker: &mut Checker,
    ) {
        let ear = &mut self.ears[at as usize];
        let Some(new) = readable.get(ear.ahead..).filter(|new| !new.is_empty()) else { return };
        ear.partial.extend_from_slice(new);
        ear.ahead = readable.len();
        let mut partial = std::mem::take(&mut ear.partial);
        let mut shook = ear.shook || at == Side::Dialler;
        let mut heard = 0;
        let end = frames(&partial, &mut shook, |vote| {
            heard += 1;
            checker.on_heard(now, server, from, vote);
        });
        partial.drain(..end);
        let first = ear.frames == 0 && heard > 0;
        *ear = Ear { partial, shook, frames: ear.frames + heard, ahead: ear.ahead };
        if first && checker.is_notified(server, from) {
            checker.on_reachable(server, &mut self.due[at as usize], now);
        }
    }

    /// Of what was heard at `at`, so much is not readable any more.
    pub(crate) fn consumed(&mut self, at: Side, len: usize) {
        let ear = &mut self.ears[at as usize];
        ear.ahead = ear.ahead.saturating_sub(len);
    }

    /// E2, E3, E5.
    fn on_notification(&mut self, vote: &Notification<'_>, flow: &mut Flow<'_>) {
        let Flow { from, to, .. } = *flow;
        let name = from + 1;
        flow.trace.say(|| {
            let (leader, zxid, round) = (vote.leader, vote.zxid, vote.election_epoch);
            let (epoch, state) = (vote.peer_epoch, vote.state);
            format!(
                "s{name} → s{}  vote for s{leader} ({epoch}, {zxid}) round {round} state {state}",
                to + 1
            )
        });
        flow.checker.coverage.notifications += 1;
        if vote.server_state() != Some(ServerState::Looking) {
            return;
        }
        flow.checker.on_said(flow.now, from, vote, &flow.disks[from]);
        // As ZooKeeper does, a new connection repeats the last vote, however old it is.
        if !std::mem::replace(&mut self.voted[flow.side as usize], true) {
            return;
        }
        if flow.checker.is_notified(from, to) {
            let due = &mut self.due[flow.side as usize];
            flow.checker.on_notified(from, due, flow.now);
        }
        let own = vote.leader.0 == i64::try_from(name).unwrap_or(0);
        if vote.zxid == Zxid::MIN || vote.leader.0 < 0 {
            return;
        }
        if !flow.checker.is_ever_voter(vote.leader) {
            flow.checker.fail("E5", format!("s{name} votes for s{}, not a voter", vote.leader));
        }
        let order = (vote.peer_epoch.0, vote.zxid.raw(), vote.leader.0);
        let round = vote.election_epoch;
        let cast = CastVote { round, order };
        let stranger = flow.checker.is_stranger(from);
        if let Some(last) = self.last_vote[flow.side as usize].replace(cast)
            && last.round == round
            && last.order > order
            && !stranger
        {
            flow.checker
                .fail("E2", format!("s{name} votes for a worse candidate in round {round}"));
        }
        let looks = flow
            .checker
            .server(from)
            .status
            .is_some_and(|status| status.state == ServerState::Looking);
        if own && looks {
            let disk = &flow.disks[from];
            flow.checker.check_claim(from, "its vote", vote.peer_epoch, vote.zxid, disk);
        }
    }
}

/// Reads whole notifications, behind a handshake unless that has passed; how many bytes they take.
fn frames(bytes: &[u8], shook: &mut bool, mut each: impl FnMut(&Notification<'_>)) -> usize {
    let mut at = 0;
    if !*shook {
        let Some(len) = bytes.get(16..20).and_then(|len| len.first_chunk()) else { return 0 };
        let end = 20 + usize::try_from(i32::from_be_bytes(*len)).unwrap_or(0);
        if bytes.len() < end {
            return 0;
        }
        *shook = true;
        at = end;
    }
    while let Parsed::Complete { value, len } = parse_frame(&bytes[at..]) {
        if let Ok(notification) = Notification::parse(value) {
            each(&notification);
        }
        at += len;
    }
    at
}

/// A COMMIT or INFORM that also makes a new configuration active, as a reconfiguration ends.
fn activate(packet: &Packet<'_>, leader: HostIx, out: &mut Vec<u8>) {
    let sid = i64::try_from(leader + 1).unwrap_or(0);
    let mut data = sid.to_be_bytes().to_vec();
    let kind = match packet.kind {
        PacketType::COMMIT => PacketType::COMMITANDACTIVATE,
        _ => PacketType::INFORMANDACTIVATE,
    };
    data.extend_from_slice(packet.data.unwrap_or_default());
    Packet::new(kind, packet.zxid, Some(&data)).write(out);
}
