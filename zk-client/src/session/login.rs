//! The login: between a server's greeting and the first request.

use bytes::BytesMut;
use zab_proto::DecodeError;
use zab_proto::wire::jute::{BufMutExt, Reader};

use super::pending::{Pending, next_xid};
use super::{Link, Session, put_frame};
use crate::error::Code;
use crate::event::Event;
use crate::hosts::Host;
use crate::request::opcode;
use crate::sasl::Step;

impl Session {
    /// The server has given us the session: logs in, if that is wanted, before it is asked for more.
    pub(super) fn log_in(&mut self, host: &Host) {
        let Some(mechanism) = &self.options.sasl else { return self.serve() };
        let mut exchange = mechanism.start(host);
        let first = exchange.first();
        self.link = Link::LoggingIn(host.clone(), self.last_received + self.connect_timeout());
        self.login = Some(exchange);
        self.put_token(&first);
    }

    fn put_token(&mut self, token: &[u8]) {
        let xid = next_xid(&mut self.last_xid);
        let mut body = BytesMut::new();
        body.put_buffer(Some(token));
        put_frame(&mut self.output, xid, opcode::SASL, &body);
        self.in_flight.push_back(Pending::own(xid, opcode::SASL));
    }

    /// What the server says to our last message.
    pub(super) fn handle_token(&mut self, code: Code, body: &[u8]) -> Result<(), DecodeError> {
        let Link::LoggingIn(host, _) = &self.link else { return Ok(()) };
        let host = host.clone();
        let Some(exchange) = self.login.as_mut() else { return Ok(()) };
        let step = match code {
            Code::Ok => exchange.take(Reader::new(body).buffer()?),
            code => Err(format!("the server refuses: {code}")),
        };
        match step {
            Ok(Step::Send(token)) => self.put_token(&token),
            Ok(Step::Done) => {
                self.login = None;
                self.push(Event::LoggedIn);
                self.serve();
            }
            Err(reason) => {
                let reason = format!("{host}: the login failed: {reason}");
                log::warn!("{reason}");
                self.failure = Some(reason);
                self.finish(Code::AuthFailed);
            }
        }
        Ok(())
    }
}
