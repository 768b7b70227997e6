//! Who is trusted.
//!
//! A certificate that itself stands in the trust store is, whatever it looks like, as by Java; many
//! installations have nothing else. `webpki` would refuse it for being of version 1, for being a CA, or
//! for having its name in the wrong place. Everybody else needs a chain to a CA of the trust store, which
//! `webpki` judges.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{
    CertificateDer, ServerName, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, RawPublicKeyEntity,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
};

use crate::store::Trust;
use crate::version1::{self, Authority};
use crate::x509::Certificate;

/// Judges the certificates of both directions.
#[derive(Debug)]
pub(crate) struct Verifier {
    anchors: Vec<TrustAnchor<'static>>,
    authorities: Vec<Authority>,
    trusted: HashSet<Vec<u8>>,
    subjects: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
    /// Lists of revoked certificates, if they are looked at.
    revoked: Option<Vec<CertRevocationList<'static>>>,
    accept_expired: bool,
    mandatory: bool,
    /// Why the last certificate was refused. The error that `rustls` hands on has no room for it.
    refusal: Mutex<Option<String>>,
    /// Names that were missed and are not missed aloud again.
    missed: Mutex<HashSet<String>>,
}

impl Verifier {
    pub(crate) fn new(
        trust: &Trust,
        revoked: Option<Vec<CertRevocationList<'static>>>,
        algorithms: WebPkiSupportedAlgorithms,
        accept_expired: bool,
        mandatory: bool,
    ) -> Self {
        let mut verifier = Self {
            anchors: Vec::new(),
            authorities: Vec::new(),
            trusted: trust.certificates.iter().cloned().collect(),
            subjects: Vec::new(),
            algorithms,
            revoked,
            accept_expired,
            mandatory,
            refusal: Mutex::default(),
            missed: Mutex::default(),
        };
        for der in &trust.certificates {
            let Ok(certificate) = Certificate::parse(der) else { continue };
            verifier.subjects.push(DistinguishedName::from(certificate.subject.to_vec()));
            // A leaf that is trusted may not make others trusted.
            if certificate.is_ca
                && let Ok(anchor) =
                    webpki::anchor_from_trusted_cert(&CertificateDer::from(&der[..]))
            {
                verifier.authorities.extend(Authority::of(&certificate, &anchor));
                verifier.anchors.push(anchor.to_owned());
            }
        }
        verifier
    }

    /// Why the last certificate was refused.
    pub(crate) fn take_refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether a name is missed for the first time, as far as that is remembered.
    pub(crate) fn misses(&self, what: &str) -> bool {
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        if missed.len() >= MISSED_MAX {
            missed.clear();
        }
        missed.insert(what.to_owned())
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        let parsed = Certificate::parse(leaf);
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let verdict = if self.trusted.contains(leaf.as_ref()) {
            let now = seconds;
            match &parsed {
                Ok(parsed) if self.accept_expired || parsed.is_valid_at(now) => Ok(()),
                Ok(parsed) if now < parsed.not_before => Err(CertificateError::NotValidYet.into()),
                Ok(_) => Err(CertificateError::Expired.into()),
                Err(_) => Err(CertificateError::BadEncoding.into()),
            }
        } else if let Some(old) = parsed.as_ref().ok().filter(|parsed| parsed.is_old) {
            let looks_up = self.revoked.is_some();
            version1::judge(old, &self.authorities, &self.algorithms, seconds, looks_up)
                .map_err(Error::from)
        } else {
            self.judge_chain(leaf, others, now, usage)
        };
        if let Err(error) = &verdict {
            let is_old = parsed.as_ref().is_ok_and(|parsed| parsed.is_old);
            let subject = parsed.map_or_else(|_| "?".into(), |parsed| parsed.subject_name());
            let why = match error {
                Error::InvalidCertificate(CertificateError::UnknownIssuer) if is_old => {
                    "no CA of the trust store has issued it itself, as one of version 1 needs it, and it is not in the trust store itself".into()
                }
                Error::InvalidCertificate(CertificateError::UnknownRevocationStatus) if is_old => {
                    "lists of revoked certificates are not looked up for one of version 1".into()
                }
                Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                    "no CA of the trust store has issued it, and it is not in the trust store itself"
                        .into()
                }
                Error::InvalidCertificate(
                    CertificateError::Expired | CertificateError::ExpiredContext { .. },
                ) => "it has expired".into(),
                Error::InvalidCertificate(
                    CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
                ) => "it is not valid yet".into(),
                Error::InvalidCertificate(CertificateError::Revoked) => {
                    "it, or one above it, has been revoked".into()
                }
                Error::InvalidCertificate(CertificateError::UnknownRevocationStatus) => {
                    "zab.tls.crlFile has no list of the CA that has issued it, or one above it".into()
                }
                Error::InvalidCertificate(
                    CertificateError::ExpiredRevocationList
                    | CertificateError::ExpiredRevocationListContext { .. },
                ) => "the list of its CA in zab.tls.crlFile is out of date".into(),
                other => other.to_string(),
            };
            let text = format!("its certificate ({subject}) is refused: {why}");
            *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        }
        verdict
    }

    fn judge_chain(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        let end = EndEntityCert::try_from(leaf).map_err(of_webpki)?;
        let lists: Option<Vec<&CertRevocationList<'_>>> =
            self.revoked.as_ref().map(|lists| lists.iter().collect());
        // As Java: all of the chain but what stands in the trust store, and what cannot be told is no.
        let revocation = lists.as_deref().and_then(|lists| {
            let options = RevocationOptionsBuilder::new(lists).ok()?;
            let options = options.with_depth(RevocationCheckDepth::Chain);
            let options = options.with_status_policy(UnknownStatusPolicy::Deny);
            Some(options.with_expiration_policy(ExpirationPolicy::Enforce).build())
        });
        let (all, anchors) = (self.algorithms.all, &self.anchors);
        end.verify_for_usage(all, anchors, others, now, usage, revocation, None)
            .map(drop)
            .map_err(of_webpki)
    }

    fn verify12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if EndEntityCert::try_from(certificate).is_ok() {
            return verify_tls12_signature(message, certificate, signed, &self.algorithms);
        }
        // A certificate of version 1, of which only the key is of interest.
        let key = public_key(certificate)?;
        let entity = RawPublicKeyEntity::try_from(&key).map_err(of_webpki)?;
        let of_scheme =
            self.algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signed.scheme);
        let valid = of_scheme
            .flat_map(|(_, algorithms)| *algorithms)
            .any(|one| entity.verify_signature(*one, message, signed.signature()).is_ok());
        if !valid {
            return Err(CertificateError::BadSignature.into());
        }
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = public_key(certificate)?;
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
    }
}

fn public_key(certificate: &CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'static>, Error> {
    let parsed = Certificate::parse(certificate).map_err(|_| CertificateError::BadEncoding)?;
    Ok(parsed.public_key.to_vec().into())
}

fn of_webpki(error: webpki::Error) -> Error {
    use webpki::Error as E;
    match error {
        // What `webpki` stumbles over first in a certificate that is its own issuer.
        E::UnknownIssuer | E::CaUsedAsEndEntity | E::UnsupportedCertVersion => {
            CertificateError::UnknownIssuer
        }
        E::CertExpired { .. } => CertificateError::Expired,
        E::CertNotValidYet { .. } => CertificateError::NotValidYet,
        E::CertRevoked => CertificateError::Revoked,
        E::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        E::CrlExpired { .. } => CertificateError::ExpiredRevocationList,
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding,
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        E::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        other => CertificateError::Other(rustls::OtherError(Arc::new(other))),
    }
    .into()
}

/// How many missed names are remembered.
const MISSED_MAX: usize = 1024;

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Its names are looked at when the handshake is done.
        self.judge(leaf, others, now, KeyUsage::server_auth())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify12(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify13(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// Java's clients choose their certificate by these.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(leaf, others, now, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify12(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify13(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
