//! Transactions, each applied to a tree that the ones before have made.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zab_fuzz::encoded;
use zab_proto::wire::jute::Reader;
use zk_service::Database;
use zk_service::txn::{Payload, Txn};

fuzz_target!(|data: &[u8]| {
    let mut database = Database::new(true);
    // A sequence of buffers, as in a log.
    let mut reader = Reader::new(data);
    while let Ok(Some(bytes)) = reader.buffer() {
        let Ok(payload) = Payload::decode(bytes) else { continue };
        // A digest behind a closeSession without paths, and two paths without a character, are the
        // same bytes: a flaw of the format. Servers leave such a digest out, and no path is empty.
        let ambiguous = match payload.txn {
            Txn::CloseSession(None) => payload.digest.is_some(),
            Txn::CloseSession(Some(paths)) => paths.iter().any(|path| path.is_empty()),
            _ => false,
        };
        if !ambiguous {
            let again = encoded(|out| payload.encode(out));
            assert_eq!(Payload::decode(&again).as_ref(), Ok(&payload));
        }
        let mut triggers = 0;
        database.apply(&payload.header, &payload.txn, &mut |_| triggers += 1);
        assert!(triggers <= 3 * bytes.len());
    }
});
