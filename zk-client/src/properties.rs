//! The properties of ZooKeeper's own client, as far as they concern the way to the servers.
//!
//! Java has them from `-Dname=value` ([`ClientProperties::take_flags`]) and from a file
//! ([`ClientProperties::read_file`], what `zkCli.sh -client-configuration` names). Each one is honoured,
//! refused, or told of by [`ClientProperties::warnings`].

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zab_sasl::{Jaas, LoginModule, properties};
use zab_tls::{ClientSettings, Dialer, Names, Secret, StoreFile};

use crate::blocking::{Dial, Tcp, Tls};
use crate::options::Options;
use crate::sasl::{DigestMd5, Mechanism};

/// What becomes of a property.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Use {
    Honoured,
    /// It has no meaning here, and what it asks for is so anyway.
    Idle,
    /// It would change what it cannot change here.
    Warned(&'static str),
}

/// Those that concern a client, sorted.
const KNOWN: [(&str, Use); 32] = [
    ("java.security.auth.login.config", Use::Honoured),
    ("jute.maxbuffer", Use::Honoured),
    ("zab.sasl.passwordPath", Use::Honoured),
    ("zab.sasl.user", Use::Honoured),
    ("zab.tls.crlFile", Use::Honoured),
    ("zab.tls.keyFile", Use::Honoured),
    ("zookeeper.client.secure", Use::Honoured),
    ("zookeeper.clientCnxnSocket", Use::Idle),
    ("zookeeper.disableAutoWatchReset", Use::Warned("watches are always set again")),
    ("zookeeper.fips-mode", Use::Honoured),
    (
        "zookeeper.request.timeout",
        Use::Warned("requests wait for the server or the end of the connection"),
    ),
    ("zookeeper.sasl.client", Use::Honoured),
    ("zookeeper.sasl.client.canonicalize.hostname", Use::Idle),
    ("zookeeper.sasl.client.username", Use::Idle),
    ("zookeeper.sasl.clientconfig", Use::Honoured),
    ("zookeeper.server.principal", Use::Idle),
    ("zookeeper.server.realm", Use::Idle),
    ("zookeeper.ssl.ciphersuites", Use::Honoured),
    ("zookeeper.ssl.context.supplier.class", Use::Honoured),
    ("zookeeper.ssl.crl", Use::Honoured),
    ("zookeeper.ssl.enabledProtocols", Use::Honoured),
    ("zookeeper.ssl.hostnameVerification", Use::Honoured),
    ("zookeeper.ssl.keyStore.location", Use::Honoured),
    ("zookeeper.ssl.keyStore.password", Use::Honoured),
    ("zookeeper.ssl.keyStore.passwordPath", Use::Honoured),
    ("zookeeper.ssl.keyStore.type", Use::Idle),
    ("zookeeper.ssl.ocsp", Use::Honoured),
    ("zookeeper.ssl.protocol", Use::Honoured),
    ("zookeeper.ssl.trustStore.location", Use::Honoured),
    ("zookeeper.ssl.trustStore.password", Use::Honoured),
    ("zookeeper.ssl.trustStore.passwordPath", Use::Honoured),
    ("zookeeper.ssl.trustStore.type", Use::Idle),
];

/// Properties by their full names.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ClientProperties {
    values: BTreeMap<String, String>,
}

impl std::fmt::Debug for ClientProperties {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Values are passwords.
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl ClientProperties {
    /// Sets a property; a later value takes the place of an earlier one.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.values.insert(name.into(), value.into());
    }

    /// Takes the options `-Dname=value` out of a JVM's command line, such as `CLIENT_JVMFLAGS`.
    pub fn take_flags(&mut self, flags: &str) {
        for option in flags.split_whitespace().filter_map(|flag| flag.strip_prefix("-D")) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            self.set(name, value);
        }
    }

    /// Takes the properties of a file.
    ///
    /// # Errors
    /// What cannot be read, in words.
    pub fn read_file(&mut self, path: &Path) -> Result<(), String> {
        let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let entries = properties::parse(&bytes)
            .map_err(|line| format!("{}, line {line}: malformed escape", path.display()))?;
        for entry in entries {
            self.set(entry.key, entry.value);
        }
        Ok(())
    }

    /// Properties that do not do here what somebody may expect of them. Those of other programs and of
    /// servers are passed over: they share the JVM's flags.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let of = |(name, value): (&String, &String)| {
            let known = KNOWN.iter().find(|(known, _)| known == name).map(|(_, used)| used);
            match known {
                Some(Use::Warned(_)) if matches!(value.as_str(), "false" | "0") => None,
                Some(Use::Warned(why)) => Some(format!("{name} changes nothing: {why}")),
                Some(_) => None,
                None if name.starts_with("zookeeper.ssl.quorum.") => None,
                None if name.starts_with("zookeeper.ssl.")
                    || name.starts_with("zookeeper.client") =>
                {
                    Some(format!("{name} is not known and changes nothing"))
                }
                None => None,
            }
        };
        let mut warnings: Vec<String> = self.values.iter().filter_map(of).collect();
        if self.jaas_path().is_some() && self.logs_in() && matches!(self.module(), Ok(None)) {
            warnings.push(format!(
                "java.security.auth.login.config: there is no section {}, so nobody logs in",
                self.section()
            ));
        }
        if !self.is_secure() && self.values.keys().any(|name| name.starts_with("zookeeper.ssl.")) {
            warnings.push(
                "zookeeper.client.secure is not true: the connection is not encrypted".into(),
            );
        }
        warnings
    }

    /// Puts into `options` what is said about logins and frames, and returns what dials: in the clear or
    /// with TLS. Stores are read again each time.
    ///
    /// # Errors
    /// What cannot be read, used or done, in words.
    pub fn apply(&self, options: &mut Options) -> Result<Box<dyn Dial>, String> {
        if let Some(text) = self.text("jute.maxbuffer") {
            let len = text
                .strip_prefix("0x")
                .map_or_else(|| text.parse().ok(), |digits| usize::from_str_radix(digits, 16).ok());
            let len = len.filter(|len| i32::try_from(*len).is_ok());
            options.frame_len_max_bytes =
                len.ok_or_else(|| format!("jute.maxbuffer: {text:?} is no number of bytes"))?;
        }
        options.sasl = self.mechanism()?;
        if !self.is_secure() {
            return Ok(Box::new(Tcp));
        }
        let dialer = Dialer::new(&self.tls()?).map_err(|error| format!("TLS: {error}"))?;
        Ok(Box::new(Tls::new(dialer)))
    }

    /// Whether connections are encrypted.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.is_on("zookeeper.client.secure", false)
    }

    /// A property that is neither missing nor empty.
    fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|text| text.trim()).filter(|text| !text.is_empty())
    }

    /// As Java: `true` in any case is true, everything else false.
    fn is_on(&self, name: &str, default: bool) -> bool {
        self.values.get(name).map_or(default, |text| text.trim().eq_ignore_ascii_case("true"))
    }

    fn tls(&self) -> Result<ClientSettings, String> {
        for name in ["zookeeper.ssl.ocsp", "zookeeper.ssl.context.supplier.class"] {
            if self.text(name).is_some_and(|text| text != "false") {
                return Err(format!("{name} cannot be done here"));
            }
        }
        let crl_file = match self.is_on("zookeeper.ssl.crl", false) {
            true => Some(self.text("zab.tls.crlFile").map(PathBuf::from).ok_or(
                "zookeeper.ssl.crl needs zab.tls.crlFile, a file with the lists of all CAs: none are fetched",
            )?),
            false => None,
        };
        let trust_store = self.store("trustStore").or_else(system_trust).ok_or(
            "zookeeper.ssl.trustStore.location is not set, and the system has no list of CAs",
        )?;
        let (tls12, tls13) = self.versions()?;
        let suites = self.text("zookeeper.ssl.ciphersuites").map(|text| {
            let names = text.split(',').map(|name| name.trim().to_owned());
            names.filter(|name| !name.is_empty()).collect()
        });
        let named = self.is_on("zookeeper.ssl.hostnameVerification", true);
        Ok(ClientSettings {
            key_store: self.store("keyStore"),
            key_file: self.text("zab.tls.keyFile").map(PathBuf::from),
            crl_file,
            tls12,
            tls13,
            suites,
            server_names: if named { Names::Required } else { Names::Ignored },
            ..ClientSettings::new(trust_store)
        })
    }

    fn store(&self, which: &str) -> Option<StoreFile> {
        let text = |end: &str| self.text(&format!("zookeeper.ssl.{which}.{end}"));
        let path = PathBuf::from(text("location")?);
        let password = match text("passwordPath") {
            Some(file) => Secret::File(file.into()),
            None => Secret::Text(text("password").unwrap_or_default().to_owned()),
        };
        Some(StoreFile { path, password })
    }

    /// Whether TLS 1.2 and 1.3 are spoken.
    fn versions(&self) -> Result<(bool, bool), String> {
        const NAME: &str = "zookeeper.ssl.enabledProtocols";
        let Some(list) = self.text(NAME) else {
            return Ok((true, self.text("zookeeper.ssl.protocol") != Some("TLSv1.2")));
        };
        let has =
            |version: &str| list.split(',').any(|name| name.trim().eq_ignore_ascii_case(version));
        match (has("TLSv1.2"), has("TLSv1.3")) {
            (false, false) => Err(format!("{NAME}: {list:?} has neither TLSv1.2 nor TLSv1.3")),
            versions => Ok(versions),
        }
    }

    fn logs_in(&self) -> bool {
        self.is_on("zookeeper.sasl.client", true)
    }

    fn jaas_path(&self) -> Option<&str> {
        let text = self.text("java.security.auth.login.config")?;
        let path = text.strip_prefix("file:").unwrap_or(text);
        Some(path.strip_prefix("//").unwrap_or(path))
    }

    fn section(&self) -> &str {
        self.text("zookeeper.sasl.clientconfig").unwrap_or("Client")
    }

    /// The section of the JAAS file, if there is both. Without it Java's client goes on, and it may well be a
    /// server's file: the flags of the JVM are shared. Whoever has named a section gets it or nothing.
    fn module(&self) -> Result<Option<LoginModule>, String> {
        let Some(path) = self.jaas_path() else { return Ok(None) };
        let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        let jaas = Jaas::parse(&text, |name| self.values.get(name).cloned());
        let jaas = jaas.map_err(|error| format!("{path}, {error}"))?;
        let module = jaas.section(self.section()).cloned();
        if module.is_none() && self.text("zookeeper.sasl.clientconfig").is_some() {
            return Err(format!("{path}: there is no section {}", self.section()));
        }
        Ok(module)
    }

    fn mechanism(&self) -> Result<Option<Arc<dyn Mechanism>>, String> {
        if !self.logs_in() {
            return Ok(None);
        }
        let login = match self.text("zab.sasl.user") {
            Some(user) => Some((user.to_owned(), self.password()?)),
            None => self.module()?.as_ref().map(|module| self.login(module)).transpose()?,
        };
        if login.is_some() && self.is_on("zookeeper.fips-mode", false) {
            return Err("zookeeper.fips-mode=true does not allow DIGEST-MD5".into());
        }
        Ok(login.map(|(user, password)| Arc::new(DigestMd5::new(user, password)) as Arc<_>))
    }

    fn password(&self) -> Result<String, String> {
        let name = "zab.sasl.passwordPath";
        let path = self.text(name).ok_or_else(|| format!("{name} is not set"))?;
        Secret::File(path.into()).read().map_err(|error| format!("{path}: {error}"))
    }

    fn login(&self, module: &LoginModule) -> Result<(String, String), String> {
        let section = self.section();
        if module.class != LoginModule::DIGEST {
            return Err(format!(
                "section {section}: {} is not supported, {} is",
                module.class,
                LoginModule::DIGEST
            ));
        }
        let (user, password) = module
            .login()
            .ok_or_else(|| format!("section {section} has no username or no password"))?;
        Ok((user.to_owned(), password.to_owned()))
    }
}

/// What stands for the JVM's list of CAs.
fn system_trust() -> Option<StoreFile> {
    const PLACES: [&str; 4] = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    let path = PLACES.iter().map(Path::new).find(|path| path.exists())?;
    Some(StoreFile { path: path.into(), password: Secret::Text(String::new()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(flags: &str) -> ClientProperties {
        let mut properties = ClientProperties::default();
        properties.take_flags(flags);
        properties
    }

    fn applied(flags: &str) -> Result<(String, Options), String> {
        let mut options = Options::parse("localhost:1").unwrap();
        let dial = from(flags).apply(&mut options)?;
        Ok((format!("{dial:?}"), options))
    }

    #[test]
    fn without_any_it_is_plain() {
        let (dial, options) = applied("-Xmx1g -Dzookeeper.client.secure=no").unwrap();
        assert_eq!((dial.as_str(), options.sasl.is_none()), ("Tcp", true));
        assert!(from("-Dzookeeper.snapCount=5 -Dother=1").warnings().is_empty());
    }

    #[test]
    fn stores_and_versions() {
        let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../zab-tls/tests/data");
        let tls = format!(
            "-Dzookeeper.client.secure=TRUE -Dzookeeper.ssl.trustStore.location={data}/ca.pem \
             -Dzookeeper.ssl.keyStore.location={data}/keytool.p12 -Dzookeeper.ssl.keyStore.password=changeit \
             -Dzookeeper.clientCnxnSocket=org.apache.zookeeper.ClientCnxnSocketNetty "
        );
        assert!(applied(&tls).unwrap().0.starts_with("Tls"));
        let settings = from(&tls).tls().unwrap();
        assert_eq!(
            (settings.tls12, settings.tls13, settings.server_names),
            (true, true, Names::Required)
        );
        let more =
            "-Dzookeeper.ssl.enabledProtocols=tlsv1.3 -Dzookeeper.ssl.hostnameVerification=false";
        let settings = from(&format!("{tls}{more}")).tls().unwrap();
        assert_eq!(
            (settings.tls12, settings.tls13, settings.server_names),
            (false, true, Names::Ignored)
        );
        for (flag, reason) in [
            ("zookeeper.ssl.enabledProtocols=SSLv3", "neither TLSv1.2 nor TLSv1.3"),
            ("zookeeper.ssl.ocsp=true", "cannot be done here"),
            ("zookeeper.ssl.context.supplier.class=X", "cannot be done here"),
            ("zookeeper.ssl.crl=true", "needs zab.tls.crlFile"),
            ("zookeeper.ssl.keyStore.location=/nowhere", "/nowhere: No such file"),
            ("zookeeper.ssl.keyStore.password=wrong", "keytool.p12: "),
            ("jute.maxbuffer=many", "no number of bytes"),
        ] {
            let error = applied(&format!("{tls} -D{flag}")).unwrap_err();
            assert!(error.contains(reason), "{flag}: {error}");
        }
    }

    #[test]
    fn logins() {
        let path = std::env::temp_dir().join(format!("zk-client-jaas-{}", std::process::id()));
        fs::write(
            &path,
            "Client { org.apache.zookeeper.server.auth.DigestLoginModule required username=\"bob\" \
             password=\"bobsecret\"; };\nOther { com.sun.security.auth.module.Krb5LoginModule required; };\n\
             Half { org.apache.zookeeper.server.auth.DigestLoginModule required username=bob; };",
        )
        .unwrap();
        let jaas = format!("-Djava.security.auth.login.config=file:{} ", path.display());
        let sasl =
            |flags: &str| applied(&format!("{jaas}{flags}")).map(|(_, options)| options.sasl);
        let shown = format!("{:?}", sasl("").unwrap().unwrap());
        assert!(shown.contains("bob") && !shown.contains("secret"), "{shown}");
        assert!(sasl("-Dzookeeper.sasl.client=false").unwrap().is_none());
        let section = |name: &str| sasl(&format!("-Dzookeeper.sasl.clientconfig={name}"));
        assert!(section("Other").unwrap_err().contains("Krb5LoginModule is not supported"));
        assert!(section("Half").unwrap_err().contains("no username or no password"));
        assert!(section("Nobody").unwrap_err().contains("there is no section Nobody"));
        assert!(sasl("-Dzookeeper.fips-mode=true").unwrap_err().contains("DIGEST-MD5"));
        fs::write(&path, "Server { x required; };").unwrap();
        assert!(sasl("").unwrap().is_none());
        assert!(from(&jaas).warnings()[0].contains("no section Client"));
        fs::remove_file(&path).unwrap();
        assert!(sasl("").unwrap_err().contains("No such file"));
    }

    #[test]
    fn nothing_is_passed_over_in_silence() {
        let warnings = |flags: &str| from(flags).warnings().join("\n");
        assert!(warnings("-Dzookeeper.disableAutoWatchReset=true").contains("changes nothing"));
        assert!(warnings("-Dzookeeper.request.timeout=5").contains("changes nothing"));
        assert!(warnings("-Dzookeeper.request.timeout=0").is_empty());
        assert!(warnings("-Dzookeeper.ssl.trustStore.lokation=x").contains("is not known"));
        assert!(warnings("-Dzookeeper.ssl.keyStore.location=x").contains("not encrypted"));
        let mut names: Vec<_> = KNOWN.iter().map(|(name, _)| *name).collect();
        names.dedup();
        assert!(names.is_sorted() && names.len() == KNOWN.len());
    }
}
