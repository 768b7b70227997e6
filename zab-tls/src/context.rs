//! From settings and the files they name to what handshakes are made with.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fmt, fs, io};

use rustls::client::{ClientConfig, ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion};
use webpki::CertRevocationList;

use crate::crl::RevocationLists;
use crate::error::StoreError;
use crate::settings::{ClientAuth, Secret, Settings, StoreFile};
use crate::store::{Format, Identity, Trust};
use crate::verify::Verifier;
use crate::x509::{CLIENT_AUTH, SERVER_AUTH};

/// Why there can be no TLS with some settings.
#[derive(Debug)]
#[non_exhaustive]
pub enum SetupError {
    /// A file cannot be read.
    File(PathBuf, io::Error),
    /// A key or trust store cannot be used.
    Store(PathBuf, StoreError),
    /// The certificate of the key store is not valid now.
    NotValid(PathBuf, String),
    /// It may not be used as it has to be.
    Purpose(PathBuf, &'static str),
    /// The certificate of a client may not be used by one.
    NotForClients(PathBuf),
    /// Others are asked for certificates, and no trust store says which are good.
    NoTrust,
    /// Of the cipher suites that were asked for none is there; the text lists those that are.
    NoSuite(String),
    /// Neither TLS 1.2 nor 1.3.
    NoVersion,
    /// What `rustls` says.
    Other(rustls::Error),
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Store(path, error) => write!(f, "{}: {error}", path.display()),
            Self::NotValid(path, subject) => {
                write!(
                    f,
                    "{}: the certificate {subject} has expired or is not valid yet",
                    path.display()
                )
            }
            Self::Purpose(path, role) => write!(
                f,
                "{}: the certificate may not be used by a {role} (extended key usage), and members are \
                 both servers and clients of each other",
                path.display()
            ),
            Self::NotForClients(path) => write!(
                f,
                "{}: the certificate may not be used by a client (extended key usage)",
                path.display()
            ),
            Self::NoTrust => f.write_str(
                "certificates are asked for, and there is no trust store to judge them by: set \
                 trustStore.location, or clientAuth=none",
            ),
            Self::NoSuite(there_are) => write!(f, "no cipher suite is left; there are {there_are}"),
            Self::NoVersion => f.write_str("neither TLSv1.2 nor TLSv1.3 is left"),
            Self::Other(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SetupError {}

impl From<rustls::Error> for SetupError {
    fn from(error: rustls::Error) -> Self {
        Self::Other(error)
    }
}

/// What handshakes are made with, until the files change.
#[derive(Debug)]
pub(crate) struct Context {
    server: Arc<ServerConfig>,
    client: Option<ClientConfig>,
    /// One for each member, as each has sessions of its own to resume.
    clients: Mutex<HashMap<String, Arc<ClientConfig>>>,
    pub(crate) verifier: Option<Arc<Verifier>>,
    /// When the certificate expires, in seconds since 1970.
    pub(crate) expires: i64,
    /// The names and addresses in the certificate are looked at by whoever warns of them.
    pub(crate) leaf: Vec<u8>,
}

impl Context {
    /// Reads the files of `settings`. With `dials` this server connects to others, too.
    pub(crate) fn read(settings: &Settings, dials: bool) -> Result<Self, SetupError> {
        let identity = read_identity(&settings.key_store, dials)?;
        let trust = settings.trust_store.as_ref().map(read_trust).transpose()?;
        if trust.is_none() && (dials || settings.client_auth != ClientAuth::None) {
            return Err(SetupError::NoTrust);
        }
        let provider = Arc::new(provider(settings.suites.as_deref())?);
        let versions = versions((settings.tls12, settings.tls13), &provider)?;
        let mandatory = settings.client_auth == ClientAuth::Need;
        let algorithms = provider.signature_verification_algorithms;
        let revoked = settings.crl_file.as_deref().map(read_lists).transpose()?;
        let verifier = trust.map(|trust| {
            let expired = settings.accept_expired;
            Arc::new(Verifier::new(&trust, revoked, algorithms, expired, mandatory))
        });
        let resolver = Arc::new(Resolver(Arc::clone(&identity.certified)));
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)?;
        let builder = match &verifier {
            Some(verifier) if settings.client_auth != ClientAuth::None => {
                builder.with_client_cert_verifier(Arc::<Verifier>::clone(verifier))
            }
            _ => builder.with_client_cert_verifier(WebPkiClientVerifier::no_client_auth()),
        };
        let server = Arc::new(builder.with_cert_resolver(Arc::<Resolver>::clone(&resolver)));
        let client = match &verifier {
            Some(verifier) if dials => Some(
                ClientConfig::builder_with_provider(provider)
                    .with_protocol_versions(&versions)?
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::<Verifier>::clone(verifier))
                    .with_client_cert_resolver(resolver),
            ),
            _ => None,
        };
        let leaf = identity.certified.cert.first().map(|leaf| leaf.to_vec()).unwrap_or_default();
        let expires = identity.leaf().map_or(0, |leaf| leaf.not_after());
        let clients = Mutex::default();
        Ok(Self { server, client, clients, verifier, expires, leaf })
    }

    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// For the member at `addresses`.
    pub(crate) fn client(&self, addresses: &str) -> Option<Arc<ClientConfig>> {
        let template = self.client.as_ref()?;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MEMBERS_MAX {
            clients.clear();
        }
        let made = clients.entry(addresses.to_owned()).or_insert_with(|| {
            let mut config = template.clone();
            config.resumption = Resumption::in_memory_sessions(SESSIONS_PER_MEMBER);
            Arc::new(config)
        });
        Some(Arc::clone(made))
    }
}

fn read_identity(store: &StoreFile, both_roles: bool) -> Result<Identity, SetupError> {
    let (bytes, password) = open(store)?;
    let failed = |error| SetupError::Store(store.path.clone(), error);
    let now = now();
    let identity = Identity::read(&bytes, &password, now).map_err(failed)?;
    let leaf = identity.leaf().map_err(failed)?;
    if !leaf.is_valid_at(now) {
        return Err(SetupError::NotValid(store.path.clone(), leaf.subject_name()));
    }
    if !leaf.allows(SERVER_AUTH) {
        return Err(SetupError::Purpose(store.path.clone(), "server"));
    }
    if both_roles && !leaf.allows(CLIENT_AUTH) {
        return Err(SetupError::Purpose(store.path.clone(), "client"));
    }
    let (path, alias) = (store.path.display(), &identity.alias);
    let format = Format::of(&bytes).map_err(failed)?;
    log::info!("{path} ({format}): this server is {}", leaf.subject_name());
    if identity.others > 0 {
        log::warn!("{path}: of {} keys the one called {alias:?} is used", identity.others + 1);
    }
    Ok(identity)
}

pub(crate) fn read_trust(store: &StoreFile) -> Result<Trust, SetupError> {
    let (bytes, password) = open(store)?;
    let trust = Trust::read(&bytes, &password)
        .map_err(|error| SetupError::Store(store.path.clone(), error))?;
    if trust.unmarked > 0 {
        log::warn!(
            "{}: {} certificates are trusted that Java would not trust: they lack its mark (import them with \
             keytool -importcert)",
            store.path.display(),
            trust.unmarked
        );
    }
    Ok(trust)
}

pub(crate) fn read_lists(path: &Path) -> Result<Vec<CertRevocationList<'static>>, SetupError> {
    let lists = RevocationLists::read(&read_file(path)?)
        .map_err(|error| SetupError::Store(path.to_path_buf(), error))?;
    log::info!("{}: {} lists of revoked certificates", path.display(), lists.count());
    Ok(lists.into_inner())
}

pub(crate) fn open(store: &StoreFile) -> Result<(Vec<u8>, String), SetupError> {
    let bytes = read_file(&store.path)?;
    let password = match &store.password {
        Secret::Text(text) => text.clone(),
        secret @ Secret::File(path) => {
            secret.read().map_err(|error| SetupError::File(path.clone(), error))?
        }
    };
    Ok((bytes, password))
}

pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, SetupError> {
    let of = |error| SetupError::File(path.to_path_buf(), error);
    let len = fs::metadata(path).map_err(of)?.len();
    if len > STORE_LEN_MAX {
        return Err(of(io::Error::other(format!("{len} bytes are too many for a store"))));
    }
    fs::read(path).map_err(of)
}

/// The library's suites in its order, without those that were not asked for.
pub(crate) fn provider(wanted: Option<&[String]>) -> Result<CryptoProvider, SetupError> {
    let mut provider = default_provider();
    let Some(wanted) = wanted else { return Ok(provider) };
    let known: Vec<String> = provider.cipher_suites.iter().map(suite_name).collect();
    for name in wanted.iter().filter(|name| !known.contains(name)) {
        log::warn!("The cipher suite {name} is not available");
    }
    provider.cipher_suites.retain(|suite| wanted.contains(&suite_name(suite)));
    if provider.cipher_suites.is_empty() {
        return Err(SetupError::NoSuite(known.join(", ")));
    }
    Ok(provider)
}

/// The registered name. `rustls` has a prefix of its own for those of TLS 1.3.
pub(crate) fn suite_name(suite: &SupportedCipherSuite) -> String {
    let name = format!("{:?}", suite.suite());
    name.strip_prefix("TLS13_").map_or_else(|| name.clone(), |rest| format!("TLS_{rest}"))
}

/// Those of TLS 1.2 and 1.3 that are wanted and for which there is a cipher suite.
pub(crate) fn versions(
    (tls12, tls13): (bool, bool),
    provider: &CryptoProvider,
) -> Result<Vec<&'static SupportedProtocolVersion>, SetupError> {
    let has = |version: &'static SupportedProtocolVersion| {
        provider.cipher_suites.iter().any(|suite| suite.version() == version)
    };
    let wanted = [(tls13, &TLS13), (tls12, &TLS12)];
    let left = wanted.into_iter().filter(|(on, version)| *on && has(version));
    let left: Vec<_> = left.map(|(_, version)| version).collect();
    if left.is_empty() {
        return Err(SetupError::NoVersion);
    }
    Ok(left)
}

/// Shows one certificate, whatever is asked for: `rustls` would not take one of version 1.
#[derive(Debug)]
pub(crate) struct Resolver(pub(crate) Arc<CertifiedKey>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// Members whose sessions are kept; far more than an ensemble has.
const MEMBERS_MAX: usize = 1024;
const SESSIONS_PER_MEMBER: usize = 8;

/// A longer file is none that was meant.
const STORE_LEN_MAX: u64 = 16 << 20;
