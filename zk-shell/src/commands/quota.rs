//! Quotas, which are nodes below `/zookeeper/quota`.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::json;
use zk_client::{ANY_VERSION, Acl, Answer, Code, Create, CreateMode, Request};

use super::nodes::{below, data, join, unexpected};
use crate::args::Parsed;
use crate::shell::Shell;
use crate::text::{Failure, Said};

const ROOT: &str = "/zookeeper/quota";
const LIMITS: &str = "zookeeper_limits";
const STATS: &str = "zookeeper_stats";
/// Options and the names of what they limit.
const NAMES: [(&str, &str); 4] =
    [("n", "count"), ("b", "bytes"), ("N", "countHardLimit"), ("B", "byteHardLimit")];

/// The text of a limit or of what is used: `count=1,bytes=2=;byteHardLimit=3;countHardLimit=4`.
#[derive(Debug, PartialEq, Eq)]
struct Track(BTreeMap<String, i64>);

impl Track {
    /// No limit at all.
    fn unlimited() -> Self {
        Self(NAMES.iter().map(|(_, name)| ((*name).to_owned(), -1)).collect())
    }

    fn parse(text: &str) -> Self {
        let pairs = text.split([',', ';']).filter_map(|pair| {
            let mut parts = pair.split('=');
            Some((parts.next()?.to_owned(), parts.next()?.parse().ok()?))
        });
        Self(pairs.collect())
    }

    fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(-1)
    }

    fn set(&mut self, name: &str, value: i64) {
        self.0.insert(name.to_owned(), value);
    }

    fn text(&self) -> String {
        let mut text = format!("count={},bytes={}", self.get("count"), self.get("bytes"));
        let mut more = self.0.iter().filter(|(name, _)| *name != "count" && *name != "bytes");
        // Readers of the first form stop at the second `=`.
        if let Some((name, value)) = more.next() {
            let _ = write!(text, "=;{name}={value}");
        }
        for (name, value) in more {
            let _ = write!(text, ";{name}={value}");
        }
        text
    }
}

fn quota_path(path: &str) -> String {
    if path == "/" { ROOT.to_owned() } else { format!("{ROOT}{path}") }
}

fn exists(shell: &Shell, path: &str) -> Result<bool, Failure> {
    let request = Request::Exists { path: path.to_owned(), watch: false };
    Ok(matches!(shell.call(&request)?, Answer::Exists(Some(_))))
}

fn read(shell: &Shell, path: &str) -> Result<Track, Failure> {
    let (data, _) = data(shell, path)?;
    Ok(Track::parse(&String::from_utf8_lossy(&data.unwrap_or_default())))
}

/// Creates a node unless it exists.
fn make(shell: &Shell, path: &str, data: Option<String>) -> Result<(), Failure> {
    let create = Create {
        path: path.to_owned(),
        data: data.map(Into::into),
        acl: Acl::open(),
        mode: CreateMode::Persistent,
        stat: false,
    };
    match shell.ask(&Request::Create(create)) {
        Err(error) if error.code != Code::NodeExists => Err(error.into()),
        _ => Ok(()),
    }
}

pub(super) fn set(shell: &mut Shell, _: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let given: Vec<(&str, &str)> =
        NAMES.iter().copied().filter(|(option, _)| parsed.has(option)).collect();
    if given.is_empty() {
        return Err(Failure::new(
            "org.apache.commons.cli.MissingOptionException: Missing required option: [-n num \
             soft quota, -b bytes soft quota, -N num hard quota, -B bytes hard quota]",
        ));
    }
    let path = shell.resolve(&parsed.words[1]);
    if path.starts_with(ROOT) {
        let text = format!("cannot set a quota under the path: {ROOT}\n");
        return Ok(Said::err(text, json!({"ok": false})));
    }
    let mut track = Track::unlimited();
    for (option, name) in given {
        let text = parsed.value(option).unwrap_or_default();
        let (least, complaint) = match name {
            "count" | "countHardLimit" => (1, "the num quota must be greater than zero\n"),
            _ => (0, "the bytes quota must be greater than or equal to zero\n"),
        };
        match text.parse::<i64>() {
            Ok(value) if value >= least => track.set(name, value),
            Ok(_) => shell.printer.err(complaint),
            Err(_) => {
                let text = "NumberFormatException happens when parsing the option value\n";
                return Ok(Said::err(text.to_owned(), json!({"ok": false})));
            }
        }
    }
    crate::text::check_path(&path)?;
    create(shell, &path, track)
}

fn create(shell: &Shell, path: &str, mut track: Track) -> Result<Said, Failure> {
    if !exists(shell, path)? {
        return Err(Failure::new(format!("{path} does not exist.")));
    }
    check_relatives(shell, path)?;
    let place = quota_path(path);
    make(shell, "/zookeeper", None)?;
    make(shell, ROOT, None)?;
    let mut parent = ROOT.to_owned();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        parent = join(&parent, name);
        make(shell, &parent, None)?;
    }
    let (limits, stats) = (join(&place, LIMITS), join(&place, STATS));
    if exists(shell, &limits)? {
        let before = read(shell, &limits)?;
        for (_, name) in NAMES {
            if track.get(name) <= 0 && before.0.contains_key(name) {
                track.set(name, before.get(name));
            }
        }
        let data = Some(track.text().into());
        shell.call(&Request::SetData { path: limits, data, version: ANY_VERSION })?;
    } else {
        make(shell, &limits, Some(track.text()))?;
        make(shell, &stats, Some(Track::parse("count=0,bytes=0").text()))?;
    }
    let used = read(shell, &stats)?;
    let mut text = String::new();
    for (name, hard) in [("count", "countHardLimit"), ("bytes", "byteHardLimit")] {
        let now = used.get(name);
        let is_below = |limit: i64| limit > 0 && limit < now;
        if is_below(track.get(name)) || is_below(track.get(hard)) {
            let _ = writeln!(
                text,
                "[Warning]: the {name} quota you create is less than the existing {name}:{now}"
            );
        }
    }
    Ok(Said::out(text, json!({"ok": true, "used": used.0})))
}

/// Quotas do not nest.
fn check_relatives(shell: &Shell, path: &str) -> Result<(), Failure> {
    let own = quota_path(path);
    let mut nested = None;
    if exists(shell, &own)? {
        below(shell, &own, false, &mut |at: &str| {
            if at.ends_with(LIMITS) && at != join(&own, LIMITS) {
                nested = Some(at.to_owned());
            }
        })?;
    }
    let of = |at: &str| at[ROOT.len()..].trim_end_matches(LIMITS).trim_end_matches('/').to_owned();
    if let Some(at) = nested {
        return Err(Failure::new(format!("{path} has a child {} which has a quota", of(&at))));
    }
    let mut at = own.clone();
    while let Some((parent, _)) =
        at.rsplit_once('/').filter(|(parent, _)| parent.len() >= ROOT.len())
    {
        if exists(shell, &join(parent, LIMITS))? {
            let parent = of(parent);
            return Err(Failure::new(format!("{path} has a parent {parent} which has a quota")));
        }
        at = parent.to_owned();
    }
    Ok(())
}

pub(super) fn list(shell: &mut Shell, _: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let path = shell.path(&parsed.words[1])?;
    let place = quota_path(&path);
    shell.printer.err(&format!("absolute path is {}\n", join(&place, LIMITS)));
    let read = |name: &str| -> Result<Option<Track>, Failure> {
        let path = join(&place, name);
        match shell.ask(&Request::GetData { path, watch: false }) {
            Ok(Answer::Data(data, _)) => {
                Ok(Some(Track::parse(&String::from_utf8_lossy(&data.unwrap_or_default()))))
            }
            Ok(_) => Err(unexpected()),
            Err(error) if error.code == Code::NoNode => Ok(None),
            Err(error) => Err(error.into()),
        }
    };
    let Some(limits) = read(LIMITS)? else {
        return Ok(Said::err(format!("quota for {path} does not exist.\n"), json!(null)));
    };
    let mut text = format!("Output quota for {path} {}\n", limits.text());
    let used = read(STATS)?;
    if let Some(used) = &used {
        let _ = writeln!(text, "Output stat for {path} {}", used.text());
    }
    Ok(Said::out(text, json!({"limits": limits.0, "used": used.map(|used| used.0)})))
}

pub(super) fn delete(shell: &mut Shell, _: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let path = shell.path(&parsed.words[1])?;
    let place = quota_path(&path);
    let limits = join(&place, LIMITS);
    if !exists(shell, &limits)? {
        return Ok(Said::out(format!("Quota does not exist for {path}\n"), json!({"ok": false})));
    }
    let given = NAMES.iter().filter(|(option, _)| parsed.has(option)).map(|(_, name)| *name);
    let given: Vec<&str> = given.collect();
    if !given.is_empty() {
        let mut track = read(shell, &limits)?;
        given.iter().for_each(|name| track.set(name, -1));
        let data = Some(track.text().into());
        shell.call(&Request::SetData { path: limits, data, version: ANY_VERSION })?;
        return Ok(Said::nothing());
    }
    let delete = |path: String| shell.call(&Request::Delete { path, version: ANY_VERSION });
    for child in children(shell, &place)? {
        delete(join(&place, &child))?;
    }
    // And what was only there to lead to it.
    let mut at = place.as_str();
    while at != ROOT && children(shell, at)?.is_empty() {
        delete(at.to_owned())?;
        at = at.rsplit_once('/').map_or(ROOT, |(parent, _)| parent);
    }
    Ok(Said::nothing())
}

fn children(shell: &Shell, path: &str) -> Result<Vec<String>, Failure> {
    match shell.call(&Request::GetChildren { path: path.to_owned(), watch: false, stat: false })? {
        Answer::Children(names, _) => Ok(names),
        _ => Err(unexpected()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_quotas() {
        for text in ["count=1,bytes=2", "count=10,bytes=-1=;byteHardLimit=-1;countHardLimit=5"] {
            assert_eq!(Track::parse(text).text(), text);
        }
        let mut track = Track::unlimited();
        track.set("count", 10);
        assert_eq!(track.text(), "count=10,bytes=-1=;byteHardLimit=-1;countHardLimit=-1");
        assert_eq!(Track::parse("nonsense").text(), "count=-1,bytes=-1");
    }
}
