//! `zoo.cfg`, down to the checked configuration.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zabd::config::{ServerConfig, SystemProperties, properties};

fuzz_target!(|data: &[u8]| {
    let Ok(entries) = properties::parse(data) else { return };
    // Other files are not part of the input.
    if entries.iter().any(|entry| entry.key == "dynamicConfigFile") {
        return;
    }
    if let Err(error) = ServerConfig::parse(data, SystemProperties::default(), None) {
        assert!(!error.to_string().is_empty());
    }
});
