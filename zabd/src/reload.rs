//! SIGHUP: the configuration file is read again, and what can change while a server runs does.
//!
//! That is what is logged (`zab.log.level`, `zab.log.format`), the whitelist of four-letter words, and the
//! certificates, whose files are looked at now instead of at the next interval. Whatever else has changed
//! in the file is named: it counts after a restart. A file that cannot be used changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use signal_hook::consts::SIGHUP;
use signal_hook::iterator::Signals;
use zab_tls::Tls;

use crate::config::{self, LogConfig, ServerConfig, SystemProperties};
use crate::dynamic::is_of_members;
use crate::running::Running;
use crate::{logging, options};

/// From now on SIGHUP is heard. `properties` are those of the command line and the environment.
pub(crate) fn on_signal(
    config: &ServerConfig,
    properties: SystemProperties,
    tls: Option<&Arc<Tls>>,
    running: Running,
) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP])?;
    let mut state = State {
        file: config.file.clone(),
        properties,
        started: keys(&config.text),
        now: Reloadable::of(config),
        tls: tls.cloned(),
        running,
        members_change: config.changes_members(),
    };
    let thread = thread::Builder::new().name("reload".into());
    let waits = thread.spawn(move || {
        for _ in signals.forever() {
            state.reload();
        }
    });
    waits.map(drop)
}

/// What may change.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Reloadable {
    log: LogConfig,
    words: Vec<String>,
}

impl Reloadable {
    fn of(config: &ServerConfig) -> Self {
        Self { log: config.log.clone(), words: options::service(config).four_letter_whitelist }
    }
}

struct State {
    file: Option<PathBuf>,
    properties: SystemProperties,
    /// The file's keys at the start.
    started: BTreeMap<String, String>,
    now: Reloadable,
    tls: Option<Arc<Tls>>,
    running: Running,
    /// What says who the members are is this server's own to write.
    members_change: bool,
}

impl State {
    fn reload(&mut self) {
        if let Some(tls) = &self.tls {
            // It logs what has changed, and what cannot be used.
            tls.reload();
        }
        let looked =
            if self.tls.is_some() { "; the certificates' files were looked at" } else { "" };
        let Some(file) = &self.file else {
            log::info!("SIGHUP: there is no configuration file to be read again{looked}");
            return;
        };
        let name = file.display();
        let config = match ServerConfig::load(file, self.properties.clone()) {
            Ok(config) => config,
            Err(error) => {
                log::error!("SIGHUP: nothing is changed, as {name} cannot be used: {error}");
                return;
            }
        };
        let next = Reloadable::of(&config);
        let mut told = Vec::new();
        if next.log != self.now.log {
            logging::apply(&next.log);
            told.push(next.log.to_string());
        }
        if next.words != self.now.words {
            told.push(format!("4lw.commands.whitelist={}", next.words.join(",")));
        }
        self.now = next;
        self.allow_words();
        let told = if told.is_empty() { "nothing that can change".into() } else { told.join(", ") };
        log::info!("SIGHUP: {name} was read again; changed: {told}{looked}");
        let mut late = changed(&self.started, &keys(&config.text));
        if self.members_change {
            late.retain(|key| !is_rewritten(key));
        }
        if !late.is_empty() {
            // Names only: values may be secrets.
            let late = Vec::from_iter(late).join(", ");
            log::warn!(
                "SIGHUP: these keys are read at the start only, and count after a restart: {late}"
            );
        }
    }

    fn allow_words(&self) {
        if let Some(handle) = self.running.get() {
            let words = self.now.words.clone();
            handle.call(move |_, node| node.app_mut().allow_four_letter_words(words));
        }
    }
}

/// The keys of a file that parses, the last value of each.
fn keys(text: &str) -> BTreeMap<String, String> {
    let entries = config::entries(text.as_bytes());
    entries.into_iter().map(|(key, value)| (plain(&key).to_owned(), value)).collect()
}

/// Whether a change of the members may change this key of the file.
fn is_rewritten(key: &str) -> bool {
    let names = ["dynamicConfigFile", "peerType", "clientPort", "clientPortAddress"];
    is_of_members(key) || names.contains(&key)
}

/// A system property may stand in the file with its prefix.
fn plain(key: &str) -> &str {
    key.strip_prefix("zookeeper.").unwrap_or(key)
}

/// The keys that differ and cannot be reloaded.
fn changed(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> BTreeSet<String> {
    let all = old.keys().chain(new.keys());
    let differ = all.filter(|key| old.get(*key) != new.get(*key));
    differ.filter(|key| !RELOADED.contains(&key.as_str())).cloned().collect()
}

const RELOADED: [&str; 3] = [config::LOG_LEVEL, config::LOG_FORMAT, "4lw.commands.whitelist"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_after_a_restart() {
        let old = keys(
            "tickTime=2000\nzab.log.level=info\nserver.1=a:1:2\n4lw.commands.whitelist=ruok\n",
        );
        let new =
            keys("tickTime=2000\nzab.log.level=debug\nserver.2=b:1:2\nzookeeper.snapCount=7\n");
        let late = Vec::from_iter(changed(&old, &new));
        assert_eq!(late, ["server.1", "server.2", "snapCount"]);
        assert_eq!(changed(&old, &old.clone()).len(), 0);
        let own: Vec<_> = late.into_iter().filter(|key| !is_rewritten(key)).collect();
        assert_eq!(own, ["snapCount"]);
    }
}
