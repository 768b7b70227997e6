//! The example does what it says.

#[path = "../examples/in_memory.rs"]
mod in_memory;

#[test]
fn a_server_in_memory() {
    in_memory::main().expect("the example ends well");
}
