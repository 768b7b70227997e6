//! What the layout of this crate promises, checked on its sources.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders and files from the lowest floor to the highest, first those of the crate and then those that
/// the service keeps to itself. Nobody imports from a floor above its own. The steps of the service
/// (`service/*.rs` without a line here) stand on all of them.
const FLOORS: [(&str, u8); 16] = [
    ("protocol", 0),
    ("cost", 0),
    ("audit", 1),
    ("throttle", 1),
    ("metrics", 1),
    ("options", 2),
    ("auth", 3),
    ("state", 4),
    ("service::env", 5),
    ("service::read", 5),
    ("service::connection", 6),
    ("service::role", 7),
    ("service::estimate", 8),
    ("service::observe", 8),
    ("service", 9),
    ("tests", 10),
];

/// Items that the whole crate sees, and the fields among them.
const SHOWN_MAX: (usize, usize) = (305, 45);

/// Items that the parts of the service show the service, and the fields among them.
const SHOWN_TO_THE_SERVICE_MAX: (usize, usize) = (300, 65);

/// Lines of a file, with its tests.
const LINES_MAX: usize = 600;

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("readable") {
            let path: PathBuf = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(&root).expect("below").to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).expect("readable")));
            }
        }
    }
    assert!(found.len() > 30, "the sources were found");
    found.sort();
    found
}

fn floor(module: &str) -> u8 {
    let of =
        |wanted: &str| FLOORS.iter().find(|(name, _)| *name == wanted).map(|(_, floor)| *floor);
    let crate_wide = module.split("::").next().expect("not empty");
    let found = of(module).or_else(|| of(crate_wide));
    found.unwrap_or_else(|| panic!("{module} is on no floor: add it to FLOORS"))
}

/// The floor of a file.
fn floor_of_file(file: &str) -> u8 {
    let path = file.trim_end_matches(".rs").replace('/', "::");
    floor(&path.split("::").take(2).collect::<Vec<_>>().join("::"))
}

/// The modules of this crate that a line names by their path, those of the service with their second part.
fn named(text: &str) -> Vec<&str> {
    let ends = |c: char| !(c.is_alphanumeric() || c == '_' || c == ':');
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| {
        line.split("crate::").skip(1).filter(move |_| !line.contains("(in crate::"))
    })
    .filter_map(|rest| rest.split(ends).next())
    .filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
    .map(|path| match path.match_indices("::").nth(1) {
        Some((at, _)) => &path[..at],
        None => path,
    })
    .collect()
}

#[test]
fn no_import_runs_upward() {
    let mut seen = 0;
    for (file, text) in sources().iter().filter(|(file, _)| file != "lib.rs") {
        for module in named(text) {
            seen += usize::from(module.starts_with("service::"));
            let is_below = floor(module) <= floor_of_file(file);
            assert!(is_below, "{file} imports {module}, which is above it");
        }
    }
    assert!(seen > 50, "the parts of the service were looked at: {seen}");
}

/// What the service is made of is its own: nobody outside of its folder reaches into it, and the steps
/// in its folder are functions over what they work on.
#[test]
fn the_service_keeps_its_parts_to_itself() {
    for (file, text) in sources() {
        let has_piece = text.contains("impl Service {") || text.contains("for Service {");
        assert_eq!(has_piece, file == "service.rs", "{file}: a piece of the service");
        if file.starts_with("service") {
            assert!(!text.contains("pub(crate)"), "{file} opens something to the whole crate");
        }
    }
}

/// The fields of a struct.
fn fields<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let body =
        text.split_once(&format!("struct {name} {{")).unwrap_or_else(|| panic!("no {name}")).1;
    let body = body.split_once("\n}").expect("it ends").0;
    let lines = body.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    lines.filter(|line| line.ends_with(',')).collect()
}

/// One owner for each kind of state.
#[test]
fn the_service_has_few_fields_and_none_that_others_see() {
    let (_, text) = sources().into_iter().find(|(name, _)| name == "service.rs").expect("there");
    let fields = fields(&text, "Service");
    assert!((5..=9).contains(&fields.len()), "{fields:?}");
    assert!(fields.iter().all(|field| !field.starts_with("pub")), "{fields:?}");
}

/// A connection is looked up once for all that is done for it in a call. A request that is answered at
/// once takes four look-ups: is it a word, its frames, whether it is still there, its reply.
#[test]
fn connections_are_looked_up_seldom() {
    let sources = sources();
    let text = |wanted: &str| {
        let found = sources.iter().find(|(file, _)| file == wanted);
        found.unwrap_or_else(|| panic!("no {wanted}")).1.as_str()
    };
    let count = |file: &str, wanted: &[&str]| -> usize {
        wanted.iter().map(|wanted| text(file).matches(wanted).count()).sum()
    };
    // The slots are private to the table.
    let by_slot = count("service/connection/table.rs", &["slots.get", "slots[", "slots.split"]);
    assert!((1..=5).contains(&by_slot), "{by_slot} look-ups by slot");
    let look_ups = ["clients.enter", "clients.get", "clients.of_session", "clients.session_at"];
    for (file, bound) in [
        ("service/intake.rs", 3),
        ("service/words.rs", 5),
        ("service/answer.rs", 3),
        ("service/handshake.rs", 0),
        ("service/intake/login.rs", 0),
        ("service/parts.rs", 0),
    ] {
        let found = count(file, &look_ups);
        assert!(found <= bound, "{file}: {found} look-ups of connections, {bound} were enough");
    }
}

/// How many lines show something with `mark`, and how many of these are fields.
fn shown(mark: &str) -> (usize, usize) {
    let (mut all, mut fields) = (0, 0);
    for (_, text) in sources() {
        for line in text.lines().map(str::trim_start) {
            let Some(rest) = line.split_once(mark).map(|(_, rest)| rest) else { continue };
            all += 1;
            let name = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
            fields += usize::from(name.starts_with(": "));
        }
    }
    (all, fields)
}

/// What the floors show each other. Each number may only fall: what one more place needs is a method,
/// `pub(super)`, or a value that is handed over.
#[test]
fn the_floors_show_each_other_little() {
    for (mark, max) in
        [("pub(crate) ", SHOWN_MAX), ("pub(in crate::service) ", SHOWN_TO_THE_SERVICE_MAX)]
    {
        let found = shown(mark);
        assert!(found.0 <= max.0, "{} items are {mark}", found.0);
        assert!(found.1 <= max.1, "{} fields are {mark}", found.1);
        assert!(found.0 + 20 > max.0 && found.1 + 20 > max.1, "{mark}: lower the bounds");
    }
}

/// What a connection waits for is decided and ended in one file.
#[test]
fn only_admission_resumes_a_connection() {
    let is_step =
        |file: &str| file.starts_with("service") && !file.starts_with("service/connection/");
    for (file, text) in sources().iter().filter(|(file, _)| is_step(file)) {
        let resumes = text.contains("shared.resume(") || text.contains("ClientOutput::Resume");
        assert_eq!(resumes, file == "service/admission.rs", "{file}");
        let waits = text.contains("schedule.wait(") || text.contains("room.wait(");
        assert_eq!(waits, file == "service/admission.rs", "{file}");
    }
}

#[test]
fn a_role_is_never_asked_for_by_a_flag() {
    for (file, text) in sources() {
        for wanted in ["leader.is_some()", "leader.is_none()", "leader: Option<"] {
            assert!(!text.contains(wanted), "{file}: {wanted}; use `Role`");
        }
    }
}

/// What a leader or learner keeps is private to `service/role/`.
#[test]
fn a_role_keeps_its_fields_to_itself() {
    for file in ["leader", "learner", "expiry"].map(|name| format!("service/role/{name}.rs")) {
        let (_, text) = sources().into_iter().find(|(name, _)| *name == file).expect("is there");
        let wide = text.lines().filter(|line| line.contains("pub(in crate::service)"));
        let names: Vec<&str> =
            wide.filter(|line| !line.contains("pub(in crate::service) struct")).collect();
        assert!(names.is_empty(), "{file}: {names:?}");
    }
}

/// The table in `metrics/mod.rs`: the functions that count are where it says, and
/// `docs/monitoring.md` has every name.
#[test]
fn each_metric_is_counted_where_the_table_says() {
    let sources = sources();
    let text = |wanted: &str| {
        let found = sources.iter().find(|(file, _)| file == wanted);
        &found.unwrap_or_else(|| panic!("no {wanted}")).1
    };
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/monitoring.md");
    let page = fs::read_to_string(page).expect("is there");
    let table = text("metrics/mod.rs").split("\nmetrics! {").nth(1).expect("the table is there");
    let rows = table.lines().take_while(|line| *line != "}").filter(|line| line.ends_with(';'));
    let rows: Vec<&str> = rows.collect();
    assert!(rows.len() > 20, "the table was found");
    for row in rows {
        let field = row.split(':').next().expect("not empty").trim();
        let quoted: Vec<&str> = row.split('"').collect();
        let (name, place) = (quoted[1], quoted[3]);
        let (file, function) = place.split_once("::").unwrap_or_else(|| panic!("{place}"));
        let (before, body) = text(file)
            .split_once(&format!("fn {function}("))
            .or_else(|| text(file).split_once(&format!("fn {function}<")))
            .unwrap_or_else(|| panic!("no {function} in {file}"));
        let line = before.rsplit('\n').next().expect("not empty");
        let indent = &line[..line.len() - line.trim_start().len()];
        let body = body.split(&format!("\n{indent}}}\n")).next().expect("not empty");
        assert!(body.contains(field), "{field} is not counted in {place}");
        let short = name.replace("deleted_watch_count", "deleted_…");
        let short = short.replace("changed_watch_count", "changed_…");
        let short = short.replace("children_watch_count", "children_…");
        assert!(page.contains(&format!("`{short}`")), "docs/monitoring.md does not have {name}");
    }
}

#[test]
fn operations_are_matched_without_a_wildcard() {
    let lib = sources().into_iter().find(|(name, _)| name == "lib.rs").expect("is there").1;
    assert!(lib.contains("clippy::wildcard_enum_match_arm"), "the lint is on for the crate");
    for (file, text) in sources() {
        assert!(!text.contains("wildcard_enum_match_arm, reason"), "{file} silences it");
    }
}

#[test]
fn no_file_is_too_long() {
    for (file, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{file} has {lines} lines: where is its seam?");
    }
}

/// `docs/architecture.md`, "One write's way": the functions that its table names are there.
#[test]
fn each_step_of_a_writes_way_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if !root.join("docs").is_dir() {
        return; // The package of this crate as published has neither pages nor other crates.
    }
    let page = fs::read_to_string(root.join("docs/architecture.md")).expect("is there");
    let table = page.split("| step | where | ZooKeeper |").nth(1).expect("the table is there");
    let rows: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 10, "the table was found");
    for row in rows {
        let place = row.split('`').nth(1).unwrap_or_else(|| panic!("no place in {row}"));
        let (file, function) = place.split_once("::").unwrap_or_else(|| panic!("{place}"));
        let text = fs::read_to_string(root.join(file)).unwrap_or_else(|_| panic!("no {file}"));
        let name = function.rsplit("::").next().expect("not empty");
        let found = [format!("fn {name}("), format!("fn {name}<")];
        assert!(found.iter().any(|f| text.contains(f.as_str())), "no {name} in {file}");
    }
}
