//! Key and trust stores, and certificates. (Sums over whole files are not checked here: hardly any input would
//! get behind them.)
#![no_main]

use libfuzzer_sys::fuzz_target;
use zab_tls::{Certificate, Format, Identity, Trust, matches};

fuzz_target!(|data: &[u8]| {
    let format = Format::of(data);
    for password in ["changeit", ""] {
        if let Ok(identity) = Identity::read(data, password, 1_795_824_000) {
            assert!(format.is_ok());
            let leaf = identity.leaf().expect("it was read before");
            assert!(!format!("{identity:?}{leaf:?}").contains("changeit"));
            assert!(identity.chain().count() <= data.len());
        }
        if let Ok(trust) = Trust::read(data, password) {
            assert!(trust.certificates().map(<[u8]>::len).sum::<usize>() <= 2 * data.len());
            trust.certificates().for_each(look);
        }
    }
    look(data);
});

fn look(der: &[u8]) {
    let Ok(certificate) = Certificate::parse(der) else { return };
    // Each byte becomes four at most.
    assert!(certificate.subject_name().len() <= 16 * der.len());
    let name = certificate.common_name().unwrap_or_default();
    for host in ["localhost", "zk-1.example.com", "127.0.0.1", "[::1]", "", &name] {
        let _ = matches(&certificate, host);
    }
}
