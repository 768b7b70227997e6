//! Commands about the process and its files.

use serde_json::{Value, json};
use zk_service::look::Look;

use super::{Answer, Fields};
use crate::options::AdminOptions;

/// ZooKeeper's trace mask, which nothing here follows.
const TRACE_MASK: i64 = 306;
/// What Java calls a property that it does not have.
const NOT_AVAILABLE: &str = "<NA>";

pub(super) fn fields(value: Value) -> Fields {
    match value {
        Value::Object(fields) => fields,
        _ => Fields::new(),
    }
}

pub(super) fn trace_mask() -> Fields {
    fields(json!({ "tracemask": TRACE_MASK }))
}

pub(super) fn set_trace_mask(query: &str) -> Answer {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mask = pairs.find_map(|(key, value)| (key == "traceMask").then_some(value));
    match mask.map(str::parse::<i64>) {
        Some(Ok(mask)) => Answer::new(fields(json!({ "tracemask": mask }))),
        None | Some(Err(_)) => Answer::error("setTraceMask requires long traceMask argument"),
    }
}

pub(super) fn properties(options: &AdminOptions) -> Fields {
    let mut all = options.facts.properties.clone();
    all.sort();
    all.into_iter().map(|(key, value)| (key, value.into())).collect()
}

pub(super) fn initial_configuration(options: &AdminOptions) -> Fields {
    fields(json!({ "initial_configuration": options.facts.initial_configuration }))
}

pub(super) fn last_snapshot(options: &AdminOptions) -> Fields {
    let last = (options.facts.last_snapshot)();
    let zxid = last.as_ref().map_or(-1, |last| last.zxid);
    let timestamp = last.map_or(0, |last| last.timestamp);
    fields(json!({ "zxid": format!("{zxid:x}"), "timestamp": timestamp }))
}

pub(super) fn dirs(options: &AdminOptions) -> Fields {
    let (data, log) = (options.facts.dir_sizes)();
    fields(json!({ "datadir_size": data, "logdir_size": log }))
}

/// The same keys as Java's; what there is only with Java has the text that Java has for the like.
pub(super) fn environment(look: &Look<'_, '_>) -> Fields {
    let known = look.environment();
    let of = |key: &str| {
        let found = known.iter().find(|(known, _)| known == key);
        found.map_or_else(|| NOT_AVAILABLE.to_owned(), |(_, value)| value.clone())
    };
    let mut all = Fields::new();
    all.insert("zookeeper.version".into(), look.version().into());
    for key in [
        "host.name",
        "java.version",
        "java.vendor",
        "java.home",
        "java.class.path",
        "java.library.path",
        "java.io.tmpdir",
        "java.compiler",
        "os.name",
        "os.arch",
        "os.version",
        "user.name",
        "user.home",
        "user.dir",
    ] {
        all.insert(key.into(), of(key).into());
    }
    all
}

/// The environment with the memory of this machine: what is free, what this process may have, what it has.
pub(super) fn with_memory(mut all: Fields) -> Fields {
    let megabytes = |file: &str, key: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let kilobytes =
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kilobytes.map_or_else(|| NOT_AVAILABLE.to_owned(), |n| format!("{}MB", n / 1024))
    };
    all.insert("os.memory.free".into(), megabytes("/proc/meminfo", "MemAvailable").into());
    all.insert("os.memory.max".into(), megabytes("/proc/meminfo", "MemTotal").into());
    all.insert("os.memory.total".into(), megabytes("/proc/self/status", "VmRSS").into());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_is_a_number() {
        for (query, error) in [("", true), ("traceMask=306", false), ("a=1&traceMask=x", true)] {
            let answer = set_trace_mask(query).json("set_trace_mask");
            assert_eq!(answer["error"].is_string(), error, "{query}");
        }
    }
}
