//! Changes what servers say to each other: faults put in on purpose, and what a script wants.

use zab_proto::Zxid;
use zab_proto::wire::packet::{Packet, PacketType};

use crate::mutation::Mutation;
use crate::queue::HostIx;

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It goes on.
    Send,
    /// It does not.
    Drop,
    /// It goes on behind the next one.
    Hold,
    /// It goes on with a new configuration that takes effect with it.
    Activate,
}

/// What the mutations of the wire remember of a connection.
#[derive(Debug, Default)]
pub(crate) struct Tamper {
    chosen: Option<Zxid>,
}

impl Tamper {
    /// A mutation's verdict on a packet of a synchronisation.
    pub(crate) fn judge(&mut self, mutation: Option<Mutation>, packet: &Packet<'_>) -> Verdict {
        let zxid = packet.zxid;
        match (mutation, packet.kind) {
            (Some(Mutation::SyncSkipsOne), PacketType::PROPOSAL)
                if self.chosen.is_none() && zxid.counter().is_multiple_of(3) =>
            {
                self.chosen = Some(zxid);
                Verdict::Drop
            }
            (Some(Mutation::SyncSkipsOne), PacketType::COMMIT) if self.chosen == Some(zxid) => {
                Verdict::Drop
            }
            (Some(Mutation::AckOvertakesNewLeader), PacketType::ACK)
                if zxid.counter() == 0 && self.chosen.is_none() =>
            {
                self.chosen = Some(zxid);
                Verdict::Hold
            }
            _ => Verdict::Send,
        }
    }
}

/// What a script has put between two servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PacketRule {
    /// The sender.
    pub(crate) from: HostIx,
    /// The receiver.
    pub(crate) to: HostIx,
    /// The kind of packet.
    pub(crate) kind: PacketType,
    /// What becomes of it.
    pub(crate) verdict: Verdict,
    /// How often.
    pub(crate) times: u32,
}

/// The verdict of the first rule that concerns a packet.
pub(crate) fn verdict_of(
    rules: &mut [PacketRule],
    from: HostIx,
    to: HostIx,
    kind: PacketType,
) -> Verdict {
    let concerns = |rule: &&mut PacketRule| (rule.from, rule.to, rule.kind) == (from, to, kind);
    match rules.iter_mut().filter(|rule| rule.times > 0).find(concerns) {
        None => Verdict::Send,
        Some(rule) => {
            rule.times -= 1;
            rule.verdict
        }
    }
}
