//! Descriptors, and the clock.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Resource, getrlimit};

use super::Findings;
use crate::config::ServerConfig;

pub(super) fn check(config: &ServerConfig, findings: &mut Findings) {
    descriptors(config, findings);
    clock(findings);
}

/// The server raises the soft limit to the hard one.
fn descriptors(config: &ServerConfig, findings: &mut Findings) {
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let clients: u64 = config.properties.number("maxCnxns", 0);
    let text = format!("{hard} open files and connections at most (ulimit -Hn of this user)");
    if hard < DESCRIPTORS_MIN {
        findings.fail("descriptors", text);
    } else if hard < DESCRIPTORS_FEW || hard < clients {
        findings.warn("descriptors", text + ": each client takes one");
    } else {
        findings.ok("descriptors", text);
    }
}

/// Members need no common time, but TTL nodes, certificates and whoever reads logs do; and a clock that is
/// set by hand is a sign of a machine that nobody looks after.
fn clock(findings: &mut Findings) {
    let (wall, steady) = (SystemTime::now(), Instant::now());
    thread::sleep(LOOK);
    let steady = steady.elapsed();
    let apart = wall.elapsed().map_or(steady, |wall| wall.abs_diff(steady));
    if apart > JUMP {
        findings.warn("clock", format!("it jumped by {} ms in a moment", apart.as_millis()));
    }
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    if since.as_secs() < OLDEST_S {
        findings.fail("clock", "it is years behind");
    }
    if SYNCHRONISED.iter().any(|path| Path::new(path).exists()) {
        findings.ok("clock", "a service keeps it right");
    } else {
        findings.ok(
            "clock",
            "no sign of chrony, ntpd or systemd-timesyncd here; a container's host may have one",
        );
    }
}

const LOOK: Duration = Duration::from_millis(200);
const JUMP: Duration = Duration::from_millis(50);
/// The beginning of 2025.
const OLDEST_S: u64 = 1_735_689_600;
const SYNCHRONISED: [&str; 5] = [
    "/run/systemd/timesync/synchronized",
    "/run/chrony",
    "/run/chronyd.pid",
    "/run/ntpd.pid",
    "/run/ntpsec",
];
/// Less does not carry an ensemble.
const DESCRIPTORS_MIN: u64 = 256;
const DESCRIPTORS_FEW: u64 = 8192;
