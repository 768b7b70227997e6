//! The example does what it says.

#[path = "../examples/without_io.rs"]
mod without_io;

#[test]
fn a_server_without_io() {
    without_io::main().expect("the example ends well");
}
