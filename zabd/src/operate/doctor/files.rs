//! Directories, their rights, what is in them, and how fast the disk below them is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use zab_storage::{Survey, View};

use super::Findings;
use crate::config::ServerConfig;

/// Looks at the directories; whether a server runs on them.
pub(super) fn check(config: &ServerConfig, findings: &mut Findings) -> bool {
    let view = View::new(&config.data_dir, &config.data_log_dir);
    let running = match view.is_in_use() {
        Ok(running) => running,
        Err(error) => {
            findings.fail("directories", error.to_string());
            false
        }
    };
    let state = if running { "a server runs on them" } else { "no server of zabd runs on them" };
    findings.ok("directories", format!("{}: {state}", config.data_dir.display()));
    directory(&config.data_dir, findings);
    if config.data_log_dir != config.data_dir {
        directory(&config.data_log_dir, findings);
    }
    let log_dir = existing(&config.data_log_dir.join("version-2"));
    match latency(&log_dir) {
        Ok(times) => judge_latency(&log_dir, &times, config, findings),
        Err(error) => {
            findings.fail("disk", format!("cannot write in {}: {error}", log_dir.display()));
        }
    }
    match view.has_history() {
        Ok(true) => match view.survey() {
            Ok(survey) => history(&survey, findings),
            // What comes and goes while a server runs is no damage.
            Err(error) if running => findings.warn("data", error.to_string()),
            Err(error) => findings.fail("data", error.to_string()),
        },
        Ok(false) if config.standalone => findings.ok("data", "none yet"),
        Ok(false) => findings.ok("data", "none yet: it does not vote before others are seen"),
        Err(error) => findings.fail("data", error.to_string()),
    }
    running
}

/// The directory, or the nearest one above it that is there.
fn existing(dir: &Path) -> PathBuf {
    let found = dir.ancestors().find(|dir| dir.is_dir());
    found.unwrap_or_else(|| Path::new("/")).to_path_buf()
}

fn directory(dir: &Path, findings: &mut Findings) {
    const CHECK: &str = "directories";
    let name = dir.display();
    if !dir.exists() {
        findings.warn(CHECK, format!("{name} does not exist; it is made at the start"));
        return;
    }
    if !dir.is_dir() {
        findings.fail(CHECK, format!("{name} is no directory"));
        return;
    }
    match rustix::fs::statvfs(dir) {
        Ok(space) => {
            let free = space.f_bavail.saturating_mul(space.f_frsize);
            let total = space.f_blocks.saturating_mul(space.f_frsize);
            let inodes = (space.f_files > 0).then_some(space.f_favail);
            judge_space(dir, (free, total), inodes, findings);
        }
        Err(error) => findings.fail("space", format!("{name}: {error}")),
    }
    owners(dir, findings);
}

/// `free` of `total` bytes, and so many free inodes, where there is such a thing.
fn judge_space(
    dir: &Path,
    (free, total): (u64, u64),
    inodes: Option<u64>,
    findings: &mut Findings,
) {
    let name = dir.display();
    let text = format!("{name}: {} MiB of {} MiB are free", free >> 20, total >> 20);
    if free < SPACE_MIN {
        findings.fail("space", text);
    } else if free < total / 10 {
        findings.warn("space", text);
    } else {
        findings.ok("space", text);
    }
    if inodes == Some(0) {
        findings.fail("space", format!("{name}: no inode is free"));
    }
}

/// Files of several users in one directory come from a server, or a tool, that was once started as root.
fn owners(dir: &Path, findings: &mut Findings) {
    let inner = dir.join("version-2");
    let Ok(owner) = fs::metadata(if inner.is_dir() { &inner } else { dir }).map(|data| data.uid())
    else {
        return;
    };
    let entries = fs::read_dir(&inner).into_iter().flatten().filter_map(Result::ok);
    let foreign = entries.filter(|entry| entry.metadata().is_ok_and(|data| data.uid() != owner));
    let names =
        Vec::from_iter(foreign.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    if let Some(first) = names.first() {
        findings.warn(
            "rights",
            format!(
                "{}: {} of its files belong to another user than the directory (uid {owner}), such as \
                 {first}: a server of that user cannot write them",
                inner.display(),
                names.len()
            ),
        );
    }
    let myself = rustix::process::geteuid().as_raw();
    if myself != owner && myself == 0 {
        findings
            .ok("rights", format!("{} belongs to uid {owner}; looked at as root", dir.display()));
    }
}

fn history(survey: &Survey, findings: &mut Findings) {
    findings.ok("data", format!("readable, last transaction {}", survey.last));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    if let Some(ahead) =
        survey.last_time_ms.map(|last| last - now).filter(|ahead| *ahead > AHEAD_MS)
    {
        findings.warn(
            "clock",
            format!(
                "the last transaction is {} s in the future: this clock or its leader's is wrong",
                ahead / 1000
            ),
        );
    }
}

/// How long it takes to make a few kilobytes durable, as a transaction would be, so many times in a row.
fn latency(dir: &Path) -> io::Result<Vec<Duration>> {
    let path = dir.join(format!(".zab-doctor-{}", std::process::id()));
    let result = measure(&path);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => result.and(Err(error)),
        _ => result,
    }
}

fn measure(path: &Path) -> io::Result<Vec<Duration>> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(path)?;
    // As the log is: long in advance, so that a sync does not change the length.
    let rounds = u64::try_from(SYNCS).unwrap_or(0) + 1;
    file.set_len(rounds * PIECE.len() as u64)?;
    let mut times = Vec::new();
    let began = Instant::now();
    sync(&mut file)?;
    for _ in 0..SYNCS {
        times.push(sync(&mut file)?);
        if began.elapsed() > TIME_MAX {
            break;
        }
        // A running server's log comes first.
        thread::sleep(PAUSE);
    }
    times.sort_unstable();
    Ok(times)
}

fn sync(file: &mut File) -> io::Result<Duration> {
    file.write_all(&PIECE)?;
    let began = Instant::now();
    file.sync_data()?;
    Ok(began.elapsed())
}

fn judge_latency(dir: &Path, times: &[Duration], config: &ServerConfig, findings: &mut Findings) {
    let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
    let text = format!(
        "{}: a sync takes {:.1} ms (median of {}), {:.1} ms at most",
        dir.display(),
        median.as_secs_f64() * 1000.0,
        times.len(),
        longest.as_secs_f64() * 1000.0
    );
    let tick = config.tick_time;
    if median > tick {
        findings.fail("disk", text + ": longer than a tick, followers will be lost");
    } else if median > SLOW || longest > Duration::from_secs(1) {
        findings.warn("disk", text + ": every write waits for it");
    } else if config.properties.text("forceSync") == Some("no") {
        findings.warn("disk", text + "; and forceSync=no: a power cut loses what was acknowledged");
    } else {
        findings.ok("disk", text);
    }
}

/// Syncs in a row.
const SYNCS: usize = 20;
const PAUSE: Duration = Duration::from_millis(20);
/// On a disk that is very slow, fewer will do.
const TIME_MAX: Duration = Duration::from_secs(5);
const PIECE: [u8; 4096] = [0x5a; 4096];
/// A spinning disk needs about ten.
const SLOW: Duration = Duration::from_millis(20);
/// One log file is this long in advance, in bytes.
const SPACE_MIN: u64 = 64 << 20;
/// Clocks of members differ by less, in milliseconds.
const AHEAD_MS: i64 = 10_000;

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;
    use crate::config::SystemProperties;

    fn last(findings: &Findings) -> (Level, &str) {
        let finding = findings.0.last().unwrap();
        (finding.level, &finding.text)
    }

    #[test]
    fn slow_disks_are_found() {
        let path = std::env::temp_dir().join(format!("zabd-doctor-cfg-{}", std::process::id()));
        let config = |more: &str| {
            let text = format!("dataDir=/tmp\nclientPort=1\ntickTime=100\n{more}");
            fs::write(&path, text).unwrap();
            ServerConfig::load(&path, SystemProperties::default()).unwrap()
        };
        let (plain, unsafe_one) = (config(""), config("forceSync=no\n"));
        fs::remove_file(&path).unwrap();
        let ms = Duration::from_millis;
        for (times, config, level, text) in [
            (vec![ms(1); 20], &plain, Level::Ok, "a sync takes 1.0 ms (median of 20)"),
            (vec![ms(1); 20], &unsafe_one, Level::Warning, "forceSync=no"),
            (vec![ms(21); 20], &plain, Level::Warning, "every write waits"),
            (
                [vec![ms(1); 19], vec![ms(1001)]].concat(),
                &plain,
                Level::Warning,
                "1001.0 ms at most",
            ),
            (vec![ms(101); 20], &plain, Level::Failure, "longer than a tick"),
        ] {
            let mut findings = Findings::default();
            judge_latency(Path::new("/x"), &times, config, &mut findings);
            let (found, says) = last(&findings);
            assert!(found == level && says.contains(text), "{level:?} {text}: {says}");
        }
    }

    #[test]
    fn full_disks_are_found() {
        let gib = 1 << 30;
        for (space, inodes, level) in [
            ((50 * gib, 100 * gib), Some(5), Level::Ok),
            ((50 * gib, 100 * gib), None, Level::Ok),
            ((9 * gib, 100 * gib), Some(5), Level::Warning),
            ((63 << 20, 100 << 20), Some(5), Level::Failure),
            ((50 * gib, 100 * gib), Some(0), Level::Failure),
        ] {
            let mut findings = Findings::default();
            judge_space(Path::new("/x"), space, inodes, &mut findings);
            assert_eq!(findings.worst(), level, "{findings:?}");
        }
    }
}
