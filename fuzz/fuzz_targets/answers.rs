//! Bytes of a server, for a client that has asked it all there is to ask.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| zab_fuzz::answers::run(data));
