//! A short random search, and what every search relies on.

use std::fs;
use std::path::Path;

use zab_sim::counter::Counter;
use zab_sim::coverage::Coverage;
use zab_sim::replica::Replica;
use zab_sim::{Mutation, Options, profile, run, scenarios};

type App = Replica<Counter>;

/// Same seed, same run: byte for byte in the trace.
#[test]
fn seeds_reproduce() {
    for seed in [3, 8, 21] {
        let mut options = Options::swarm(seed);
        options.events_max = 2000;
        let (first, second) = (run::<App>(&options, 100_000), run::<App>(&options, 100_000));
        assert!(!first.trace.is_empty());
        assert_eq!(first.trace, second.trace, "seed {seed}");
        assert_eq!(first.fingerprint, second.fingerprint, "seed {seed}");
    }
}

#[test]
fn a_short_search_finds_nothing_and_reaches_everything() {
    let mut coverage = Coverage::default();
    for seed in 0..20 {
        let mut options = Options::swarm(seed);
        options.events_max = options.events_max.min(6000);
        let outcome = run::<App>(&options, 0);
        assert_eq!(outcome.failure, None, "seed {seed}");
        coverage.add(&outcome.coverage);
    }
    for what in [
        "Leading in Broadcast",
        "Following in Broadcast by Diff",
        "Following in Broadcast by Snap",
        "Observing in Broadcast by Diff",
        "install",
        "snapshot",
        "fault: kill",
        "fault: power cut",
        "fault: server isolated",
        "fault: disk stalled",
    ] {
        assert!(coverage.of(what) > 0, "not reached: {what}\n{coverage}");
    }
}

/// Members that change, with everything else that goes wrong.
#[test]
fn the_members_change_while_servers_run() {
    let profile = profile::named("members").expect("it is one");
    let mut coverage = Coverage::default();
    for seed in 0..20 {
        let mut options = profile.options(seed);
        options.events_max = options.events_max.min(6000);
        let outcome = run::<App>(&options, 0);
        assert_eq!(outcome.failure, None, "seed {seed}");
        coverage.add(&outcome.coverage);
    }
    for what in [
        "members: committed, more voters",
        "members: committed, fewer voters",
        "members: in force, with a vote",
        "members: in force, as a stranger",
        "members: led by a designated server",
        "members: proposed, and its leader lost",
    ] {
        assert!(coverage.of(what) > 0, "not reached: {what}\n{coverage}");
    }
}

/// The checks bite: the commonest of the old mistakes is found at once.
#[test]
fn a_fault_put_in_is_found() {
    for mutation in [Mutation::AckBeforeFsync, Mutation::AppendErrorIgnored] {
        let found = (0..50).any(|seed| {
            let options = Options { mutation: Some(mutation), ..Options::swarm(seed) };
            run::<App>(&options, 0).failure.is_some()
        });
        assert!(found, "{mutation:?}");
    }
}

/// `docs/catalogue.md` names every script, and no script or profile that does not exist.
#[test]
fn the_catalogue_is_complete() {
    let table = include_str!("../../docs/catalogue.md");
    let quoted = || table.split('`').skip(1).step_by(2);
    let named: Vec<_> = quoted().filter_map(|name| name.strip_suffix(".txt")).collect();
    for name in &named {
        assert!(scenarios::named(name).is_some(), "there is no script {name}");
    }
    for scenario in scenarios::ALL {
        assert!(named.contains(&scenario.name), "{} is not in the catalogue", scenario.name);
    }
    for rest in table.split("profile `").skip(1) {
        let name = rest.split('`').next().unwrap_or_default();
        assert!(profile::ALL.iter().any(|p| p.name == name), "there is no profile {name}");
    }
}

/// Every test that `docs/catalogue.md` or `docs/limits.md` names exists somewhere in the workspace.
#[test]
fn the_docs_name_tests_that_exist() {
    let mut sources = String::new();
    let mut dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("..")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                dirs.push(path);
            } else if name.ends_with(".rs") {
                sources += &fs::read_to_string(&path).expect("a source file");
            }
        }
    }
    // Those of the suite of runtimes are generic.
    let exists = |name: &str| ['(', '<'].iter().any(|c| sources.contains(&format!("fn {name}{c}")));
    for name in names_in(include_str!("../../docs/catalogue.md")) {
        assert!(exists(name), "there is no test {name}");
    }
    for row in include_str!("../../docs/limits.md").lines().filter(|row| row.starts_with("| ")) {
        // The last column names tests, the first may name options.
        let tests = row.trim_end_matches([' ', '|']).rsplit_once('|').map_or("", |row| row.1);
        for name in names_in(tests) {
            assert!(exists(name), "there is no test {name}");
        }
    }
}

/// What is quoted in a text and could be the name of a function.
fn names_in(text: &str) -> impl Iterator<Item = &str> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(move |name| name.contains('_') && name.chars().all(is_name))
}

/// Every bound in the tables of `docs/embedding.md` has its test in `docs/limits.md`.
#[test]
fn no_bound_is_without_a_test() {
    let text = include_str!("../../docs/embedding.md");
    let (_, text) = text.split_once("## Limits, all of them").expect("the section");
    let (tables, _) = text.split_once("## The memory sum").expect("the next one");
    let crossed = include_str!("../../docs/limits.md");
    let mut count = 0;
    for row in tables.lines().filter(|row| row.starts_with("| `")) {
        let bounds = row.split('|').nth(1).unwrap_or_default();
        for name in names_in(bounds) {
            count += 1;
            let quoted = format!("`{name}`");
            let is_row = |line: &str| {
                let cells: Vec<&str> = line.split('|').collect();
                cells.get(1).is_some_and(|cell| cell.contains(&quoted)) && cells.len() > 3
            };
            assert!(crossed.lines().any(is_row), "no test crosses {name}");
        }
    }
    assert!(count > 25, "the tables are read");
}

/// The embedder's example, as it is.
#[path = "../examples/register.rs"]
mod register;

#[test]
fn the_example_holds() {
    register::main();
}
