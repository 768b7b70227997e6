//! What becomes of each setting, as the [table](super::keys) says: warnings and refusals.

use super::error::{Invalid, Origin};
use super::keys::{self, Fate, Key, Place, Reader, When};
use super::system::Setting;

/// Keys of the file that `QuorumPeerConfig` reads as properties, too.
pub(super) const ALSO_PROPERTIES: [&str; 3] = [
    "multiAddress.enabled",
    "multiAddress.reachabilityCheckEnabled",
    "multiAddress.reachabilityCheckTimeoutMs",
];

/// Judges a key of the file that is ZooKeeper's own there.
///
/// # Errors
/// A value that cannot be read, or that the server cannot go with.
pub(super) fn file_key(key: &Key, name: &str, setting: &Setting) -> Result<(), Invalid> {
    let Setting { value, origin } = setting;
    if !key.reader.can_read(value) {
        let invalid = Invalid::new(unreadable(key.reader, name, value)).accepted(key.accepted());
        return Err(origin.blame(name, invalid));
    }
    apply(key, name, setting)
}

/// Judges a system property by its full name.
///
/// # Errors
/// As [`file_key`]; of other values that cannot be read is warned.
pub(super) fn property(name: &str, setting: &Setting) -> Result<(), Invalid> {
    let short = name.strip_prefix("zookeeper.");
    match (short, keys::find(short.unwrap_or(name))) {
        (_, Some((Place::Plain, key))) | (Some(_), Some((Place::Property, key))) => {
            known(key, name, setting)
        }
        (Some(short), Some((Place::File, key))) if ALSO_PROPERTIES.contains(&short) => {
            file_key(key, name, setting)
        }
        (Some(short), Some((Place::File, key))) => {
            misplaced(key, name, setting, &format!("it is a key of the file, {short}"))
        }
        (None, Some((_, key))) => {
            misplaced(key, name, setting, &format!("the prefix is missing, zookeeper.{name}"))
        }
        (_, None) => {
            let rest = name.strip_prefix("zookeeper.zookeeper.");
            if let Some((rest, (_, key))) = rest.and_then(|rest| Some((rest, keys::find(rest)?))) {
                return misplaced(
                    key,
                    name,
                    setting,
                    &format!("the prefix is one too many, write {rest}"),
                );
            }
            unknown(name, setting);
            Ok(())
        }
    }
}

fn unknown(name: &str, Setting { origin, .. }: &Setting) {
    let written = as_written(name, origin);
    match keys::similar(name.strip_prefix("zookeeper.").unwrap_or(name)) {
        Some(meant) => log::warn!("{origin}: unknown key {written}, did you mean {meant}?"),
        None => log::warn!("{origin}: unknown key {written}"),
    }
}

fn known(key: &Key, name: &str, setting: &Setting) -> Result<(), Invalid> {
    let Setting { value, origin } = setting;
    if key.reader.can_read(value) {
        return apply(key, name, setting);
    }
    let name = as_written(name, origin);
    match key.fate {
        Fate::Guards(_) | Fate::Checked(_) | Fate::Refused(..) => {
            let invalid =
                Invalid::new(unreadable(key.reader, &name, value)).accepted(key.reader.form());
            Err(origin.blame(name, invalid))
        }
        Fate::Ignored(_) => Ok(()),
        Fate::Used(_) | Fate::Risks(..) | Fate::Demands(..) | Fate::Warned(..) => {
            let taken = match key.reader {
                Reader::Bool => "false",
                Reader::IfYes => "no",
                Reader::Unless(_) => "on",
                _ => key.default,
            };
            let form = key.reader.form();
            log::warn!(
                "{origin}: {name}: {value:?} is not usable, {taken} is used instead ({form})"
            );
            Ok(())
        }
    }
}

/// What the table says of a value that can be read.
fn apply(key: &Key, name: &str, setting: &Setting) -> Result<(), Invalid> {
    let Setting { value, origin } = setting;
    let name = as_written(name, origin);
    match key.fate {
        Fate::Warned(when, missing) if when.applies(key, value) => {
            log::warn!("{origin}: {name} has no effect: {missing}");
        }
        Fate::Risks(_, when, risk) if when.applies(key, value) => {
            log::warn!("{origin}: {name}={value}: {risk}");
        }
        Fate::Demands(values, _) if When::NotIn(values).applies(key, value) => {
            let reason = format!("{value:?} is not supported, only {}", values.join(", "));
            return Err(origin.blame(name, Invalid::new(reason)));
        }
        Fate::Refused(when, why) if when.applies(key, value) => {
            return Err(origin.blame(name, Invalid::new(why)));
        }
        _ => {}
    }
    Ok(())
}

/// A known key in a form in which neither ZooKeeper nor this server reads it.
///
/// # Errors
/// The operator relies on it.
fn misplaced(key: &Key, name: &str, setting: &Setting, why: &str) -> Result<(), Invalid> {
    let Setting { value, origin } = setting;
    let name = as_written(name, origin);
    let relied_on = match key.fate {
        Fate::Refused(when, _) => when.applies(key, value),
        Fate::Checked(_) | Fate::Guards(_) => {
            let protects =
                key.name.to_ascii_lowercase().contains("auth") || key.name.starts_with("ssl");
            protects && key.reader.is_on(value)
        }
        _ => false,
    };
    if relied_on {
        return Err(origin.blame(name, Invalid::new(format!("has no effect like this, {why}"))));
    }
    log::warn!("{origin}: {name} has no effect: {why}");
    Ok(())
}

/// A property as one writes it: without its prefix in the file, after `-D` elsewhere.
pub(super) fn as_written(name: &str, origin: &Origin) -> String {
    match origin {
        Origin::File(..) => name.strip_prefix("zookeeper.").unwrap_or(name).to_owned(),
        Origin::CommandLine | Origin::Variable(_) | Origin::Assigned(..) => format!("-D{name}"),
    }
}

/// What Java says, where it says something.
fn unreadable(reader: Reader, name: &str, value: &str) -> String {
    match reader {
        Reader::StrictBool => {
            format!("Invalid option {value} for {name}. Choose 'true' or 'false.'")
        }
        Reader::Port if super::number::parse(value).is_some() => {
            format!("port out of range:{value}")
        }
        Reader::Bool | Reader::IfYes | Reader::Unless(_) => {
            format!("{value:?} is not {}", reader.form())
        }
        _ => format!("For input string: \"{value}\""),
    }
}
