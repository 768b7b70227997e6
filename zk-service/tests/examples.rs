//! The examples do what they say.

#[path = "../examples/without_io.rs"]
mod without_io;

#[path = "../examples/requests.rs"]
mod requests;

#[test]
fn a_server_without_io() {
    without_io::main().expect("the example ends well");
}

#[test]
fn requests_are_answered() {
    requests::main().expect("the example ends well");
    requests::run("read", 10).expect("the example ends well");
}
