//! What a server is given: the settings of both sides, and which ports they are for.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use runtime_core::{Cipher, CipherError, Expects, HandshakeEvent, HandshakeLimits, Port, Security};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection};
use zab_proto::Channel;

use crate::context::{Context, SetupError, now};
use crate::session::{Expected, Session, host};
use crate::settings::{Secret, Settings};

/// TLS on a server's ports.
#[derive(Debug)]
pub struct Tls {
    clients: Option<Side>,
    peers: Option<Side>,
    admin: Option<Side>,
    ports: Ports,
    counts: Counts,
}

/// Which ports speak TLS.
#[derive(Clone, Debug)]
pub struct Ports {
    /// Clients may speak it on the plain client port, too (`client.portUnification`).
    pub unified_clients: bool,
    /// What members that connect speak.
    pub peers: Expects,
    /// Members are dialled with it (`sslQuorum`).
    pub dial_peers: bool,
    /// Hosts of members, of which the certificate of a member that connects may have one instead of its
    /// address.
    pub members: Vec<String>,
    /// Times and numbers of handshakes.
    pub limits: HandshakeLimits,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            unified_clients: false,
            peers: Expects::Plain,
            dial_peers: false,
            members: Vec::new(),
            limits: HandshakeLimits::default(),
        }
    }
}

/// How handshakes went since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Handshakes that failed or took too long.
    pub unsuccessful: AtomicU64,
    /// Connections closed because too many handshakes were under way.
    pub exceeded: AtomicU64,
    /// Connections without TLS on ports that accept either.
    pub plain: AtomicU64,
}

#[derive(Debug)]
struct Side {
    name: &'static str,
    settings: Settings,
    dials: bool,
    context: Mutex<Arc<Context>>,
    watch: Mutex<Watch>,
}

/// What the files were when they were read last.
#[derive(Debug)]
struct Watch {
    stamps: Vec<Option<Stamp>>,
    complained: Option<Instant>,
}

/// What changes when a file is replaced or written: behind symbolic links, as orchestrators swap
/// those.
type Stamp = (SystemTime, u64, u64);

impl Side {
    fn new(name: &'static str, settings: Settings, dials: bool) -> Result<Self, SetupError> {
        // Before they are read: what is written meanwhile is read again.
        let stamps = stamps(&settings);
        let context = Mutex::new(Arc::new(Context::read(&settings, dials)?));
        let watch = Mutex::new(Watch { stamps, complained: None });
        Ok(Self { name, settings, dials, context, watch })
    }

    fn context(&self) -> Arc<Context> {
        Arc::clone(&self.context.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn reload(&self) {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(&self.settings);
        if stamps == watch.stamps {
            return;
        }
        match Context::read(&self.settings, self.dials) {
            Ok(context) => {
                log::info!(
                    "The certificates for {} have changed and are used from now on",
                    self.name
                );
                *self.context.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(context);
                *watch = Watch { stamps, complained: None };
            }
            // Files that are being written are read again in a moment.
            Err(error) if watch.complained.is_none_or(|at| at.elapsed() >= COMPLAINT) => {
                watch.complained = Some(Instant::now());
                log::error!(
                    "The certificates for {} have changed and cannot be used, the old ones stay: {error}",
                    self.name
                );
            }
            Err(_) => {}
        }
    }
}

fn stamps(settings: &Settings) -> Vec<Option<Stamp>> {
    let stores = [Some(&settings.key_store), settings.trust_store.as_ref()].into_iter().flatten();
    let files = stores.flat_map(|store| {
        let password = match &store.password {
            Secret::File(path) => Some(path.as_path()),
            Secret::Text(_) => None,
        };
        [Some(store.path.as_path()), password].into_iter().flatten()
    });
    files.chain(settings.crl_file.as_deref()).map(stamp).collect()
}

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

impl Tls {
    /// Reads the stores.
    ///
    /// # Errors
    /// The side, `clients` or `members`, and what is wrong.
    pub fn new(
        clients: Option<Settings>,
        peers: Option<Settings>,
        ports: Ports,
    ) -> Result<Self, (&'static str, SetupError)> {
        let side = |settings: Option<Settings>, name, dials| {
            settings
                .map(|settings| Side::new(name, settings, dials).map_err(|error| (name, error)))
                .transpose()
        };
        let clients = side(clients, CLIENTS, false)?;
        let peers = side(peers, MEMBERS, true)?;
        Ok(Self { clients, peers, admin: None, ports, counts: Counts::default() })
    }

    /// The same with settings for the AdminServer's port, which is none of the runtime's: what comes to
    /// it is given to [`accept_admin`](Self::accept_admin).
    ///
    /// # Errors
    /// What is wrong with the stores.
    pub fn with_admin(mut self, settings: Settings) -> Result<Self, SetupError> {
        self.admin = Some(Side::new(ADMIN, settings, false)?);
        Ok(self)
    }

    /// For a connection that has come from `remote` to the AdminServer.
    ///
    /// # Errors
    /// If there is nothing to encrypt with.
    pub fn accept_admin(&self, remote: SocketAddr) -> Result<Box<dyn Cipher>, CipherError> {
        let side = self.admin.as_ref().ok_or("there is no key store for the AdminServer")?;
        let context = side.context();
        let connection = ServerConnection::new(context.server())?;
        let expected =
            Expected::new("", Some(remote.ip().to_canonical()), side.settings.client_names);
        Ok(Box::new(Session::new(connection.into(), context.verifier.clone(), expected)))
    }

    /// Reads the stores again if they have changed. What cannot be used is logged, and the old ones
    /// stay.
    pub fn reload(&self) {
        for side in self.sides() {
            side.reload();
        }
    }

    /// How handshakes went.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// In how many seconds the first of the certificates expires.
    #[must_use]
    pub fn expires_in(&self) -> Option<Duration> {
        let first = self.sides().map(|side| side.context().expires).min()?;
        Some(Duration::from_secs(u64::try_from(first - now()).unwrap_or(0)))
    }

    /// Hosts of `own` of which the certificate for members does not speak.
    #[must_use]
    pub fn unnamed<'a>(&self, own: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
        let Some(side) = &self.peers else { return Vec::new() };
        let context = side.context();
        let Ok(leaf) = crate::Certificate::parse(&context.leaf) else { return Vec::new() };
        own.filter(|host| !crate::matches(&leaf, host)).collect()
    }

    fn sides(&self) -> impl Iterator<Item = &Side> {
        [&self.clients, &self.peers, &self.admin].into_iter().flatten()
    }

    fn side(&self, channel: Channel) -> Result<&Side, CipherError> {
        let side = if channel == Channel::Client { &self.clients } else { &self.peers };
        side.as_ref().ok_or_else(|| "there is no key store for TLS".into())
    }
}

impl Security for Tls {
    fn expects(&self, port: Port) -> Expects {
        match port {
            Port { channel: Channel::Client, secure: true } => Expects::Handshake,
            Port { channel: Channel::Client, .. } if self.ports.unified_clients => Expects::Either,
            Port { channel: Channel::Client, .. } => Expects::Plain,
            _ => self.ports.peers,
        }
    }

    fn dials(&self, channel: Channel) -> bool {
        channel != Channel::Client && self.ports.dial_peers
    }

    fn accept(&self, port: Port, remote: SocketAddr) -> Result<Box<dyn Cipher>, CipherError> {
        let side = self.side(port.channel)?;
        let context = side.context();
        let connection = ServerConnection::new(context.server())?;
        let mut expected =
            Expected::new("", Some(remote.ip().to_canonical()), side.settings.client_names);
        if port.channel != Channel::Client {
            expected.hosts.extend(self.ports.members.iter().cloned());
        }
        let verifier = context.verifier.clone();
        Ok(Box::new(Session::new(connection.into(), verifier, expected)))
    }

    fn dial(
        &self,
        channel: Channel,
        addresses: &str,
        remote: Option<IpAddr>,
    ) -> Result<Box<dyn Cipher>, CipherError> {
        let side = self.side(channel)?;
        let context = side.context();
        let config = context.client(addresses).ok_or("there is no trust store for TLS")?;
        // Only for the server's choice of certificate and for finding a session to resume.
        let first = addresses.split('|').next().map(host).unwrap_or_default();
        let name = ServerName::try_from(first)
            .unwrap_or_else(|_| remote.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).into());
        let connection = ClientConnection::new(config, name)?;
        let expected = Expected::new(addresses, remote, side.settings.server_names);
        let verifier = context.verifier.clone();
        Ok(Box::new(Session::new(connection.into(), verifier, expected)))
    }

    fn limits(&self) -> HandshakeLimits {
        self.ports.limits
    }

    fn happened(&self, event: HandshakeEvent) {
        let count = match event {
            HandshakeEvent::Begun(_) | HandshakeEvent::Done(_) => return,
            HandshakeEvent::Failed(_) => &self.counts.unsuccessful,
            HandshakeEvent::Refused(_) => &self.counts.exceeded,
            HandshakeEvent::Plain(_) => &self.counts.plain,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the sides are called in messages.
pub const CLIENTS: &str = "clients";
/// The other side.
pub const MEMBERS: &str = "members";
/// The third one.
pub const ADMIN: &str = "the AdminServer";

/// How often it is said that files cannot be used.
const COMPLAINT: Duration = Duration::from_secs(60);
