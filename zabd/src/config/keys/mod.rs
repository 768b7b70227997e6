//! The table of all configuration keys: ZooKeeper's and this server's own.
//!
//! Each row says which of Java's readers takes the value and what becomes of it here. Parsing,
//! suggestions for misspelt keys, warnings, refusals and `docs/configuration.md` all come from it.
//! The names, readers and defaults are those of ZooKeeper 3.8 and 3.9.

/// The rows of a section: name, reader, default, what becomes of it.
macro_rules! keys {
    ($($name:literal, $reader:expr, $default:literal, $fate:expr;)*) => {
        &[$(Key { name: $name, reader: $reader, default: $default, fate: $fate }),*]
    };
}

mod docs;
mod file;
mod java;
mod own;
mod peers;
mod security;
mod service;
mod storage;

pub use self::docs::markdown;
use super::number;

/// A set of keys that belong together.
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) place: Place,
    pub(crate) keys: &'static [Key],
}

/// Where a key is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// In the configuration file, by its own name.
    File,
    /// In the file by its own name, or as the system property `zookeeper.<name>`.
    Property,
    /// As the system property `<name>`, without prefix. Users expect it to work in the file, too;
    /// here it does.
    Plain,
}

/// One key, or with a `*` at the end of its name all that begin so.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) reader: Reader,
    /// As one would write it; empty: none.
    pub(crate) default: &'static str,
    pub(crate) fate: Fate,
}

/// How the text of a value is read. The numbers are the smallest value that can be used.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Reader {
    /// `Integer.parseInt`: decimal.
    ParseInt(i32),
    /// `Long.parseLong`: decimal.
    ParseLong(i64),
    /// `Integer.getInteger`: decimal, `0x` or `#` hexadecimal, leading `0` octal.
    GetInt(i32),
    /// `Long.getLong`: as `GetInt`.
    GetLong(i64),
    /// `Double.parseDouble`.
    Double,
    /// A port number, by `Integer.parseInt`.
    Port,
    /// Whole hours, or with a unit `h` or `d` as of ZooKeeper 3.10.
    Hours,
    /// `true` or `false` in any case, nothing else.
    StrictBool,
    /// `true` in any case is true, everything else false (`Boolean.parseBoolean`, `getBoolean`).
    Bool,
    /// Exactly `yes` is on, everything else off.
    IfYes,
    /// Exactly this text is off, everything else on.
    Unless(&'static str),
    /// Any text.
    Text,
}

/// What becomes of a key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// Used; the text says what for.
    Used(&'static str),
    /// Used, and a limit or a protection: a value that cannot be read stops the start.
    Guards(&'static str),
    /// Used, with a warning about what a value gives up.
    Risks(&'static str, When, &'static str),
    /// Used; the start is refused with any value but these, in any case.
    Demands(&'static [&'static str], &'static str),
    /// Looked at together with other keys, by a check of its own; the text says how.
    Checked(&'static str),
    /// Without effect, and nothing is missed; the text says why.
    Ignored(&'static str),
    /// Without effect, and then something is missed.
    Warned(When, &'static str),
    /// The server does not start then, as it would lack what the operator relies on.
    Refused(When, &'static str),
}

/// The values to which a warning or a refusal applies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    /// All.
    Always,
    /// What the reader takes as true.
    On,
    /// What the reader takes as false.
    Off,
    /// All but the key's default.
    Changed,
    /// All but these, in any case.
    NotIn(&'static [&'static str]),
}

/// All sections, in the order of the documentation.
pub(crate) const SECTIONS: &[Section] = &[
    file::SERVER,
    file::ENSEMBLE,
    service::CLIENTS,
    service::TREE,
    service::THROTTLES,
    storage::STORAGE,
    peers::PEERS,
    security::IDENTITIES,
    security::TLS,
    security::OBSERVING,
    java::PIPELINE,
    own::OWN,
    java::PLAIN,
    java::MACHINE,
];

/// Names in ZooKeeper's documentation that its code does not know, and what it does know.
const DOCUMENTED_OTHERWISE: &[(&str, &str)] = &[
    ("connectionMaxTokens", "connection_throttle_tokens"),
    ("connectionTokenFillTime", "connection_throttle_fill_time"),
    ("connectionTokenFillCount", "connection_throttle_fill_count"),
    ("connectionFreezeTime", "connection_throttle_freeze_time"),
    ("connectionDropIncrease", "connection_throttle_drop_increase"),
    ("connectionDropDecrease", "connection_throttle_drop_decrease"),
    ("connectionDecreaseRatio", "connection_throttle_decrease_ratio"),
    ("requestThrottleLimit", "request_throttle_max_requests"),
    ("throttledOpWaitTime", "throttled_op_wait_time"),
    ("maxConcurrentSnapSyncs", "leader.maxConcurrentSnapSyncs"),
    ("maxConcurrentDiffSyncs", "leader.maxConcurrentDiffSyncs"),
    ("maxTimeToWaitForEpoch", "leader.maxTimeToWaitForEpoch"),
    ("advancedFlowControlEnabled", "netty.advancedFlowControl.enabled"),
    ("outstandingHandshake.limit", "netty.server.outstandingHandshake.limit"),
    ("superUsers", "superUser"),
];

/// Every key with its place.
pub(crate) fn all() -> impl Iterator<Item = (Place, &'static Key)> {
    SECTIONS.iter().flat_map(|section| section.keys.iter().map(|key| (section.place, key)))
}

/// The row for a name without the prefix `zookeeper.`: that of the key itself, or of the longest
/// family it belongs to.
pub(crate) fn find(name: &str) -> Option<(Place, &'static Key)> {
    all().filter(|(_, key)| key.matches(name)).max_by_key(|(_, key)| {
        let is_family = key.name.ends_with('*');
        (!is_family, key.name.len())
    })
}

/// A key that `name` may have been meant to be.
pub(crate) fn similar(name: &str) -> Option<&'static str> {
    if let Some((_, meant)) = DOCUMENTED_OTHERWISE.iter().find(|(known, _)| *known == name) {
        return Some(meant);
    }
    let plain = |name: &str| name.to_ascii_lowercase().replace(['_', '-', '.'], "");
    let wanted = plain(name);
    let mistakes_max = if wanted.len() < 6 { 0 } else { 2 };
    all()
        .map(|(_, key)| (distance(&wanted, &plain(key.name)), key.name))
        .filter(|(mistakes, known)| *mistakes <= mistakes_max && !known.ends_with('*'))
        .min_by_key(|(mistakes, _)| *mistakes)
        .map(|(_, known)| known)
}

/// How many letters must be inserted, left out or exchanged (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    if a.len().abs_diff(b.len()) > 2 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let exchanged = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = exchanged.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl Key {
    fn matches(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(family) => name.starts_with(family),
            None => name == self.name,
        }
    }

    /// What the value should be, for error messages.
    pub(crate) fn accepted(&self) -> &'static str {
        match self.fate {
            Fate::Used(text)
            | Fate::Guards(text)
            | Fate::Risks(text, ..)
            | Fate::Demands(_, text) => text,
            _ => self.reader.form(),
        }
    }
}

impl Reader {
    /// The number that `text` stands for, if it can be read and used.
    pub(crate) fn number(self, text: &str) -> Option<i64> {
        let int = |n: i64, min: i32| i32::try_from(n).is_ok_and(|n| n >= min).then_some(n);
        match self {
            Self::ParseInt(min) => int(number::parse(text)?, min),
            Self::GetInt(min) => int(number::decode(text)?, min),
            Self::ParseLong(min) => number::parse(text).filter(|n| *n >= min),
            Self::GetLong(min) => number::decode(text).filter(|n| *n >= min),
            Self::Port => number::parse(text).filter(|n| u16::try_from(*n).is_ok()),
            Self::Hours => hours(text),
            _ => None,
        }
    }

    /// Whether `text` is on.
    pub(crate) fn is_on(self, text: &str) -> bool {
        match self {
            Self::IfYes => text == "yes",
            Self::Unless(off) => text != off,
            _ => text.eq_ignore_ascii_case("true"),
        }
    }

    /// Whether `text` is one of the values the reader is made for; Java takes any other for the
    /// default or for false.
    pub(crate) fn can_read(self, text: &str) -> bool {
        let either = |on, off| text.eq_ignore_ascii_case(on) || text.eq_ignore_ascii_case(off);
        match self {
            Self::Text => true,
            Self::Double => text.trim().parse::<f64>().is_ok(),
            Self::Bool | Self::StrictBool => either("true", "false"),
            Self::IfYes | Self::Unless("no") => ["yes", "no"].contains(&text),
            Self::Unless(_) => ["true", "false"].contains(&text),
            _ => self.number(text).is_some(),
        }
    }

    /// The form of the values.
    pub(crate) fn form(self) -> &'static str {
        match self {
            Self::ParseInt(_) | Self::ParseLong(_) => "a decimal number",
            Self::GetInt(_) | Self::GetLong(_) => {
                "a number: decimal, hexadecimal after 0x or #, octal after 0"
            }
            Self::Double => "a number with a fraction",
            Self::Port => "a port number, 0 to 65535",
            Self::Hours => "hours, or a number with the unit h or d",
            Self::StrictBool | Self::Bool | Self::Unless("false") => "true or false",
            Self::IfYes | Self::Unless(_) => "yes or no",
            Self::Text => "text",
        }
    }
}

impl When {
    /// Whether this applies to the value `text` of `key`.
    pub(crate) fn applies(self, key: &Key, text: &str) -> bool {
        match self {
            Self::Always => true,
            Self::On => key.reader.is_on(text),
            Self::Off => !key.reader.is_on(text),
            Self::Changed => match (key.reader.number(text), key.reader.number(key.default)) {
                (Some(value), Some(default)) => value != default,
                _ => !text.eq_ignore_ascii_case(key.default),
            },
            Self::NotIn(values) => !values.iter().any(|value| text.eq_ignore_ascii_case(value)),
        }
    }
}

/// Hours, or as of ZooKeeper 3.10 a number with a unit.
fn hours(text: &str) -> Option<i64> {
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'h') => (&text[..text.len() - 1], 1),
        Some(b'd') => (&text[..text.len() - 1], 24),
        _ => (text, 1),
    };
    digits.parse::<i32>().ok()?.checked_mul(factor).map(i64::from)
}

#[cfg(test)]
mod tests;
