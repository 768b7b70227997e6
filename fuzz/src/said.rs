//! Listens to one connection and holds the peer to its word: what it says is well-formed, and what
//! it promises is durable.

use zab_proto::wire::Parsed;
use zab_proto::wire::handshake::Handshake;
use zab_proto::wire::notification::{self, Notification};
use zab_proto::wire::packet::{Packet, PacketType};
use zab_proto::{Channel, Membership, Epoch, Zxid};

use crate::disk::Disk;

/// What ends a snapshot stream.
const SIGNATURE: &[u8] = b"\0\0\0\x0aBenWasHere";

/// What a peer has said on a connection.
#[derive(Debug, Default)]
pub struct Said {
    channel: Option<Channel>,
    dialled: bool,
    greeted: bool,
    /// The packet before was a SNAP, and its stream comes next.
    snapshot: bool,
    synchronization: Synchronization,
    rest: Vec<u8>,
}

impl Said {
    /// A connection on which nothing was said.
    #[must_use]
    pub fn new(channel: Channel, dialled: bool) -> Self {
        Self { channel: Some(channel), dialled, greeted: !dialled, ..Self::default() }
    }

    /// Takes more bytes; `disk` as it is at this moment.
    pub fn hear(&mut self, bytes: &[u8], disk: &Disk) {
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(bytes);
        let mut used = 0;
        while let Some(len) = self.message(&rest[used..], disk) {
            used += len;
        }
        self.rest = rest.split_off(used);
    }

    /// Looks at the next message; its length, or `None` if it is not all there.
    fn message(&mut self, bytes: &[u8], disk: &Disk) -> Option<usize> {
        if self.channel == Some(Channel::Quorum) {
            if self.snapshot {
                // The stream of the application is empty here; what follows is the core's.
                let signature = bytes.get(..SIGNATURE.len())?;
                assert_eq!(signature, SIGNATURE);
                self.snapshot = false;
                return Some(signature.len());
            }
            let (packet, len) = complete(Packet::parse(bytes, usize::MAX))?;
            self.snapshot = packet.kind == PacketType::SNAP;
            if self.dialled {
                learner_said(&packet, disk);
            } else {
                self.synchronization.leader_said(&packet, disk);
            }
            return Some(len);
        }
        if !self.greeted {
            let (_, len) = complete(Handshake::parse(bytes))?;
            self.greeted = true;
            return Some(len);
        }
        let (payload, len) = complete(notification::parse_frame(bytes))?;
        let notification = Notification::parse(payload).expect("our own notification");
        let config = notification.config.expect("version 2");
        Membership::parse_text(config).expect("our own configuration");
        assert!(notification.server_state().is_some());
        Some(len)
    }
}

fn complete<T>(parsed: Parsed<T>) -> Option<(T, usize)> {
    match parsed {
        Parsed::Complete { value, len } => Some((value, len)),
        Parsed::Incomplete => None,
        Parsed::Malformed(error) => panic!("the peer said something malformed: {error}"),
    }
}

fn learner_said(packet: &Packet<'_>, disk: &Disk) {
    let zxid = packet.zxid;
    match packet.kind {
        PacketType::FOLLOWERINFO | PacketType::OBSERVERINFO => {
            assert!(zxid.epoch() <= disk.durable.accepted, "promised {zxid}");
        }
        PacketType::ACKEPOCH => assert!(disk.durable.holds(zxid), "claims {zxid}"),
        PacketType::ACK => {
            // Of NEWLEADER or UPTODATE, if the counter is 0.
            let of_epoch = zxid.counter() == 0 && disk.durable.current == zxid.epoch();
            assert!(of_epoch || disk.durable.holds(zxid), "acknowledged {zxid}");
        }
        PacketType::PING | PacketType::REQUEST | PacketType::REVALIDATE => {}
        other => panic!("a learner said {other}"),
    }
}

/// What a leader has told a learner.
#[derive(Debug, Default)]
struct Synchronization {
    step: Step,
    /// The newest transaction sent, and the newest commit.
    proposed: Option<Zxid>,
    committed: Option<Zxid>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
enum Step {
    #[default]
    Nothing,
    Epoch,
    History,
    NewLeader,
    UpToDate,
}

impl Synchronization {
    /// Each step once, in order; proposals and commits only where they belong, ascending, and no
    /// commit without its proposal.
    fn leader_said(&mut self, packet: &Packet<'_>, disk: &Disk) {
        let (kind, zxid) = (packet.kind, packet.zxid);
        let next = match kind {
            PacketType::LEADERINFO => Step::Epoch,
            PacketType::DIFF | PacketType::TRUNC | PacketType::SNAP => Step::History,
            PacketType::NEWLEADER => Step::NewLeader,
            PacketType::UPTODATE => Step::UpToDate,
            PacketType::PROPOSAL | PacketType::INFORM => {
                assert!(self.step >= Step::History && self.proposed < Some(zxid), "{kind} {zxid}");
                self.proposed = Some(zxid);
                return;
            }
            PacketType::COMMIT => {
                assert!(self.committed < Some(zxid) && Some(zxid) <= self.proposed, "{zxid}");
                self.committed = Some(zxid);
                return;
            }
            PacketType::PING | PacketType::SYNC | PacketType::REVALIDATE => {
                assert!(self.step >= Step::NewLeader, "{kind} too early");
                return;
            }
            other => panic!("a leader said {other}"),
        };
        match next {
            Step::Epoch => assert!(zxid.epoch() <= disk.durable.accepted, "offered {zxid}"),
            Step::UpToDate => assert!(disk.durable.current > Epoch(0)),
            _ => {}
        }
        assert!(next as u8 == self.step as u8 + 1, "{kind} in {:?}", self.step);
        self.step = next;
    }
}
