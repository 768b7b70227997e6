//! Key stores and trust stores, of whichever format.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};

use crate::der::{Der, OCTET_STRING, SEQUENCE, context, element};
use crate::error::StoreError;
use crate::pbe::Password;
use crate::x509::Certificate;
use crate::{jks, pem, pkcs12};

/// A format, by the first bytes of a file. The name of a file and the configured type say nothing: since
/// Java 9 `keytool` writes PKCS#12 into what is called `.jks`, and Java reads either as either.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Text.
    Pem,
    /// PKCS#12.
    Pkcs12,
    /// Java's own.
    Jks,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pem => "PEM",
            Self::Pkcs12 => "PKCS#12",
            Self::Jks => "JKS",
        })
    }
}

impl Format {
    /// What `bytes` are.
    ///
    /// # Errors
    /// [`StoreError::Unknown`], or [`StoreError::Unsupported`] with what to do.
    pub fn of(bytes: &[u8]) -> Result<Self, StoreError> {
        const CONVERT: &str = "convert it with keytool -importkeystore … -deststoretype PKCS12";
        match bytes {
            _ if bytes.starts_with(&jks::MAGIC) => Ok(Self::Jks),
            _ if bytes.starts_with(&jks::MAGIC_JCEKS) => {
                Err(StoreError::Unsupported(format!("a JCEKS store ({CONVERT})")))
            }
            [0x30, ..] => Ok(Self::Pkcs12),
            _ if std::str::from_utf8(bytes).is_ok_and(|text| text.contains(pem::BEGIN)) => {
                Ok(Self::Pem)
            }
            _ => Err(StoreError::Unknown),
        }
    }
}

/// What a store holds.
#[derive(Default, Debug)]
pub(crate) struct Contents {
    pub(crate) keys: Vec<KeyEntry>,
    /// Certificates without a key.
    pub(crate) trusted: Vec<Vec<u8>>,
    /// Of these, how many do not bear Java's mark in a format that has one.
    pub(crate) unmarked: usize,
    /// All certificates, where keys come with less than their chain.
    pub(crate) pool: Vec<Vec<u8>>,
}

/// A private key and its certificates, the leaf first.
#[derive(Debug)]
pub(crate) struct KeyEntry {
    pub(crate) alias: String,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) chain: Vec<Vec<u8>>,
}

impl KeyEntry {
    pub(crate) fn pkcs8(alias: String, key: Vec<u8>, chain: Vec<Vec<u8>>) -> Self {
        Self { alias, key: PrivateKeyDer::Pkcs8(key.into()), chain }
    }
}

fn parse(bytes: &[u8], password: &str, keys: bool) -> Result<Contents, StoreError> {
    let password = Password(password);
    match Format::of(bytes)? {
        Format::Jks => jks::parse(bytes, password, keys),
        Format::Pkcs12 => pkcs12::parse(bytes, password, keys),
        Format::Pem => {
            let text = std::str::from_utf8(bytes).map_err(|_| StoreError::Damaged)?;
            pem::parse(text, password, keys)
        }
    }
}

/// Who a server is: a private key with its certificate and those that issued it.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The name of the key in the store; empty in PEM.
    pub alias: String,
    /// How many other keys there are, which are not used.
    pub others: usize,
    pub(crate) certified: Arc<CertifiedKey>,
}

impl Identity {
    /// Reads a key store. Of several keys the first whose certificate is valid at `now` (seconds since
    /// 1970) is taken, or the first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn read(bytes: &[u8], password: &str, now: i64) -> Result<Self, StoreError> {
        let Contents { keys, pool, .. } = parse(bytes, password, true)?;
        let others = keys.len().saturating_sub(1);
        let mut first = None;
        for KeyEntry { alias, key, chain } in keys {
            let found = certify(&key, &chain, &pool).map(|certified| Self {
                alias,
                others,
                certified: Arc::new(certified),
            });
            let is_valid = found
                .as_ref()
                .is_ok_and(|found| found.leaf().is_ok_and(|leaf| leaf.is_valid_at(now)));
            if is_valid {
                return found;
            }
            first.get_or_insert(found);
        }
        first.unwrap_or(Err(StoreError::NoKey))
    }

    /// The certificate that goes with the key.
    ///
    /// # Errors
    /// Never, as it was read before.
    pub fn leaf(&self) -> Result<Certificate<'_>, StoreError> {
        Certificate::parse(self.certified.cert.first().ok_or(StoreError::NoCertificate)?)
    }

    /// The certificates that are sent, the leaf first.
    pub fn chain(&self) -> impl Iterator<Item = &[u8]> {
        self.certified.cert.iter().map(AsRef::as_ref)
    }
}

/// Puts a key and its certificates together.
fn certify(
    key: &PrivateKeyDer<'static>,
    chain: &[Vec<u8>],
    pool: &[Vec<u8>],
) -> Result<CertifiedKey, StoreError> {
    let whole = any_supported_type(key).ok();
    let fits = |certificate: &Vec<u8>| {
        let Ok(leaf) = Certificate::parse(certificate) else { return false };
        let public = whole.as_ref().map(|signer| signer.public_key());
        match public {
            Some(public) => public.is_none_or(|public| leaf.public_key == public.as_ref()),
            None => with_public_key(key, &leaf).is_some(),
        }
    };
    let mut chain = chain.to_vec();
    if chain.is_empty() {
        chain.extend(pool.iter().find(|certificate| fits(certificate)).cloned());
    }
    let first = chain.first().ok_or(StoreError::NoCertificate)?;
    let leaf = Certificate::parse(first)?;
    let signer = whole.clone().or_else(|| with_public_key(key, &leaf)).ok_or_else(|| {
        let what = "a private key of its kind, or the key of another certificate (RSA from 2048 bits on, \
                    EC P-256 and P-384, and Ed25519 can be)";
        StoreError::Unsupported(what.into())
    })?;
    if !fits(first) {
        return Err(StoreError::KeyMismatch);
    }
    while chain.len() < CHAIN_LEN_MAX {
        let Some(issuer) = issuer_of(chain.last(), pool) else { break };
        chain.push(issuer);
    }
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    Ok(CertifiedKey::new(chain, signer))
}

/// An EC key as `keytool` writes it, without its public half, which is taken from the certificate. `None`: it
/// is another kind of key, or that of another certificate.
fn with_public_key(key: &PrivateKeyDer<'_>, leaf: &Certificate<'_>) -> Option<Arc<dyn SigningKey>> {
    let PrivateKeyDer::Pkcs8(key) = key else { return None };
    let mut info = Der::new(key.secret_pkcs8_der()).sequence().ok()?;
    let version = info.any().ok()?.whole;
    let algorithm = info.any().ok()?.whole;
    let mut private = Der::new(info.take(OCTET_STRING).ok()?).sequence().ok()?;
    let private_version = private.any().ok()?.whole;
    let scalar = private.take(OCTET_STRING).ok()?;
    let mut public = Der::new(leaf.public_key).sequence().ok()?;
    let same_algorithm = public.any().ok()?.whole == algorithm;
    let point = public.any().ok()?.whole;
    let len = point.len().checked_sub(POINT_HEAD_LEN)? / 2;
    let digits = &scalar[scalar.iter().position(|digit| *digit != 0)?..];
    let zeros = vec![0; len.checked_sub(digits.len())?];
    let private = element(
        SEQUENCE,
        &[
            private_version,
            &element(OCTET_STRING, &[&zeros, digits]),
            &element(context(1), &[point]),
        ],
    );
    let whole = element(SEQUENCE, &[version, algorithm, &element(OCTET_STRING, &[&private])]);
    let signer = any_supported_type(&PrivateKeyDer::Pkcs8(whole.into())).ok();
    signer.filter(|_| same_algorithm)
}

/// Who has issued a certificate, unless it has itself.
fn issuer_of(certificate: Option<&Vec<u8>>, pool: &[Vec<u8>]) -> Option<Vec<u8>> {
    let certificate = Certificate::parse(certificate?).ok()?;
    if certificate.issuer == certificate.subject {
        return None;
    }
    let is_issuer = |other: &&Vec<u8>| {
        Certificate::parse(other).is_ok_and(|other| other.subject == certificate.issuer)
    };
    pool.iter().find(is_issuer).cloned()
}

/// Whom a server trusts: certificates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trust {
    pub(crate) certificates: Vec<Vec<u8>>,
    /// How many of them Java would not trust: those of a PKCS#12 store that `openssl` has made bear no
    /// mark that they must be trusted.
    pub unmarked: usize,
}

impl Trust {
    /// Reads a trust store.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn read(bytes: &[u8], password: &str) -> Result<Self, StoreError> {
        let Contents { trusted, unmarked, .. } = parse(bytes, password, false)?;
        if trusted.is_empty() {
            return Err(StoreError::NoCertificate);
        }
        for certificate in &trusted {
            Certificate::parse(certificate)?;
        }
        Ok(Self { certificates: trusted, unmarked })
    }

    /// The certificates.
    pub fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.certificates.iter().map(Vec::as_slice)
    }
}

/// Tag, length and unused bits of the string that is a point, and the octet that says uncompressed.
const POINT_HEAD_LEN: usize = 4;

/// Where a chain is put together, it ends here: issuers may go round in circles.
const CHAIN_LEN_MAX: usize = 16;
