//! Every rule that a source file refers to is in the book of rules.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The numbers behind "rule R" and "rules R" (and what follows in the same list).
fn referred(text: &str) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("rule") {
        let rest = &text[at + 4..];
        let mut words = rest.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
        let mut words = words.by_ref().skip_while(|word| matches!(*word, "s" | "and"));
        while let Some(number) = words.next().and_then(|word| word.strip_prefix('R')) {
            found.extend(number.parse::<u32>().ok());
        }
    }
    found
}

fn collect(dir: &Path, found: &mut BTreeSet<u32>) {
    for entry in fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry")) {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.extend(referred(&fs::read_to_string(&path).expect("text")));
        }
    }
}

#[test]
fn every_rule_is_in_the_book() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let book = fs::read_to_string(root.join("docs/rules.md")).expect("the book");
    let rows = book.lines().filter_map(|line| line.strip_prefix("| R")?.split(' ').next());
    let rules: BTreeSet<u32> = rows.map(|number| number.parse().expect("a number")).collect();
    assert_eq!(rules, (1..=u32::try_from(rules.len()).expect("few")).collect());
    let mut found = BTreeSet::new();
    for name in ["zab-proto", "zab-storage", "zk-service", "runtime-core", "zabd", "zab-sim"] {
        collect(&root.join(name).join("src"), &mut found);
    }
    assert!(found.contains(&14) && found.contains(&23), "the search finds what there is");
    let unknown: Vec<_> = found.difference(&rules).collect();
    assert!(unknown.is_empty(), "not in docs/rules.md: {unknown:?}");
}

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
    assert_eq!(askers, ["ensemble.rs", "quorums.rs"].map(Into::into).into());
}

#[test]
fn the_search_bites() {
    assert_eq!(referred("(rules R1, R3) and rule R99."), BTreeSet::from([1, 3, 99]));
    assert_eq!(referred("A rule of R's, no rule"), BTreeSet::new());
}
