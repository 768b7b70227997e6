//! Lists of revoked certificates.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zab_tls::RevocationLists;

fuzz_target!(|data: &[u8]| {
    match RevocationLists::read(data) {
        // None is shorter than what it says of itself.
        Ok(lists) => assert!((1..=data.len() / 16).contains(&lists.count())),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
