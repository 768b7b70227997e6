//! What the repository says of itself holds: links lead somewhere, the pages and rules that comments
//! name exist, files have a bound, and the version of Rust is the same everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Lines of a source file, with its tests.
const LINES_MAX: usize = 600;

/// The text files of the repository, by their paths from its root.
struct Repository(BTreeMap<PathBuf, String>);

impl Repository {
    /// None in the package of this crate as published, which holds this crate alone: there are no
    /// other crates and no pages in it that could be checked.
    fn open() -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        if !root.join("docs").is_dir() {
            return None;
        }
        let mut files = BTreeMap::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a directory") {
                let path = entry.expect("an entry").path();
                let name = path.file_name().expect("not the root").to_string_lossy();
                if name.starts_with('.') || name == "target" {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                } else if matches!(extension(&path), "rs" | "py" | "md" | "toml") {
                    let text = fs::read_to_string(&path).expect("text");
                    files.insert(path.strip_prefix(&root).expect("below").to_path_buf(), text);
                }
            }
        }
        assert!(files.len() > 300, "the files were found");
        Some(Self(files))
    }

    fn with<'a>(&'a self, wanted: &'a [&str]) -> impl Iterator<Item = (&'a Path, &'a str)> {
        let files = self.0.iter().map(|(path, text)| (path.as_path(), text.as_str()));
        files.filter(|(path, _)| wanted.contains(&extension(path)))
    }

    fn text(&self, path: &str) -> &str {
        self.0.get(Path::new(path)).unwrap_or_else(|| panic!("{path} is there"))
    }

    /// Whether `path`, from the root, is a file or a folder, of any kind.
    fn has(&self, path: &Path) -> bool {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path).exists()
    }
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or_default()
}

/// `path` without `..`, or None if it leads out of the repository.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut found = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => found.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !found.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(found)
}

/// The lines of a page that are not in a block of code.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    page.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

fn headings(page: &str) -> impl Iterator<Item = &str> {
    let lines = prose(page).filter(|line| line.starts_with('#'));
    lines.filter_map(|line| line.trim_start_matches('#').strip_prefix(' ')).map(str::trim)
}

/// The anchors of a page as GitHub makes them: a heading that repeats gets a number.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::new();
    let mut found = BTreeSet::new();
    for heading in headings(page) {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let slug: String = kept.collect::<String>().to_lowercase().replace(' ', "-");
        let times: &mut u32 = seen.entry(slug.clone()).or_default();
        found.insert(if *times == 0 { slug } else { format!("{slug}-{times}") });
        *times += 1;
    }
    found
}

/// The targets of a page's links that are neither addresses nor items of Rust.
fn links(page: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for line in prose(page) {
        let inline = line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
        let defined = line.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
        found.extend(inline.chain(defined.map(|(_, target)| target.trim())));
    }
    found.retain(|target| !["://", "mailto:", "::"].iter().any(|other| target.contains(other)));
    found
}

/// Why a link of the page `from` leads nowhere, if it does.
fn broken(repository: &Repository, from: &Path, link: &str) -> Option<&'static str> {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let joined = from.parent().expect("a file").join(path);
    let target = if path.is_empty() { Some(from.to_path_buf()) } else { plain(&joined) };
    let Some(target) = target.filter(|target| repository.has(target)) else {
        return Some("no such file");
    };
    let page = repository.0.get(&target).filter(|_| extension(&target) == "md");
    let is_known = anchor.is_empty() || page.is_some_and(|page| anchors(page).contains(anchor));
    (!is_known).then_some("no such heading")
}

#[test]
fn every_link_leads_somewhere() {
    let Some(repository) = Repository::open() else { return };
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (path, page) in repository.with(&["md"]) {
        for link in links(page) {
            count += 1;
            if let Some(why) = broken(&repository, path, link) {
                wrong.push(format!("{}: {link}: {why}", path.display()));
            }
        }
    }
    assert!(count > 100, "the links were found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The comments of a source file: what is behind `//` or `#`, and Python's docstrings.
fn comments(path: &Path, text: &str) -> String {
    if extension(path) == "rs" {
        return text
            .lines()
            .filter_map(|line| Some(line.split_once("//")?.1))
            .fold(String::new(), |all, line| {
                all + line.trim_start_matches(['/', '!']).trim() + "\n"
            });
    }
    let mut found = String::new();
    for (index, part) in text.split("\"\"\"").enumerate() {
        let is_string = index % 2 == 1;
        for line in part.lines() {
            let comment = if is_string { Some(line) } else { line.split_once('#').map(|it| it.1) };
            found.extend(comment.into_iter().flat_map(|line| [line.trim(), "\n"]));
        }
    }
    found
}

/// The pages that comments cite, each with the title in quotes behind it, if there is one:
/// ``(`docs/storage.md`, "Recovery")``.
fn cited(comments: &str) -> Vec<(String, Option<String>)> {
    let is_path = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.');
    let mut found = Vec::new();
    for (at, _) in comments.match_indices(".md") {
        let (before, after) = (&comments[..at], &comments[at + 3..]);
        if after.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            continue;
        }
        let name = &before[before.trim_end_matches(is_path).len()..];
        if name.is_empty() || before[..at - name.len()].ends_with(':') {
            continue; // An ending by itself, or an address.
        }
        let behind = after.trim_start_matches('`').strip_prefix(',').map(str::trim_start);
        let title = behind.and_then(|rest| rest.strip_prefix('"')?.split_once('"'));
        let title = title.map(|(title, _)| title.replace('\n', " "));
        found.push((format!("{name}.md"), title));
    }
    found
}

/// A page is cited by its path from the root or from the crate: of two pages that have one name, one
/// is not here.
#[test]
fn every_page_that_a_comment_cites_is_here() {
    let Some(repository) = Repository::open() else { return };
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (path, text) in repository.with(&["rs", "py"]) {
        if path.ends_with("zab-proto/tests/tidy.rs") {
            continue; // Cites pages that do not exist, to see that they are found.
        }
        for (name, title) in cited(&comments(path, text)) {
            count += 1;
            let own = Path::new(path.iter().next().expect("not empty")).join(&name);
            let page = repository.0.get(Path::new(&name)).or_else(|| repository.0.get(&own));
            let is_there = page.is_some_and(|page| {
                title.as_ref().is_none_or(|title| headings(page).any(|heading| heading == title))
            });
            if !is_there {
                wrong.push(format!("{}: {name} {}", path.display(), title.unwrap_or_default()));
            }
        }
    }
    assert!(count > 15, "the citations were found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The numbers of the rules that a text names: "R8", not "R8a" or "0xR8".
fn rules(text: &str) -> BTreeSet<u32> {
    let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    words.filter_map(|word| word.strip_prefix('R')?.parse().ok()).collect()
}

#[test]
fn every_rule_is_in_the_book() {
    let Some(repository) = Repository::open() else { return };
    let book = repository.text("docs/rules.md");
    let rows = book.lines().filter_map(|line| line.strip_prefix("| R")?.split(' ').next());
    let known: BTreeSet<u32> = rows.map(|number| number.parse().expect("a number")).collect();
    assert_eq!(known, (1..=u32::try_from(known.len()).expect("few")).collect());
    let mut found = BTreeSet::new();
    for (path, text) in repository.with(&["rs"]) {
        if path.ends_with("zab-proto/tests/tidy.rs") {
            continue; // Names a rule that does not exist, to see that it is found.
        }
        let named = rules(text);
        let unknown: Vec<_> = named.difference(&known).collect();
        assert!(unknown.is_empty(), "{}: not in docs/rules.md: {unknown:?}", path.display());
        found.extend(named);
    }
    assert!(found.contains(&14) && found.contains(&23), "the search finds what there is");
}

#[test]
fn no_source_file_is_too_long() {
    let Some(repository) = Repository::open() else { return };
    for (path, text) in repository.with(&["rs", "py"]) {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines: where is its seam?", path.display());
    }
}

#[test]
fn every_source_file_says_what_it_is() {
    let Some(repository) = Repository::open() else { return };
    for (path, text) in repository.with(&["rs"]) {
        let first = text.lines().next().unwrap_or_default();
        // `#!` is that of a crate whose documentation is its README.
        assert!(first.starts_with("//!") || first.starts_with("#!"), "{}: {first}", path.display());
    }
}

/// The files that a source file takes into itself: modules at a path, and texts.
fn included(text: &str) -> Vec<&str> {
    let starts = ["#[path = \"", "include_str!(\"", "include_bytes!(\""];
    let parts = starts.iter().flat_map(|start| text.split(start).skip(1));
    parts.filter_map(|rest| Some(rest.split_once('"')?.0)).collect()
}

/// What a published crate is built from is in its package: nothing is included from another crate.
#[test]
fn no_crate_includes_a_file_of_another() {
    let Some(repository) = Repository::open() else { return };
    let is_published = |package: &Path| {
        let manifest = repository.0.get(&package.join("Cargo.toml"));
        manifest.is_some_and(|manifest| !manifest.contains("publish = false"))
    };
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (path, text) in repository.with(&["rs"]) {
        let package = Path::new(path.iter().next().expect("not empty"));
        if path.ends_with("zab-proto/tests/tidy.rs") {
            continue; // Includes files that do not exist, to see that they are found.
        }
        for file in included(text) {
            count += 1;
            let target = plain(&path.parent().expect("a file").join(file));
            let is_own = target.is_some_and(|target| target.starts_with(package));
            // A test may look at the repository that it is part of; code of another crate is its own.
            let is_text = extension(Path::new(file)) != "rs" && !is_published(package);
            if !is_own && !is_text {
                wrong.push(format!("{}: {file}", path.display()));
            }
        }
    }
    assert!(count > 15, "the included files were found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The versions behind "Rust ".
fn versions(page: &str) -> Vec<&str> {
    let behind = page.split("Rust ").skip(1).map(|rest| {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        rest[..end].trim_end_matches('.')
    });
    behind.filter(|version| !version.is_empty()).collect()
}

#[test]
fn the_pages_ask_for_the_version_of_rust_that_cargo_asks_for() {
    let Some(repository) = Repository::open() else { return };
    let manifest = repository.text("Cargo.toml");
    let line = manifest.lines().find_map(|line| line.strip_prefix("rust-version = "));
    let wanted = line.expect("the workspace has a rust-version").trim_matches('"');
    for page in ["README.md", "CONTRIBUTING.md"] {
        let found = versions(repository.text(page));
        assert!(!found.is_empty(), "{page} names no version of Rust");
        assert!(found.iter().all(|version| *version == wanted), "{page}: {found:?}, not {wanted}");
    }
}

/// The time after which CI ends a run is told as it is.
#[test]
fn the_pages_tell_the_timeout_of_ci() {
    let Some(repository) = Repository::open() else { return };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.github/workflows/ci.yml");
    let workflow = fs::read_to_string(path).expect("the workflow");
    let after = |text: &str, words: &str| -> u32 {
        let rest = text.split_once(words).unwrap_or_else(|| panic!("no {words:?}")).1;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().expect("a number")
    };
    let told = after(repository.text("CONTRIBUTING.md"), "ends a run after ");
    assert_eq!(told, after(&workflow, "timeout-minutes: "));
}

#[test]
fn the_searches_bite() {
    assert_eq!(rules("(rules R1, R3) and rule\n/// R99. R2D2, a rule of R's"), [1, 3, 99].into());
    assert_eq!(
        links("[a](b.md#c) [d](https://e) [f](G::h)\n[i]: j\n```\n[k](l)\n```"),
        ["b.md#c", "j"]
    );
    assert_eq!(
        anchors("# A `b`, c\n## A b c\n```\n# d\n```"),
        ["a-b-c", "a-b-c-1"].map(Into::into).into()
    );
    assert_eq!(versions("Rust 1.95. And Rust, or Rust 1.2"), ["1.95", "1.2"]);
    let comment = comments(
        Path::new("a.rs"),
        "x(); // See `docs/a.md`, \"B\n/// c\", and quorum.md\n/// 8.1.",
    );
    let wanted = [("docs/a.md".to_owned(), Some("B c".to_owned())), ("quorum.md".to_owned(), None)];
    assert_eq!(cited(&comment), wanted);
    assert_eq!(comments(Path::new("a.py"), "a # b\n\"\"\"c\"\"\"\nd"), "b\nc\n");
    assert_eq!(plain(Path::new("docs/../../a")), None);
    assert_eq!(included("#[path = \"a.rs\"]\nx(include_str!(\"b\"))"), ["a.rs", "b"]);
}
