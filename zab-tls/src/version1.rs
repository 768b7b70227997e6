//! Leaves of version 1 or 2, of which `webpki` judges none: many a script makes such certificates, as `openssl x509 -req` does if
//! no extensions are asked for, and Java takes them.

use rustls::CertificateError;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, TrustAnchor};
use webpki::RawPublicKeyEntity;

use crate::x509::Certificate;

/// A CA of the trust store that may have issued them.
#[derive(Debug)]
pub(crate) struct Authority {
    subject: Vec<u8>,
    public_key: SubjectPublicKeyInfoDer<'static>,
}

impl Authority {
    /// `None` for a CA that may issue certain names only, as nobody would look at them.
    pub(crate) fn of(certificate: &Certificate<'_>, anchor: &TrustAnchor<'_>) -> Option<Self> {
        anchor.name_constraints.is_none().then(|| Self {
            subject: certificate.subject.to_vec(),
            public_key: certificate.public_key.to_vec().into(),
        })
    }
}

/// Judges a leaf that one of these has issued itself: its dates and its signature. It says no purposes, so it has all. What
/// others have issued, whose own certificates are sent along, is refused; and whatever there is if lists of
/// revoked certificates are to be looked at, as this does not.
///
/// # Errors
/// Why it is not trusted.
pub(crate) fn judge(
    leaf: &Certificate<'_>,
    authorities: &[Authority],
    algorithms: &WebPkiSupportedAlgorithms,
    now: i64,
    looks_up_revoked: bool,
) -> Result<(), CertificateError> {
    let mut issuers =
        authorities.iter().filter(|authority| authority.subject == leaf.issuer).peekable();
    if issuers.peek().is_none() {
        return Err(CertificateError::UnknownIssuer);
    }
    if !issuers.any(|issuer| has_signed(issuer, leaf, algorithms)) {
        return Err(CertificateError::BadSignature);
    }
    if now < leaf.not_before {
        return Err(CertificateError::NotValidYet);
    }
    if now > leaf.not_after {
        return Err(CertificateError::Expired);
    }
    if looks_up_revoked { Err(CertificateError::UnknownRevocationStatus) } else { Ok(()) }
}

fn has_signed(
    issuer: &Authority,
    leaf: &Certificate<'_>,
    algorithms: &WebPkiSupportedAlgorithms,
) -> bool {
    let Ok(key) = RawPublicKeyEntity::try_from(&issuer.public_key) else { return false };
    let named = |one: &&dyn SignatureVerificationAlgorithm| {
        one.signature_alg_id().as_ref() == leaf.algorithm
    };
    let mut fitting = algorithms.all.iter().copied().filter(named);
    fitting.any(|one| key.verify_signature(one, leaf.signed, leaf.signature).is_ok())
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    /// Seconds of a day in 2030.
    const NOW: i64 = 1_900_000_000;

    #[test]
    fn dates_and_signatures_count() {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        let read = |pem: &[u8]| CertificateDer::from_pem_slice(pem).unwrap().to_vec();
        let ca = read(include_bytes!("../tests/data/ca.pem"));
        let ca = CertificateDer::from(&ca[..]);
        let anchor = webpki::anchor_from_trusted_cert(&ca).unwrap();
        let authorities = [Authority::of(&Certificate::parse(&ca).unwrap(), &anchor).unwrap()];
        let verdict = |der: &[u8], now, lists| {
            let leaf = Certificate::parse(der).unwrap();
            assert!(leaf.is_old);
            judge(&leaf, &authorities, &algorithms, now, lists)
        };
        let old = read(include_bytes!("../tests/data/old.pem"));
        let expired = read(include_bytes!("../tests/data/old-expired.pem"));
        assert_eq!(verdict(&old, NOW, false), Ok(()));
        assert_eq!(verdict(&old, 0, false), Err(CertificateError::NotValidYet));
        assert_eq!(verdict(&expired, NOW, false), Err(CertificateError::Expired));
        assert_eq!(verdict(&old, NOW, true), Err(CertificateError::UnknownRevocationStatus));
        // Each byte of what is signed counts, wherever it can still be read.
        let mut refused = 0;
        for at in 0..old.len() {
            let mut forged = old.clone();
            forged[at] ^= 1;
            if let Ok(leaf) = Certificate::parse(&forged) {
                let told = judge(&leaf, &authorities, &algorithms, NOW, false);
                assert!(told.is_err() || !leaf.is_old, "byte {at}");
                refused += 1;
            }
        }
        assert!(refused > old.len() / 2, "{refused}");
    }
}
