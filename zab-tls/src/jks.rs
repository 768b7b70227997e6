//! The Java key store: what `keytool` wrote until Java 8, and still does if asked.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::der::{Der, OCTET_STRING};
use crate::error::StoreError;
use crate::pbe::Password;
use crate::store::{Contents, KeyEntry};

pub(crate) const MAGIC: [u8; 4] = [0xfe, 0xed, 0xfe, 0xed];

/// The format of those that Java's `JCEKS` type writes.
pub(crate) const MAGIC_JCEKS: [u8; 4] = [0xce; 4];

/// Reads a store; its keys, too, if wanted.
pub(crate) fn parse(
    bytes: &[u8],
    password: Password<'_>,
    keys: bool,
) -> Result<Contents, StoreError> {
    let len = bytes.len().checked_sub(DIGEST_LEN).ok_or(StoreError::Damaged)?;
    let (body, sum) = bytes.split_at(len);
    let whole = [&password.utf16()[..], b"Mighty Aphrodite", body].concat();
    if digest(&SHA1_FOR_LEGACY_USE_ONLY, &whole).as_ref() != sum && !cfg!(fuzzing) {
        return Err(StoreError::Password);
    }
    let mut source = Source(body);
    source.bytes(MAGIC.len())?;
    let version = source.u32()?;
    if !(1..=2).contains(&version) {
        return Err(StoreError::Unsupported(format!("version {version} of a Java key store")));
    }
    let mut contents = Contents::default();
    for _ in 0..source.u32()? {
        let tag = source.u32()?;
        let len = source.u16()?;
        let alias = String::from_utf8_lossy(source.bytes(len)?).into_owned();
        source.bytes(TIME_LEN)?;
        match tag {
            KEY => {
                let len = source.u32()?;
                let protected = source.bytes(len as usize)?;
                let count = source.u32()?;
                let mut chain = Vec::new();
                for _ in 0..count {
                    chain.push(source.certificate(version)?);
                }
                if keys {
                    let key = unprotect(protected, password)?;
                    contents.keys.push(KeyEntry::pkcs8(alias, key, chain));
                }
            }
            CERTIFICATE => contents.trusted.push(source.certificate(version)?),
            _ => return Err(StoreError::Damaged),
        }
    }
    Ok(contents)
}

/// Undoes Sun's protection of a key: a stream of SHA-1 over password and salt.
fn unprotect(protected: &[u8], password: Password<'_>) -> Result<Vec<u8>, StoreError> {
    let mut info = Der::new(protected).sequence()?;
    let (algorithm, _) = info.algorithm()?;
    if algorithm != SUN_PROTECTION {
        return Err(StoreError::Unsupported("the protection of a key in it".into()));
    }
    let octets = info.take(OCTET_STRING)?;
    let (salt, rest) = octets.split_at_checked(DIGEST_LEN).ok_or(StoreError::Damaged)?;
    let len = rest.len().checked_sub(DIGEST_LEN).ok_or(StoreError::Damaged)?;
    let (data, check) = rest.split_at(len);
    let password = password.utf16();
    let mut key = Vec::with_capacity(data.len());
    let mut stream = salt.to_vec();
    for piece in data.chunks(DIGEST_LEN) {
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[&password[..], &stream].concat());
        key.extend(piece.iter().zip(hash.as_ref()).map(|(byte, mask)| byte ^ mask));
        stream.clear();
        stream.extend_from_slice(hash.as_ref());
    }
    let sum = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[&password[..], &key].concat());
    if sum.as_ref() == check { Ok(key) } else { Err(StoreError::Password) }
}

struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    fn bytes(&mut self, len: usize) -> Result<&'a [u8], StoreError> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(StoreError::Damaged)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, StoreError> {
        let bytes = self.bytes(4)?.try_into().map_err(|_| StoreError::Damaged)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn u16(&mut self) -> Result<usize, StoreError> {
        let bytes = self.bytes(2)?.try_into().map_err(|_| StoreError::Damaged)?;
        Ok(u16::from_be_bytes(bytes).into())
    }

    fn certificate(&mut self, version: u32) -> Result<Vec<u8>, StoreError> {
        if version == 2 {
            let len = self.u16()?;
            self.bytes(len)?;
        }
        let len = self.u32()?;
        Ok(self.bytes(len as usize)?.to_vec())
    }
}

const DIGEST_LEN: usize = 20;
const TIME_LEN: usize = 8;
const KEY: u32 = 1;
const CERTIFICATE: u32 = 2;
const SUN_PROTECTION: &[u8] = &[0x2b, 6, 1, 4, 1, 0x2a, 2, 0x11, 1, 1];
