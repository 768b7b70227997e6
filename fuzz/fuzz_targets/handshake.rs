//! The first bytes on an election connection.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zab_fuzz::{encoded, parse_in_pieces};
use zab_proto::wire::Parsed;
use zab_proto::wire::handshake::{Handshake, LEN_MAX};

fuzz_target!(|data: &[u8]| {
    match parse_in_pieces(data, Handshake::parse) {
        Parsed::Complete { value, len } => {
            assert_eq!(encoded(|out| value.write(out)), data[..len]);
            assert!(value.addresses().all(|(host, _)| !host.is_empty()));
        }
        Parsed::Incomplete => assert!(data.len() < LEN_MAX, "a full buffer decides"),
        Parsed::Malformed(_) => {}
    }
});
