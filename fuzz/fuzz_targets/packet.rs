//! A stream of quorum packets, each of which has its body decoded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zab_fuzz::{encoded, parse_in_pieces};
use zab_proto::wire::Parsed;
use zab_proto::wire::packet::Packet;

/// ZooKeeper's default: `jute.maxbuffer` and as much again.
const DEFAULT: usize = 2 * 0xf_ffff;

/// Small enough for lengths of real inputs to be around it.
const SMALL: usize = 100;

fuzz_target!(|data: &[u8]| {
    for limit in [SMALL, DEFAULT] {
        let mut rest = data;
        loop {
            match parse_in_pieces(rest, |bytes| Packet::parse(bytes, limit)) {
                Parsed::Complete { value, len } => {
                    assert_eq!(value.encoded_len(), len);
                    assert_eq!(encoded(|out| value.write(out)), rest[..len]);
                    let mut memory = vec![0; len];
                    assert_eq!(value.emit(&mut memory), len);
                    assert_eq!(memory, rest[..len]);
                    rest = &rest[len..];
                }
                Parsed::Incomplete => {
                    assert!(rest.len() < Packet::len_max(limit), "a full buffer decides");
                    break;
                }
                Parsed::Malformed(_) => break,
            }
        }
    }
});
