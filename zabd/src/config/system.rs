//! System properties: `zookeeper.K` from the command line, or key `K` of the configuration file.

use std::collections::BTreeMap;

use super::error::{Invalid, Origin};
use super::judge;
use super::keys::{self, Place, Reader};

/// Named values, by full name, with the place each comes from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SystemProperties {
    values: BTreeMap<String, Setting>,
}

/// A value and where it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Setting {
    pub(crate) value: String,
    pub(crate) origin: Origin,
}

impl SystemProperties {
    /// Sets a property by its full name. A later value replaces an earlier one.
    pub fn set(&mut self, origin: Origin, name: impl Into<String>, value: impl Into<String>) {
        self.values.insert(name.into(), Setting { value: value.into(), origin });
    }

    /// Takes the `-Dname=value` options out of a JVM command line, such as `SERVER_JVMFLAGS`.
    pub fn set_jvm_flags(&mut self, origin: &Origin, flags: &str) {
        for option in flags.split_whitespace().filter_map(|flag| flag.strip_prefix("-D")) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            self.set(origin.clone(), name, value);
        }
    }

    /// The property `zookeeper.<key>`, or `<key>` if it is one without prefix.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.setting(key).map(|setting| setting.value.as_str())
    }

    /// A property by its full name.
    pub(crate) fn raw(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|setting| setting.value.as_str())
    }

    pub(crate) fn setting(&self, key: &str) -> Option<&Setting> {
        let plain = keys::find(key).is_some_and(|(place, _)| place == Place::Plain);
        let own = plain.then(|| self.values.get(key)).flatten();
        own.or_else(|| self.values.get(&format!("zookeeper.{key}")))
    }

    /// A switch, read as its row in the table of keys says.
    #[must_use]
    pub fn bool(&self, key: &str, default: bool) -> bool {
        self.text(key).map_or(default, |value| reader(key).is_on(value))
    }

    /// A number, read as its row in the table of keys says; `default` if it is none, which was warned
    /// of when the properties were checked.
    #[must_use]
    pub fn number<T: TryFrom<i64> + Copy>(&self, key: &str, default: T) -> T {
        let number = self.text(key).and_then(|text| reader(key).number(text));
        number.and_then(|number| number.try_into().ok()).unwrap_or(default)
    }

    /// A number with a fraction; `default` if it is none.
    #[must_use]
    pub fn fraction(&self, key: &str, default: f64) -> f64 {
        self.text(key).and_then(|text| text.trim().parse().ok()).unwrap_or(default)
    }

    /// All properties, sorted by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.values.iter().map(|(name, setting)| (&**name, setting))
    }

    /// Warns of what has no effect.
    ///
    /// # Errors
    /// A property without which the server would lack what the operator relies on, or a value
    /// that cannot be read of one that limits or protects.
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        self.iter().try_for_each(|(name, setting)| judge::property(name, setting))
    }
}

/// How a key is read. Every key that the program asks for is in the table.
fn reader(key: &str) -> Reader {
    let row = keys::find(key);
    debug_assert!(row.is_some(), "{key} is not in the table of keys");
    row.map_or(Reader::Text, |(_, key)| key.reader)
}
