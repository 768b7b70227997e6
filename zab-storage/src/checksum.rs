//! The checksum of ZooKeeper's files.

use std::fmt;

use simd_adler32::Adler32;

/// Adler-32 of what has been added so far.
#[derive(Default)]
pub(crate) struct Checksum(Adler32);

impl Checksum {
    /// Of these bytes.
    pub(crate) fn of(bytes: &[u8]) -> u32 {
        simd_adler32::adler32(&bytes)
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    pub(crate) fn value(&self) -> u32 {
        self.0.finish()
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checksum({:#010x})", self.value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition of RFC 1950, section 8.2.
    fn defined(bytes: &[u8]) -> u32 {
        let (a, b) = bytes.iter().fold((1, 0), |(a, b), byte| {
            let a = (a + u32::from(*byte)) % 65_521;
            (a, (b + a) % 65_521)
        });
        b << 16 | a
    }

    #[test]
    fn it_is_adler_32_in_pieces_too() {
        let bytes: Vec<u8> =
            (0..20_000_u32).map(|n| (n.wrapping_mul(n) >> 3).to_le_bytes()[0]).collect();
        for len in (0..300).chain([5551, 5552, 5553, 11_104, 20_000]) {
            let bytes = &bytes[..len];
            assert_eq!(Checksum::of(bytes), defined(bytes), "{len} bytes");
            let mut in_pieces = Checksum::default();
            bytes.chunks(7).for_each(|piece| in_pieces.add(piece));
            assert_eq!(in_pieces.value(), defined(bytes), "{len} bytes");
        }
        assert_eq!(Checksum::of(&[0xff; 20_000]), defined(&[0xff; 20_000]));
    }
}
