//! What the layer keeps of each connection that is encrypted, or may turn out to be.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant as SystemInstant};

use zab_proto::{Channel, ConnId, Input, Instant};

use super::{Cipher, CipherError, Expects, HandshakeEvent, PIECE_LEN_MAX, Security};
use crate::deadlines::Deadlines;
use crate::layered::{Between, Layered};
use crate::{NetHandler, NetOptions, Port};

/// What the layer asks of the sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LayerOutput {
    /// There is something to send.
    Mark(ConnId),
    /// Send what is left, then close.
    Close(ConnId),
    /// Offer the bytes again for which there was no time.
    Resume(ConnId),
}

/// All connections of a server that are encrypted, or may turn out to be. Others pass untouched.
#[derive(Debug)]
pub(crate) struct Layer {
    security: Arc<dyn Security>,
    options: NetOptions,
    conns: HashMap<ConnId, Conn>,
    deadlines: Deadlines,
    outputs: VecDeque<LayerOutput>,
    /// Connections whose handshake has to wait for the next turn, first come first served.
    waiting: VecDeque<ConnId>,
    clients: Budget,
    peers: Budget,
    /// Clients' handshakes under way, those included that have not said anything yet.
    client_handshakes: usize,
    /// A piece on its way from the core into a cipher.
    piece: Vec<u8>,
}

#[derive(Debug)]
struct Conn {
    channel: Channel,
    remote: Option<SocketAddr>,
    /// Where it was dialled, if it was.
    addresses: Option<String>,
    stage: CipherState,
    /// Decrypted and not used.
    inbox: Vec<u8>,
    /// In `waiting`.
    waits: bool,
    /// The sockets have been told to close it.
    closed: bool,
}

#[derive(Debug)]
enum CipherState {
    /// Not connected yet.
    Dialling,
    /// Accepted; nothing has come.
    Silent(Port, Expects),
    Handshaking(Box<dyn Cipher>),
    Open(Box<dyn Cipher>),
    /// The last bytes go out: the cipher's own, and before them the core's if the handshake was done.
    Closing(Box<dyn Cipher>, bool),
    /// Nothing goes in or out.
    Done,
}

/// How long handshakes may keep the others waiting in one turn of the loop: they cost a hundred times
/// what a request costs, and whoever connects can ask for one.
#[derive(Debug)]
struct Budget {
    left: Duration,
    full: Duration,
}

impl Budget {
    fn new(full: Duration) -> Self {
        Self { left: full, full }
    }
}

impl Layer {
    pub(crate) fn new(security: Arc<dyn Security>, options: &NetOptions) -> Self {
        Self {
            security,
            options: options.usable(),
            conns: HashMap::new(),
            deadlines: Deadlines::default(),
            outputs: VecDeque::new(),
            waiting: VecDeque::new(),
            clients: Budget::new(CLIENT_HANDSHAKES_PER_TURN),
            peers: Budget::new(PEER_HANDSHAKES_PER_TURN),
            client_handshakes: 0,
            piece: vec![0; PIECE_LEN_MAX],
        }
    }

    /// When [`on_time`](Self::on_time) is due.
    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if !self.waiting.is_empty() {
            return Some(now);
        }
        self.deadlines.first()
    }

    /// The next thing to do for a connection.
    pub(crate) fn poll_output(&mut self) -> Option<LayerOutput> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        let at = self.waiting.iter().position(|conn| !self.budget(*conn).left.is_zero())?;
        let conn = self.waiting.remove(at)?;
        if let Some(entry) = self.conns.get_mut(&conn) {
            entry.waits = false;
        }
        Some(LayerOutput::Resume(conn))
    }

    fn budget(&self, conn: ConnId) -> &Budget {
        if conn.is_client() { &self.clients } else { &self.peers }
    }

    /// The core dials.
    pub(crate) fn connect(&mut self, now: Instant, conn: ConnId, channel: Channel, to: &str) {
        if self.security.dials(channel) {
            let entry = Conn::new(channel, None, CipherState::Dialling);
            self.conns.insert(conn, Conn { addresses: Some(to.into()), ..entry });
            // The dial's time includes the handshake.
            self.deadlines.set(conn, Some(now + self.options.connect_timeout));
        }
    }

    /// The first byte of an accepted connection says that it will be encrypted.
    fn begin(
        &mut self,
        conn: ConnId,
        port: Port,
        expects: Expects,
        now: Instant,
    ) -> Result<(), CipherError> {
        let Some(entry) = self.conns.get_mut(&conn) else { return Ok(()) };
        let remote = entry.remote.ok_or("its address is not known")?;
        let cipher = self.security.accept(port, remote)?;
        entry.stage = CipherState::Handshaking(cipher);
        self.security.happened(HandshakeEvent::Begun(port.channel));
        if port.channel != Channel::Client || expects == Expects::Either {
            let limit = self.security.limits().handshake;
            self.deadlines.set(conn, Some(now + limit));
            self.client_handshakes += usize::from(port.channel == Channel::Client);
        }
        Ok(())
    }

    /// Handshakes of a turn take a bounded time; who comes late waits for the next one.
    fn handshake(&mut self, conn: ConnId, bytes: &[u8], handler: &mut impl NetHandler) -> usize {
        let budget = if conn.is_client() { &mut self.clients } else { &mut self.peers };
        if budget.left.is_zero() {
            if let Some(entry) = self.conns.get_mut(&conn)
                && !std::mem::replace(&mut entry.waits, true)
            {
                self.waiting.push_back(conn);
            }
            return 0;
        }
        let begun = SystemInstant::now();
        let used = self.decrypt(conn, bytes, handler);
        let budget = if conn.is_client() { &mut self.clients } else { &mut self.peers };
        budget.left = budget.left.saturating_sub(begun.elapsed());
        used
    }

    fn decrypt(&mut self, conn: ConnId, bytes: &[u8], handler: &mut impl NetHandler) -> usize {
        let max = self.options.unread_max(conn);
        let mut used = 0;
        loop {
            let Some(entry) = self.conns.get_mut(&conn) else { return bytes.len() };
            let (CipherState::Handshaking(cipher) | CipherState::Open(cipher)) = &mut entry.stage
            else {
                return bytes.len();
            };
            if used == bytes.len() || entry.inbox.len() >= max {
                break;
            }
            let taken = match cipher.read(&bytes[used..], &mut entry.inbox) {
                Ok(taken) => taken,
                Err(error) => {
                    self.fail(conn, &error);
                    return bytes.len();
                }
            };
            used += taken;
            if !cipher.is_handshaking() && matches!(entry.stage, CipherState::Handshaking(_)) {
                self.established(conn, handler);
            }
            self.resume(conn, handler);
            if taken == 0 {
                used = bytes.len();
            }
        }
        if let Some(Conn {
            stage: CipherState::Handshaking(cipher) | CipherState::Open(cipher),
            ..
        }) = self.conns.get(&conn)
        {
            if cipher.wants_write() {
                self.outputs.push_back(LayerOutput::Mark(conn));
            }
            if cipher.has_ended() {
                self.outputs.push_back(LayerOutput::Close(conn));
            }
        }
        used
    }

    fn established(&mut self, conn: ConnId, handler: &mut impl NetHandler) {
        self.deadlines.set(conn, None);
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        let CipherState::Handshaking(cipher) =
            std::mem::replace(&mut entry.stage, CipherState::Done)
        else {
            return;
        };
        let (how, dialled) = (cipher.describe(), entry.addresses.is_some());
        let subject = cipher.subject();
        let remote = shown(entry.remote);
        entry.stage = CipherState::Open(cipher);
        match (entry.channel, dialled) {
            (Channel::Client, _) => log::debug!("Accepted TLS connection from {remote} - {how}"),
            (_, true) => log::info!("SSL handshake complete with {remote} - {how}"),
            (_, false) => log::info!("Accepted TLS connection from {remote} - {how}"),
        }
        self.security.happened(HandshakeEvent::Done(entry.channel));
        self.client_handshakes -= usize::from(entry.channel == Channel::Client);
        // The other side may have sent more than its handshake, and the core may have waited.
        self.outputs.push_back(LayerOutput::Mark(conn));
        if dialled {
            let remote = entry.remote;
            handler.opened(conn, remote);
        } else if conn.is_client() {
            handler.secured(conn, subject.as_deref());
        }
    }

    /// A connection turns out not to be encrypted, and is none of the layer's business any more.
    fn plain(&mut self, conn: ConnId) {
        if let Some(entry) = self.conns.get(&conn) {
            if entry.channel != Channel::Client {
                log::info!("Accepted plaintext connection from {}", shown(entry.remote));
            }
            self.security.happened(HandshakeEvent::Plain(entry.channel));
        }
        self.forget(conn);
        self.outputs.push_back(LayerOutput::Mark(conn));
    }

    pub(super) fn resume(&mut self, conn: ConnId, handler: &mut impl NetHandler) {
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        if entry.inbox.is_empty() || !matches!(entry.stage, CipherState::Open(_)) {
            return;
        }
        let used = handler.receive(conn, &entry.inbox);
        if used == entry.inbox.len() && used <= PIECE_LEN_MAX {
            entry.inbox.clear();
        } else if used == entry.inbox.len() {
            entry.inbox = Vec::new();
        } else {
            entry.inbox.drain(..used);
        }
    }

    /// The core, or the layer for its own reasons, closes a connection. What the core still has to
    /// say on it is sent if it can be encrypted.
    pub(crate) fn closing(&mut self, now: Instant, conn: ConnId) {
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        if matches!(entry.stage, CipherState::Dialling) {
            self.forget(conn);
            return;
        }
        self.client_handshakes -= usize::from(entry.is_counted());
        entry.wind_up(true);
        entry.closed = true;
        // The sockets do not tell when they are done with a connection of the core's.
        self.deadlines.set(conn, Some(now + self.options.flush_timeout * 2));
    }

    /// Gives a connection up.
    fn fail(&mut self, conn: ConnId, error: &CipherError) {
        let Some(entry) = self.conns.get_mut(&conn) else { return };
        let remote = shown(entry.remote);
        if conn.is_client() {
            log::warn!(target: CLIENTS, "Closing connection {conn:?} with {remote}: {error}");
        } else {
            log::warn!("Closing connection {conn:?} with {remote}: {error}");
        }
        if !matches!(entry.stage, CipherState::Open(_)) {
            self.security.happened(HandshakeEvent::Failed(entry.channel));
        }
        self.client_handshakes -= usize::from(entry.is_counted());
        entry.wind_up(false);
        self.outputs.push_back(LayerOutput::Close(conn));
    }

    /// A connection is gone.
    pub(super) fn forget(&mut self, conn: ConnId) {
        self.deadlines.set(conn, None);
        let Some(entry) = self.conns.remove(&conn) else { return };
        self.client_handshakes -= usize::from(entry.is_counted());
        if matches!(entry.stage, CipherState::Handshaking(_)) {
            self.security.happened(HandshakeEvent::Failed(entry.channel));
            log::debug!("{} has gone during the handshake", shown(entry.remote));
        }
    }
}

impl<D: NetHandler> Layered<'_, Layer, D> {
    /// Offers again what was decrypted and not used.
    pub(crate) fn resume(&mut self, conn: ConnId) {
        if let Some(layer) = &mut self.layer {
            layer.resume(conn, &mut self.inner);
        }
    }
}

impl Between for Layer {
    fn closed(&mut self, conn: ConnId, _: &mut impl NetHandler) {
        self.forget(conn);
    }

    fn accept(
        &mut self,
        port: Port,
        remote: SocketAddr,
        handler: &mut impl NetHandler,
    ) -> Option<ConnId> {
        let expects = self.security.expects(port);
        if expects == Expects::Plain {
            return handler.accept(port, remote);
        }
        let limits = self.security.limits();
        let is_client = port.channel == Channel::Client;
        if is_client
            && expects == Expects::Handshake
            && limits.clients_max.is_some_and(|max| self.client_handshakes >= max)
        {
            log::warn!("Refusing {remote}: {} handshakes are under way", self.client_handshakes);
            self.security.happened(HandshakeEvent::Refused(port.channel));
            return None;
        }
        let conn = handler.accept(port, remote)?;
        self.conns.insert(
            conn,
            Conn::new(port.channel, Some(remote), CipherState::Silent(port, expects)),
        );
        let limit = match (is_client, expects) {
            // Clients have a time of the service's own for saying who they are.
            (true, Expects::Either) => None,
            (true, _) => Some(limits.handshake),
            (false, _) => Some(limits.detection),
        };
        self.deadlines.set(conn, limit.map(|limit| handler.now() + limit));
        if is_client && expects == Expects::Handshake {
            self.client_handshakes += 1;
        }
        Some(conn)
    }

    fn opened(&mut self, conn: ConnId, remote: Option<SocketAddr>, handler: &mut impl NetHandler) {
        let Some(entry) = self.conns.get_mut(&conn) else {
            return handler.opened(conn, remote);
        };
        entry.remote = remote;
        let addresses = entry.addresses.as_deref().unwrap_or_default();
        let ip = remote.map(|remote| remote.ip().to_canonical());
        match self.security.dial(entry.channel, addresses, ip) {
            Ok(cipher) => {
                entry.stage = CipherState::Handshaking(cipher);
                self.security.happened(HandshakeEvent::Begun(entry.channel));
                self.outputs.push_back(LayerOutput::Mark(conn));
            }
            Err(error) => self.fail(conn, &error),
        }
    }

    fn receive(&mut self, conn: ConnId, bytes: &[u8], handler: &mut impl NetHandler) -> usize {
        let Some(entry) = self.conns.get_mut(&conn) else {
            return handler.receive(conn, bytes);
        };
        if let (CipherState::Silent(port, expects), Some(first)) = (&entry.stage, bytes.first()) {
            let (port, expects) = (*port, *expects);
            if *first != HANDSHAKE {
                if expects == Expects::Either {
                    self.plain(conn);
                    return handler.receive(conn, bytes);
                }
                self.fail(
                    conn,
                    &"it does not speak TLS, which is all that this port accepts".into(),
                );
                return bytes.len();
            }
            if let Err(error) = self.begin(conn, port, expects, handler.now()) {
                self.fail(conn, &error);
                return bytes.len();
            }
        }
        match self.conns.get(&conn).map(|entry| &entry.stage) {
            Some(CipherState::Handshaking(_)) => self.handshake(conn, bytes, handler),
            Some(CipherState::Open(_)) => self.decrypt(conn, bytes, handler),
            _ => bytes.len(),
        }
    }

    fn transmit(&mut self, conn: ConnId, buf: &mut [u8], handler: &mut impl NetHandler) -> usize {
        let Some(entry) = self.conns.get_mut(&conn) else {
            return handler.transmit(conn, buf);
        };
        let (cipher, of_core, last) = match &mut entry.stage {
            CipherState::Dialling | CipherState::Silent(..) | CipherState::Done => return 0,
            CipherState::Handshaking(cipher) => return cipher.write(buf),
            CipherState::Open(cipher) => (cipher, true, false),
            CipherState::Closing(cipher, of_core) => (cipher, *of_core, true),
        };
        let mut n = cipher.write(buf);
        while of_core && n < buf.len() {
            // The cipher keeps what `buf` has no room for; short records are not worth their head.
            let (mut filled, max) = (0, self.piece.len().min((buf.len() - n).max(PIECE_LEN_MIN)));
            while filled < max {
                match handler.transmit(conn, &mut self.piece[filled..max]) {
                    0 => break,
                    more => filled += more,
                }
            }
            if filled == 0 {
                break;
            }
            if let Err(error) = cipher.seal(&self.piece[..filled]) {
                self.fail(conn, &error);
                return n;
            }
            n += cipher.write(&mut buf[n..]);
        }
        if last && n < buf.len() {
            cipher.end();
            n += cipher.write(&mut buf[n..]);
            if !cipher.wants_write() {
                entry.stage = CipherState::Done;
            }
        }
        n
    }

    /// A turn of the loop begins.
    fn on_time(&mut self, handler: &mut impl NetHandler) {
        self.clients.left = self.clients.full;
        self.peers.left = self.peers.full;
        let now = handler.now();
        while let Some(conn) = self.deadlines.pop(now) {
            let Some(entry) = self.conns.get(&conn) else { continue };
            match &entry.stage {
                CipherState::Silent(_, Expects::Either) => self.plain(conn),
                CipherState::Silent(..) => {
                    self.fail(conn, &"nothing came, not even a handshake".into());
                }
                CipherState::Handshaking(_) => {
                    self.fail(conn, &"the handshake took too long".into());
                }
                // The sockets tell of dials that take too long.
                CipherState::Dialling | CipherState::Open(_) => {}
                CipherState::Closing(..) | CipherState::Done => self.forget(conn),
            }
        }
    }

    /// Carries out [`LayerOutput::Close`]. False: the connection is closed already.
    fn close(&mut self, conn: ConnId, handler: &mut impl NetHandler) -> bool {
        let Some(entry) = self.conns.get_mut(&conn).filter(|entry| !entry.closed) else {
            return false;
        };
        if !conn.is_client() {
            self.client_handshakes -= usize::from(entry.is_counted());
            // The core has nothing more to say on what it no longer knows. The application of a client
            // is told by the sockets, when the last bytes are out.
            entry.wind_up(false);
            handler.input(Input::Closed { conn });
        }
        self.closing(handler.now(), conn);
        true
    }
}

impl Conn {
    fn new(channel: Channel, remote: Option<SocketAddr>, stage: CipherState) -> Self {
        let (inbox, waits, closed) = (Vec::new(), false, false);
        Self { channel, remote, addresses: None, stage, inbox, waits, closed }
    }

    /// Whether it is one of the clients' handshakes under way.
    fn is_counted(&self) -> bool {
        self.channel == Channel::Client
            && matches!(
                self.stage,
                CipherState::Handshaking(_) | CipherState::Silent(_, Expects::Handshake)
            )
    }

    /// Nothing goes in any more; what may still go out does. Of the core's bytes only if the handshake
    /// was done.
    fn wind_up(&mut self, of_core: bool) {
        self.inbox = Vec::new();
        self.stage = match std::mem::replace(&mut self.stage, CipherState::Done) {
            CipherState::Open(cipher) => CipherState::Closing(cipher, of_core),
            CipherState::Handshaking(cipher) => CipherState::Closing(cipher, false),
            CipherState::Closing(cipher, before) => CipherState::Closing(cipher, before && of_core),
            CipherState::Dialling | CipherState::Silent(..) | CipherState::Done => {
                CipherState::Done
            }
        };
    }
}

fn shown(remote: Option<SocketAddr>) -> String {
    remote.map_or_else(|| "?".into(), |remote| remote.to_string())
}

/// No shorter piece is encrypted because of a short buffer.
const PIECE_LEN_MIN: usize = 1024;

/// The first byte of a TLS handshake. No member and no client begins with it in plain text: members
/// with 0x00, 0x5f or 0xff, clients with 0x00 or a letter.
const HANDSHAKE: u8 = 0x16;

/// Clients are a subject of their own in the log, lest they keep out what befalls members.
const CLIENTS: &str = "runtime_core::secure::client";

/// A turn's time for handshakes, exceeded by one of them at most.
const CLIENT_HANDSHAKES_PER_TURN: Duration = Duration::from_millis(2);
const PEER_HANDSHAKES_PER_TURN: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests;
