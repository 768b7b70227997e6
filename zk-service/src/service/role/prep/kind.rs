//! What a create makes, and whose that is.

use crate::protocol::code::Code;
use crate::protocol::opcode::Opcode;
use crate::protocol::request::Create;
use crate::protocol::txn::CreateKind;
use crate::state::tree::Owner;

/// What a create makes. Alone its operation decides, in a multi its flags do, mostly.
pub(super) fn create_kind(
    create: &Create<'_>,
    in_multi: bool,
    extended: bool,
) -> Result<CreateKind, Code> {
    if !(0..=6).contains(&create.flags) {
        return Err(Code::BAD_ARGUMENTS);
    }
    let ephemeral = create.is_ephemeral();
    if create.has_ttl() {
        return match (extended, create.ttl) {
            (false, _) => Err(Code::UNIMPLEMENTED),
            (true, ttl_ms @ 1..=0xff_ffff_ffff) if create.op == Opcode::CreateTtl => {
                Ok(CreateKind::Ttl { ttl_ms })
            }
            _ => Err(Code::BAD_ARGUMENTS),
        };
    }
    if create.op == Opcode::CreateContainer || (in_multi && create.flags == Create::CONTAINER) {
        Ok(CreateKind::Container)
    } else if create.op == Opcode::Create2 && !in_multi {
        Ok(CreateKind::Create2 { ephemeral })
    } else if create.op == Opcode::Create || in_multi {
        // A part that is a create2 too: ZooKeeper 3.8.0 and 3.8.1 write it as a create, and apply a multi no further
        // than to a part that they do not know. Nobody can tell which of them follow.
        Ok(CreateKind::Create { ephemeral })
    } else {
        // A TTL without the flag is logged by ZooKeeper's leader and cannot be applied.
        Err(Code::BAD_ARGUMENTS)
    }
}

/// Whose node that is: a session's id, or what stands for its kind.
pub(super) fn owner(kind: CreateKind, session: i64) -> i64 {
    match kind {
        CreateKind::CreateV0 { ephemeral }
        | CreateKind::Create { ephemeral }
        | CreateKind::Create2 { ephemeral } => {
            if ephemeral {
                session
            } else {
                0
            }
        }
        CreateKind::Container => Owner::Container.to_raw(),
        CreateKind::Ttl { ttl_ms } => Owner::Ttl(ttl_ms.cast_unsigned()).to_raw(),
    }
}
