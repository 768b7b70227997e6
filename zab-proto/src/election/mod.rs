//! stub
use crate::*;
use alloc::string::String;
#[derive(Debug)]
pub(crate) struct ElectionPort;
pub(crate) enum ElectionOutput {
    Connect { conn: ConnId, addresses: String },
    Transmit { conn: ConnId },
    Close { conn: ConnId, reason: CloseReason },
    Decided { state: ServerState, leader: Sid, vote: Vote },
}
impl ElectionPort {
    pub(crate) fn owns(conn: ConnId) -> bool {
        !conn.is_client() && conn.slot() & (1 << 30) != 0
    }
    pub(crate) fn new(_: Instant, _: &Config) -> Self {
        Self
    }
    pub(crate) fn start(&mut self, _: Instant, _: Vote, _: bool, _: Option<Sid>) {}
    pub(crate) fn established(&mut self, _: Epoch) {}
    pub(crate) fn accept(&mut self, _: Instant) -> Option<ConnId> {
        None
    }
    pub(crate) fn opened(&mut self, _: Instant, _: ConnId) {}
    pub(crate) fn closed(&mut self, _: Instant, _: ConnId) {}
    pub(crate) fn handle_bytes(&mut self, _: Instant, _: ConnId, _: &[u8]) -> usize {
        0
    }
    pub(crate) fn poll_transmit(&mut self, _: ConnId, _: &mut [u8]) -> usize {
        0
    }
    pub(crate) fn poll_output(&mut self) -> Option<ElectionOutput> {
        None
    }
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    pub(crate) fn handle_timeout(&mut self, _: Instant) {}
    pub(crate) fn is_bootstrapped(&self) -> bool {
        false
    }
}
