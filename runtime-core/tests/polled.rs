//! The runtime of the example passes the suite of all runtimes, and the example does what it says.

#[path = "../examples/polled.rs"]
mod polled;

zab_harness::runtime_suite!(polled::Polled);

#[test]
fn three_members_count() {
    polled::main().expect("the example ends well");
}
