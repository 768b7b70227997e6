//! PKCS#12 (RFC 7292): what `keytool` writes since Java 9 whatever the file is called, and `openssl pkcs12`.

use ring::{digest, hmac};

use crate::der::{Der, INTEGER, OCTET_STRING, OID, SEQUENCE, SET, context, dotted};
use crate::error::StoreError;
use crate::pbe::{Password, Purpose, decrypt, iterations, pbkdf2_key, pkcs12_kdf};
use crate::store::{Contents, KeyEntry};

/// A certificate with what is said of it.
struct Found {
    certificate: Vec<u8>,
    attributes: Attributes,
}

#[derive(Default)]
struct Attributes {
    alias: String,
    /// Ties a certificate to its key.
    key_id: Option<Vec<u8>>,
    /// Java's mark of trusted certificates.
    trusted: bool,
}

#[derive(Default)]
struct Bags {
    certificates: Vec<Found>,
    keys: Vec<(Vec<u8>, Attributes)>,
    /// Keys that were seen, wanted or not.
    keys_seen: usize,
}

/// Reads a store; its keys, too, if wanted.
pub(crate) fn parse(
    bytes: &[u8],
    password: Password<'_>,
    keys: bool,
) -> Result<Contents, StoreError> {
    let mut pfx = Der::new(bytes).sequence()?;
    if pfx.number()? != 3 {
        return Err(StoreError::Unsupported("another version of PKCS#12 than 3".into()));
    }
    let mut auth_safe = pfx.sequence()?;
    if auth_safe.take(OID)? != DATA {
        return Err(StoreError::Unsupported("a PKCS#12 store that is signed".into()));
    }
    let safes = auth_safe.open(context(0))?.take(OCTET_STRING)?;
    if !pfx.is_empty() {
        check_mac(pfx.sequence()?, password, safes)?;
    }
    let mut bags = Bags::default();
    let mut infos = Der::new(safes).sequence()?;
    while !infos.is_empty() {
        let mut info = infos.sequence()?;
        let kind = info.take(OID)?;
        let mut content = info.open(context(0))?;
        match kind {
            DATA => bags.read(Der::new(content.take(OCTET_STRING)?), password, keys, 0)?,
            ENCRYPTED_DATA => {
                let mut encrypted = content.sequence()?;
                encrypted.take(INTEGER)?;
                let mut inside = encrypted.sequence()?;
                inside.take(OID)?;
                let algorithm = inside.algorithm()?;
                let plain = decrypt(algorithm, password, inside.take(IMPLICIT_OCTETS)?)?;
                bags.read(Der::new(&plain), password, keys, 0)?;
            }
            _ => return Err(StoreError::Unsupported(format!("the content {}", dotted(kind)))),
        }
    }
    Ok(bags.into_contents())
}

/// Whether the store is what its owner made of it.
fn check_mac(mut mac: Der<'_>, password: Password<'_>, safes: &[u8]) -> Result<(), StoreError> {
    let mut info = mac.sequence()?;
    let (algorithm, mut parameters) = info.algorithm()?;
    let sum = info.take(OCTET_STRING)?;
    let (function, key) = if algorithm == PBMAC1 {
        let mut inside = parameters.sequence()?;
        let (kdf, mut derivation) = inside.algorithm()?;
        let function = match inside.algorithm()?.0 {
            HMAC_SHA256 => hmac::HMAC_SHA256,
            HMAC_SHA384 => hmac::HMAC_SHA384,
            HMAC_SHA512 => hmac::HMAC_SHA512,
            other => return Err(StoreError::Unsupported(format!("the MAC {}", dotted(other)))),
        };
        let _ = kdf;
        (function, pbkdf2_key(&mut derivation, password, sum.len())?)
    } else {
        let (function, hash) = match algorithm {
            SHA1 => (hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &digest::SHA1_FOR_LEGACY_USE_ONLY),
            SHA256 => (hmac::HMAC_SHA256, &digest::SHA256),
            SHA384 => (hmac::HMAC_SHA384, &digest::SHA384),
            SHA512 => (hmac::HMAC_SHA512, &digest::SHA512),
            other => return Err(StoreError::Unsupported(format!("the MAC {}", dotted(other)))),
        };
        let salt = mac.take(OCTET_STRING)?;
        let n = if mac.is_empty() { 1 } else { mac.number()? };
        let len = hash.output_len();
        (function, pkcs12_kdf(hash, password, salt, iterations(n)?, Purpose::Mac, len))
    };
    let verified = hmac::verify(&hmac::Key::new(function, &key), safes, sum);
    if verified.is_err() && !cfg!(fuzzing) {
        return Err(StoreError::Password);
    }
    Ok(())
}

impl Bags {
    fn read(
        &mut self,
        mut contents: Der<'_>,
        password: Password<'_>,
        keys: bool,
        depth: u8,
    ) -> Result<(), StoreError> {
        let mut contents = contents.sequence()?;
        while !contents.is_empty() {
            let mut bag = contents.sequence()?;
            let kind = bag.take(OID)?;
            let mut value = bag.open(context(0))?;
            let attributes = attributes(&mut bag)?;
            match kind.strip_prefix(BAG_TYPES) {
                Some([KEY_BAG | SHROUDED_KEY_BAG]) if !keys => self.keys_seen += 1,
                Some([KEY_BAG]) => self.keys.push((value.any()?.whole.to_vec(), attributes)),
                Some([SHROUDED_KEY_BAG]) => {
                    let mut info = value.sequence()?;
                    let algorithm = info.algorithm()?;
                    let key = decrypt(algorithm, password, info.take(OCTET_STRING)?)?;
                    self.keys.push((key, attributes));
                }
                Some([CERT_BAG]) => {
                    let mut inside = value.sequence()?;
                    if inside.take(OID)? == X509_CERTIFICATE {
                        let certificate = inside.open(context(0))?.take(OCTET_STRING)?.to_vec();
                        self.certificates.push(Found { certificate, attributes });
                    }
                }
                Some([SAFE_CONTENTS_BAG]) if depth < DEPTH_MAX => {
                    self.read(value, password, keys, depth + 1)?;
                }
                // CRLs, secrets.
                _ => {}
            }
        }
        Ok(())
    }

    fn into_contents(self) -> Contents {
        let mut contents = Contents::default();
        let has_keys = self.keys_seen > 0 || !self.keys.is_empty();
        for found in &self.certificates {
            // A store without keys is one of what is trusted, though `openssl` makes no such marks. In one
            // with keys the others are what their certificates were issued by.
            if found.attributes.trusted || !has_keys {
                contents.unmarked += usize::from(!found.attributes.trusted);
                contents.trusted.push(found.certificate.clone());
            }
        }
        for (key, attributes) in self.keys {
            let is_its = |found: &&Found| {
                found.attributes.key_id.is_some() && found.attributes.key_id == attributes.key_id
            };
            let leaf = self.certificates.iter().find(is_its);
            let chain = leaf.map(|found| found.certificate.clone()).into_iter().collect();
            contents.keys.push(KeyEntry::pkcs8(attributes.alias, key, chain));
        }
        contents.pool = self.certificates.into_iter().map(|found| found.certificate).collect();
        contents
    }
}

fn attributes(bag: &mut Der<'_>) -> Result<Attributes, StoreError> {
    let mut found = Attributes::default();
    let Some(set) = bag.maybe(SET)? else { return Ok(found) };
    let mut set = Der::new(set);
    while !set.is_empty() {
        let mut attribute = Der::new(set.take(SEQUENCE)?);
        let kind = attribute.take(OID)?;
        let mut values = attribute.open(SET)?;
        match kind {
            FRIENDLY_NAME => {
                let units = values.any()?.value.chunks_exact(2);
                let units: Vec<_> =
                    units.map(|unit| u16::from_be_bytes([unit[0], unit[1]])).collect();
                found.alias = String::from_utf16_lossy(&units);
            }
            LOCAL_KEY_ID => found.key_id = Some(values.any()?.value.to_vec()),
            TRUSTED_KEY_USAGE => found.trusted = true,
            _ => {}
        }
    }
    Ok(found)
}

/// Bags in bags.
const DEPTH_MAX: u8 = 4;

/// `[0]` with the octets of a string that its tag hides.
const IMPLICIT_OCTETS: u8 = 0x80;

const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
const ENCRYPTED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 6];
const BAG_TYPES: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 10, 1];
const KEY_BAG: u8 = 1;
const SHROUDED_KEY_BAG: u8 = 2;
const CERT_BAG: u8 = 3;
const SAFE_CONTENTS_BAG: u8 = 6;
const X509_CERTIFICATE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 22, 1];
const FRIENDLY_NAME: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 20];
const LOCAL_KEY_ID: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 21];
/// Oracle's, 2.16.840.1.113894.746875.1.1.
const TRUSTED_KEY_USAGE: &[u8] = &[0x60, 0x86, 0x48, 1, 0x86, 0xf9, 0x66, 0xad, 0xca, 0x7b, 1, 1];
const PBMAC1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 14];
const HMAC_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 9];
const HMAC_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 10];
const HMAC_SHA512: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 11];
const SHA1: &[u8] = &[0x2b, 0x0e, 3, 2, 0x1a];
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
const SHA384: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2];
const SHA512: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3];
