//! One rule has one place in the sources.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Which configurations count is asked of `Quorums`, and of nothing else.
#[test]
fn one_place_counts_quorums() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut dirs = vec![src.clone()];
    let mut askers = BTreeSet::new();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("tests") {
                dirs.push(path);
            } else if path.is_file()
                && fs::read_to_string(&path).expect("text").contains("ensemble.is_quorum(")
            {
                askers.insert(path.strip_prefix(&src).expect("below").to_path_buf());
            }
        }
    }
    assert_eq!(askers, ["membership.rs", "quorums.rs"].map(Into::into).into());
}
