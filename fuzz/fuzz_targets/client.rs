//! Bytes of clients, on several connections of a standalone server.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| zab_fuzz::client::run(data));
