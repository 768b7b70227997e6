//! Options of a server, the bounds of its sockets, and the loading of its data directories.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use zab_proto::{Application, Channel, Config, ConnId};
use zab_storage::{Mode, Store};

use crate::{Error, Listen, Loaded, Oracle};

/// The length in front of a client's frame, in bytes.
const FRAME_HEAD_LEN_BYTES: usize = 4;

/// All a server needs besides its application.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerOptions {
    /// The core's configuration.
    pub config: Config,
    /// The ports. For members of an ensemble see [`Listen::peers`].
    pub listen: Listen,
    /// Sockets.
    pub net: NetOptions,
    /// The data directories.
    pub storage: zab_storage::Options,
    /// Write on the server's own thread instead of one more. Saves a thread; everything waits for
    /// each fsync.
    pub inline_storage: bool,
    /// Who is asked whether one of two voters is a quorum without the other (`oraclePath`). Set
    /// [`Config::oracle`] with it.
    pub oracle: Option<Arc<dyn Oracle>>,
}

impl ServerOptions {
    /// The defaults: no ports but the given, everything in `data_dir`.
    #[must_use]
    pub fn new(config: Config, listen: Listen, data_dir: impl Into<PathBuf>) -> Self {
        let net = NetOptions::for_config(&config);
        let storage = zab_storage::Options::new(data_dir);
        Self { config, listen, net, storage, inline_storage: false, oracle: None }
    }
}

/// Reads the data directories into `app` and begins to write to them. `wake` is called, from
/// other threads, when something has become durable.
///
/// # Errors
/// [`Error::Storage`].
pub fn load<A: Application>(
    mut app: A,
    storage: zab_storage::Options,
    inline: bool,
    wake: Box<dyn Fn() + Send + Sync>,
) -> Result<Loaded<A, zab_storage::Disk>, Error> {
    let failed = |error| Error::Storage(Box::new(error));
    let data_dir = storage.data_dir.clone();
    let mut store = Store::open(storage).map_err(failed)?;
    let recovered = store.recover(&mut app).map_err(failed)?;
    if recovered.snapshot.is_none() {
        log::warn!(
            "{0}: the data directory is empty. This server will not vote until a leader has \
             synchronised it or every voter is known to be empty. For a new ensemble, create \
             {0}/initialize before starting.",
            data_dir.display()
        );
    }
    let mode = if inline { Mode::Inline } else { Mode::Thread { wake } };
    Ok(Loaded { app, recovered, disk: store.into_disk(mode).map_err(failed)?, oracle: None })
}

/// Bounds and times of a runtime's sockets.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct NetOptions {
    /// How long a dial may take, over all addresses of the member together (`cnxTimeout`).
    pub connect_timeout: Duration,
    /// How long an address of a member may take if there is another one to try
    /// (`multiAddress.reachabilityCheckTimeoutMs`).
    pub address_timeout: Duration,
    /// Bytes received on a connection between members and not yet taken; at the bound it is not
    /// read any more. Must hold the longest packet.
    pub unread_max_bytes: usize,
    /// The same for a connection of a client. Must hold the longest frame of a client: there may
    /// be many that send one and read no answers.
    pub client_unread_max_bytes: usize,
    /// Bytes read from one connection before the others get their turn.
    pub read_turn_bytes: usize,
    /// Bytes written to one connection before the others get their turn.
    pub write_turn_bytes: usize,
    /// Bytes read from clients, and bytes written to clients, in one turn of the loop. What is left
    /// has to wait until peers have been heard again. Exceeded by one connection's turn at most.
    pub clients_turn_bytes: usize,
    /// The buffer all reads and writes of one thread go through.
    pub scratch_bytes: usize,
    /// How long a closed connection may take to send its last bytes.
    pub flush_timeout: Duration,
    /// How long a closed connection is then read, so that the other side sees an end rather than
    /// a reset.
    pub linger_timeout: Duration,
    /// Connections of all kinds at a time. Further ones are closed at once.
    pub connections_max: usize,
    /// File descriptors that are kept for connections with members, those of strangers on the peer
    /// ports included: clients are not accepted when only these are left. Of a process that may have
    /// few, at most a quarter.
    pub peer_descriptors: usize,
    /// File descriptors that are kept for files: peers are not accepted or dialled when only these are
    /// left. At most a quarter of all.
    pub file_descriptors: usize,
    /// How long what was sent on an election connection may stay unacknowledged by the other host, or
    /// untaken by its process, before the connection breaks (`TCP_USER_TIMEOUT`, on Linux; the kernel's
    /// own limit is a quarter of an hour). `None`: that one.
    pub election_unacknowledged_max: Option<Duration>,
    /// The same for a connection of the quorum port. A learner that is being synchronised may take nothing
    /// for `initLimit`, so it must be no less than that.
    pub quorum_unacknowledged_max: Option<Duration>,
    /// Turn on keep-alive probes of peer connections (`tcpKeepAlive`).
    pub peer_keep_alive: bool,
    /// Turn on keep-alive probes of client connections (`clientTcpKeepAlive`).
    pub client_keep_alive: bool,
}

impl Default for NetOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            address_timeout: Duration::from_secs(1),
            unread_max_bytes: 4 * 1024 * 1024 + 64 * 1024,
            client_unread_max_bytes: 2 * 1024 * 1024,
            read_turn_bytes: 1024 * 1024,
            write_turn_bytes: 1024 * 1024,
            clients_turn_bytes: 4 * 1024 * 1024,
            scratch_bytes: 256 * 1024,
            flush_timeout: Duration::from_secs(2),
            linger_timeout: Duration::from_millis(500),
            connections_max: 100_000,
            peer_descriptors: 256,
            file_descriptors: 64,
            election_unacknowledged_max: None,
            quorum_unacknowledged_max: None,
            peer_keep_alive: false,
            client_keep_alive: false,
        }
    }
}

impl NetOptions {
    /// The same, but for sizes with which nothing would move at all.
    #[must_use]
    pub fn usable(self) -> Self {
        Self {
            scratch_bytes: self.scratch_bytes.max(SCRATCH_LEN_MIN),
            read_turn_bytes: self.read_turn_bytes.max(1),
            write_turn_bytes: self.write_turn_bytes.max(1),
            clients_turn_bytes: self.clients_turn_bytes.max(1),
            unread_max_bytes: self.unread_max_bytes.max(1),
            client_unread_max_bytes: self.client_unread_max_bytes.max(1),
            ..self
        }
    }

    /// The defaults, with room for the frames that `config` allows.
    #[must_use]
    pub fn for_config(config: &Config) -> Self {
        // A packet has two fields of the longest kind: its data and its identities.
        let field_len_max = config.limits.field_len_max_bytes;
        let unread_max_bytes = field_len_max.saturating_mul(2).saturating_add(64 * 1024);
        // What a client sends in one frame becomes a field of a packet.
        let client_unread_max_bytes = field_len_max.saturating_add(FRAME_HEAD_LEN_BYTES);
        let limit = |ticks| Some(config.ticks(ticks)).filter(|limit| !limit.is_zero());
        Self {
            unread_max_bytes,
            client_unread_max_bytes,
            election_unacknowledged_max: limit(config.sync_limit),
            quorum_unacknowledged_max: limit(config.sync_limit.max(config.init_limit)),
            ..Self::default()
        }
    }

    /// How long bytes on a new connection may stay unacknowledged.
    pub(crate) fn unacknowledged_max(&self, channel: Channel) -> Option<Duration> {
        match channel {
            Channel::Election => self.election_unacknowledged_max,
            Channel::Quorum => self.quorum_unacknowledged_max,
            Channel::Client => None,
        }
    }

    /// How many bytes may be left untaken on a connection.
    #[must_use]
    pub fn unread_max(&self, conn: ConnId) -> usize {
        if conn.is_client() { self.client_unread_max_bytes } else { self.unread_max_bytes }
    }
}

/// Any longer piece is read and written in parts.
const SCRATCH_LEN_MIN: usize = 256;
