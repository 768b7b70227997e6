//! Puts the last results into the documentation, so that no page says anything else than another.
//!
//! `cargo run -p benches --bin tables` replaces what stands between `<!-- table NAME -->` and
//! `<!-- end -->` in the pages below by the page NAME of `docs/benchmarks`, or, for
//! `targets` and `readme`, by what follows from several of these.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use benches::report;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const PAGES: [&str; 3] = ["README.md", "docs/benchmarks.md", "docs/embedding.md"];

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let results = Results { dir: root.join("docs/benchmarks") };
    for page in PAGES {
        let path = root.join(page);
        let text = fs::read_to_string(&path)?;
        let filled = fill(&text, |name| results.text(name))?;
        if filled != text {
            fs::write(&path, filled)?;
            eprintln!("{page}: tables replaced");
        }
    }
    Ok(())
}

const BEGIN: &str = "<!-- table ";
const END: &str = "<!-- end -->";

/// Replaces all tables of a page.
fn fill(page: &str, table: impl Fn(&str) -> Result<String>) -> Result<String> {
    let (mut done, mut rest) = (String::new(), page);
    while let Some((before, behind)) = rest.split_once(BEGIN) {
        let (name, behind) = behind.split_once(" -->").ok_or("a marker without an end")?;
        let (_, behind) = behind.split_once(END).ok_or_else(|| format!("no end of {name}"))?;
        done += &format!("{before}{BEGIN}{name} -->\n{}\n{END}", table(name)?.trim_end());
        rest = behind;
    }
    Ok(done + rest)
}

struct Results {
    dir: PathBuf,
}

impl Results {
    fn text(&self, name: &str) -> Result<String> {
        match name {
            "targets" => self.targets(),
            "readme" => self.readme(),
            _ => {
                let path = self.dir.join(format!("{name}.md"));
                fs::read_to_string(&path)
                    .map_err(|error| format!("{}: {error}", path.display()).into())
            }
        }
    }

    /// The cell in a row and a column that begin like that.
    fn cell(&self, file: &str, row: &[&str], column: &str) -> Result<String> {
        let text = self.text(file)?;
        let mut head = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            if head.is_empty() {
                head = cells;
            } else if row.iter().zip(&cells).all(|(want, cell)| cell.starts_with(want)) {
                let at = head.iter().position(|cell| cell.starts_with(column));
                let found = at.and_then(|at| cells.get(at));
                return found
                    .map(|cell| (*cell).into())
                    .ok_or_else(|| format!("no column {column}").into());
            }
        }
        Err(format!("no row {row:?} in {file}").into())
    }

    fn number(&self, file: &str, row: &[&str], column: &str) -> Result<f64> {
        let cell = self.cell(file, row, column)?;
        let number = cell.split_whitespace().next().unwrap_or_default();
        number.parse().map_err(|_| format!("{cell} is no number").into())
    }

    /// What was wanted and what was measured, a column per runtime.
    fn targets(&self) -> Result<String> {
        let mut rows = vec![["what", "wanted", "mio", "smol", "std"].map(String::from).to_vec()];
        let core = self.cell("core", &["zab-proto"], "1024 in flight")?;
        let good = self.number("core", &["zab-proto"], "1024 in flight")? <= 250.0;
        let wanted = "≤ 250 ns, no allocation";
        rows.push(row("core, per commit at 1,024 in flight", wanted, [mark(good, &core)]));
        for (what, name, ratio, at_least) in RATIOS {
            let theirs = self.number("servers", &[name], "ZooKeeper")?;
            let cells = self.runtimes("servers", &[name], |ours| {
                if at_least {
                    mark(ours >= ratio * theirs, &format!("{:.1}×", ours / theirs))
                } else {
                    mark(ours * ratio <= theirs, &format!("1/{:.0}", theirs / ours))
                }
            })?;
            let wanted = if at_least { format!("≥ {ratio}×") } else { format!("≤ 1/{ratio}") };
            rows.push(row(what, &wanted, cells));
        }
        for (what, file, name, bound, at_least, unit) in BOUNDS {
            let cells = self.runtimes(file, name, |ours| {
                let good = if at_least { ours >= bound } else { ours <= bound };
                mark(good, &format!("{}{unit}", grouped(ours)))
            })?;
            let sign = if at_least { '≥' } else { '≤' };
            rows.push(row(what, &format!("{sign} {}{unit}", grouped(bound)), cells));
        }
        Ok(report::markdown(&rows))
    }

    fn runtimes(
        &self,
        file: &str,
        name: &[&str],
        cell: impl Fn(f64) -> String,
    ) -> Result<Vec<String>> {
        let column = |runtime: &str| match file {
            "servers" => format!("zabd ({runtime})"),
            _ => runtime.into(),
        };
        let one = |runtime: &str| Ok(cell(self.number(file, name, &column(runtime))?));
        ["mio", "smol", "std"].into_iter().map(one).collect()
    }

    /// The few figures that the project shows first.
    fn readme(&self) -> Result<String> {
        let mut rows = vec![["", "`zabd`", "ZooKeeper 3.8.0"].map(String::from).to_vec()];
        for (what, names, unit) in README {
            let column = |column: &str| -> Result<String> {
                let values: Result<Vec<String>> = names
                    .iter()
                    .map(|name| Ok(grouped(self.number("servers", &[name], column)?) + unit))
                    .collect();
                Ok(values?.join(", "))
            };
            rows.push(vec![what.into(), column("zabd (mio)")?, column("ZooKeeper")?]);
        }
        Ok(report::markdown(&rows))
    }
}

const START: &str = "cold start to first committed write, ms";
const FAIL_OVER: &str = "leader killed to next committed write, ms";
const WRITES: &str = "writes/s, 9 × 128 in flight";
const READS: &str = "reads/s, 9 × 128 in flight";
const SINGLE: &str = "writes/s, one in flight";
const MIXED: &str = "90 % reads, requests/s";
const IDLE: &str = "resident memory idle, MB per server";
const FILLED: &str = "resident memory with the nodes created, MB per server";

/// Beside ZooKeeper in the same run: how many times as much at least, or which part at most.
const RATIOS: [(&str, &str, f64, bool); 4] = [
    ("fail-over beside ZooKeeper", FAIL_OVER, 15.0, false),
    ("pipelined writes beside ZooKeeper", WRITES, 8.0, true),
    ("reads beside ZooKeeper", READS, 6.0, true),
    ("memory, idle, beside ZooKeeper", IDLE, 10.0, false),
];

/// What, where it stands, the bound, whether from below, the unit.
type Bound = (&'static str, &'static str, &'static [&'static str], f64, bool, &'static str);

const BOUNDS: [Bound; 9] = [
    ("leader killed → next committed write", "servers", &[FAIL_OVER], 20.0, false, " ms"),
    (
        "election itself, 3 voters, p50",
        "election",
        &["leader lost: next elected", "early", "3"],
        3.0,
        false,
        " ms",
    ),
    ("cold start of three processes", "servers", &[START], 50.0, false, " ms"),
    (WRITES, "servers", &[WRITES], 150_000.0, true, ""),
    (SINGLE, "servers", &[SINGLE], 2_500.0, true, ""),
    (READS, "servers", &[READS], 500_000.0, true, ""),
    (MIXED, "servers", &[MIXED], 350_000.0, true, ""),
    ("memory with 200,000 znodes", "servers", &[FILLED], 80.0, false, " MB"),
    ("memory, idle", "servers", &[IDLE], 6.0, false, " MB"),
];

const README: [(&str, &[&str], &str); 5] = [
    ("leader killed (SIGKILL) → next committed write, median", &[FAIL_OVER], " ms"),
    ("cold start → first committed write, median", &[START], " ms"),
    ("writes/s, 100 B, 9 connections × 128 in flight", &[WRITES], ""),
    ("writes/s, one in flight", &[SINGLE], ""),
    ("resident memory: idle, after 200,000 znodes", &[IDLE, FILLED], " MB"),
];

fn row(what: &str, wanted: &str, cells: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut row = vec![what.into(), wanted.into()];
    row.extend(cells);
    row.resize(5, String::new());
    row
}

fn mark(good: bool, text: &str) -> String {
    if good { text.into() } else { format!("**missed:** {text}") }
}

/// A number as people read it.
fn grouped(value: f64) -> String {
    if value < 100.0 {
        let text = format!("{value:.1}");
        return text.strip_suffix(".0").unwrap_or(&text).into();
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
