//! Which ports speak TLS, and how: `secureClientPort`, `sslQuorum`, `ssl.*` and `ssl.quorum.*`.

use std::path::PathBuf;
use std::time::Duration;

use runtime_core::{Expects, HandshakeLimits};
use zab_tls::{ClientAuth, Names, Ports, Secret, Settings, StoreFile};

use super::error::Invalid;
use super::file::FileKeys;
use super::judge::as_written;
use super::keys::{self, Place};
use super::system::{Setting, SystemProperties};

/// Which ports speak TLS, and how.
#[derive(Clone, Debug, Default)]
pub struct TlsConfig {
    /// Where clients connect with TLS: host and port, if anywhere.
    pub secure_client: Option<(String, u16)>,
    /// For connections with clients, if any of them may use TLS.
    pub clients: Option<Settings>,
    /// For connections with members, if any of them may use TLS.
    pub members: Option<Settings>,
    /// For connections with the AdminServer, if any of them may use TLS; and what they begin with.
    pub admin: Option<(Settings, Expects)>,
    /// Which ports these are for.
    pub ports: Ports,
    /// How often to look whether the files have changed, if at all.
    pub reload_interval: Option<Duration>,
}

const CRL_FILE: &str = "zab.tls.crlFile";

/// The families of keys.
pub(crate) const CLIENTS: &str = "ssl.";
pub(crate) const MEMBERS: &str = "ssl.quorum.";

impl TlsConfig {
    /// Whether a port of clients or members speaks it.
    #[must_use]
    pub fn is_for_ports(&self) -> bool {
        self.clients.is_some() || self.members.is_some()
    }

    /// Reads the keys; not yet the stores.
    ///
    /// # Errors
    /// Something is switched on without what it needs, or a value cannot be read.
    pub(super) fn read(
        keys: &FileKeys,
        properties: &SystemProperties,
        standalone: bool,
    ) -> Result<Self, Invalid> {
        let family = |prefix| Family { prefix, properties };
        for prefix in [CLIENTS, MEMBERS] {
            // Whether it speaks TLS or not.
            family(prefix).crl_file()?;
        }
        let host = keys.text("secureClientPortAddress").unwrap_or("0.0.0.0");
        let secure_client = keys.port("secureClientPort").map(|port| (host.to_owned(), port));
        let unified_clients = properties.bool("client.portUnification", false);
        let clients = if secure_client.is_some() {
            Some(family(CLIENTS).settings("secureClientPort")?)
        } else if unified_clients {
            Some(family(CLIENTS).settings("client.portUnification")?)
        } else {
            None
        };
        let (ssl, unified) = (keys.is_on("sslQuorum"), keys.is_on("portUnification"));
        let members = if standalone {
            None
        } else if ssl {
            Some(family(MEMBERS).settings("sslQuorum")?)
        } else if unified {
            Some(family(MEMBERS).settings("portUnification")?)
        } else {
            None
        };
        let peers = match (ssl, unified) {
            _ if standalone => Expects::Plain,
            (_, true) => Expects::Either,
            (true, false) => Expects::Handshake,
            (false, false) => Expects::Plain,
        };
        let hosts = keys.ensemble.members.values().flat_map(|member| &member.addresses);
        let default = HandshakeLimits::default();
        let at_once: i64 = properties.number("netty.server.outstandingHandshake.limit", -1);
        let detection: u64 = properties.number("ssl.quorum.handshakeDetectionTimeoutMillis", 5000);
        let ports = Ports {
            unified_clients,
            peers,
            dial_peers: ssl && !standalone,
            members: hosts.map(|address| address.host.clone()).collect(),
            limits: HandshakeLimits {
                detection: Duration::from_millis(detection),
                clients_max: usize::try_from(at_once).ok().filter(|max| *max > 0),
                ..default
            },
        };
        let admin = admin(properties)?;
        let of_admin = admin.as_ref().map(|(settings, _)| settings);
        let sides = [clients.as_ref(), members.as_ref(), of_admin];
        let lists_on = sides.iter().flatten().any(|settings| settings.crl_file.is_some());
        if properties.text(CRL_FILE).is_some() && !lists_on {
            let reason = "nobody looks at it: neither ssl.crl nor ssl.quorum.crl is on, with TLS";
            return Err(blame(properties, CRL_FILE, Invalid::new(reason)));
        }
        let interval: u64 = properties.number("zab.tls.reloadIntervalMs", 250);
        let reload_interval = (interval > 0).then(|| Duration::from_millis(interval));
        Ok(Self { secure_client, clients, members, admin, ports, reload_interval })
    }
}

/// HTTPS of the AdminServer: with the stores of members, as in ZooKeeper; whether a certificate is asked for is
/// its own affair.
fn admin(properties: &SystemProperties) -> Result<Option<(Settings, Expects)>, Invalid> {
    const FORCED: &str = "admin.forceHttps";
    const UNIFIED: &str = "admin.portUnification";
    const NEEDED: &str = "admin.needClientAuth";
    if !properties.bool("admin.enableServer", true) {
        return Ok(None);
    }
    let needs_certificate = properties.bool(NEEDED, false);
    let (because, expects) = if properties.bool(FORCED, false) {
        (FORCED, Expects::Handshake)
    } else if properties.bool(UNIFIED, false) {
        if needs_certificate {
            log::warn!(
                "{NEEDED}: whoever comes by plain HTTP, which {UNIFIED} allows, shows none; {FORCED}=true asks \
                 everybody"
            );
        }
        (UNIFIED, Expects::Either)
    } else if needs_certificate {
        let reason =
            format!("plain HTTP shows no certificates, and neither {FORCED} nor {UNIFIED} is on");
        return Err(blame(properties, NEEDED, Invalid::new(reason)));
    } else {
        return Ok(None);
    };
    let family = Family { prefix: MEMBERS, properties };
    let client_auth = if needs_certificate { ClientAuth::Need } else { ClientAuth::None };
    // A browser comes from anywhere: its certificate is not for an address.
    let client_names = Names::Ignored;
    let settings = Settings { client_auth, client_names, ..family.settings(because)? };
    Ok(Some((settings, expects)))
}

/// The keys of one side.
struct Family<'a> {
    prefix: &'static str,
    properties: &'a SystemProperties,
}

impl Family<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The text of a key; none if it is empty.
    fn text(&self, name: &str) -> Option<&str> {
        self.properties.text(&self.key(name)).filter(|text| !text.trim().is_empty())
    }

    fn is_on(&self, name: &str, default: bool) -> bool {
        self.properties.bool(&self.key(name), default)
    }

    fn list(&self, name: &str) -> Option<Vec<String>> {
        let parts = self.text(name)?.split(',').map(|part| part.trim().to_owned());
        Some(parts.filter(|part| !part.is_empty()).collect())
    }

    fn blame(&self, name: &str, invalid: Invalid) -> Invalid {
        blame(self.properties, &self.key(name), invalid)
    }

    fn settings(&self, because: &str) -> Result<Settings, Invalid> {
        let key_store = self.store("keyStore").ok_or_else(|| {
            let reason = format!("{because} needs it, and it is not set");
            let accepted = "a file with a private key and its certificate";
            self.blame("keyStore.location", Invalid::new(reason).accepted(accepted))
        })?;
        let crl_file = self.crl_file()?;
        let (tls12, tls13) = self.versions()?;
        let (server_names, client_names) = self.names();
        Ok(Settings {
            trust_store: self.store("trustStore"),
            crl_file,
            client_auth: self.client_auth()?,
            tls12,
            tls13,
            suites: self.list("ciphersuites"),
            server_names,
            client_names,
            accept_expired: self.properties.bool("zab.tls.acceptExpired", false),
            ..Settings::new(key_store)
        })
    }

    fn store(&self, which: &str) -> Option<StoreFile> {
        let path = PathBuf::from(self.text(&format!("{which}.location"))?);
        let file = self.text(&format!("{which}.passwordPath"));
        let text = self.text(&format!("{which}.password")).unwrap_or_default();
        let password =
            file.map_or_else(|| Secret::Text(text.to_owned()), |file| Secret::File(file.into()));
        Some(StoreFile { path, password })
    }

    /// Java fetches the lists; here they are in a file.
    fn crl_file(&self) -> Result<Option<PathBuf>, Invalid> {
        if !self.is_on("crl", false) {
            return Ok(None);
        }
        let file = self.properties.text(CRL_FILE).filter(|file| !file.is_empty());
        file.map(|file| Some(file.into())).ok_or_else(|| {
            let reason = format!(
                "nothing is fetched during a handshake: {CRL_FILE} has to name a file with the lists \
                 of all CAs, in PEM, or of one in DER, and is not set"
            );
            self.blame("crl", Invalid::new(reason))
        })
    }

    fn client_auth(&self) -> Result<ClientAuth, Invalid> {
        let text = self.text("clientAuth").unwrap_or("need").trim().to_ascii_lowercase();
        match text.as_str() {
            "none" => Ok(ClientAuth::None),
            "want" => Ok(ClientAuth::Want),
            "need" => Ok(ClientAuth::Need),
            _ => {
                let invalid = Invalid::new(format!("{text:?} is none of them"));
                Err(self.blame("clientAuth", invalid.accepted("none, want or need")))
            }
        }
    }

    /// Whether TLS 1.2 and 1.3 are spoken.
    fn versions(&self) -> Result<(bool, bool), Invalid> {
        let Some(versions) = self.list("enabledProtocols") else {
            return Ok((true, self.text("protocol") != Some("TLSv1.2")));
        };
        let has = |version: &str| versions.iter().any(|name| name.eq_ignore_ascii_case(version));
        let (tls12, tls13) = (has("TLSv1.2"), has("TLSv1.3"));
        for name in versions.iter().filter(|name| !["TLSv1.2", "TLSv1.3"].contains(&name.as_str()))
        {
            log::warn!("{}: {name} is not spoken", self.key("enabledProtocols"));
        }
        if tls12 || tls13 {
            return Ok((tls12, tls13));
        }
        let invalid = Invalid::new("nothing is left that could be spoken");
        Err(self.blame("enabledProtocols", invalid.accepted("TLSv1.2, TLSv1.3, or both")))
    }

    /// What becomes of names that do not match: of servers that are dialled, and of those who connect.
    fn names(&self) -> (Names, Names) {
        let verification = "hostnameVerification";
        if self.prefix == CLIENTS {
            let on =
                self.is_on(verification, true) && self.is_on("clientHostnameVerification", false);
            return (Names::Ignored, if on { Names::Required } else { Names::Ignored });
        }
        // ZooKeeper 3.9 looks at no names unless fips-mode is false, whatever it is told. Who has told
        // nothing gets a warning; who has told something is obeyed.
        let names = match self.text(verification) {
            Some(_) if self.is_on(verification, true) => Names::Required,
            Some(_) => Names::Ignored,
            None if self.properties.bool("fips-mode", true) => Names::Warned,
            None => Names::Required,
        };
        let of_clients = self.is_on("clientHostnameVerification", true);
        (names, if of_clients { names } else { Names::Ignored })
    }
}

/// What is wrong with a property, which may not be set.
pub(crate) fn blame(properties: &SystemProperties, key: &str, invalid: Invalid) -> Invalid {
    let place = keys::find(key).map(|(place, _)| place);
    debug_assert!(place.is_some(), "{key} is not in the table of keys");
    let prefix = if place == Some(Place::Plain) { "" } else { "zookeeper." };
    match properties.setting(key) {
        Some(Setting { origin, .. }) => {
            origin.blame(as_written(&format!("{prefix}{key}"), origin), invalid)
        }
        None => Invalid { key: Some(key.into()), ..invalid },
    }
}
