//! What both roles work on: configuration, history, and outputs that cannot be derived from
//! positions.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::net::IpAddr;

use bytes::{Buf, BufMut, BytesMut};

use crate::door::Door;
use crate::heartbeat::{HeartbeatStatus, Suspicions, Watchdog};
use crate::history::History;
use crate::notice::{Notice, Notices};
use crate::oracle::Oracle;
use crate::quorums::Quorums;
use crate::reconfig;
use crate::wire::body::{LearnerInfo, SNAPSHOT_END};
use crate::wire::packet::{self, Packet, PacketType};
use crate::{
    Channel, CloseReason, Config, ConnId, Instant, Member, Sid, Status, SyncCounts, Violation, Zxid,
};

/// An output that is not derived from the history.
#[derive(Debug)]
pub(crate) enum Control {
    Became(Status),
    Reconfigured,
    Connect { conn: ConnId, channel: Channel, addresses: String },
    Transmit(ConnId),
    Close { conn: ConnId, reason: CloseReason },
    Resume(ConnId),
    Snapshot(ConnId),
    Log { conn: ConnId, after: Zxid, through: Zxid, any_length: bool },
    Synced(u64),
    Room,
    AskOracle,
    DiscardStage,
    Notice(Notice, u64),
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) history: History,
    pub(crate) control: VecDeque<Control>,
    /// Whose word counts.
    pub(crate) quorums: Arc<Quorums>,
    pub(crate) slots: Slots,
    /// Somebody was told that there is no room for so many bytes; the most, if there are several.
    pub(crate) room_wanted: Cell<Option<usize>>,
    /// The texts of the configurations that storage has, or will have.
    pub(crate) stored: Vec<String>,
    /// Candidates that no configuration known here names.
    pub(crate) newcomers: BTreeMap<Sid, Member>,
    /// The election has not been told of the present `quorums`.
    pub(crate) members_changed: bool,
    /// Without `Config::reconfig`: the history holds a change to other members, which may be committed.
    pub(crate) changing: bool,
    /// The ensemble has other members than this server knows of.
    pub(crate) outdated: bool,
    pub(crate) notices: Notices,
    /// The time of the last input.
    pub(crate) now: Instant,
    pub(crate) door: Door,
    /// Whether this process runs when it should.
    pub(crate) watchdog: Watchdog,
    pub(crate) suspicions: Suspicions,
    pub(crate) heartbeats: HeartbeatStatus,
    /// How learners were brought to this server's history.
    pub(crate) syncs: SyncCounts,
    /// Why the last role has ended.
    pub(crate) loss: Option<Notice>,
    pub(crate) oracle: Oracle,
}

impl Shared {
    /// Who has dialled, by what FOLLOWERINFO or OBSERVERINFO says, if it may come at all. A learner that does not
    /// say who it is gets a number that is nobody's.
    pub(crate) fn admit(
        &mut self,
        conn: ConnId,
        remote: Option<IpAddr>,
        data: Option<&[u8]>,
    ) -> Result<Sid, CloseReason> {
        let info = LearnerInfo::parse(data);
        if reconfig::is_newer(info.config_version, &self.config.ensemble) {
            return Err(CloseReason::Violation(Violation::NewerConfig));
        }
        let sid = info.sid.unwrap_or_else(|| Sid(-1 - i64::from(conn.slot())));
        if sid == self.config.sid {
            return Err(CloseReason::Violation(Violation::OwnSid));
        }
        self.door.admit(sid, remote).map_err(CloseReason::Violation)?;
        Ok(sid)
    }

    /// Whether the oracle may say any moment that this server is a quorum: it was asked just now.
    pub(crate) fn awaits_oracle(&self, now: Instant) -> bool {
        self.oracle.is_awaited(now, self.config.tick_time)
    }

    pub(crate) fn close(&mut self, conn: ConnId, reason: CloseReason) {
        self.slots.free(conn);
        self.control.push_back(Control::Close { conn, reason });
    }

    /// Tells the operator, unless something like it was told a moment ago.
    pub(crate) fn notice(&mut self, now: Instant, notice: Notice) {
        if matches!(notice, Notice::LeaderLost { .. } | Notice::ReignEnded { .. }) {
            self.loss = Some(notice);
        }
        if let Some(more) = self.notices.admit(now, &notice) {
            self.control.push_back(Control::Notice(notice, more));
        }
    }

    /// A member, with where to find it, for a log.
    pub(crate) fn name(&self, sid: Sid) -> String {
        let member = self.quorums.member(sid);
        match member.and_then(|member| member.addresses.first()) {
            Some(address) => format!("{sid} ({})", address.host_port(address.election_port)),
            None => format!("{sid}"),
        }
    }

    pub(crate) fn names(&self, sids: impl IntoIterator<Item = Sid>) -> String {
        let names: Vec<String> = sids.into_iter().map(|sid| self.name(sid)).collect();
        names.join(", ")
    }

    /// Somebody is told that there is no room for `len` bytes.
    pub(crate) fn refuse(&self, len: usize) {
        self.room_wanted.set(self.room_wanted.get().max(Some(len)));
    }

    /// How many bytes must have room before those who wait are told to ask again: who asks in vain
    /// would be told at once again, and so on.
    pub(crate) fn refused(&self) -> Option<usize> {
        self.room_wanted.get()
    }

    /// There is room for what was refused.
    pub(crate) fn offer_room(&mut self) {
        if self.room_wanted.take().is_some() {
            self.control.push_back(Control::Room);
        }
    }
}

/// Names for the connections of the quorum port.
#[derive(Debug)]
pub(crate) struct Slots {
    generations: Vec<u32>,
    free: Vec<u32>,
    max: usize,
}

impl Slots {
    pub(crate) fn new(max: usize) -> Self {
        Self { generations: Vec::new(), free: Vec::new(), max }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.free.is_empty() && self.generations.len() >= self.max
    }

    pub(crate) fn allot(&mut self) -> Option<ConnId> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.generations.len() < self.max => {
                self.generations.push(0);
                u32::try_from(self.generations.len() - 1).expect("links_max is small")
            }
            None => return None,
        };
        Some(ConnId::core(slot, self.generations[slot as usize]))
    }

    pub(crate) fn free(&mut self, conn: ConnId) {
        let generation = &mut self.generations[conn.slot() as usize];
        assert_eq!(*generation, conn.generation(), "a connection is given back once");
        *generation = generation.wrapping_add(1);
        self.free.push(conn.slot());
    }
}

/// Encoded packets waiting for their socket: everything but proposals, which go out from the
/// window.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: BytesMut,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn put_bare(&mut self, kind: PacketType, zxid: Zxid) {
        self.bytes.put_slice(&packet::bare(kind, zxid));
    }

    pub(crate) fn put(&mut self, kind: PacketType, zxid: Zxid, data: Option<&[u8]>) {
        self.put_packet(&Packet::new(kind, zxid, data));
    }

    /// A packet with identities: `auth` is an encoded vector.
    pub(crate) fn put_with_auth(&mut self, kind: PacketType, zxid: Zxid, data: &[u8], auth: &[u8]) {
        self.put_packet(&Packet { kind, zxid, data: Some(data), auth });
    }

    fn put_packet(&mut self, packet: &Packet<'_>) {
        self.bytes.reserve(packet.encoded_len());
        packet.write(&mut self.bytes);
    }

    pub(crate) fn put_raw(&mut self, bytes: &[u8]) {
        self.bytes.put_slice(bytes);
    }

    /// Puts all of `packet` but its first `skip` bytes, which are out already, in front of the rest.
    pub(crate) fn put_front(&mut self, mut packet: Self, skip: usize) {
        packet.bytes.advance(skip);
        packet.bytes.put_slice(&self.bytes);
        *self = packet;
    }

    /// Moves as much as fits into `buf`.
    pub(crate) fn transmit(&mut self, buf: &mut [u8]) -> usize {
        let n = self.len_bytes().min(buf.len());
        self.bytes.copy_to_slice(&mut buf[..n]);
        // `capacity` counts what is left behind the bytes that are out, `try_reclaim` all of it.
        if self.bytes.is_empty() && self.bytes.try_reclaim(KEEP_LEN + 1) {
            self.bytes = BytesMut::new();
        }
        n
    }
}

/// Capacity an idle outbox keeps.
const KEEP_LEN: usize = 64 * 1024;

/// What follows a snapshot on the wire: the application's stream ends with the path "/" before it.
pub(crate) const SNAP_SIGNATURE: &[u8] = SNAPSHOT_END.split_at(5).1;
