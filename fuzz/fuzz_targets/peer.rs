//! One peer against arbitrary bytes, timing and disk progress on all its connections.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    zab_fuzz::peer::run(data);
});
