//! What the keys `ssl.*` and `ssl.quorum.*` say.

use std::path::PathBuf;
use std::{fmt, fs, io};

/// A store and what opens it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreFile {
    /// Where it is.
    pub path: PathBuf,
    /// What opens it.
    pub password: Secret,
}

/// A password, which is never shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The password itself; empty for none.
    Text(String),
    /// A file with it; one line end after it does not count.
    File(PathBuf),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) if text.is_empty() => f.write_str("no password"),
            Self::Text(_) => f.write_str("a password"),
            Self::File(path) => write!(f, "the password in {}", path.display()),
        }
    }
}

impl Secret {
    /// The password.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self) -> io::Result<String> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(path) => {
                let text = fs::read_to_string(path)?;
                let line = text.strip_suffix('\n').unwrap_or(&text);
                Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
            }
        }
    }
}

/// Whether those who connect have to show a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientAuth {
    /// They are not asked.
    None,
    /// They may; it must be a trusted one.
    Want,
    /// They must.
    Need,
}

/// What a name that a certificate does not have leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Names {
    /// Names are not looked at.
    Ignored,
    /// A line in the log, once per address.
    Warned,
    /// The connection is refused.
    Required,
}

/// The settings of one side: of clients' connections, or of members'.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Who this server is.
    pub key_store: StoreFile,
    /// Whom it trusts. Needed for dialling, and for asking others for certificates.
    pub trust_store: Option<StoreFile>,
    /// Lists of revoked certificates. With it each certificate of a chain must be on the list of its
    /// issuer as one that is not revoked, and none of those lists may be out of date.
    pub crl_file: Option<PathBuf>,
    /// Of those who connect.
    pub client_auth: ClientAuth,
    /// TLS 1.2 is spoken.
    pub tls12: bool,
    /// TLS 1.3 is spoken.
    pub tls13: bool,
    /// Only these of the cipher suites, by their registered names; `None`: all.
    pub suites: Option<Vec<String>>,
    /// Names of the servers that are dialled.
    pub server_names: Names,
    /// Names of those who connect.
    pub client_names: Names,
    /// A certificate that stands in the trust store itself is trusted even when it has expired, as by
    /// Java.
    pub accept_expired: bool,
}

impl Settings {
    /// The defaults, with a key store.
    #[must_use]
    pub fn new(key_store: StoreFile) -> Self {
        Self {
            key_store,
            trust_store: None,
            crl_file: None,
            client_auth: ClientAuth::Need,
            tls12: true,
            tls13: true,
            suites: None,
            server_names: Names::Required,
            client_names: Names::Ignored,
            accept_expired: false,
        }
    }
}
