//! Checks of what several keys protect together.

use zk_service::{EnsembleAuth, SaslOptions};

use super::error::Invalid;
use super::judge::as_written;
use super::system::{Setting, SystemProperties};
use super::tls::blame;

const PACKAGE: &str = "org.apache.zookeeper.server.auth.";
const IP: &str = "IPAuthenticationProvider";
const DIGEST: &str = "DigestAuthenticationProvider";
const ENSEMBLE: &str = "EnsembleAuthenticationProvider";
const X509: &str = "X509AuthenticationProvider";
const SASL: &str = "SASLAuthenticationProvider";
const ENABLED: &str = "enforce.auth.enabled";
const ONLY_SASL: &str = "sessionRequireClientSASLAuth";

/// Warns of what is missed; returns the schemes with one of which a client must log in, none if it
/// need not.
///
/// # Errors
/// The server would serve whom it should not.
pub(super) fn check(
    properties: &SystemProperties,
    x509: bool,
    sasl: &SaslOptions,
) -> Result<Vec<String>, Invalid> {
    check_providers(properties);
    forced_login(properties, x509, sasl)
}

/// `authProvider.*`: classes that log clients in.
fn check_providers(properties: &SystemProperties) {
    let names = properties.setting("ensembleAuthName");
    if let Some(Setting { origin, .. }) = names.filter(|_| !has_provider(properties, ENSEMBLE)) {
        let name = as_written("zookeeper.ensembleAuthName", origin);
        log::warn!("{origin}: {name} has no effect: no authProvider.N is {PACKAGE}{ENSEMBLE}");
    }
    for (name, setting) in properties.iter() {
        if !name.starts_with("zookeeper.authProvider.") {
            continue;
        }
        let (class, origin) = (setting.value.as_str(), &setting.origin);
        let name = as_written(name, origin);
        match class.strip_prefix(PACKAGE) {
            Some(IP | DIGEST | ENSEMBLE | X509 | SASL) => {}
            _ => log::warn!("{origin}: {name} has no effect: {class} is not supported"),
        }
    }
}

fn has_provider(properties: &SystemProperties, class: &str) -> bool {
    let is_it = |value: &str| value.strip_prefix(PACKAGE) == Some(class);
    let mut all = properties.iter();
    all.any(|(name, s)| name.starts_with("zookeeper.authProvider.") && is_it(&s.value))
}

/// Whether the scheme `x509` is asked for by its class.
pub(super) fn has_x509(properties: &SystemProperties) -> bool {
    has_provider(properties, X509)
}

/// Whether the scheme `sasl` is asked for by its class.
pub(super) fn has_sasl(properties: &SystemProperties) -> bool {
    has_provider(properties, SASL)
}

/// The scheme `ensemble`, if its provider is there.
pub(super) fn ensemble_auth(properties: &SystemProperties) -> Option<EnsembleAuth> {
    has_provider(properties, ENSEMBLE)
        .then(|| EnsembleAuth { names: properties.text("ensembleAuthName").map(split_commas) })
}

fn split_commas(text: &str) -> Vec<String> {
    text.split(',').map(|part| part.trim().to_owned()).collect()
}

/// The schemes with one of which a client must log in; none if it need not.
///
/// # Errors
/// None is named, or one that clients cannot log in with.
fn forced_login(
    properties: &SystemProperties,
    x509: bool,
    sasl: &SaslOptions,
) -> Result<Vec<String>, Invalid> {
    const SCHEMES: &str = "enforce.auth.schemes";
    if properties.bool(ONLY_SASL, false) {
        // The other two keys do not count then.
        let missing = |reason: String| blame(properties, ONLY_SASL, Invalid::new(reason));
        if !sasl.in_acls {
            let needed = format!("no authProvider.N is {PACKAGE}{SASL}");
            let reason = format!("Authentication scheme sasl is not available. ({needed})");
            return Err(missing(reason));
        }
        if sasl.users.is_none() {
            let reason =
                "there is no section of a JAAS file with users, so that nobody could log in";
            return Err(missing(reason.into()));
        }
        return Ok(vec!["sasl".into()]);
    }
    let is_on = properties.bool(ENABLED, false);
    let Some(enabled) = properties.setting(ENABLED).filter(|_| is_on) else {
        if let Some(Setting { origin, .. }) = properties.setting(SCHEMES) {
            let name = as_written("zookeeper.enforce.auth.schemes", origin);
            log::warn!("{origin}: {name} has no effect: {ENABLED} is not true");
        }
        return Ok(Vec::new());
    };
    let wrong = |key: &str, reason: String| {
        let origin = &properties.setting(key).unwrap_or(enabled).origin;
        let name = format!("zookeeper.{key}");
        let accepted =
            "digest, ip, with TLS x509, with its provider and a JAAS file sasl, joined by commas";
        origin.blame(as_written(&name, origin), Invalid::new(reason).accepted(accepted))
    };
    let Some(schemes) = properties.text(SCHEMES).filter(|text| !text.trim().is_empty()) else {
        return Err(wrong(ENABLED, format!("is true, so {SCHEMES} must be set")));
    };
    let mut schemes = split_commas(schemes);
    // As Java splits: what is empty at the end is no part.
    while schemes.pop_if(|last| last.is_empty()).is_some() {}
    if schemes.iter().any(|scheme| scheme == "ip") {
        log::warn!("{SCHEMES} lets in every client: each has an identity of the scheme ip");
    }
    let digest = properties.bool("DigestAuthenticationProvider.enabled", true);
    let is_there = |scheme: &str| match scheme {
        "ip" => true,
        "digest" => digest,
        "x509" => x509,
        "sasl" => sasl.in_acls && sasl.users.is_some(),
        _ => false,
    };
    match schemes.iter().find(|scheme| !is_there(scheme)) {
        Some(missing) => {
            Err(wrong(SCHEMES, format!("Authentication scheme {missing} is not available.")))
        }
        None => Ok(schemes),
    }
}
