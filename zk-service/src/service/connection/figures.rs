//! What is counted of one connection, and what there is to look at of it.

use std::net::SocketAddr;

use zab_proto::Instant;

use crate::protocol::opcode::Opcode;
use crate::service::connection::Client;

/// One connection of a client.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The client's address.
    pub remote: SocketAddr,
    /// It is encrypted.
    pub is_secure: bool,
    /// Its requests that are not answered.
    pub outstanding: usize,
    /// Packets received of it.
    pub received: u64,
    /// Packets sent to it.
    pub sent: u64,
    /// Its session; 0: none yet.
    pub session: i64,
    /// The session's time-out in ms.
    pub timeout_ms: i32,
    /// The name of its last operation, in four letters.
    pub last_op: &'static str,
    /// When it was accepted, in ms since 1970.
    pub established_ms: i64,
    /// The last request's number.
    pub last_cxid: Option<i32>,
    /// The last reply's zxid.
    pub last_zxid: i64,
    /// When that was sent.
    pub last_response: Instant,
    /// From the last request to its reply, in ms.
    pub last_latency_ms: u64,
    /// The shortest.
    pub min_latency_ms: u64,
    /// The mean.
    pub avg_latency_ms: u64,
    /// The longest.
    pub max_latency_ms: u64,
}

/// What is counted; `crst` sets it back.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnStats {
    received: u64,
    sent: u64,
    established_ms: i64,
    last_op: &'static str,
    last_cxid: Option<i32>,
    last_zxid: i64,
    last_response: Instant,
    last_latency_ms: u64,
    min_latency_ms: u64,
    max_latency_ms: u64,
    total_latency_ms: u64,
    replies: u64,
}

impl ConnStats {
    pub(super) fn new(established_ms: i64) -> Self {
        Self {
            received: 0,
            sent: 0,
            established_ms,
            last_op: "NA",
            last_cxid: None,
            last_zxid: -1,
            last_response: Instant::ZERO,
            last_latency_ms: 0,
            min_latency_ms: 0,
            max_latency_ms: 0,
            total_latency_ms: 0,
            replies: 0,
        }
    }
}

impl Client {
    /// What there is to look at.
    pub(super) fn figures(&self) -> Connection {
        let stats = &self.stats;
        Connection {
            remote: self.remote,
            is_secure: self.is_secure,
            outstanding: self.queue.len(),
            received: stats.received,
            sent: stats.sent,
            session: self.session,
            timeout_ms: self.timeout_ms,
            last_op: stats.last_op,
            established_ms: stats.established_ms,
            last_cxid: stats.last_cxid,
            last_zxid: stats.last_zxid,
            last_response: stats.last_response,
            last_latency_ms: stats.last_latency_ms,
            min_latency_ms: stats.min_latency_ms,
            avg_latency_ms: stats.total_latency_ms.checked_div(stats.replies).unwrap_or(0),
            max_latency_ms: stats.max_latency_ms,
        }
    }

    /// `crst`.
    pub(in crate::service) fn reset_stats(&mut self) {
        self.stats = ConnStats::new(self.stats.established_ms);
    }

    /// A packet has come.
    pub(in crate::service) fn count_received(&mut self) {
        self.stats.received += 1;
    }

    /// So many packets, which are no replies to requests, went out.
    pub(in crate::service) fn count_sent(&mut self, packets: u64) {
        self.stats.sent += packets;
    }

    /// The reply to its handshake goes out.
    pub(in crate::service) fn count_handshake(&mut self, now: Instant) {
        self.stats.sent += 1;
        self.stats.last_response = now;
    }

    /// Its session was created by this transaction.
    pub(in crate::service) fn count_session(&mut self, zxid: i64) {
        self.stats.last_op = "SESS";
        self.stats.last_cxid = Some(0);
        self.stats.last_zxid = zxid;
    }

    /// A request was replied to, `ms` milliseconds after it had come.
    #[inline]
    pub(in crate::service) fn count_reply(
        &mut self,
        now: Instant,
        ms: u64,
        op: Opcode,
        xid: i32,
        zxid: i64,
    ) {
        let stats = &mut self.stats;
        stats.min_latency_ms = if stats.replies == 0 { ms } else { stats.min_latency_ms.min(ms) };
        stats.max_latency_ms = stats.max_latency_ms.max(ms);
        stats.total_latency_ms += ms;
        stats.last_latency_ms = ms;
        stats.replies += 1;
        stats.sent += 1;
        stats.last_op = op.short_name();
        if xid >= 0 {
            stats.last_cxid = Some(xid);
        }
        stats.last_zxid = zxid;
        stats.last_response = now;
    }
}
