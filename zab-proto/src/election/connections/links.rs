//! From a dial or a greeting to the one connection that a pair of servers keeps, and its end.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use bytes::BytesMut;

use super::{
    CROSSING, Connections, DialStage, ELECTION_BIT, Link, Remote, STRANGERS_SHARE, Slot, owns,
};
use crate::door::literal;
use crate::election::ElectionOutput;
use crate::quorums::address;
use crate::wire::handshake::Handshake;
use crate::{CloseReason, ConnId, Instant, Sid, Violation};

impl Connections {
    /// Acts on the handshake of an accepted connection.
    pub(super) fn greeted(&mut self, now: Instant, slot: usize, handshake: &Handshake<'_>) {
        self.deadline.set(None);
        let sid = match handshake.sid {
            // Once the id of all observers: it gets one of its own.
            Sid(i64::MAX) => {
                self.next_nameless = self.next_nameless.checked_sub(1).unwrap_or(-1);
                Sid(self.next_nameless)
            }
            sid => sid,
        };
        if sid == self.me {
            return self.close(slot, CloseReason::Violation(Violation::OwnSid));
        }
        let remote = self.slots[slot].link.as_ref().and_then(|link| link.remote);
        if let Err(violation) = self.door.admit(sid, remote) {
            return self.close(slot, CloseReason::Violation(violation));
        }
        let addresses = self.call_back_at(sid, remote, handshake);
        if !self.remotes.contains_key(&sid) {
            let strangers = self.remotes.values().filter(|remote| remote.addresses.is_none());
            if strangers.count() >= self.links_max / STRANGERS_SHARE
                || (sid < self.me && addresses.is_none())
            {
                return self.close(slot, CloseReason::Superseded);
            }
            self.remotes.insert(sid, Remote::default());
        }
        let Some(remote) = self.remotes.get_mut(&sid) else { return };
        remote.gone = false;
        if sid > self.me {
            return self.install(slot, sid);
        }
        // The smaller one wants to be called. If our own call is under way or has just arrived
        // there, the two have crossed.
        let ours = remote.up.or(remote.dialling);
        self.close(slot, CloseReason::Superseded);
        if let Some(ours) = ours {
            let since = self.slots[ours].link.as_ref().map(|link| link.since);
            if since.is_some_and(|since| now < since + CROSSING) {
                return;
            }
            self.close(ours, CloseReason::Superseded);
            self.remotes.entry(sid).or_default();
        }
        self.dial(now, sid, addresses);
    }

    /// Where to call a server back that the configuration gives no address. A handshake can name any
    /// host, so only literal addresses are used, and of a server that is not a member only the one it
    /// comes from. Where members change, one that is none yet, or none any more, is called wherever it
    /// says, as by ZooKeeper: it has to hear of the leader.
    fn call_back_at(
        &self,
        sid: Sid,
        remote: Option<IpAddr>,
        handshake: &Handshake<'_>,
    ) -> Option<String> {
        let configured = self.remotes.get(&sid).and_then(|known| known.addresses.as_deref());
        if configured.is_some_and(|addresses| !addresses.is_empty()) {
            return None;
        }
        let usable = |host: &str| {
            let own = || configured.is_some() || remote.is_none_or(|ip| Some(ip) == literal(host));
            self.calls_strangers || literal(host).is_some() && own()
        };
        let addresses: Vec<String> = handshake
            .addresses()
            .filter(|(host, _)| usable(host))
            .map(|(host, port)| address(host, port))
            .collect();
        (!addresses.is_empty()).then(|| addresses.join("|"))
    }

    /// Makes `slot` the connection that we and `sid` keep.
    pub(super) fn install(&mut self, slot: usize, sid: Sid) {
        let Some(remote) = self.remotes.get_mut(&sid) else { return };
        let old = [remote.up.replace(slot), remote.dialling.take()];
        remote.gone = false;
        remote.called = false;
        remote.redial_at = None;
        remote.pause = Duration::ZERO;
        if remote.waiting.is_none() {
            remote.waiting = remote.last;
        }
        for old in old.into_iter().flatten().filter(|old| *old != slot) {
            self.close(old, CloseReason::Superseded);
        }
        let Some(link) = &mut self.slots[slot].link else { return };
        link.stage = DialStage::Up(sid);
        self.announce(slot);
    }

    pub(super) fn dial(&mut self, now: Instant, sid: Sid, addresses: Option<String>) {
        let Some(remote) = self.remotes.get(&sid) else { return };
        if remote.up.or(remote.dialling).is_some() {
            return;
        }
        let Some(addresses) = addresses.or_else(|| remote.addresses.clone()) else { return };
        let slot = self.open(now, DialStage::Dialling(sid));
        if let Some(remote) = self.remotes.get_mut(&sid) {
            remote.dialling = Some(slot);
            remote.redial_at = None;
        }
        let conn = self.id(slot);
        self.outputs.push_back(ElectionOutput::Connect { conn, addresses });
    }

    /// Asks for a transmission on `slot`, if there is something to send.
    pub(super) fn announce(&mut self, slot: usize) {
        let conn = self.id(slot);
        let Some(link) = &mut self.slots[slot].link else { return };
        let waiting = match link.stage {
            DialStage::Up(sid) => {
                self.remotes.get(&sid).is_some_and(|remote| remote.waiting.is_some())
            }
            DialStage::Dialling(_) | DialStage::Calling(_) | DialStage::Accepted => false,
        };
        if (waiting || !link.out.is_empty()) && !link.announced {
            link.announced = true;
            self.outputs.push_back(ElectionOutput::Transmit { conn });
        }
    }

    pub(super) fn open(&mut self, now: Instant, stage: DialStage) -> usize {
        self.deadline.set(None);
        let free = self.slots.iter().position(|slot| slot.link.is_none());
        let slot = free.unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        let link = Link {
            stage,
            remote: None,
            since: now,
            out: BytesMut::new(),
            announced: false,
            heard: false,
            partial: None,
        };
        self.slots[slot].generation = self.slots[slot].generation.wrapping_add(1);
        self.slots[slot].link = Some(link);
        slot
    }

    pub(super) fn close(&mut self, slot: usize, reason: CloseReason) {
        self.deadline.set(None);
        let conn = self.id(slot);
        let Some(link) = self.slots[slot].link.take() else { return };
        self.outputs.push_back(ElectionOutput::Close { conn, reason });
        match link.stage {
            DialStage::Accepted => {}
            DialStage::Dialling(sid) | DialStage::Calling(sid) | DialStage::Up(sid) => {
                self.detach(sid, slot);
            }
        }
    }

    /// The other side ended the connection in `slot`, or could not be reached.
    pub(super) fn lose(&mut self, now: Instant, sid: Sid, slot: usize, pause: Duration) {
        if let Some(remote) = self.remotes.get_mut(&sid) {
            remote.gone = true;
            remote.called = false;
            remote.pause(now, pause);
        }
        self.detach(sid, slot);
    }

    /// `slot` no longer belongs to `sid`. One that is not a member is forgotten with its connection.
    pub(super) fn detach(&mut self, sid: Sid, slot: usize) {
        let Some(remote) = self.remotes.get_mut(&sid) else { return };
        remote.up = remote.up.filter(|up| *up != slot);
        remote.dialling = remote.dialling.filter(|dialling| *dialling != slot);
        if remote.addresses.is_none() && remote.up.or(remote.dialling).is_none() {
            self.remotes.remove(&sid);
        }
    }

    pub(super) fn id(&self, slot: usize) -> ConnId {
        let number = u32::try_from(slot).expect("slots are bounded by links and members");
        ConnId::core(number | ELECTION_BIT, self.slots[slot].generation)
    }

    /// The slot of `conn`, if it is open.
    pub(super) fn slot(&self, conn: ConnId) -> Option<usize> {
        if !owns(conn) {
            return None;
        }
        let number = usize::try_from(conn.slot() & !ELECTION_BIT).ok()?;
        let slot = self.slots.get(number)?;
        (slot.generation == conn.generation() && slot.link.is_some()).then_some(number)
    }
}
