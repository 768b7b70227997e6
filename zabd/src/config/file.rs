//! The keys that are the configuration file's own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use zab_proto::{Membership, Role};

use super::error::{Invalid, Origin};
use super::judge;
use super::keys::{self, Key, Place};
use super::system::{Setting, SystemProperties};

/// Values as the file has them, each readable, not yet checked against each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileKeys {
    values: BTreeMap<&'static str, Setting>,
    pub(crate) ensemble: Membership,
}

impl FileKeys {
    /// Takes one entry. Returns whether the key is one of the file's own; any other is a system
    /// property.
    ///
    /// # Errors
    /// A value that cannot be read, or that the server cannot go with.
    pub(crate) fn set(
        &mut self,
        name: &str,
        value: &str,
        origin: &Origin,
    ) -> Result<bool, Invalid> {
        let blame = |invalid| origin.blame(name, invalid);
        let set = self.ensemble.set(name, value);
        if set
            .map_err(|error| blame(Invalid::new(error.to_string()).accepted(member_form(name))))?
        {
            return Ok(true);
        }
        let Some((Place::File, key)) = keys::find(name) else { return Ok(false) };
        let setting = Setting { value: value.into(), origin: origin.clone() };
        judge::file_key(key, name, &setting)?;
        check_names(name, value).map_err(blame)?;
        self.values.insert(key.name, setting);
        Ok(true)
    }

    /// Takes the keys that ZooKeeper reads as properties, too, where the file does not have them.
    pub(crate) fn take_defaults(&mut self, properties: &SystemProperties) {
        for name in judge::ALSO_PROPERTIES {
            if let (Some(setting), Some((_, key))) = (properties.setting(name), keys::find(name)) {
                self.values.entry(key.name).or_insert_with(|| setting.clone());
            }
        }
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|setting| setting.value.as_str())
    }

    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    /// The number of the file, or the key's default; 0 if it has none.
    pub(crate) fn number(&self, name: &str) -> i32 {
        let key = row(name);
        let text = self.text(name).unwrap_or(key.default);
        key.reader.number(text).and_then(|number| number.try_into().ok()).unwrap_or_default()
    }

    pub(crate) fn port(&self, name: &str) -> Option<u16> {
        row(name).reader.number(self.text(name)?)?.try_into().ok()
    }

    pub(crate) fn is_on(&self, name: &str) -> bool {
        let key = row(name);
        key.reader.is_on(self.text(name).unwrap_or(key.default))
    }

    pub(crate) fn peer_type(&self) -> Role {
        match self.text("peerType") {
            Some(text) if text.eq_ignore_ascii_case("observer") => Role::Observer,
            _ => Role::Participant,
        }
    }

    /// A key with the place where it is written, to begin a warning with.
    pub(crate) fn at(&self, name: &str) -> String {
        let setting = self.values.get(name);
        setting.map_or_else(|| name.to_owned(), |setting| format!("{}: {name}", setting.origin))
    }

    /// What is wrong with a key, which the file has or should have.
    pub(crate) fn blame(&self, name: &str, invalid: Invalid) -> Invalid {
        match self.values.get(name) {
            Some(setting) => setting.origin.blame(name, invalid),
            None => Invalid { key: Some(name.into()), ..invalid },
        }
    }
}

/// The row of a key that the program asks for.
fn row(name: &str) -> &'static Key {
    let (_, key) = keys::find(name).expect("the program asks for keys of the table only");
    key
}

/// What is accepted for the keys of the ensemble.
pub(crate) fn member_form(name: &str) -> &'static str {
    let family = ["group.*", "weight.*"].into_iter().find(|f| name.starts_with(&f[..5]));
    row(family.unwrap_or("server.*")).accepted()
}

/// Values that are names out of a short list.
fn check_names(name: &str, value: &str) -> Result<(), Invalid> {
    let roles = ["participant", "observer"];
    match name {
        "peerType" if !roles.iter().any(|role| value.eq_ignore_ascii_case(role)) => {
            let reason = format!("Unrecognised peertype: {value}");
            Err(Invalid::new(reason).accepted("participant or observer"))
        }
        "metricsProvider.className" if !METRICS_PROVIDERS.contains(&value) => {
            Err(Invalid::new("metrics provider class was not found")
                .accepted("ZooKeeper's Default, Null and Prometheus providers"))
        }
        _ => Ok(()),
    }
}

pub(crate) const PROMETHEUS: &str =
    "org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider";

const METRICS_PROVIDERS: &[&str] = &[
    "org.apache.zookeeper.metrics.impl.DefaultMetricsProvider",
    "org.apache.zookeeper.metrics.impl.NullMetricsProvider",
    PROMETHEUS,
];
