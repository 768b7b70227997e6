//! The core and its application as one thing with the four doors; what every runtime drives.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::{
    Application, Channel, ClientOutput, CloseReason, Config, ConfigError, ConnId, Core, Input,
    Instant, Message, Output, Peer, Recovered, Status, Storage, Violation, Zxid,
};

/// What a runtime has to do on the network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NetOutput {
    /// Dial a member.
    Connect {
        /// Name of the new connection.
        conn: ConnId,
        /// The port's kind.
        channel: Channel,
        /// `host:port`, several joined by `|`; the first that answers is to be used.
        addresses: String,
    },
    /// Ask [`Node::poll_transmit`] until it returns 0 or the socket is full.
    Transmit(ConnId),
    /// Offer bytes again that [`Node::handle_bytes`] left.
    Resume(ConnId),
    /// Send what `poll_transmit` still has, then close.
    Close(ConnId, CloseReason),
    /// Role or phase changed (for the runtime's log; the application knows).
    Became(Status),
}

/// A [`Peer`] with its [`Application`].
#[derive(Debug)]
pub struct Node<A> {
    peer: Peer,
    app: A,
    lent: Vec<Lent>,
    to_disk: Option<u32>,
    piece: Vec<u8>,
    touched: Vec<u8>,
}

/// A snapshot that goes out to a learner.
#[derive(Debug)]
struct Lent {
    conn: ConnId,
    snapshot: u32,
}

impl<A: Application> Node<A> {
    /// A server at its start. `app` holds the state of the recovered snapshot, if any.
    ///
    /// # Errors
    /// [`ConfigError`] if the configuration contradicts itself.
    pub fn new(
        now: Instant,
        config: Config,
        recovered: Recovered,
        app: A,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            peer: Peer::new(now, config, recovered)?,
            app,
            lent: Vec::new(),
            to_disk: None,
            piece: Vec::new(),
            touched: Vec::new(),
        })
    }

    /// The core.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The application.
    #[must_use]
    pub fn app(&self) -> &A {
        &self.app
    }

    /// The application, to be changed only in ways that are not replicated.
    #[must_use]
    pub fn app_mut(&mut self) -> &mut A {
        &mut self.app
    }

    /// A connection was accepted; `None` means: close it.
    pub fn accept(&mut self, now: Instant, channel: Channel, remote: SocketAddr) -> Option<ConnId> {
        match channel {
            Channel::Client => self.app.accept(&mut Core::new(now, &mut self.peer), remote),
            Channel::Election | Channel::Quorum => self.peer.accept(now, channel),
        }
    }

    /// Timer, dial results, closed connections and finished writes.
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Timeout => {
                self.peer.handle_input(now, input);
                self.app.handle_timeout(&mut Core::new(now, &mut self.peer));
            }
            Input::Closed { conn } if conn.is_client() => {
                self.app.closed(&mut Core::new(now, &mut self.peer), conn);
            }
            Input::Closed { conn } => {
                self.take_back(conn);
                self.peer.handle_input(now, input);
            }
            Input::Opened { .. } | Input::Persisted { .. } | Input::SnapshotDone { .. } => {
                self.peer.handle_input(now, input);
            }
        }
    }

    /// Feeds bytes received on `conn` and returns how many were consumed.
    ///
    /// Offer the rest again with anything received since, or when told to
    /// [`Resume`](NetOutput::Resume).
    pub fn handle_bytes(
        &mut self,
        now: Instant,
        conn: ConnId,
        bytes: &[u8],
        disk: &mut impl Storage,
    ) -> usize {
        if conn.is_client() {
            return self.app.handle_bytes(&mut Core::new(now, &mut self.peer), conn, bytes);
        }
        let mut used = 0;
        loop {
            let received = self.peer.handle_bytes(now, conn, &bytes[used..]);
            used += received.consumed;
            let Some(message) = received.message else { return used };
            match message {
                Message::Snapshot { bytes } => match self.take_snapshot(now, conn, bytes, disk) {
                    0 => return used,
                    n => used += n,
                },
                message => self.dispatch(now, message),
            }
        }
    }

    fn dispatch(&mut self, now: Instant, message: Message<'_>) {
        let core = &mut Core::new(now, &mut self.peer);
        match message {
            Message::Request { from, data, auth } => self.app.request(core, from, data, auth),
            Message::Touched { from, sessions } => self.app.touched(core, from, sessions),
            Message::Revalidate { from, data } => self.app.revalidate(core, from, data),
            Message::Revalidated { data } => self.app.revalidated(core, data),
            Message::Synced => self.app.synced(core, None),
            Message::Ping => {
                self.touched.clear();
                self.app.take_touched(&mut self.touched);
                self.peer.pong(&self.touched);
            }
            Message::Snapshot { .. } => {}
        }
    }

    fn take_snapshot(
        &mut self,
        now: Instant,
        conn: ConnId,
        bytes: &[u8],
        disk: &mut impl Storage,
    ) -> usize {
        if let Ok(progress) = self.app.install(bytes) {
            disk.stage(&bytes[..progress.consumed]);
            self.peer.snapshot_received(now, conn, progress.done);
            progress.consumed
        } else {
            self.peer.close(conn, CloseReason::Violation(Violation::BadSnapshot));
            bytes.len()
        }
    }

    /// Carries out what the core wants of storage and application, and returns the next thing that
    /// only the runtime can do. `None`: nothing is left until the next input.
    pub fn poll_output(&mut self, now: Instant, disk: &mut impl Storage) -> Option<NetOutput> {
        todo!("drain {now:?} {:?}", disk.snapshot_room())
    }

    /// Fills `buf` with bytes for `conn`; 0 means nothing to send now.
    pub fn poll_transmit(&mut self, now: Instant, conn: ConnId, buf: &mut [u8]) -> usize {
        if conn.is_client() {
            return self.app.poll_transmit(conn, buf);
        }
        let mut written = self.peer.poll_transmit(conn, buf);
        while written < buf.len() {
            let Some(lent) = self.lent.iter().find(|lent| lent.conn == conn) else { break };
            let n = self.app.snapshot_read(lent.snapshot, &mut buf[written..]);
            if n == 0 {
                self.take_back(conn);
                self.peer.handle_input(now, Input::SnapshotDone { conn });
                written += self.peer.poll_transmit(conn, &mut buf[written..]);
                break;
            }
            written += n;
        }
        written
    }

    /// When [`Input::Timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.peer.poll_timeout(), self.app.poll_timeout()].into_iter().flatten().min()
    }

    fn take_back(&mut self, conn: ConnId) {
        if let Some(at) = self.lent.iter().position(|lent| lent.conn == conn) {
            let lent = self.lent.swap_remove(at);
            self.app.snapshot_close(lent.snapshot);
        }
    }
}

#[expect(dead_code, reason = "until poll_output is written")]
fn unused(_: ClientOutput, _: Output<'_>, _: Zxid) {}
