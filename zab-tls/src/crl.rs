//! Lists of revoked certificates, from a file.

use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use webpki::{CertRevocationList, OwnedCertRevocationList};

use crate::error::StoreError;

/// Lists of revoked certificates, as they are in a file.
#[derive(Debug)]
pub struct RevocationLists(Vec<CertRevocationList<'static>>);

impl RevocationLists {
    /// Reads the lists in a file: one in DER, or any number in PEM.
    ///
    /// # Errors
    /// What is in it is no list, of version 2 as of RFC 5280, or there is none.
    pub fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        read(bytes).map(Self)
    }

    /// How many there are, at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn into_inner(self) -> Vec<CertRevocationList<'static>> {
        self.0
    }
}

fn read(bytes: &[u8]) -> Result<Vec<CertRevocationList<'static>>, StoreError> {
    let one = |der: &[u8]| {
        let list = OwnedCertRevocationList::from_der(der);
        list.map(CertRevocationList::from).map_err(|error| StoreError::BadList(error.to_string()))
    };
    // A DER sequence begins so, and no text does.
    if bytes.first() == Some(&0x30) {
        return Ok(vec![one(bytes)?]);
    }
    let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(bytes)
        .map(|list| list.map_err(|error| StoreError::BadList(error.to_string())))
        .map(|list| one(&list?))
        .collect::<Result<_, _>>()?;
    if lists.is_empty() {
        return Err(StoreError::BadList("there is none in it".into()));
    }
    Ok(lists)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REVOKED: &[u8] = include_bytes!("../tests/data/revoked.crl");
    const OTHER: &[u8] = include_bytes!("../tests/data/other.crl");

    #[test]
    fn lists_in_pem_and_der() {
        assert_eq!(read(REVOKED).unwrap().len(), 1);
        assert_eq!(read(&[REVOKED, OTHER].concat()).unwrap().len(), 2);
        let der = CertificateRevocationListDer::from_pem_slice(REVOKED).unwrap();
        assert_eq!(read(&der).unwrap().len(), 1);
        for bad in [&[][..], b"nothing", &der[..der.len() - 1], &REVOKED[..200]] {
            assert!(read(bad).is_err());
        }
    }
}
