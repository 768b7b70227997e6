//! Ids of sessions, and the passwords that go with them.

/// A session id: the id of the server that gives it, then 56 random bits.
///
/// ZooKeeper counts on from a clock, so that the id of one session tells those of its neighbours, and
/// with the id the password. Nothing in ZooKeeper depends on the order of ids: of those of other
/// servers it looks at the server's byte at most.
pub(crate) fn session_id(sid: i64, random: u64) -> i64 {
    let id = (sid.cast_unsigned() << 56) | (random >> 8);
    match id.cast_signed() {
        // The first marks containers as the owner of a node, the second asks for a new session.
        i64::MIN | 0 => id.cast_signed() + 1,
        id => id,
    }
}

/// The password of a session: a function of its id, equal on all servers, ZooKeeper's included.
///
/// Whoever sees an id, as the owner of an ephemeral node, knows it. A secret of the ensemble would
/// end that, but a ZooKeeper member could not check such a password, so that all members would have
/// to be known to be ours.
pub(crate) fn password(session: i64) -> [u8; 16] {
    const MASK: u64 = (1 << 48) - 1;
    let mut seed = (session.cast_unsigned() ^ 0xB341_5C00 ^ 0x5_DEEC_E66D) & MASK;
    let mut password = [0; 16];
    for chunk in password.chunks_exact_mut(4) {
        seed = seed.wrapping_mul(0x5_DEEC_E66D).wrapping_add(0xB) & MASK;
        chunk.copy_from_slice(&(seed >> 16).to_le_bytes()[..4]);
    }
    password
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords() {
        let hex = |id: u64| -> String {
            password(id.cast_signed()).iter().map(|byte| format!("{byte:02x}")).collect()
        };
        assert_eq!(hex(0x100_0016_e421_0000), "e5626d110e0b1e40cb14a247078577e9");
        assert_eq!(hex(1), "054cc74a37327db215e702e20c73f005");
        assert_eq!(hex(u64::MAX), "20f62cb5648dc2d771471c8a2486a9ee");
    }

    #[test]
    fn ids() {
        assert_eq!(session_id(1, 0xabcd_0000_0000_12ff), 0x01ab_cd00_0000_0012);
        assert_eq!(session_id(0x80, 0xff), i64::MIN + 1);
        assert_eq!(session_id(0, 0xff), 1);
        assert_eq!(session_id(200, u64::MAX).cast_unsigned(), 0xc8ff_ffff_ffff_ffff);
    }
}
