//! The clocks of the others, beside this one: by the `Date` in an answer of their AdminServers, which tells
//! seconds. Members need no common time, but nodes with a time to live, certificates, and whoever reads
//! several logs do.

use std::time::{Duration, SystemTime};

use jiff::fmt::rfc2822;
use zab_proto::{Member, Sid};

use super::Findings;
use super::reach::{ask, has_address};
use crate::config::ServerConfig;

pub(super) fn check(config: &ServerConfig, findings: &mut Findings) {
    let Some((_, port)) = &config.admin.admin else { return };
    let others = config.ensemble.members.iter().filter(|(sid, _)| **sid != config.sid);
    for (sid, member) in others {
        one(config, *sid, member, *port, findings);
    }
}

fn one(config: &ServerConfig, sid: Sid, member: &Member, port: u16, findings: &mut Findings) {
    let Some(address) = member.addresses.iter().find(|address| has_address(&address.host)) else {
        return;
    };
    let host = &address.host;
    let question = format!(
        "GET {}/ruok HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n",
        config.admin.command_url
    );
    let asked = SystemTime::now();
    let answer = match ask(host, port, None, &question) {
        Ok((answer, took)) => date(&answer).map(|date| (date, asked + took / 2)),
        Err(_) => None,
    };
    let Some((theirs, ours)) = answer else {
        let text = format!(
            "{sid}: its time is not known, as {host}:{port} (AdminServer) does not tell it"
        );
        findings.ok("clock", text);
        return;
    };
    // Anywhere within its second.
    let offset = match theirs.duration_since(ours) {
        Ok(ahead) => ahead,
        Err(behind) => behind.duration().saturating_sub(Duration::from_secs(1)),
    };
    let direction = if theirs > ours { "ahead of" } else { "behind" };
    if offset > OFFSET_MAX {
        let text = format!("{sid}: its clock is {} s {direction} this one", offset.as_secs());
        findings.warn("clock", text);
    } else {
        findings.ok("clock", format!("{sid}: its clock agrees with this one, to seconds"));
    }
}

/// The time in the head of an answer.
fn date(answer: &str) -> Option<SystemTime> {
    let head = answer.split("\r\n\r\n").next()?;
    let line = head.lines().find(|line| {
        line.split_once(':').is_some_and(|(name, _)| name.eq_ignore_ascii_case("date"))
    })?;
    let (_, text) = line.split_once(':')?;
    let at = rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    SystemTime::try_from(at).ok()
}

/// Clocks that somebody keeps differ by milliseconds.
const OFFSET_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_answers() {
        let answer =
            "HTTP/1.1 200 OK\r\ndate: Sat, 28 Nov 2026 20:10:05 GMT\r\na: b\r\n\r\nDate: x";
        let seconds = date(answer).and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        assert_eq!(seconds, Some(Duration::from_secs(1_795_896_605)));
        for bad in ["", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nDate: soon\r\n\r\n"] {
            assert_eq!(date(bad), None, "{bad:?}");
        }
    }
}
