//! The example reads what a server of ZooKeeper has written.

use std::path::Path;

#[path = "../examples/read_log.rs"]
mod read_log;

#[test]
fn a_log_record_by_record() {
    let logs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/basic-crud/version-2");
    let counts =
        ["log.1", "log.17"].map(|log| read_log::run(&logs.join(log)).expect("a whole log"));
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    assert!(read_log::run(&logs.join("snapshot.0")).is_err(), "not a log");
}
