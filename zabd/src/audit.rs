//! The audit log of this process: lines of the service, and when it starts and stops.
//!
//! They stand in the log under the target `audit`, or in a file of their own, in the format that
//! ZooKeeper's configuration of its logs has for them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use jiff::Timestamp;
use log::Level;
use zk_service::{AuditLine, AuditLog, AuditResult};

use crate::config::{AuditConfig, AuditFile};

/// The target of its lines in the log.
pub(crate) const TARGET: &str = "audit";

/// The audit log, if there is one, and what it has said of this process.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    log: Option<AuditLog>,
    has_started: AtomicBool,
    has_stopped: AtomicBool,
}

impl Audit {
    /// Opens what the configuration asks for.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn open(config: Option<&AuditConfig>) -> io::Result<Self> {
        let Some(config) = config else { return Ok(Self::default()) };
        let failures_only = config.failures_only;
        let wanted = move |line: &&AuditLine| !failures_only || line.result == AuditResult::Failure;
        let log = if let Some(file) = &config.file {
            let rolling = Mutex::new(Rolling::open(file)?);
            AuditLog::new(&user(), move |lines| {
                let mut rolling = rolling.lock().unwrap_or_else(PoisonError::into_inner);
                rolling.write(lines.iter().filter(wanted));
            })
        } else {
            let level = if failures_only { Level::Error } else { Level::Info };
            if !log::log_enabled!(target: TARGET, level) {
                log::error!(
                    "RUST_LOG leaves out what audit.enable asks for: add {TARGET}=info to it"
                );
            }
            AuditLog::new(&user(), move |lines| {
                for line in lines.iter().filter(wanted) {
                    log::log!(target: TARGET, level_of(line), "{}", line.text);
                }
            })
        };
        Ok(Self { log: Some(log), ..Self::default() })
    }

    /// What the service takes.
    pub(crate) fn log(&self) -> Option<AuditLog> {
        self.log.clone()
    }

    /// The server serves. Once in a process, however often it begins again.
    pub(crate) fn started(&self) {
        if !self.has_started.swap(true, Ordering::Relaxed) {
            self.server("serverStart", AuditResult::Success);
        }
    }

    /// The process ends: a server that has started stops, any other has failed to start.
    pub(crate) fn ends(&self, failed: bool) {
        if self.has_started.load(Ordering::Relaxed) {
            if !self.has_stopped.swap(true, Ordering::Relaxed) {
                self.server("serverStop", AuditResult::Invoked);
            }
        } else if failed {
            self.server("serverStart", AuditResult::Failure);
        }
    }

    fn server(&self, operation: &str, result: AuditResult) {
        if let Some(log) = &self.log {
            log.server(operation, result);
        }
    }
}

fn level_of(line: &AuditLine) -> Level {
    match line.result {
        AuditResult::Failure => Level::Error,
        AuditResult::Success | AuditResult::Invoked => Level::Info,
    }
}

/// Who runs this process, as Java's `user.name` says it.
fn user() -> String {
    let id = fs::metadata("/proc/self").map(|process| process.uid()).ok();
    let known = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = id.and_then(|id| name_of(&known, id)).or_else(|| std::env::var("USER").ok());
    name.unwrap_or_else(|| "?".into())
}

fn name_of(known: &str, id: u32) -> Option<String> {
    known.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    })
}

/// A file that is exchanged for a new one when it is full.
#[derive(Debug)]
struct Rolling {
    path: PathBuf,
    file: File,
    len: u64,
    len_max: u64,
    kept: u32,
    /// Lines that could not be written, since that was told.
    lost: u64,
    text: Vec<u8>,
}

impl Rolling {
    fn open(AuditFile { path, len_max_bytes, kept }: &AuditFile) -> io::Result<Self> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("auditlog.file {}: {error}", path.display()))
        };
        let file = open(path).map_err(named)?;
        let len = file.metadata().map_err(named)?.len();
        let (path, len_max, kept) = (path.clone(), *len_max_bytes, *kept);
        Ok(Self { path, file, len, len_max, kept, lost: 0, text: Vec::new() })
    }

    fn write<'a>(&mut self, lines: impl Iterator<Item = &'a AuditLine>) {
        let now = Timestamp::try_from(SystemTime::now()).unwrap_or_default();
        let time = now.strftime("%Y-%m-%d %H:%M:%S,%3f").to_string();
        self.text.clear();
        let mut count = 0;
        for line in lines {
            let level = level_of(line);
            // Nothing fails that is written to memory.
            let _ = writeln!(self.text, "{time} {level} audit.Slf4jAuditLogger: {}", line.text);
            count += 1;
        }
        if count == 0 {
            return;
        }
        let text = std::mem::take(&mut self.text);
        match self.append(&text) {
            Ok(()) if self.lost > 0 => {
                let lost = std::mem::take(&mut self.lost);
                log::warn!(
                    "{}: it can be written again; {lost} lines were lost",
                    self.path.display()
                );
            }
            Ok(()) => {}
            Err(error) => {
                if self.lost == 0 {
                    let path = self.path.display();
                    log::error!(
                        "{path}: the audit log cannot be written, and its lines are lost: {error}"
                    );
                }
                self.lost += count;
            }
        }
        self.text = text;
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        if self.len > 0 && self.len + text.len() as u64 > self.len_max {
            self.roll()?;
        }
        self.file.write_all(text)?;
        self.len += text.len() as u64;
        Ok(())
    }

    /// `audit.log` becomes `audit.log.1`, and so on; the last one goes.
    fn roll(&mut self) -> io::Result<()> {
        let numbered = |n: u32| PathBuf::from(format!("{}.{n}", self.path.display()));
        for n in (1..self.kept).rev() {
            match fs::rename(numbered(n), numbered(n + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.kept > 0 {
            fs::rename(&self.path, numbered(1))?;
        } else {
            fs::remove_file(&self.path)?;
        }
        self.file = open(&self.path)?;
        self.len = 0;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> AuditLine {
        AuditLine { result: AuditResult::Success, text: text.into() }
    }

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("zabd-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }

        fn read(&self, name: &str) -> Option<String> {
            fs::read_to_string(self.0.join(name)).ok()
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_full_file_makes_room() {
        let dir = Dir::new("audit-roll");
        let file = AuditFile { path: dir.0.join("a"), len_max_bytes: 200, kept: 2 };
        let mut rolling = Rolling::open(&file).unwrap();
        // Two lines fill a file; there is room for six in all.
        for n in 0..14 {
            rolling.write([line(&format!("{n:030}"))].iter());
        }
        let has = |name: &str| {
            let text = dir.read(name).unwrap_or_default();
            text.lines().map(|line| line[line.len() - 2..].to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            (has("a"), has("a.1")),
            (vec!["12".into(), "13".into()], vec!["10".into(), "11".into()])
        );
        assert_eq!(has("a.2"), ["08", "09"]);
        assert_eq!(dir.read("a.3"), None);
        // It goes on where it was, and one line may be longer than a file.
        drop(rolling);
        let mut rolling = Rolling::open(&file).unwrap();
        rolling.write([line(&"x".repeat(500))].iter());
        assert_eq!((has("a.1"), has("a")), (vec!["12".into(), "13".into()], vec!["xx".into()]));
        let text = dir.read("a.1").unwrap();
        let (date, rest) = text.split_at("2026-11-28 16:20:30,123".len());
        assert!(date.contains(' ') && date.contains(','), "{date}");
        assert!(rest.starts_with(" INFO audit.Slf4jAuditLogger: 0"), "{rest}");
    }

    #[test]
    fn what_is_lost_is_counted() {
        let dir = Dir::new("audit-lost");
        let file = AuditFile { path: dir.0.join("a"), len_max_bytes: 100, kept: 1 };
        let mut rolling = Rolling::open(&file).unwrap();
        rolling.write([line("one")].iter());
        // A directory stands where the next file would: the old one cannot be renamed to it.
        fs::create_dir_all(dir.0.join("a.1/x")).unwrap();
        rolling.write([line(&"x".repeat(90)), line("x")].iter());
        assert_eq!(rolling.lost, 2);
        fs::remove_dir_all(dir.0.join("a.1")).unwrap();
        rolling.write([line("two")].iter());
        assert_eq!(rolling.lost, 0);
    }

    #[test]
    fn names_of_users() {
        let known =
            "root:x:0:0:root:/root:/bin/sh\nzookeeper:x:105:110::/var/lib/zookeeper:/x\nbad\n";
        assert_eq!(name_of(known, 105).as_deref(), Some("zookeeper"));
        assert_eq!(name_of(known, 10), None);
    }

    #[test]
    fn a_process_starts_and_stops_once() {
        let lines = std::sync::Arc::new(Mutex::new(Vec::new()));
        let audit = |lines: &std::sync::Arc<Mutex<Vec<String>>>| {
            let lines = std::sync::Arc::clone(lines);
            let log = AuditLog::new("zk", move |new| {
                lines.lock().unwrap().extend(new.iter().map(|line| line.text.clone()));
            });
            Audit { log: Some(log), ..Audit::default() }
        };
        let good = audit(&lines);
        good.started();
        good.started();
        good.ends(false);
        good.ends(true);
        audit(&lines).ends(true);
        audit(&lines).ends(false);
        assert_eq!(
            *lines.lock().unwrap(),
            [
                "user=zk\toperation=serverStart\tresult=success",
                "user=zk\toperation=serverStop\tresult=invoked",
                "user=zk\toperation=serverStart\tresult=failure",
            ]
        );
    }
}
