//! SASL: the JAAS file, who may log in to this server, and how members log in to each other.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs};

use zab_sasl::{Jaas, LoginModule, NameRules, Users};
use zk_service::SaslOptions;

use super::error::Invalid;
use super::file::FileKeys;
use super::security;
use super::system::SystemProperties;
use super::tls::blame;

/// Who may log in by SASL, and how members do.
#[derive(Clone, Debug, Default)]
pub struct SaslConfig {
    /// Clients.
    pub clients: SaslOptions,
    /// Members, if any of them may: `quorum.auth.enableSasl`.
    pub members: Option<MemberLogins>,
}

/// How members log in to each other.
#[derive(Clone)]
pub struct MemberLogins {
    /// Whom this server lets in.
    pub users: Arc<Users>,
    /// Name and password with which it logs in itself, if it does: `quorum.auth.learnerRequireSasl`.
    pub login: Option<(String, String)>,
    /// Who does not log in is refused: `quorum.auth.serverRequireSasl`.
    pub required: bool,
}

impl std::fmt::Debug for MemberLogins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let login = self.login.as_ref().map(|(user, _)| user);
        f.debug_struct("MemberLogins")
            .field("users", &self.users)
            .field("login", &login)
            .field("required", &self.required)
            .finish()
    }
}

const FILE: &str = "java.security.auth.login.config";
const SECTION: &str = "sasl.serverconfig";
const ENABLE: &str = "quorum.auth.enableSasl";
const DIAL: &str = "quorum.auth.learnerRequireSasl";
const REQUIRE: &str = "quorum.auth.serverRequireSasl";

impl SaslConfig {
    /// Reads the keys and the JAAS file.
    ///
    /// # Errors
    /// Something is switched on without what it needs, or the file cannot be used.
    pub(super) fn read(
        keys: &FileKeys,
        properties: &SystemProperties,
        standalone: bool,
    ) -> Result<Self, Invalid> {
        for (needed, key) in [(ENABLE, DIAL), (ENABLE, REQUIRE), (DIAL, REQUIRE)] {
            if keys.is_on(key) && !keys.is_on(needed) {
                let reason = format!("{needed} is disabled, so cannot enable {key}");
                return Err(keys.blame(key, Invalid::new(reason)));
            }
        }
        let file = JaasFile::read(properties)?;
        let clients = clients(properties, file.as_ref())?;
        let members = match keys.is_on(ENABLE) {
            true => Some(members(keys, properties, file.as_ref())?),
            false => None,
        };
        // A server alone has no members to log in to, and is told all the same what would be missing.
        Ok(Self { clients, members: members.filter(|_| !standalone) })
    }
}

/// The file, and where it is.
struct JaasFile<'a> {
    path: PathBuf,
    jaas: Jaas,
    properties: &'a SystemProperties,
}

impl<'a> JaasFile<'a> {
    fn read(properties: &'a SystemProperties) -> Result<Option<Self>, Invalid> {
        let Some(text) = properties.text(FILE).filter(|text| !text.trim().is_empty()) else {
            return match properties.setting(SECTION) {
                Some(_) => {
                    let reason = format!("names a section, and {FILE} no file with one");
                    Err(blame(properties, SECTION, Invalid::new(reason)))
                }
                None => Ok(None),
            };
        };
        let text = text.trim();
        let path = PathBuf::from(text.strip_prefix("file:").unwrap_or(text));
        let wrong = |reason: String| blame(properties, FILE, Invalid::new(reason));
        let bytes =
            fs::read(&path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
        warn_if_open(&path);
        let property = |name: &str| match name {
            "user.home" => env::var("HOME").ok(),
            name => properties.raw(name).map(str::to_owned),
        };
        let jaas = Jaas::parse(&String::from_utf8_lossy(&bytes), property).map_err(|error| {
            wrong(format!("{}:{}: {}", path.display(), error.line, error.reason))
        })?;
        Ok(Some(Self { path, jaas, properties }))
    }

    /// The login module of a section, which must be one of names and passwords.
    fn section(&self, name: &str) -> Result<Option<&LoginModule>, Invalid> {
        let Some(module) = self.jaas.section(name) else { return Ok(None) };
        let path = self.path.display();
        let wrong = |reason| blame(self.properties, FILE, Invalid::new(reason));
        if module.class != LoginModule::DIGEST {
            let class = &module.class;
            let missing = if class.ends_with("Krb5LoginModule") { NO_KERBEROS } else { "" };
            let reason = format!("{path}: section {name}: {class} is not supported{missing}");
            return Err(wrong(reason).accepted(LoginModule::DIGEST));
        }
        if self.properties.setting("fips-mode").is_some()
            && self.properties.bool("fips-mode", false)
        {
            let reason = format!("is on, and section {name} of {path} needs DIGEST-MD5");
            return Err(blame(self.properties, "fips-mode", Invalid::new(reason)));
        }
        Ok(Some(module))
    }
}

/// What it would take to log in with Kerberos.
const NO_KERBEROS: &str = " (there is no Kerberos here: no acceptor over a keytab, and no exchanges with a KDC for members that dial)";

fn clients(
    properties: &SystemProperties,
    file: Option<&JaasFile<'_>>,
) -> Result<SaslOptions, Invalid> {
    let section = properties.text(SECTION).unwrap_or("Server");
    let mut users = None;
    if let Some(file) = file {
        match file.section(section)? {
            Some(module) => users = Some(module.users()),
            None => log::warn!(
                "{} has no section {section}: clients cannot log in by SASL",
                file.path.display()
            ),
        }
    }
    match (&mut users, properties.text("SASLAuthenticationProvider.superPassword")) {
        (Some(users), Some(password)) => users.replace("super", password),
        (None, Some(_)) => log::warn!(
            "SASLAuthenticationProvider.superPassword has no effect: clients cannot log in by SASL"
        ),
        _ => {}
    }
    let names = properties.iter().filter(|(name, _)| {
        *name == "zookeeper.superUser" || name.starts_with("zookeeper.superUser.")
    });
    Ok(SaslOptions {
        users: users.map(Arc::new),
        in_acls: security::has_sasl(properties),
        names: NameRules {
            remove_host: properties.bool("kerberos.removeHostFromPrincipal", false),
            remove_realm: properties.bool("kerberos.removeRealmFromPrincipal", false),
            realm: properties.text("server.realm").map(str::to_owned),
        },
        super_users: names.map(|(_, setting)| setting.value.clone()).collect(),
        any_user: properties.text("letAnySaslUserDoX").map(str::to_owned),
        failed_may_stay: properties.bool("allowSaslFailedClients", false),
    })
}

fn members(
    keys: &FileKeys,
    properties: &SystemProperties,
    file: Option<&JaasFile<'_>>,
) -> Result<MemberLogins, Invalid> {
    let module = |key: &str, default: &str| {
        let name = keys.text(key).unwrap_or(default);
        let found = file.map(|file| file.section(name)).transpose()?.flatten();
        found.ok_or_else(|| {
            let reason = format!(
                "SASL-authentication failed because the specified JAAS configuration section \
                 '{name}' could not be found."
            );
            let at = if keys.text(key).is_some() { key } else { ENABLE };
            keys.blame(at, Invalid::new(reason))
        })
    };
    let users = module("quorum.auth.server.saslLoginContext", "QuorumServer")?.users();
    let learner = module("quorum.auth.learner.saslLoginContext", "QuorumLearner")?;
    let Some((user, password)) = learner.login() else {
        let reason = "the section of this server's own login has no username and password";
        return Err(blame(properties, FILE, Invalid::new(reason)));
    };
    let login = keys.is_on(DIAL).then(|| (user.to_owned(), password.to_owned()));
    Ok(MemberLogins { users: Arc::new(users), login, required: keys.is_on(REQUIRE) })
}

/// Passwords that everybody on the machine can read.
fn warn_if_open(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
        if mode & 0o004 != 0 {
            log::warn!("{}: every user of this machine can read the passwords", path.display());
        }
    }
}
