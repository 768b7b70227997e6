//! What the fuzz targets have in common.
#![forbid(unsafe_code)]

pub mod answers;
pub mod client;
pub mod disk;
pub mod nulls;
pub mod peer;
pub mod said;
pub mod server;
mod servers;

use zab_proto::wire::Parsed;

/// What `write` appends to an empty buffer.
pub fn encoded(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// Checks that an incremental parser says the same of `bytes` in whatever pieces they arrive: it
/// waits until the message is complete, and once it calls one malformed, more bytes do not mend it.
/// Returns what it makes of all the bytes.
pub fn parse_in_pieces<'a, T>(bytes: &'a [u8], parse: impl Fn(&'a [u8]) -> Parsed<T>) -> Parsed<T> {
    let whole = parse(bytes);
    // Every prefix of a short input, some of a long one.
    let step = bytes.len() / 64 + 1;
    for at in (0..bytes.len()).step_by(step) {
        match (parse(&bytes[..at]), &whole) {
            (Parsed::Incomplete, _) => {
                let ends_here = matches!(whole, Parsed::Complete { len, .. } if len <= at);
                assert!(!ends_here, "waits at {at} for what is there");
            }
            (Parsed::Complete { len: first, .. }, Parsed::Complete { len, .. }) => {
                assert_eq!(first, *len);
            }
            (Parsed::Malformed(_), Parsed::Malformed(_)) => {}
            _ => panic!("more bytes changed what the first {at} say"),
        }
    }
    whole
}
