//! A replicated key-value map, in memory of every member.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use zab_proto::{BadSnapshot, Replicated, StateMachine};

#[derive(Debug, Default)]
pub(crate) struct Map {
    pub(crate) entries: BTreeMap<String, String>,
}

/// The map of one member.
pub(crate) fn member() -> Replicated<Map> {
    // Unique in the history: no member ever takes another one's write for its own.
    Replicated::new(Map::default(), RandomState::new().build_hasher().finish())
}

impl StateMachine for Map {
    /// Sets `key=value`.
    fn apply(&mut self, command: &[u8]) -> Vec<u8> {
        if let Some((key, value)) = String::from_utf8_lossy(command).split_once('=') {
            self.entries.insert(key.to_owned(), value.to_owned());
        }
        Vec::new()
    }

    fn save(&self, out: &mut Vec<u8>) {
        self.entries.iter().for_each(|(k, v)| out.extend(format!("{k}={v}\n").bytes()));
    }

    fn restore(state: &[u8]) -> Result<Self, BadSnapshot> {
        let mut map = Self::default();
        state.split(|byte| *byte == b'\n').for_each(|line| drop(map.apply(line)));
        Ok(map)
    }
}
