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
use crate::{CipherError, Doors, NetOptions, Port};

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
    stage: Stage,
    /// To be sent before anything of the core's.
    out: Vec<u8>,
}

#[derive(Debug)]
enum Stage {
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
            self.conns.insert(conn, Conn::new(channel, None, Stage::Dialling));
        }
    }

    pub(super) fn accepted(&mut self, conn: ConnId, port: Port, remote: SocketAddr) {
        if port.channel != Channel::Client {
            self.conns
                .insert(conn, Conn::new(port.channel, Some(remote), Stage::Accepted(Vec::new())));
        }
    }

    /// Whether a login comes on an accepted connection.
    fn first_bytes(&mut self, conn: ConnId, bytes: &[u8], doors: &mut impl Doors) -> usize {
        let Some(entry) = self.conns.get_mut(&conn) else { return 0 };
        let head = match (entry.channel, Handshake::parse(bytes)) {
            (Channel::Election, Parsed::Complete { len, .. }) => len,
            (Channel::Election, Parsed::Incomplete) => return 0,
            // What is no handshake the core refuses in its own words.
            (Channel::Election, Parsed::Malformed(_)) => {
                self.forget(conn);
                return doors.receive(conn, bytes);
            }
            (Channel::Quorum | Channel::Client, _) => 0,
        };
        match bytes.get(head) {
            Some(first) if *first == self.logins.first_byte() => {
                let Some(remote) = entry.remote else { return 0 };
                let mut exchange = self.logins.accept(entry.channel, remote);
                exchange.begin(&mut entry.out);
                entry.stage = Stage::logging_in(exchange, false, bytes[..head].to_vec());
                let at = doors.now() + self.limit;
                self.deadlines.set(conn, Some(at));
                head + self.log_in(conn, &bytes[head..], doors)
            }
            Some(_) if self.logins.is_required() => {
                self.fail(conn, &"it does not log in, and has to".into());
                bytes.len()
            }
            Some(_) => {
                log::info!("{} does not log in, and need not", shown(entry.remote));
                self.forget(conn);
                doors.receive(conn, bytes)
            }
            None => {
                // Nothing after the handshake yet. Who need not log in may have nothing to say.
                if !self.deadlines.has(conn) && !bytes.is_empty() {
                    let required = self.logins.is_required();
                    if !required {
                        entry.stage = Stage::Accepted(bytes.to_vec());
                    }
                    let wait = if required { self.limit } else { self.limit.min(QUIET) };
                    self.deadlines.set(conn, Some(doors.now() + wait));
                }
                0
            }
        }
    }

    fn log_in(&mut self, conn: ConnId, bytes: &[u8], doors: &mut impl Doors) -> usize {
        let mut used = 0;
        loop {
            let Some(entry) = self.conns.get_mut(&conn) else { return used };
            let Stage::LoggingIn { exchange, .. } = &mut entry.stage else { return used };
            let outcome = exchange.receive(&bytes[used..], &mut entry.out);
            if !entry.out.is_empty() {
                self.outputs.push_back(LayerOutput::Mark(conn));
            }
            match outcome {
                Ok((0, _)) => return used,
                Ok((len, false)) => used += len,
                Ok((len, true)) => {
                    used += len;
                    self.done(conn, doors);
                    return used + doors.receive(conn, &bytes[used..]);
                }
                Err(error) => {
                    self.fail(conn, &error);
                    return bytes.len();
                }
            }
        }
    }

    /// The login is done: the core hears of what it was kept from.
    fn done(&mut self, conn: ConnId, doors: &mut impl Doors) {
        self.deadlines.set(conn, None);
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        let stage = std::mem::replace(&mut entry.stage, Stage::Flushing);
        let Stage::LoggingIn { opens, held, late, .. } = stage else { return };
        entry.out.extend(late);
        let remote = entry.remote;
        if entry.out.is_empty() {
            self.conns.remove(&conn);
        }
        self.outputs.push_back(LayerOutput::Mark(conn));
        if opens {
            doors.opened(conn, remote);
        }
        if !held.is_empty() {
            // A whole handshake: the core takes it, or ends the connection.
            doors.receive(conn, &held);
        }
    }

    /// Lets the core's handshake go out, and the login after it.
    fn greet(&mut self, conn: ConnId, buf: &mut [u8], doors: &mut impl Doors) {
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        if !matches!(entry.stage, Stage::Greeting(_)) {
            return;
        }
        let filled = doors.transmit(conn, buf);
        entry.out.extend_from_slice(&buf[..filled]);
        let Parsed::Complete { len, .. } = Handshake::parse(&entry.out) else { return };
        let late = entry.out.split_off(len);
        let Stage::Greeting(mut exchange) = std::mem::replace(&mut entry.stage, Stage::Failed)
        else {
            return;
        };
        exchange.begin(&mut entry.out);
        entry.stage = Stage::LoggingIn { exchange, opens: false, held: Vec::new(), late };
    }

    /// Gives a connection up.
    fn fail(&mut self, conn: ConnId, error: &CipherError) {
        self.deadlines.set(conn, None);
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        log::warn!("Closing connection {conn:?} with {}: {error}", shown(entry.remote));
        entry.stage = Stage::Failed;
        self.outputs.push_back(LayerOutput::Close(conn));
    }

    /// A connection is gone.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        self.deadlines.set(conn, None);
        self.conns.remove(&conn);
    }
}

impl Between for LoginLayer {
    fn accept(&mut self, port: Port, remote: SocketAddr, doors: &mut impl Doors) -> Option<ConnId> {
        let conn = doors.accept(port, remote)?;
        self.accepted(conn, port, remote);
        Some(conn)
    }

    fn opened(&mut self, conn: ConnId, remote: Option<SocketAddr>, doors: &mut impl Doors) {
        let Some(entry) = self.conns.get_mut(&conn) else { return doors.opened(conn, remote) };
        let Some(mut exchange) = self.logins.dial(entry.channel, remote) else {
            self.forget(conn);
            return doors.opened(conn, remote);
        };
        entry.remote = remote;
        let at = doors.now() + self.limit;
        if entry.channel == Channel::Election {
            // Its handshake is the core's.
            entry.stage = Stage::Greeting(exchange);
            doors.opened(conn, remote);
        } else {
            exchange.begin(&mut entry.out);
            entry.stage = Stage::logging_in(exchange, true, Vec::new());
            self.outputs.push_back(LayerOutput::Mark(conn));
        }
        self.deadlines.set(conn, Some(at));
    }

    /// A connection has been closed by the other side. Its handshake alone may be all that it had to
    /// say: a member of a lower id asks to be dialled by it, and Apache's leaves at once.
    fn closed(&mut self, conn: ConnId, doors: &mut impl Doors) {
        let entry = self.conns.remove(&conn);
        self.deadlines.set(conn, None);
        if let Some(Conn { stage: Stage::Accepted(handshake), .. }) = entry
            && !handshake.is_empty()
        {
            doors.receive(conn, &handshake);
        }
    }

    fn receive(&mut self, conn: ConnId, bytes: &[u8], doors: &mut impl Doors) -> usize {
        let Some(entry) = self.conns.get(&conn) else { return doors.receive(conn, bytes) };
        match &entry.stage {
            Stage::Dialling | Stage::Greeting(_) => 0,
            Stage::Accepted(_) => self.first_bytes(conn, bytes, doors),
            Stage::LoggingIn { .. } => self.log_in(conn, bytes, doors),
            Stage::Flushing => doors.receive(conn, bytes),
            Stage::Failed => bytes.len(),
        }
    }

    fn transmit(&mut self, conn: ConnId, buf: &mut [u8], doors: &mut impl Doors) -> usize {
        if !self.conns.contains_key(&conn) {
            return doors.transmit(conn, buf);
        }
        self.greet(conn, buf, doors);
        let Some(entry) = self.conns.get_mut(&conn) else { return 0 };
        let len = entry.out.len().min(buf.len());
        buf[..len].copy_from_slice(&entry.out[..len]);
        entry.out.drain(..len);
        if entry.out.is_empty() && matches!(entry.stage, Stage::Flushing) {
            self.conns.remove(&conn);
            return len + doors.transmit(conn, &mut buf[len..]);
        }
        len
    }

    /// A turn of the loop begins.
    fn on_time(&mut self, doors: &mut impl Doors) {
        let now = doors.now();
        while let Some(conn) = self.deadlines.pop(now) {
            let Some(entry) = self.conns.get(&conn) else { continue };
            match &entry.stage {
                Stage::Failed => self.forget(conn),
                // Its handshake is still with the sockets.
                Stage::Accepted(_) if !self.logins.is_required() => {
                    self.forget(conn);
                    self.outputs.push_back(LayerOutput::Resume(conn));
                }
                _ => self.fail(conn, &"the login took too long".into()),
            }
        }
    }

    /// Carries out [`LayerOutput::Close`]. False: the connection is gone already.
    fn close(&mut self, conn: ConnId, doors: &mut impl Doors) -> bool {
        let known = self.conns.contains_key(&conn);
        if known {
            doors.input(Input::Closed { conn });
            // The sockets do not tell when they are done with a connection of the core's.
            let at = doors.now() + self.flush;
            self.deadlines.set(conn, Some(at));
        }
        known
    }
}

impl Conn {
    fn new(channel: Channel, remote: Option<SocketAddr>, stage: Stage) -> Self {
        Self { channel, remote, stage, out: Vec::new() }
    }
}

impl Stage {
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
