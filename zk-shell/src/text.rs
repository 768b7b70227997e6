//! How things are written.

use std::fmt::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use zk_client::{Acl, Code, Error, Stat, perms};

/// What a command says.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) json: Value,
}

impl Said {
    pub(crate) fn nothing() -> Self {
        Self { json: json!({"ok": true}), ..Self::default() }
    }

    pub(crate) fn out(out: String, json: Value) -> Self {
        Self { out, json, ..Self::default() }
    }

    pub(crate) fn err(err: String, json: Value) -> Self {
        Self { err, json, ..Self::default() }
    }

    pub(crate) fn and_stat(mut self, stat: Option<&Stat>) -> Self {
        if let Some(stat) = stat {
            self.out.push_str(&stat_text(stat));
            self.json["stat"] = stat_json(stat);
        }
        self
    }
}

/// What went wrong: the text, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) text: String,
    pub(crate) exit: u8,
}

/// The exit code of everything that fails, except of commands that do not exist.
const FAILED: u8 = 1;

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), exit: FAILED }
    }
}

impl From<Error> for Failure {
    /// In the words of `zkCli.sh`.
    fn from(error: Error) -> Self {
        let path = error.path.clone().unwrap_or_else(|| "null".to_owned());
        let of_path = |text: &str| format!("{text}{path}");
        Self::new(match error.code {
            Code::NoNode => of_path("Node does not exist: "),
            Code::NoChildrenForEphemerals => of_path("Ephemerals cannot have children: "),
            Code::NodeExists => of_path("Node already exists: "),
            Code::NotEmpty => of_path("Node not empty: "),
            Code::NotReadOnly => of_path("Not a read-only call: "),
            Code::InvalidAcl => of_path("Acl is not valid : "),
            Code::NoAuth => of_path("Insufficient permission : "),
            Code::BadArguments => of_path("Arguments are not valid : "),
            Code::BadVersion => of_path("version No is not valid : "),
            Code::QuotaExceeded => of_path("Quota has exceeded : "),
            Code::ReconfigInProgress => "Another reconfiguration is in progress -- concurrent \
                                         reconfigs not supported (yet)"
                .to_owned(),
            Code::NewConfigNoQuorum => {
                "No quorum of new config is connected and up-to-date with the leader of last \
                 committed config - try invoking reconfiguration after new servers are connected "
                    .to_owned()
            }
            _ => error.to_string(),
        })
    }
}

pub(crate) fn stat_text(stat: &Stat) -> String {
    format!(
        "cZxid = 0x{:x}\nctime = {}\nmZxid = 0x{:x}\nmtime = {}\npZxid = 0x{:x}\ncversion = {}\n\
         dataVersion = {}\naclVersion = {}\nephemeralOwner = 0x{:x}\ndataLength = {}\n\
         numChildren = {}\n",
        stat.czxid,
        date(stat.ctime),
        stat.mzxid,
        date(stat.mtime),
        stat.pzxid,
        stat.cversion,
        stat.version,
        stat.aversion,
        stat.ephemeral_owner,
        stat.data_length,
        stat.num_children,
    )
}

pub(crate) fn stat_json(stat: &Stat) -> Value {
    json!({
        "czxid": format!("0x{:x}", stat.czxid),
        "mzxid": format!("0x{:x}", stat.mzxid),
        "pzxid": format!("0x{:x}", stat.pzxid),
        "ctime": stat.ctime,
        "mtime": stat.mtime,
        "version": stat.version,
        "cversion": stat.cversion,
        "aversion": stat.aversion,
        "ephemeralOwner": format!("0x{:x}", stat.ephemeral_owner),
        "dataLength": stat.data_length,
        "numChildren": stat.num_children,
    })
}

/// `Sat Nov 28 13:48:55 UTC 2026`, in the time zone of this machine, from milliseconds since 1970.
fn date(ms: i64) -> String {
    date_in(ms, TimeZone::system())
}

fn date_in(ms: i64, zone: TimeZone) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) => time.to_zoned_datetime(zone).strftime("%a %b %d %H:%M:%S %Z %Y").to_string(),
        // Beyond the year 9999.
        Err(_) => format!("{ms} ms"),
    }
}

/// Letters of permissions, in the order in which `zkCli.sh` writes them.
const LETTERS: [(char, i32); 5] = [
    ('c', perms::CREATE),
    ('d', perms::DELETE),
    ('r', perms::READ),
    ('w', perms::WRITE),
    ('a', perms::ADMIN),
];

pub(crate) fn perms_text(bits: i32) -> String {
    LETTERS.iter().filter(|(_, bit)| bits & bit != 0).map(|(letter, _)| letter).collect()
}

/// `scheme:id:perms,…`; what is wrong is told and left out.
pub(crate) fn parse_acl(text: &str) -> (Vec<Acl>, String) {
    let (mut list, mut err) = (Vec::new(), String::new());
    for entry in text.split(',') {
        let Some((scheme, (id, letters))) =
            entry.split_once(':').and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once(':')?)))
        else {
            let _ = writeln!(err, "{entry} does not have the form scheme:id:perm");
            continue;
        };
        let mut bits = 0;
        for letter in letters.chars() {
            match LETTERS.iter().find(|(known, _)| *known == letter) {
                Some((_, bit)) => bits |= bit,
                None => drop(writeln!(err, "Unknown perm type: {letter}")),
            }
        }
        list.push(Acl::new(bits, scheme, id));
    }
    (list, err)
}

pub(crate) fn data_json(data: Option<&[u8]>) -> Value {
    use base64::Engine;
    match data.map(|data| (data, std::str::from_utf8(data))) {
        None => json!({"data": null}),
        Some((_, Ok(text))) => json!({"data": text}),
        Some((data, Err(_))) => {
            json!({"base64": base64::engine::general_purpose::STANDARD.encode(data)})
        }
    }
}

pub(crate) fn acl_json(acl: &[Acl]) -> Value {
    acl.iter()
        .map(|acl| json!({"scheme": acl.scheme, "id": acl.id, "perms": perms_text(acl.perms)}))
        .collect()
}

/// Why a path is not valid, with the place, in ZooKeeper's words.
pub(crate) fn check_path(path: &str) -> Result<(), Failure> {
    let Err(reason) = zk_client::validate_path(path) else { return Ok(()) };
    if reason.starts_with("Path") {
        return Err(Failure::new(reason));
    }
    let chars: Vec<char> = path.chars().collect();
    let at = (1..chars.len()).find(|&i| {
        let last = i + 1 == chars.len() || chars[i + 1] == '/';
        match (chars[i - 1], chars[i]) {
            ('/', '/') => true,
            ('/', '.') => last,
            ('.', '.') => last && i >= 2 && chars[i - 2] == '/',
            (_, c) => zk_client::validate_path(&format!("/{c}")).is_err() && c != '/' && c != '.',
        }
    });
    let at = at.unwrap_or(0);
    Err(Failure::new(format!("Invalid path string \"{path}\" caused by {reason} @{at}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let date = |ms| date_in(ms, TimeZone::UTC);
        assert_eq!(date(0), "Thu Jan 01 00:00:00 UTC 1970");
        assert_eq!(date(1_795_873_735_999), "Sat Nov 28 13:48:55 UTC 2026");
        assert_eq!(date(-1), "Wed Dec 31 23:59:59 UTC 1969");
        assert_eq!(date(i64::MAX), "9223372036854775807 ms");
    }

    #[test]
    fn acls() {
        let (list, err) = parse_acl("world:anyone:cdrwa,digest:u:p=:r,foo,ip:::1:q");
        assert_eq!(list[..2], [Acl::new(31, "world", "anyone"), Acl::new(1, "digest", "u:p=")]);
        assert_eq!(list[2], Acl::new(0, "ip", "::1"));
        assert_eq!(err, "foo does not have the form scheme:id:perm\nUnknown perm type: q\n");
        assert_eq!(perms_text(31), "cdrwa");
    }

    #[test]
    fn bad_paths() {
        let text = |path| check_path(path).expect_err("not valid").text;
        assert_eq!(text("a"), "Path must start with / character");
        let of =
            |path: &str, rest: &str| format!("Invalid path string \"{path}\" caused by {rest}");
        assert_eq!(text("/a//b"), of("/a//b", "empty node name specified @3"));
        assert_eq!(text("/a/../b"), of("/a/../b", "relative paths not allowed @4"));
        assert_eq!(text("/a/."), of("/a/.", "relative paths not allowed @3"));
        assert!(check_path("/a..b/...").is_ok());
    }
}
