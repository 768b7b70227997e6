//! TLS of a running server: its stores are read, and read again when they change.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use zab_tls::{Counts, Settings, SetupError, Tls};
use zk_admin::Https;
use zk_service::Probe;

use crate::config::{Invalid, ServerConfig, blame_property};

/// Reads the stores that `config` names.
///
/// # Errors
/// The key to which the fault belongs.
pub(crate) fn open(config: &ServerConfig) -> Result<Option<Arc<Tls>>, Invalid> {
    let tls = &config.tls;
    let admin = tls.admin.as_ref().map(|(settings, _)| settings);
    if tls.clients.is_none() && tls.members.is_none() && admin.is_none() {
        return Ok(None);
    }
    let opened = Tls::new(tls.clients.clone(), tls.members.clone(), tls.ports.clone());
    let opened = opened.and_then(|opened| match admin {
        None => Ok(opened),
        Some(settings) => {
            opened.with_admin(settings.clone()).map_err(|error| (zab_tls::ADMIN, error))
        }
    });
    let opened = opened.map_err(|(side, error)| {
        let (prefix, settings) = match side {
            zab_tls::CLIENTS => ("ssl.", tls.clients.as_ref()),
            zab_tls::ADMIN => ("ssl.quorum.", admin),
            _ => ("ssl.quorum.", tls.members.as_ref()),
        };
        let key = settings.map_or("keyStore.location", |settings| key_of(&error, settings));
        let invalid = Invalid::new(error.to_string());
        blame_property(&config.properties, &format!("{prefix}{key}"), invalid)
    })?;
    let own = config.ensemble.members.get(&config.sid);
    let hosts = own.iter().flat_map(|member| &member.addresses).map(|a| a.host.as_str());
    for host in opened.unnamed(hosts) {
        log::warn!(
            "The certificate of ssl.quorum.keyStore.location is not for {host}, as which this server is \
             in the list of members: others that verify names will refuse it"
        );
    }
    Ok(Some(Arc::new(opened)))
}

/// The key, without its prefix, that an error is about.
fn key_of(error: &SetupError, settings: &Settings) -> &'static str {
    let trust = settings.trust_store.as_ref();
    match error {
        SetupError::NoTrust => "trustStore.location",
        SetupError::NoSuite(_) => "ciphersuites",
        SetupError::NoVersion => "enabledProtocols",
        SetupError::File(path, _) | SetupError::Store(path, _)
            if settings.crl_file.as_ref() == Some(path) =>
        {
            "crl"
        }
        SetupError::File(path, _) | SetupError::Store(path, _)
            if trust.is_some_and(|trust| trust.path == *path)
                && *path != settings.key_store.path =>
        {
            "trustStore.location"
        }
        SetupError::File(path, _) if *path != settings.key_store.path => {
            let of_trust = trust.is_some_and(|t| t.password == zab_tls::Secret::File(path.clone()));
            if of_trust { "trustStore.passwordPath" } else { "keyStore.passwordPath" }
        }
        _ => "keyStore.location",
    }
}

/// What `mntr` shows of TLS.
pub(crate) fn figures(tls: &Arc<Tls>) -> Vec<(&'static str, Probe<u64>)> {
    let counter = |of: fn(&Counts) -> &AtomicU64| {
        let tls = Arc::clone(tls);
        Probe::new(move |reset| {
            let count = of(tls.counts());
            if reset { count.swap(0, Ordering::Relaxed) } else { count.load(Ordering::Relaxed) }
        })
    };
    vec![
        ("unsuccessful_handshake", counter(|counts| &counts.unsuccessful)),
        ("tls_handshake_exceeded", counter(|counts| &counts.exceeded)),
        ("tls_plain_accepted", counter(|counts| &counts.plain)),
    ]
}

/// HTTPS of the AdminServer, if it is configured.
pub(crate) fn https(config: &ServerConfig, tls: Option<&Arc<Tls>>) -> Option<Https> {
    let (_, expects) = config.tls.admin.as_ref()?;
    let (tls, counting) = (Arc::clone(tls?), Arc::clone(tls?));
    Some(Https {
        expects: *expects,
        accept: Arc::new(move |remote| tls.accept_admin(remote)),
        happened: Arc::new(move |well| {
            if !well {
                counting.counts().unsuccessful.fetch_add(1, Ordering::Relaxed);
            }
        }),
        limits: config.tls.ports.limits,
    })
}

/// What rises and falls.
pub(crate) fn gauges(tls: &Arc<Tls>) -> Vec<(&'static str, Probe<u64>)> {
    let tls = Arc::clone(tls);
    let expiry = Probe::new(move |_| tls.expires_in().map_or(0, |left| left.as_secs()));
    vec![("tls_certificate_expiry_seconds", expiry)]
}

/// Looks every now and then whether the stores have changed, as long as somebody uses them; and says when
/// a certificate is about to expire.
///
/// # Errors
/// If no thread can be started.
pub(crate) fn watch(config: &ServerConfig, tls: &Arc<Tls>) -> std::io::Result<()> {
    let (interval, tls) = (config.tls.reload_interval, Arc::downgrade(tls));
    Builder::new().name("certificates".into()).spawn(move || look(interval, &tls)).map(drop)
}

fn look(interval: Option<Duration>, tls: &Weak<Tls>) {
    let mut told = None::<Instant>;
    loop {
        let Some(tls) = tls.upgrade() else { return };
        if interval.is_some() {
            tls.reload();
        }
        if told.is_none_or(|at| at.elapsed() >= DAY)
            && let Some(left) = tls.expires_in().filter(|left| *left <= 30 * DAY)
        {
            told = Some(Instant::now());
            log::warn!("A certificate of this server expires in {} days", left.as_secs() / 86_400);
        }
        drop(tls);
        thread::sleep(interval.unwrap_or(PAUSE));
    }
}

const DAY: Duration = Duration::from_secs(86_400);
/// Between looks at the dates alone.
const PAUSE: Duration = Duration::from_secs(60);
