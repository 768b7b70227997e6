//! What requests will cost, as far as that can be told without carrying them out.

use zab_proto::wire::jute::Reader;

use crate::cost;
use crate::protocol::opcode::{Opcode, auth_op, internal_op, sync_op, write_op};
use crate::state::tree::Tree;

/// About what a request will cost that has just come from the owner of `session`.
pub(in crate::service) fn request(tree: &Tree, session: i64, frame: &[u8]) -> u64 {
    let mut reader = Reader::new(frame);
    let op = reader.i32().and_then(|_| reader.i32()).ok().and_then(Opcode::from_wire);
    let more = match op {
        Some(Opcode::GetChildren | Opcode::GetChildren2) => {
            let path = reader.string().ok().flatten();
            let node = path.and_then(|path| tree.node(&path));
            node.map_or(0, |node| cost::CHILD * u64::from(node.child_count()))
        }
        Some(Opcode::GetEphemerals | Opcode::CloseSession) => {
            cost::NODE * tree.ephemerals_count_of(session) as u64
        }
        // Many small things, at most so many.
        Some(Opcode::Multi | Opcode::MultiRead | Opcode::SetWatches | Opcode::SetWatches2) => {
            cost::parsed(20 * frame.len())
        }
        _ => 0,
    };
    cost::REQUEST + cost::bytes(frame.len()) + more
}

/// About what a read will cost that waits for a write. `multi_max`: what a multiRead costs at most.
pub(in crate::service) fn read(tree: &Tree, multi_max: u64, op: Opcode, record: &[u8]) -> u64 {
    let mut reader = Reader::new(record);
    let mut node = || tree.node(&reader.string().ok().flatten()?);
    let more = match op {
        Opcode::GetData => node().map_or(0, |n| cost::bytes(n.data().map_or(0, <[u8]>::len))),
        Opcode::GetChildren | Opcode::GetChildren2 => {
            node().map_or(0, |node| cost::CHILD * u64::from(node.child_count()))
        }
        Opcode::GetAcl => node().map_or(0, |node| cost::parsed(node.rules().len_bytes())),
        Opcode::GetEphemerals => cost::NODE * tree.ephemerals_count() as u64,
        Opcode::MultiRead => multi_max,
        Opcode::SetWatches | Opcode::SetWatches2 => cost::parsed(20 * record.len()),
        Opcode::Exists
        | Opcode::Ping
        | Opcode::CheckWatches
        | Opcode::RemoveWatches
        | Opcode::GetAllChildrenNumber
        | Opcode::AddWatch
        | Opcode::WhoAmI => 0,
        // None is a read.
        write_op!() | sync_op!() | auth_op!() | internal_op!() => 0,
    };
    cost::REQUEST + cost::bytes(record.len()) + more
}
