//! Tables, and where results go.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, io};

pub use figures::table::{Percentiles, markdown, rounded};

use crate::Json;
use crate::plot::{self, Plot};

/// The smallest, middle and largest of some numbers.
#[must_use]
pub fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |i: usize| values.get(i).copied().unwrap_or(f64::NAN);
    (at(0), at(values.len() / 2), at(values.len().saturating_sub(1)))
}

/// Processor time of this process so far.
#[must_use]
pub fn cpu() -> Duration {
    cpu_of("self")
}

/// Processor time of a process so far; zero if there is no such process.
#[must_use]
pub fn cpu_of(pid: &str) -> Duration {
    let ticks = || -> Option<u64> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
    };
    // The kernel's tick for user space is a hundredth of a second.
    Duration::from_millis(ticks().unwrap_or(0) * 10)
}

/// What the benches are told on the command line.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Small numbers, to see that everything works.
    pub quick: bool,
    /// Where results go besides the terminal.
    pub out: Option<PathBuf>,
    /// What else is said: what to measure, for instance.
    pub words: Vec<String>,
}

impl Options {
    /// Reads `[--quick] [--out DIR] WORD …`.
    #[must_use]
    pub fn from_args() -> Self {
        let mut options = Self::default();
        let mut args = env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--quick" => options.quick = true,
                // Cargo's own.
                "--bench" => {}
                "--out" => options.out = args.next().map(PathBuf::from),
                _ => options.words.push(arg),
            }
        }
        // Benches are started in their package's directory, commands are written for the project's.
        if let Some(out) = &mut options.out
            && out.is_relative()
        {
            *out = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(&*out);
        }
        options
    }

    /// Writes `name.json` and `name.svg`, if results are to be kept.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, name: &str, json: &Json, plots: &[Plot]) -> io::Result<()> {
        let Some(out) = &self.out else { return Ok(()) };
        fs::create_dir_all(out)?;
        fs::write(out.join(format!("{name}.json")), format!("{json:#}\n"))?;
        fs::write(out.join(format!("{name}.svg")), plot::svg(plots))
    }
}
