//! Reads along on the connections between servers, on the sender's side.

use zab_proto::wire::Parsed;
use zab_proto::wire::notification::{Notification, parse_frame};
use zab_proto::wire::packet::{Packet, PacketType};
use zab_proto::{Epoch, ServerState, Zxid};

use crate::check::Ghost;
use crate::disk::Disk;
use crate::mutation::Mutation;
use crate::net::Side;
use crate::queue::HostIx;
use crate::trace::Trace;

/// What was read so far on one connection between servers.
#[derive(Debug, Default)]
pub(crate) struct Tap {
    partial: [Vec<u8>; 2],
    /// Quorum port: the epoch its leader proposed.
    epoch: Epoch,
    new_leader_acked: bool,
    up_to_date: bool,
    last_ack: Option<Zxid>,
    /// A snapshot is passing.
    in_snapshot: bool,
    /// Bytes of the signature behind a snapshot that are still to pass.
    signature: usize,
    /// Election port: the dialler's handshake has passed.
    shook: bool,
    /// A vote has passed.
    voted: [bool; 2],
    last_vote: [Option<CastVote>; 2],
    /// Mutations: the packets held back.
    held: Vec<u8>,
    skipped: Option<Zxid>,
}

/// Bytes of "BenWasHere" with its length.
const SIGNATURE_LEN: usize = 14;

/// A vote that was sent.
#[derive(Clone, Copy, Debug)]
struct CastVote {
    /// The server's how-manieth election; a round's number can come again in the next one.
    election: u32,
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
    pub(crate) ghost: &'a mut Ghost,
    /// The log for humans.
    pub(crate) trace: &'a mut Trace,
    /// The fault put in on purpose.
    pub(crate) mutation: Option<Mutation>,
    /// What is to be sent instead, under a mutation of the wire.
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
                    let sent = self.on_packet(&value, flow);
                    if let (Some(out), true) = (&mut flow.out, sent) {
                        out.extend_from_slice(&bytes[..len]);
                        out.append(&mut self.held);
                    }
                    bytes = &bytes[len..];
                }
                Parsed::Incomplete => break,
                Parsed::Malformed(error) => {
                    flow.ghost.fail("R12", format!("s{} sends garbage: {error}", flow.from + 1));
                    break;
                }
            }
        }
        bytes.len()
    }

    /// Returns whether the packet is to be sent.
    fn on_packet(&mut self, packet: &Packet<'_>, flow: &mut Flow<'_>) -> bool {
        let Flow { from, to, disks, .. } = *flow;
        flow.trace.say(|| {
            let len = packet.data.map_or(0, <[u8]>::len);
            let (from, to) = (from + 1, to + 1);
            format!("s{from} → s{to}  {} {} ({len} bytes)", packet.kind, packet.zxid)
        });
        let zxid = packet.zxid;
        match packet.kind {
            PacketType::LEADERINFO => {
                self.epoch = zxid.epoch();
                flow.ghost.on_leader_info(from, self.epoch, &disks[from]);
            }
            PacketType::ACKEPOCH => {
                let word = packet.data.and_then(|data| data.first_chunk()).copied();
                let current = i64::from(i32::from_be_bytes(word.unwrap_or([0xff; 4])));
                let claim = (current >= 0).then_some((Epoch(current), zxid));
                flow.ghost.on_ack_epoch(from, to, self.epoch, claim, &disks[from]);
            }
            PacketType::DIFF => flow.ghost.coverage.count("DIFF sent"),
            PacketType::TRUNC => flow.ghost.coverage.count("TRUNC sent"),
            PacketType::SNAP => {
                flow.ghost.coverage.count("SNAP sent");
                self.in_snapshot = true;
            }
            PacketType::UPTODATE => self.up_to_date = true,
            PacketType::NEWLEADER => flow.ghost.hooks.push((to, "newleader")),
            PacketType::COMMIT | PacketType::INFORM if self.up_to_date => {
                flow.ghost.on_commit(from, zxid, disks);
            }
            PacketType::ACK if zxid.counter() == 0 => {
                self.new_leader_acked = true;
                flow.ghost.on_ack_new_leader(from, to, zxid.epoch(), &disks[from]);
            }
            PacketType::ACK => self.on_ack(zxid, flow),
            _ => {}
        }
        flow.mutation.is_none() || self.tamper(packet, flow)
    }

    fn on_ack(&mut self, zxid: Zxid, flow: &mut Flow<'_>) {
        let name = flow.from + 1;
        if !self.new_leader_acked {
            flow.ghost.fail("V4", format!("s{name} acknowledges {zxid} before NEWLEADER"));
        }
        let follows = self.last_ack.is_none_or(|last| {
            zxid.raw() == last.raw() + 1 || (zxid.epoch() > last.epoch() && zxid.counter() == 1)
        });
        if !follows {
            let last = self.last_ack.unwrap_or_default();
            flow.ghost.fail("V4", format!("s{name} acknowledges {zxid} after {last}"));
        }
        self.last_ack = Some(zxid);
        flow.ghost.on_ack(flow.from, zxid, &flow.disks[flow.from]);
    }

    /// Mutations of the wire: whether the packet is still to be sent now.
    fn tamper(&mut self, packet: &Packet<'_>, flow: &mut Flow<'_>) -> bool {
        let zxid = packet.zxid;
        let hold = |held: &mut Vec<u8>| packet.write(held);
        match flow.mutation {
            Some(Mutation::SyncSkipsOne) if !self.up_to_date => match packet.kind {
                PacketType::PROPOSAL
                    if self.skipped.is_none() && zxid.counter().is_multiple_of(3) =>
                {
                    self.skipped = Some(zxid);
                    false
                }
                PacketType::COMMIT => self.skipped != Some(zxid),
                _ => true,
            },
            Some(Mutation::AckOvertakesNewLeader)
                if packet.kind == PacketType::ACK && zxid.counter() == 0 && !self.up_to_date =>
            {
                // Held until the next packet has gone.
                let first = self.skipped.is_none();
                self.skipped = Some(zxid);
                if first {
                    hold(&mut self.held);
                }
                !first
            }
            _ => true,
        }
    }

    /// Reads along on the election port.
    pub(crate) fn election(&mut self, bytes: &[u8], flow: &mut Flow<'_>) {
        let ix = flow.side as usize;
        let mut joined = std::mem::take(&mut self.partial[ix]);
        // Most of the time whole notifications come, and need not be copied.
        let bytes = if joined.is_empty() {
            bytes
        } else {
            joined.extend_from_slice(bytes);
            &joined
        };
        let mut at = 0;
        if flow.side == Side::Dialler && !self.shook {
            let Some(len) = bytes.get(16..20) else {
                self.partial[ix] = bytes.to_vec();
                return;
            };
            let len = i32::from_be_bytes([len[0], len[1], len[2], len[3]]);
            at = 20 + usize::try_from(len).unwrap_or(0);
            if bytes.len() < at {
                self.partial[ix] = bytes.to_vec();
                return;
            }
            self.shook = true;
        }
        while let Parsed::Complete { value, len } = parse_frame(&bytes[at..]) {
            if let Ok(notification) = Notification::parse(value) {
                self.on_notification(&notification, flow);
            }
            at += len;
        }
        self.partial[ix] = bytes[at..].to_vec();
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
        flow.ghost.coverage.notifications += 1;
        if vote.server_state() != Some(ServerState::Looking) {
            return;
        }
        // As ZooKeeper does, a new connection repeats the last vote, however old it is.
        if !std::mem::replace(&mut self.voted[flow.side as usize], true) {
            return;
        }
        let own = vote.leader.0 == i64::try_from(name).unwrap_or(0);
        let candidate = usize::try_from(vote.leader.0).unwrap_or(0);
        if vote.zxid == Zxid::MIN || vote.leader.0 < 0 {
            return;
        }
        if candidate == 0 || candidate > flow.ghost.voters {
            flow.ghost.fail("E5", format!("s{name} votes for s{}, not a voter", vote.leader));
        }
        let order = (vote.peer_epoch.0, vote.zxid.raw(), vote.leader.0);
        let round = vote.election_epoch;
        let election = flow.ghost.server(from).elections;
        let cast = CastVote { election, round, order };
        if let Some(last) = self.last_vote[flow.side as usize].replace(cast)
            && (last.election, last.round) == (election, round)
            && last.order > order
        {
            flow.ghost.fail("E2", format!("s{name} votes for a worse candidate in round {round}"));
        }
        let looks = flow
            .ghost
            .server(from)
            .status
            .is_some_and(|status| status.state == ServerState::Looking);
        if own && looks {
            let disk = &flow.disks[from];
            flow.ghost.check_claim(from, "its vote", vote.peer_epoch, vote.zxid, disk);
        }
    }
}
