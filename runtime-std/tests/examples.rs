//! The example does what it says.

#[path = "../examples/kv.rs"]
mod kv;

#[test]
fn the_replicated_map() {
    kv::main().expect("the example ends well");
}
