//! What servers send.

use std::time::Duration;

use bytes::{Buf, Bytes};
use zab_proto::wire::jute::Reader;
use zab_proto::{DecodeError, Instant};

use super::pending::Pending;
use super::{Frame, Link, Session, XID_AUTH, XID_EVENT, XID_PING, XID_SET_WATCHES, put_frame};
use crate::answer::{self, Answer};
use crate::error::Code;
use crate::event::Event;
use crate::request::opcode;
use crate::watch::{EventKind, WatchEvent};

impl Session {
    /// Bytes have come. Whatever they are, the worst that happens is that the connection is given
    /// up.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) {
        if !self.has_connection() {
            return;
        }
        self.last_received = now;
        self.input.extend_from_slice(bytes);
        while let Some(outcome) = self.next_frame() {
            let outcome = outcome.and_then(|frame| self.handle_frame(&frame));
            if let Err(error) = outcome {
                log::warn!("closing the connection, as the server sent malformed bytes: {error}");
                return self.lose(now);
            }
        }
    }

    fn next_frame(&mut self) -> Option<Result<Frame, DecodeError>> {
        if !self.has_connection() {
            return None;
        }
        let len = i32::from_be_bytes(*self.input.first_chunk()?);
        match usize::try_from(len) {
            Ok(len) if len <= self.options.frame_len_max_bytes => {
                if self.input.len() < 4 + len {
                    return None;
                }
                self.input.advance(4);
                Some(Ok(self.input.split_to(len).freeze()))
            }
            _ => Some(Err(DecodeError::BadLength(i64::from(len)))),
        }
    }

    fn handle_frame(&mut self, frame: &Frame) -> Result<(), DecodeError> {
        if let Link::Greeting(..) = self.link {
            return self.handle_greeting(frame);
        }
        let mut reader = Reader::new(frame);
        let (xid, zxid, err) = (reader.i32()?, reader.i64()?, reader.i32()?);
        let code = Code::from_number(err);
        let body = frame.slice(reader.position()..);
        if xid == XID_EVENT {
            return self.handle_event(zxid, &body);
        }
        // The zxid of an event does not count as seen. Its transaction may fire more watches of
        // ours, which setWatches would not tell again if the connection ended in between. An
        // answer comes after all of them.
        if zxid > 0 {
            self.last_zxid = self.last_zxid.max(zxid);
        }
        match xid {
            XID_PING => Ok(()),
            XID_AUTH => {
                if code != Code::Ok {
                    self.finish(Code::AuthFailed);
                    return Ok(());
                }
                let accepted =
                    self.auths.accepted().ok_or_else(|| DecodeError::BadValue(xid.into()))?;
                for id in accepted {
                    self.answered(id, Ok(Answer::Done));
                }
                Ok(())
            }
            _ => self.handle_reply(xid, code, &body),
        }
    }

    fn handle_greeting(&mut self, frame: &Frame) -> Result<(), DecodeError> {
        let mut reader = Reader::new(frame);
        let (_, timeout, id) = (reader.i32()?, reader.i32()?, reader.i64()?);
        let password = reader.buffer()?.unwrap_or_default().to_vec();
        // Servers before 3.4 do not say, and are not read-only.
        let read_only = reader.remaining() > 0 && reader.bool()?;
        let Link::Greeting(host, _) = &self.link else { return Ok(()) };
        let host = host.clone();
        let Some(timeout) = u64::try_from(timeout).ok().filter(|timeout| *timeout > 0) else {
            self.finish(Code::SessionExpired);
            return Ok(());
        };
        if self.global && id != self.session_id {
            // As ZooKeeper's client for C has it: another session is not ours.
            self.finish(Code::SessionExpired);
            return Ok(());
        }
        (self.session_id, self.password) = (id, password);
        self.timeout = Duration::from_millis(timeout);
        self.global |= !read_only;
        let (host_told, timeout) = (host.clone(), self.timeout);
        self.push(Event::Connected { host: host_told, session_id: id, timeout, read_only });
        self.log_in(&host);
        Ok(())
    }

    /// From now on the server is asked for what we want.
    pub(super) fn serve(&mut self) {
        self.link = Link::Up;
        self.failure = None;
        self.up_since = self.last_received;
        self.auths.send_all(&mut self.output);
        for (opcode, body) in self.watches.rearm(self.last_zxid) {
            put_frame(&mut self.output, XID_SET_WATCHES, opcode, &body);
            self.in_flight.push_back(Pending::own(XID_SET_WATCHES, opcode));
        }
        for waiting in std::mem::take(&mut self.waiting) {
            waiting.send(&mut self.last_xid, &mut self.output, &mut self.in_flight);
        }
    }

    fn handle_event(&mut self, zxid: i64, body: &Bytes) -> Result<(), DecodeError> {
        let mut reader = Reader::new(body);
        let (kind, _state) = (reader.i32()?, reader.i32()?);
        let full_path = answer::read_string(&mut reader)?;
        let kind =
            EventKind::from_number(kind).ok_or_else(|| DecodeError::BadValue(kind.into()))?;
        self.watches.fired(kind, &full_path);
        let path = self.root.strip(&full_path);
        self.push(Event::Watch(WatchEvent { kind, path, zxid }));
        Ok(())
    }

    fn handle_reply(&mut self, xid: i32, code: Code, body: &Bytes) -> Result<(), DecodeError> {
        // Answers come in the order of the requests. Anything else is not meant for us.
        if self.in_flight.front().is_none_or(|pending| pending.xid != xid) {
            return Err(DecodeError::BadValue(xid.into()));
        }
        let Some(pending) = self.in_flight.pop_front() else { return Ok(()) };
        let Some(id) = pending.id() else {
            match (pending.opcode, code) {
                (opcode::CLOSE_SESSION, _) => self.finish(Code::Ok),
                (opcode::SASL, code) => return self.handle_token(code, body),
                (_, Code::Ok) => {}
                // A server before 3.6 does not know watches that stay. They are kept for the next.
                _ => log::warn!("the server does not set watches again: {code}"),
            }
            return Ok(());
        };
        let answer = match code {
            Code::Ok => match answer::decode(pending.opcode, body, &self.root) {
                Ok(answer) => Ok(answer),
                Err(error) => {
                    if let Some((id, error)) = pending.failed(Code::MarshallingError) {
                        self.answered(id, Err(error));
                    }
                    return Err(error);
                }
            },
            Code::NoNode if pending.opcode == opcode::EXISTS => Ok(Answer::Exists(None)),
            _ => Err(()),
        };
        for kind in pending.settle(code, &mut self.watches) {
            self.push(Event::Watch(WatchEvent { kind, path: pending.path(), zxid: -1 }));
        }
        match answer {
            Ok(answer) => self.answered(id, Ok(answer)),
            Err(()) => {
                if let Some((id, error)) = pending.failed(code) {
                    self.answered(id, Err(error));
                }
            }
        }
        Ok(())
    }
}
