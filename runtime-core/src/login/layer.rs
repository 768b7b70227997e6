//! What the layer keeps of each connection whose login is not done.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use zab_proto::wire::Parsed;
use zab_proto::wire::handshake::Handshake;
use zab_proto::{Channel, ConnId, Input, Instant};

use super::{Exchange, Logins};
use crate::deadlines::Deadlines;
use crate::layered::Between;
use crate::secure::LayerOutput;
use crate::{CipherError, NetHandler, NetOptions, Port};

/// All connections with members whose login is not done. Others pass untouched.
#[derive(Debug)]
pub(crate) struct LoginLayer {
    logins: Arc<dyn Logins>,
    /// How long a login may take, and how long its last word.
    limit: Duration,
    flush: Duration,
    conns: HashMap<ConnId, Conn>,
    deadlines: Deadlines,
    outputs: VecDeque<LayerOutput>,
}

#[derive(Debug)]
struct Conn {
    channel: Channel,
    remote: Option<SocketAddr>,
    stage: LoginState,
    /// To be sent before anything of the core's.
    out: Vec<u8>,
}

#[derive(Debug)]
enum LoginState {
    /// Not connected yet.
    Dialling,
    /// The core has not yet said its handshake, which goes in front of the login.
    Greeting(Box<dyn Exchange>),
    /// Accepted; it is not known whether a login comes. Behind this handshake nothing has come yet.
    Accepted(Vec<u8>),
    /// The login is under way.
    LoggingIn {
        exchange: Box<dyn Exchange>,
        /// Dialled, and the core has not been told that it is connected.
        opens: bool,
        /// What goes to the core when it is done: the dialler's handshake.
        held: Vec<u8>,
        /// What the core has said too early.
        late: Vec<u8>,
    },
    /// What was said too early, or the last word, is being sent.
    Flushing,
    /// It has failed; nothing more is read.
    Failed,
}

impl LoginLayer {
    pub(crate) fn new(logins: Arc<dyn Logins>, options: &NetOptions) -> Self {
        Self {
            logins,
            limit: options.connect_timeout,
            flush: options.flush_timeout * 2,
            conns: HashMap::new(),
            deadlines: Deadlines::default(),
            outputs: VecDeque::new(),
        }
    }

    /// When [`on_time`](Self::on_time) is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first()
    }

    /// The next thing to do for a connection.
    pub(crate) fn poll_output(&mut self) -> Option<LayerOutput> {
        self.outputs.pop_front()
    }

    /// The core dials.
    pub(crate) fn connect(&mut self, conn: ConnId, channel: Channel) {
        if self.logins.dials() && channel != Channel::Client {
            self.conns.insert(conn, Conn::new(channel, None, LoginState::Dialling));
        }
    }

    pub(super) fn accepted(&mut self, conn: ConnId, port: Port, remote: SocketAddr) {
        if port.channel != Channel::Client {
            self.conns.insert(
                conn,
                Conn::new(port.channel, Some(remote), LoginState::Accepted(Vec::new())),
            );
        }
    }

    /// Whether a login comes on an accepted connection.
    fn first_bytes(&mut self, conn: ConnId, bytes: &[u8], handler: &mut impl NetHandler) -> usize {
        let Some(entry) = self.conns.get_mut(&conn) else { return 0 };
        let head = match (entry.channel, Handshake::parse(bytes)) {
            (Channel::Election, Parsed::Complete { len, .. }) => len,
            (Channel::Election, Parsed::Incomplete) => return 0,
            // What is no handshake the core refuses in its own words.
            (Channel::Election, Parsed::Malformed(_)) => {
                self.forget(conn);
                return handler.receive(conn, bytes);
            }
            (Channel::Quorum | Channel::Client, _) => 0,
        };
        match bytes.get(head) {
            Some(first) if *first == self.logins.first_byte() => {
                let Some(remote) = entry.remote else { return 0 };
                let mut exchange = self.logins.accept(entry.channel, remote);
                exchange.begin(&mut entry.out);
                entry.stage = LoginState::logging_in(exchange, false, bytes[..head].to_vec());
                let at = handler.now() + self.limit;
                self.deadlines.set(conn, Some(at));
                head + self.log_in(conn, &bytes[head..], handler)
            }
            Some(_) if self.logins.is_required() => {
                self.fail(conn, &"it does not log in, which is required".into());
                bytes.len()
            }
            Some(_) => {
                log::info!("{} does not log in, which is not required", shown(entry.remote));
                self.forget(conn);
                handler.receive(conn, bytes)
            }
            None => {
                // Nothing after the handshake yet. Who need not log in may have nothing to say.
                if !self.deadlines.has(conn) && !bytes.is_empty() {
                    let required = self.logins.is_required();
                    if !required {
                        entry.stage = LoginState::Accepted(bytes.to_vec());
                    }
                    let wait = if required { self.limit } else { self.limit.min(QUIET) };
                    self.deadlines.set(conn, Some(handler.now() + wait));
                }
                0
            }
        }
    }

    fn log_in(&mut self, conn: ConnId, bytes: &[u8], handler: &mut impl NetHandler) -> usize {
        let mut used = 0;
        loop {
            let Some(entry) = self.conns.get_mut(&conn) else { return used };
            let LoginState::LoggingIn { exchange, .. } = &mut entry.stage else { return used };
            let outcome = exchange.receive(&bytes[used..], &mut entry.out);
            if !entry.out.is_empty() {
                self.outputs.push_back(LayerOutput::Mark(conn));
            }
            match outcome {
                Ok((0, _)) => return used,
                Ok((len, false)) => used += len,
                Ok((len, true)) => {
                    used += len;
                    self.done(conn, handler);
                    return used + handler.receive(conn, &bytes[used..]);
                }
                Err(error) => {
                    self.fail(conn, &error);
                    return bytes.len();
                }
            }
        }
    }

    /// The login is done: the core hears of what it was kept from.
    fn done(&mut self, conn: ConnId, handler: &mut impl NetHandler) {
        self.deadlines.set(conn, None);
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        let stage = std::mem::replace(&mut entry.stage, LoginState::Flushing);
        let LoginState::LoggingIn { opens, held, late, .. } = stage else { return };
        entry.out.extend(late);
        let remote = entry.remote;
        if entry.out.is_empty() {
            self.conns.remove(&conn);
        }
        self.outputs.push_back(LayerOutput::Mark(conn));
        if opens {
            handler.opened(conn, remote);
        }
        if !held.is_empty() {
            // A whole handshake: the core takes it, or ends the connection.
            handler.receive(conn, &held);
        }
    }

    /// Lets the core's handshake go out, and the login after it.
    fn greet(&mut self, conn: ConnId, buf: &mut [u8], handler: &mut impl NetHandler) {
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        if !matches!(entry.stage, LoginState::Greeting(_)) {
            return;
        }
        let filled = handler.transmit(conn, buf);
        entry.out.extend_from_slice(&buf[..filled]);
        let Parsed::Complete { len, .. } = Handshake::parse(&entry.out) else { return };
        let late = entry.out.split_off(len);
        let LoginState::Greeting(mut exchange) =
            std::mem::replace(&mut entry.stage, LoginState::Failed)
        else {
            return;
        };
        exchange.begin(&mut entry.out);
        entry.stage = LoginState::LoggingIn { exchange, opens: false, held: Vec::new(), late };
    }

    /// Gives a connection up.
    fn fail(&mut self, conn: ConnId, error: &CipherError) {
        self.deadlines.set(conn, None);
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        log::warn!("Closing connection {conn:?} with {}: {error}", shown(entry.remote));
        entry.stage = LoginState::Failed;
        self.outputs.push_back(LayerOutput::Close(conn));
    }

    /// A connection is gone.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        self.deadlines.set(conn, None);
        self.conns.remove(&conn);
    }
}

impl Between for LoginLayer {
    fn accept(
        &mut self,
        port: Port,
        remote: SocketAddr,
        handler: &mut impl NetHandler,
    ) -> Option<ConnId> {
        let conn = handler.accept(port, remote)?;
        self.accepted(conn, port, remote);
        Some(conn)
    }

    fn opened(&mut self, conn: ConnId, remote: Option<SocketAddr>, handler: &mut impl NetHandler) {
        let Some(entry) = self.conns.get_mut(&conn) else { return handler.opened(conn, remote) };
        let Some(mut exchange) = self.logins.dial(entry.channel, remote) else {
            self.forget(conn);
            return handler.opened(conn, remote);
        };
        entry.remote = remote;
        let at = handler.now() + self.limit;
        if entry.channel == Channel::Election {
            // Its handshake is the core's.
            entry.stage = LoginState::Greeting(exchange);
            handler.opened(conn, remote);
        } else {
            exchange.begin(&mut entry.out);
            entry.stage = LoginState::logging_in(exchange, true, Vec::new());
            self.outputs.push_back(LayerOutput::Mark(conn));
        }
        self.deadlines.set(conn, Some(at));
    }

    /// A connection has been closed by the other side. Its handshake alone may be all that it had to
    /// say: a member of a lower id asks to be dialled by it, and Apache's leaves at once.
    fn closed(&mut self, conn: ConnId, handler: &mut impl NetHandler) {
        let entry = self.conns.remove(&conn);
        self.deadlines.set(conn, None);
        if let Some(Conn { stage: LoginState::Accepted(handshake), .. }) = entry
            && !handshake.is_empty()
        {
            handler.receive(conn, &handshake);
        }
    }

    fn receive(&mut self, conn: ConnId, bytes: &[u8], handler: &mut impl NetHandler) -> usize {
        let Some(entry) = self.conns.get(&conn) else { return handler.receive(conn, bytes) };
        match &entry.stage {
            LoginState::Dialling | LoginState::Greeting(_) => 0,
            LoginState::Accepted(_) => self.first_bytes(conn, bytes, handler),
            LoginState::LoggingIn { .. } => self.log_in(conn, bytes, handler),
            LoginState::Flushing => handler.receive(conn, bytes),
            LoginState::Failed => bytes.len(),
        }
    }

    fn transmit(&mut self, conn: ConnId, buf: &mut [u8], handler: &mut impl NetHandler) -> usize {
        if !self.conns.contains_key(&conn) {
            return handler.transmit(conn, buf);
        }
        self.greet(conn, buf, handler);
        let Some(entry) = self.conns.get_mut(&conn) else { return 0 };
        let len = entry.out.len().min(buf.len());
        buf[..len].copy_from_slice(&entry.out[..len]);
        entry.out.drain(..len);
        if entry.out.is_empty() && matches!(entry.stage, LoginState::Flushing) {
            self.conns.remove(&conn);
            return len + handler.transmit(conn, &mut buf[len..]);
        }
        len
    }

    /// A turn of the loop begins.
    fn on_time(&mut self, handler: &mut impl NetHandler) {
        let now = handler.now();
        while let Some(conn) = self.deadlines.pop(now) {
            let Some(entry) = self.conns.get(&conn) else { continue };
            match &entry.stage {
                LoginState::Failed => self.forget(conn),
                // Its handshake is still with the sockets.
                LoginState::Accepted(_) if !self.logins.is_required() => {
                    self.forget(conn);
                    self.outputs.push_back(LayerOutput::Resume(conn));
                }
                _ => self.fail(conn, &"the login took too long".into()),
            }
        }
    }

    /// Carries out [`LayerOutput::Close`]. False: the connection is gone already.
    fn close(&mut self, conn: ConnId, handler: &mut impl NetHandler) -> bool {
        let known = self.conns.contains_key(&conn);
        if known {
            handler.input(Input::Closed { conn });
            // The sockets do not tell when they are done with a connection of the core's.
            let at = handler.now() + self.flush;
            self.deadlines.set(conn, Some(at));
        }
        known
    }
}

impl Conn {
    fn new(channel: Channel, remote: Option<SocketAddr>, stage: LoginState) -> Self {
        Self { channel, remote, stage, out: Vec::new() }
    }
}

impl LoginState {
    fn logging_in(exchange: Box<dyn Exchange>, opens: bool, held: Vec<u8>) -> Self {
        Self::LoggingIn { exchange, opens, held, late: Vec::new() }
    }
}

/// How long a login may be missing after the handshake of an election connection that need not have one:
/// both are sent together. Much less than such a handshake may take.
const QUIET: Duration = Duration::from_millis(500);

fn shown(remote: Option<SocketAddr>) -> String {
    remote.map_or_else(|| "?".into(), |remote| remote.to_string())
}

#[cfg(test)]
mod tests;
