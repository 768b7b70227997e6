//! TLS of a program that only connects to servers.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use runtime_core::{Cipher, CipherError};
use rustls::client::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, crypto::CryptoProvider};

use crate::context::{
    Resolver, SetupError, now, open, provider, read_file, read_lists, read_trust, versions,
};
use crate::error::StoreError;
use crate::session::{Expected, Session};
use crate::settings::{Names, StoreFile};
use crate::store::Identity;
use crate::verify::Verifier;
use crate::x509::CLIENT_AUTH;

/// How a client connects to servers with TLS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientSettings {
    /// Whom it trusts.
    pub trust_store: StoreFile,
    /// Who it is, for servers that want to know.
    pub key_store: Option<StoreFile>,
    /// A second file for the key store, in PEM, if the key has one of its own.
    pub key_file: Option<PathBuf>,
    /// Lists of revoked certificates, as in [`Settings`](crate::Settings).
    pub crl_file: Option<PathBuf>,
    /// TLS 1.2 is spoken.
    pub tls12: bool,
    /// TLS 1.3 is spoken.
    pub tls13: bool,
    /// Only these of the cipher suites, by their registered names; `None`: all.
    pub suites: Option<Vec<String>>,
    /// What becomes of servers whose certificate has neither the name nor the address dialled.
    pub server_names: Names,
}

impl ClientSettings {
    /// The defaults: no identity, names must be right.
    #[must_use]
    pub fn new(trust_store: StoreFile) -> Self {
        Self {
            trust_store,
            key_store: None,
            key_file: None,
            crl_file: None,
            tls12: true,
            tls13: true,
            suites: None,
            server_names: Names::Required,
        }
    }
}

/// Begins TLS connections to servers.
#[derive(Clone, Debug)]
pub struct Dialer {
    config: Arc<ClientConfig>,
    verifier: Arc<Verifier>,
    names: Names,
}

impl Dialer {
    /// Reads the stores.
    ///
    /// # Errors
    /// What is wrong with them, or with the settings.
    pub fn new(settings: &ClientSettings) -> Result<Self, SetupError> {
        let provider = Arc::new(provider(settings.suites.as_deref())?);
        let versions = versions((settings.tls12, settings.tls13), &provider)?;
        let verifier = Arc::new(verifier(settings, &provider)?);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Verifier>::clone(&verifier));
        let config = match identity(settings)? {
            Some(identity) => {
                builder.with_client_cert_resolver(Arc::new(Resolver(identity.certified)))
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self { config: Arc::new(config), verifier, names: settings.server_names })
    }

    /// Begins a connection to the server that is called `host` (a name, or an address without brackets) and
    /// has the address `remote`. Its certificate must be for one of the two.
    ///
    /// # Errors
    /// If no handshake can be begun.
    pub fn dial(&self, host: &str, remote: IpAddr) -> Result<Box<dyn Cipher>, CipherError> {
        // Only for the server's choice of certificate and for finding a session to resume.
        let name = ServerName::try_from(host.to_owned()).unwrap_or_else(|_| remote.into());
        let connection = ClientConnection::new(Arc::clone(&self.config), name)?;
        let mut hosts = vec![host.to_owned(), remote.to_canonical().to_string()];
        hosts.dedup();
        let expected = Expected { hosts, names: self.names };
        let verifier = Some(Arc::clone(&self.verifier));
        Ok(Box::new(Session::new(connection.into(), verifier, expected)))
    }
}

fn verifier(settings: &ClientSettings, provider: &CryptoProvider) -> Result<Verifier, SetupError> {
    let trust = read_trust(&settings.trust_store)?;
    let revoked = settings.crl_file.as_deref().map(read_lists).transpose()?;
    let algorithms = provider.signature_verification_algorithms;
    Ok(Verifier::new(&trust, revoked, algorithms, false, true))
}

fn identity(settings: &ClientSettings) -> Result<Option<Identity>, SetupError> {
    let Some(store) = &settings.key_store else { return Ok(None) };
    let (mut bytes, password) = open(store)?;
    if let Some(file) = &settings.key_file {
        bytes.push(b'\n');
        bytes.extend(read_file(file)?);
    }
    let failed = |error: StoreError| SetupError::Store(store.path.clone(), error);
    let now = now();
    let identity = Identity::read(&bytes, &password, now).map_err(failed)?;
    let leaf = identity.leaf().map_err(failed)?;
    if !leaf.is_valid_at(now) {
        return Err(SetupError::NotValid(store.path.clone(), leaf.subject_name()));
    }
    if !leaf.allows(CLIENT_AUTH) {
        return Err(SetupError::NotForClients(store.path.clone()));
    }
    Ok(Some(identity))
}
