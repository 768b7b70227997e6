//! Logs that strangers cannot forge or flood: one line per record, without what a terminal would
//! obey, and of each place in the code only so much in so much time.
//!
//! Whoever connects to a server makes it log. Wherever that happens, in whichever crate, the record
//! comes through here, so that nothing is left to be remembered where lines are written.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::{Level, Log, Metadata, Record};

/// A logger that hands each record to another one, escaped and cut, unless its place in the code has
/// logged too much.
///
/// ```
/// # let your_logger = log::logger();
/// log::set_logger(Box::leak(Box::new(runtime_core::BoundedLog::new(your_logger))))?;
/// log::set_max_level(log::LevelFilter::Info);
/// # Ok::<(), log::SetLoggerError>(())
/// ```
///
/// From the start of a server on, each place may log 30 lines or 8 KiB in ten seconds. What goes
/// beyond is counted, and the number logged when the ten seconds are over, by the servers of the
/// process. Records of levels `debug` and `trace` are not counted: whoever asks for them wants all.
/// Lines are cut at 4 KiB.
#[derive(Debug)]
pub struct BoundedLog<L> {
    inner: L,
    exempt: Option<&'static str>,
}

impl<L: Log> BoundedLog<L> {
    /// Wraps a logger.
    pub fn new(inner: L) -> Self {
        Self { inner, exempt: None }
    }

    /// Records of this target are handed on as they are. Whoever writes them has to keep them to one
    /// line, and needs all of them.
    #[must_use]
    pub fn except(self, target: &'static str) -> Self {
        Self { exempt: Some(target), ..self }
    }

    fn pass(&self, record: &Record<'_>, text: &str) {
        self.inner.log(
            &Record::builder()
                .metadata(record.metadata().clone())
                .module_path(record.module_path())
                .file(record.file())
                .line(record.line())
                .args(format_args!("{text}"))
                .build(),
        );
    }
}

impl<L: Log> Log for BoundedLog<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.inner.enabled(record.metadata()) {
            return;
        }
        if self.exempt == Some(record.target()) {
            return self.inner.log(record);
        }
        let counted = record.level() <= Level::Info && record.file() != Some(file!());
        if !counted || !COUNTING.load(Ordering::Relaxed) {
            self.pass(record, &escaped(record.args()));
            return;
        }
        let place = Place {
            file: record.file_static().unwrap_or_default(),
            line: record.line().unwrap_or_default(),
            target: record.target().to_owned(),
        };
        // The common case of a flood costs no formatting.
        if !places().has_room(&place, Instant::now()) {
            return;
        }
        let text = escaped(record.args());
        let admitted = places().admit(place, record.level(), &text, Instant::now());
        if admitted {
            self.pass(record, &text);
        }
    }

    fn flush(&self) {
        self.inner.flush();
    }
}

/// From now on records are counted: before, it is the operator's own files that are talked about.
pub(crate) fn begin() {
    COUNTING.store(true, Ordering::Relaxed);
}

/// Whether [`report`] has something to say, now or soon.
pub(crate) fn owes_report() -> bool {
    LEFT_OUT.load(Ordering::Relaxed)
}

/// Logs how many lines were left out, where it is time. Called by the servers now and then.
pub(crate) fn report() {
    if !owes_report() {
        return;
    }
    for Summary { level, target, left_out, example } in places().summaries(Instant::now()) {
        let secs = INTERVAL.as_secs();
        let lines = grouped(left_out);
        log::log!(target: &target, level, "… and {lines} more of these in {secs} s: {example}");
    }
}

static COUNTING: AtomicBool = AtomicBool::new(false);
/// Whether some place has left out lines that were not reported yet.
static LEFT_OUT: AtomicBool = AtomicBool::new(false);
static PLACES: LazyLock<Mutex<Places>> = LazyLock::new(Mutex::default);

fn places() -> MutexGuard<'static, Places> {
    // Every state is a valid one.
    PLACES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one place in the code may log per interval.
const INTERVAL: Duration = Duration::from_secs(10);
const LINES_MAX: u32 = 30;
const BYTES_MAX: usize = 8 << 10;

/// The longest line, and the longest example of lines left out, in bytes.
const LINE_LEN_MAX: usize = 4 << 10;
const EXAMPLE_LEN_MAX: usize = 200;

/// Where in the code a record comes from.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Place {
    file: &'static str,
    line: u32,
    target: String,
}

/// What a place has logged in the present interval.
#[derive(Debug)]
struct Use {
    since: Instant,
    lines: u32,
    bytes: usize,
    left_out: u64,
    level: Level,
    example: String,
}

#[derive(Debug, Default)]
struct Places {
    used: HashMap<Place, Use>,
}

struct Summary {
    level: Level,
    target: String,
    left_out: u64,
    example: String,
}

impl Places {
    /// Whether the place may log one more line; if not, that is counted.
    fn has_room(&mut self, place: &Place, now: Instant) -> bool {
        let Some(used) = self.used.get_mut(place) else { return true };
        let full = used.lines >= LINES_MAX || used.bytes >= BYTES_MAX;
        // An interval whose summary is due stays until that is written.
        if full && (used.left_out > 0 || now - used.since < INTERVAL) {
            used.left_out += 1;
            LEFT_OUT.store(true, Ordering::Relaxed);
            return false;
        }
        true
    }

    fn admit(&mut self, place: Place, level: Level, text: &str, now: Instant) -> bool {
        if !self.has_room(&place, now) {
            return false;
        }
        let begin = || Use {
            since: now,
            lines: 0,
            bytes: 0,
            left_out: 0,
            level,
            example: cut(text, EXAMPLE_LEN_MAX).to_owned(),
        };
        let used = self.used.entry(place).or_insert_with(begin);
        if now - used.since >= INTERVAL && used.left_out == 0 {
            *used = begin();
        }
        used.lines += 1;
        used.bytes += text.len();
        true
    }

    fn summaries(&mut self, now: Instant) -> Vec<Summary> {
        let mut due = Vec::new();
        let mut later = false;
        self.used.retain(|place, used| {
            let over = now - used.since >= INTERVAL;
            if over && used.left_out > 0 {
                due.push(Summary {
                    level: used.level,
                    target: place.target.clone(),
                    left_out: used.left_out,
                    example: std::mem::take(&mut used.example),
                });
            }
            later |= !over && used.left_out > 0;
            !over
        });
        LEFT_OUT.store(later, Ordering::Relaxed);
        due
    }
}

/// A record's text as one line without control characters, of bounded length.
fn escaped(args: &fmt::Arguments<'_>) -> String {
    let mut line = Line { text: String::new(), left_out: 0 };
    // Only a Display that fails by itself makes this fail; what it has written stays.
    let _ = line.write_fmt(*args);
    if line.left_out > 0 {
        let _ = write!(line.text, "… ({} bytes more)", line.left_out);
    }
    line.text
}

struct Line {
    text: String,
    left_out: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.left_out > 0 || self.text.len() >= LINE_LEN_MAX {
                self.left_out += c.len_utf8();
            } else if is_dangerous(c) {
                self.text.extend(c.escape_default());
            } else {
                self.text.push(c);
            }
        }
        Ok(())
    }
}

/// Whether a character would end a line, command a terminal, or change the order in which others
/// appear.
fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

fn cut(text: &str, len_max: usize) -> &str {
    let end = (0..=len_max.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

/// `1,234,567`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn texts_from_outside_stay_on_their_line() {
        let forged = "x\n2026-11-28T04:00:00Z ERROR FORGED \x1b[31m\r\u{9b}\u{202e}\u{2028}\0ü";
        assert_eq!(
            escaped(&format_args!("Cannot resolve {forged}")),
            "Cannot resolve x\\n2026-11-28T04:00:00Z ERROR FORGED \\u{1b}[31m\\r\\u{9b}\\u{202e}\
             \\u{2028}\\u{0}ü"
        );
        let long = escaped(&format_args!("{}", "ü".repeat(LINE_LEN_MAX)));
        assert!(long.len() < LINE_LEN_MAX + 30, "{}", long.len());
        assert!(long.ends_with("… (4096 bytes more)"), "{}", &long[LINE_LEN_MAX - 10..]);
        // Twice as long a line of what becomes longer itself.
        let control = escaped(&format_args!("{}", "\x1b".repeat(2 * LINE_LEN_MAX)));
        assert!(control.len() < LINE_LEN_MAX + 30, "{}", control.len());
    }

    #[test]
    fn numbers_are_grouped() {
        let numbers = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567"]);
    }

    fn place(line: u32) -> Place {
        Place { file: "here", line, target: "tests".into() }
    }

    #[test]
    fn a_place_logs_so_much_in_so_much_time() {
        let (mut places, start) = (Places::default(), Instant::now());
        let text = "a text of forty bytes or so, all in all ";
        let admitted = |places: &mut Places, line, n: u32, at| {
            (0..n).filter(|_| places.admit(place(line), Level::Warn, text, at)).count()
        };
        assert_eq!(admitted(&mut places, 1, 2 * LINES_MAX, start), 30);
        // Others have their own.
        assert_eq!(admitted(&mut places, 2, 7, start), 7);
        assert!(places.summaries(start).is_empty());
        let later = start + INTERVAL;
        // Nothing more before the number is told.
        assert_eq!(admitted(&mut places, 1, 4, later), 0);
        let summaries = places.summaries(later);
        assert_eq!(summaries.len(), 1);
        assert_eq!((summaries[0].left_out, &*summaries[0].example), (34, text));
        assert_eq!(admitted(&mut places, 1, 40, later), 30);
        assert_eq!(places.used.len(), 1, "places that are quiet are forgotten");
    }

    #[test]
    fn a_place_logs_so_many_bytes() {
        let (mut places, start) = (Places::default(), Instant::now());
        let text = "x".repeat(BYTES_MAX / 4);
        let admitted = (0..16).filter(|_| places.admit(place(1), Level::Info, &text, start));
        assert_eq!(admitted.count(), 4);
        let summaries = places.summaries(start + INTERVAL);
        assert_eq!((summaries[0].left_out, summaries[0].example.len()), (12, EXAMPLE_LEN_MAX));
    }

    /// Keeps what is logged.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<String>>>);

    impl Log for Kept {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.level() <= Level::Debug
        }

        fn log(&self, record: &Record<'_>) {
            let line = format!("{} {}", record.target(), record.args());
            self.0.lock().unwrap().push(line);
        }

        fn flush(&self) {}
    }

    #[test]
    fn only_what_is_asked_for_is_unbounded() {
        let kept = Kept::default();
        let logger = BoundedLog::new(kept.clone());
        let log = |level, n: u32| {
            kept.0.lock().unwrap().clear();
            for i in 0..n {
                logger.log(
                    &Record::builder()
                        .level(level)
                        .target("bounded")
                        .file_static(Some("elsewhere"))
                        .line(Some(1))
                        .args(format_args!("line\n{i}"))
                        .build(),
                );
            }
            kept.0.lock().unwrap().len()
        };
        begin();
        assert_eq!(log(Level::Debug, 100), 100);
        assert_eq!(log(Level::Trace, 100), 0);
        assert_eq!(log(Level::Warn, 100), 30);
        assert_eq!(kept.0.lock().unwrap()[29], "bounded line\\n29");
        let logger = logger.except("whole");
        kept.0.lock().unwrap().clear();
        let long = format!("\t{}", "x".repeat(2 * LINE_LEN_MAX));
        for _ in 0..2 * LINES_MAX {
            let mut record = Record::builder();
            logger.log(
                &record.level(Level::Warn).target("whole").args(format_args!("{long}")).build(),
            );
        }
        let all = kept.0.lock().unwrap();
        assert_eq!(all.len(), 2 * LINES_MAX as usize);
        assert_eq!(all[59], format!("whole {long}"));
    }
}
