//! Keeps clients waiting while this server does not know whether it still leads.

use alloc::vec::Vec;

use crate::{ConnId, NetOutput};

/// Which clients have something to say or to hear once the gate opens.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    closed: bool,
    /// By slot and generation, each once: one entry for each client at most, however often it is asked.
    unread: Vec<ConnId>,
    unsent: Vec<ConnId>,
}

impl Gate {
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// A client has sent something.
    pub(crate) fn hold_input(&mut self, conn: ConnId) {
        insert(&mut self.unread, conn);
    }

    /// There may be something to send to a client.
    pub(crate) fn hold_output(&mut self, conn: ConnId) {
        insert(&mut self.unsent, conn);
    }

    /// The next client that is let through, while the gate opens. `None`: it is open.
    pub(crate) fn open(&mut self) -> Option<NetOutput> {
        self.closed = false;
        // What was to be sent belongs to what was asked before.
        let sent = self.unsent.pop().map(NetOutput::Transmit);
        sent.or_else(|| self.unread.pop().map(NetOutput::Resume))
    }
}

fn insert(conns: &mut Vec<ConnId>, conn: ConnId) {
    let key = |conn: &ConnId| (conn.slot(), conn.generation());
    if let Err(at) = conns.binary_search_by_key(&key(&conn), key) {
        conns.insert(at, conn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_is_let_through_once() {
        let mut gate = Gate::default();
        let client = |slot| ConnId::client(slot, 1);
        assert!(!gate.is_closed());
        gate.close();
        for slot in [3, 1, 3, 2, 1] {
            gate.hold_input(client(slot));
        }
        gate.hold_output(client(3));
        gate.hold_output(client(3));
        let opened: Vec<_> = core::iter::from_fn(|| gate.open()).collect();
        let resumed = [3, 2, 1].map(|slot| NetOutput::Resume(client(slot)));
        assert_eq!(opened[0], NetOutput::Transmit(client(3)));
        assert_eq!(opened[1..], resumed);
        assert!(!gate.is_closed());
    }
}
