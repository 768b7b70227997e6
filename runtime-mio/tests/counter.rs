//! The example of three members does what it says, and is the one that the front page of `zab-proto` shows.

use std::path::Path;

#[path = "../examples/counter.rs"]
mod counter;

#[test]
fn three_members_with_sockets_and_disks() {
    counter::main().expect("the example ends well");
}

#[test]
fn the_front_page_of_the_core_shows_it() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../zab-proto/README.md");
    // The package of this crate as published stands alone.
    let Ok(page) = std::fs::read_to_string(page) else { return };
    let program = include_str!("../examples/counter.rs");
    let main = &program[program.find("fn main").expect("it is there")..];
    let shown = page.replace("\r\n", "\n");
    assert!(shown.contains(main), "zab-proto/README.md shows another program");
}
