//! The example does what it says, on every runtime; and each is found by its name.

use runtime_any::Runtime;

#[path = "../examples/kv.rs"]
mod kv;

#[test]
fn the_replicated_map() {
    for runtime in Runtime::ALL {
        kv::run(*runtime).unwrap_or_else(|error| panic!("{}: {error}", runtime.name()));
    }
}

#[test]
fn a_runtime_is_found_by_its_name() {
    let names: Vec<_> = Runtime::ALL.iter().map(|runtime| runtime.name()).collect();
    assert_eq!(names, ["mio", "smol", "std"]);
    for runtime in Runtime::ALL {
        assert_eq!(Runtime::from_name(runtime.name()), Some(*runtime));
    }
    assert_eq!(Runtime::from_name("tokio"), None);
}
