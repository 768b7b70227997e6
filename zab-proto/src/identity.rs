//! Which ensemble a data directory belongs to (rule R24).
//!
//! Server ids, epochs and zxids are small numbers that every ensemble has. They do not show that a
//! directory was restored, or mounted, in the place of another ensemble's. So an ensemble gets a random
//! id, which its members keep beside their epochs, and show each other in bytes that ZooKeeper throws
//! away.

use core::fmt;

/// The random id of an ensemble.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnsembleId([u8; 16]);

impl EnsembleId {
    /// From 128 random bits.
    #[must_use]
    pub const fn new(bits: u128) -> Self {
        Self(bits.to_be_bytes())
    }

    /// Reads the text that `Display` writes: 32 hexadecimal digits, in lower case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let bits = (digits && text.len() == 32).then(|| u128::from_str_radix(text, 16).ok());
        bits.flatten().map(Self::new)
    }
}

impl fmt::Display for EnsembleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for EnsembleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a directory knows of its ensemble's id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Identity {
    /// The id.
    pub id: EnsembleId,
    /// A quorum of voters has stored it. Until then it may be replaced by another one, and nobody is
    /// refused for it.
    pub confirmed: bool,
}

impl Identity {
    /// Its length on the wire in bytes.
    pub(crate) const LEN: usize = 17;

    pub(crate) fn encode(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..16].copy_from_slice(&self.id.0);
        bytes[16] = u8::from(self.confirmed);
        bytes
    }

    /// Reads what a member says. Nothing at all means that it has none; what is not understood, too.
    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        let (id, rest) = value.split_first_chunk()?;
        Some(Self { id: EnsembleId(*id), confirmed: rest.first() == Some(&1) })
    }
}

/// The ids of two sides that belong to different ensembles: only confirmed ones show that.
pub(crate) fn differ(
    ours: Option<Identity>,
    theirs: Option<Identity>,
) -> Option<(EnsembleId, EnsembleId)> {
    let (ours, theirs) = (ours?, theirs?);
    let differ = ours.confirmed && theirs.confirmed && ours.id != theirs.id;
    differ.then_some((ours.id, theirs.id))
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn an_id_is_its_text() {
        for bits in [0, 1, u128::MAX, 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef] {
            let id = EnsembleId::new(bits);
            assert_eq!(EnsembleId::parse(&format!("{id}")), Some(id));
        }
        let digits = "0123456789abcdef0123456789abcdef";
        for text in ["", "0", &digits[1..], &format!("{digits}0"), &format!("+{}", &digits[1..])] {
            assert_eq!(EnsembleId::parse(text), None, "{text}");
        }
        assert_eq!(EnsembleId::parse(&digits.to_uppercase()), None);
    }

    #[test]
    fn on_the_wire() {
        for confirmed in [false, true] {
            let identity = Identity { id: EnsembleId::new(77), confirmed };
            let bytes = identity.encode();
            assert_eq!(Identity::decode(&bytes), Some(identity));
            assert_eq!(Identity::decode(&[&bytes[..], b"more"].concat()), Some(identity));
            assert!((0..16).all(|len| Identity::decode(&bytes[..len]).is_none()));
        }
        // A flag of another version is no confirmation.
        let mut bytes = Identity { id: EnsembleId::new(77), confirmed: true }.encode();
        bytes[16] = 2;
        assert_eq!(Identity::decode(&bytes).map(|identity| identity.confirmed), Some(false));
    }

    #[test]
    fn only_confirmed_ids_keep_apart() {
        let identity = |bits, confirmed| Some(Identity { id: EnsembleId::new(bits), confirmed });
        let (a, b) = (identity(1, true), identity(2, true));
        assert_eq!(differ(a, b), Some((EnsembleId::new(1), EnsembleId::new(2))));
        for (ours, theirs) in
            [(a, a), (a, None), (None, b), (a, identity(2, false)), (identity(1, false), b)]
        {
            assert_eq!(differ(ours, theirs), None);
        }
    }
}
