//! By when something must have happened on connections.

use std::collections::{BTreeMap, HashMap};

use zab_proto::{ConnId, Instant};

/// At most one deadline for each connection. What is due at one instant comes in the order in which it was set.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    due: BTreeMap<(Instant, u64), ConnId>,
    of: HashMap<ConnId, (Instant, u64)>,
    issued: u64,
}

impl Deadlines {
    /// Sets a connection's deadline in the place of the one that it had, or takes that away.
    pub(crate) fn set(&mut self, conn: ConnId, at: Option<Instant>) {
        if let Some(old) = self.of.remove(&conn) {
            self.due.remove(&old);
        }
        if let Some(at) = at {
            let key = (at, self.issued);
            self.issued += 1;
            self.due.insert(key, conn);
            self.of.insert(conn, key);
        }
    }

    /// Whether a connection has one.
    pub(crate) fn has(&self, conn: ConnId) -> bool {
        self.of.contains_key(&conn)
    }

    /// The first of all.
    pub(crate) fn first(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the first one that is due.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<ConnId> {
        let first = self.due.first_entry().filter(|first| first.key().0 <= now)?;
        let conn = first.remove();
        self.of.remove(&conn);
        Some(conn)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_connection_is_due_once_at_the_time_set_last() {
        let mut deadlines = Deadlines::default();
        let at = |ms| Instant::ZERO + Duration::from_millis(ms);
        let conn = |slot| ConnId::client(slot, 0);
        for (slot, ms) in [(1, 5), (2, 3), (3, 3), (1, 4)] {
            deadlines.set(conn(slot), Some(at(ms)));
        }
        deadlines.set(conn(3), None);
        assert!(deadlines.has(conn(1)) && !deadlines.has(conn(3)));
        assert_eq!(deadlines.first(), Some(at(3)));
        assert_eq!(deadlines.pop(at(2)), None);
        assert_eq!(deadlines.pop(at(9)), Some(conn(2)));
        assert_eq!(deadlines.pop(at(9)), Some(conn(1)));
        assert_eq!((deadlines.pop(at(9)), deadlines.first()), (None, None));
        assert!(!deadlines.has(conn(1)));
    }
}
