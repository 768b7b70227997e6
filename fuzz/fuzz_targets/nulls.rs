//! Requests with null and empty fields, answered as recorded.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| zab_fuzz::nulls::run(data));
