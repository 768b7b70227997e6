//! One port, driven by hand.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use alloc::{format, vec};
use core::time::Duration;

use crate::election::{ElectionOutput, ElectionPort};
use crate::quorums::Quorums;
use crate::wire::handshake::{Form, Handshake};
use crate::{CloseReason, Config, ConnId, Epoch, Instant, Sid, Vote, Zxid};

pub(super) const NOW: Instant = Instant::from_nanos(1_000_000_000);

/// A port and what it has asked for.
pub(super) struct Driver {
    pub(super) sid: Sid,
    pub(super) port: ElectionPort,
    pub(super) now: Instant,
    pub(super) dials: Vec<(ConnId, String)>,
    pub(super) closed: Vec<(ConnId, CloseReason)>,
    pub(super) sent: Vec<(ConnId, Vec<u8>)>,
    pub(super) decided: Option<Sid>,
}

impl Driver {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            sid: config.sid,
            port: ElectionPort::new(config, Arc::new(Quorums::new(config.ensemble.clone(), None))),
            now: NOW,
            dials: vec![],
            closed: vec![],
            sent: vec![],
            decided: None,
        }
    }

    /// Begins an election with this history.
    pub(super) fn look(&mut self, epoch: i64, zxid: i64) {
        let zxid = Zxid::from_raw(zxid);
        let own = Vote { leader: self.sid, zxid, peer_epoch: Epoch(epoch) };
        self.decided = None;
        self.port.start(self.now, own, true, None);
        self.drain();
    }

    pub(super) fn drain(&mut self) {
        while let Some(output) = self.port.poll_output() {
            match output {
                ElectionOutput::Connect { conn, addresses } => self.dials.push((conn, addresses)),
                ElectionOutput::Close { conn, reason } => self.closed.push((conn, reason)),
                ElectionOutput::Transmit { conn } => {
                    let mut buf = vec![0; 5000];
                    let n = self.port.poll_transmit(conn, &mut buf);
                    assert_eq!(self.port.poll_transmit(conn, &mut buf[n..]), 0);
                    buf.truncate(n);
                    self.sent.push((conn, buf));
                }
                ElectionOutput::Decided { vote, .. } => self.decided = Some(vote.leader),
                ElectionOutput::Notice(_)
                | ElectionOutput::NewerConfig(_)
                | ElectionOutput::Newcomer(..) => {}
                ElectionOutput::Overtaken => self.decided = None,
            }
        }
    }

    /// The latest dial to `to`, taken off the list.
    pub(super) fn dial_to(&mut self, to: &str) -> ConnId {
        let at = self.dials.iter().rposition(|(_, address)| address == to).expect("a dial");
        self.dials.remove(at).0
    }

    pub(super) fn accept(&mut self) -> ConnId {
        self.port.accept(self.now, None).expect("room")
    }

    pub(super) fn feed(&mut self, conn: ConnId, bytes: &[u8]) -> usize {
        let used = self.port.handle_bytes(self.now, conn, bytes);
        self.drain();
        used
    }

    pub(super) fn open(&mut self, conn: ConnId) {
        self.port.opened(self.now, conn);
        self.drain();
    }

    pub(super) fn close(&mut self, conn: ConnId) {
        self.port.closed(self.now, conn);
        self.drain();
    }

    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.port.poll_timeout().filter(|at| *at <= end) {
            self.now = at;
            self.port.handle_timeout(at);
            self.drain();
        }
        self.now = end;
    }

    /// A connection from `sid`, a larger server, with its handshake.
    pub(super) fn called_by(&mut self, sid: i64) -> ConnId {
        let conn = self.accept();
        let bytes = handshake(sid, &format!("h:{}", 2000 + sid));
        assert_eq!(self.feed(conn, &bytes), bytes.len());
        conn
    }

    /// What was sent on `conn` since the last look.
    pub(super) fn take_sent(&mut self, conn: ConnId) -> Vec<u8> {
        let mut bytes = vec![];
        self.sent.retain(|(to, sent)| {
            if *to == conn {
                bytes.extend_from_slice(sent);
            }
            *to != conn
        });
        bytes
    }
}

/// The bytes of a handshake.
pub(super) fn handshake(sid: i64, text: &str) -> Vec<u8> {
    let handshake = Handshake { form: Form::V1, sid: Sid(sid), text };
    let mut bytes = vec![0; handshake.encoded_len()];
    handshake.emit(&mut bytes);
    bytes
}
