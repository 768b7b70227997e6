//! Encryption by passwords, as in PKCS#8 keys and PKCS#12 stores: PBES2 of PKCS#5, and the older schemes of
//! PKCS#12 that `keytool` and `openssl` wrote by default until a few years ago.

use std::num::NonZeroU32;

use aes::{Aes128, Aes192, Aes256};
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockDecryptMut, InnerIvInit, KeyInit};
use des::TdesEde3;
use rc2::Rc2;
use ring::digest::{self, digest};
use ring::pbkdf2;

use crate::der::{Der, INTEGER, OCTET_STRING, dotted};
use crate::error::StoreError;

/// A password in the two forms in which formats want it.
#[derive(Clone, Copy)]
pub(crate) struct Password<'a>(pub(crate) &'a str);

impl Password<'_> {
    /// UTF-16, big endian.
    pub(crate) fn utf16(self) -> Vec<u8> {
        self.0.encode_utf16().flat_map(u16::to_be_bytes).collect()
    }

    /// The same with a zero at the end, as PKCS#12 has it.
    fn pkcs12(self) -> Vec<u8> {
        let mut bytes = self.utf16();
        bytes.extend([0, 0]);
        bytes
    }
}

/// Undoes the encryption that `algorithm` (of an `AlgorithmIdentifier`) and its parameters describe.
pub(crate) fn decrypt(
    (algorithm, mut parameters): (&[u8], Der<'_>),
    password: Password<'_>,
    data: &[u8],
) -> Result<Vec<u8>, StoreError> {
    if algorithm == PBES2 {
        return pbes2(&mut parameters, password, data);
    }
    let mut inside = parameters.sequence()?;
    let salt = inside.take(OCTET_STRING)?;
    let iterations = iterations(inside.number()?)?;
    let derive = |purpose, len| {
        pkcs12_kdf(&digest::SHA1_FOR_LEGACY_USE_ONLY, password, salt, iterations, purpose, len)
    };
    let iv = || derive(Purpose::Iv, 8);
    match algorithm {
        PBE_SHA_3DES => cbc::<TdesEde3>(&derive(Purpose::Key, 24), &iv(), data),
        PBE_SHA_RC2_128 => rc2_cbc(&derive(Purpose::Key, 16), 128, &iv(), data),
        PBE_SHA_RC2_40 => rc2_cbc(&derive(Purpose::Key, 5), 40, &iv(), data),
        _ => Err(StoreError::Unsupported(format!("the encryption {}", dotted(algorithm)))),
    }
}

fn pbes2(
    parameters: &mut Der<'_>,
    password: Password<'_>,
    data: &[u8],
) -> Result<Vec<u8>, StoreError> {
    let mut inside = parameters.sequence()?;
    let (kdf, mut derivation) = inside.algorithm()?;
    let (cipher, mut iv) = inside.algorithm()?;
    if kdf != PBKDF2 {
        return Err(StoreError::Unsupported(format!("the key derivation {}", dotted(kdf))));
    }
    let key_len = match cipher {
        AES_128_CBC => 16,
        AES_192_CBC | DES_EDE3_CBC => 24,
        AES_256_CBC => 32,
        _ => return Err(StoreError::Unsupported(format!("the encryption {}", dotted(cipher)))),
    };
    let key = pbkdf2_key(&mut derivation, password, key_len)?;
    let iv = iv.take(OCTET_STRING)?;
    match cipher {
        AES_128_CBC => cbc::<Aes128>(&key, iv, data),
        AES_192_CBC => cbc::<Aes192>(&key, iv, data),
        DES_EDE3_CBC => cbc::<TdesEde3>(&key, iv, data),
        _ => cbc::<Aes256>(&key, iv, data),
    }
}

/// The parameters of PBKDF2 and what it makes of the password.
pub(crate) fn pbkdf2_key(
    derivation: &mut Der<'_>,
    password: Password<'_>,
    len: usize,
) -> Result<Vec<u8>, StoreError> {
    let mut inside = derivation.sequence()?;
    let salt = inside.take(OCTET_STRING)?;
    let iterations = iterations(inside.number()?)?;
    // The length of the key follows from the cipher.
    inside.maybe(INTEGER)?;
    let function = if inside.is_empty() { HMAC_SHA1 } else { inside.algorithm()?.0 };
    let function = match function {
        HMAC_SHA1 => pbkdf2::PBKDF2_HMAC_SHA1,
        HMAC_SHA256 => pbkdf2::PBKDF2_HMAC_SHA256,
        HMAC_SHA384 => pbkdf2::PBKDF2_HMAC_SHA384,
        HMAC_SHA512 => pbkdf2::PBKDF2_HMAC_SHA512,
        other => return Err(StoreError::Unsupported(format!("the function {}", dotted(other)))),
    };
    let mut key = vec![0; len];
    pbkdf2::derive(function, iterations, salt, password.0.as_bytes(), &mut key);
    Ok(key)
}

/// # Errors
/// So many that the file is damaged, or made to keep us busy.
pub(crate) fn iterations(n: u32) -> Result<NonZeroU32, StoreError> {
    let too_many = || StoreError::Unsupported(format!("{n} iterations of a key derivation"));
    NonZeroU32::new(n).filter(|n| n.get() <= ITERATIONS_MAX).ok_or_else(too_many)
}

/// What bytes are derived for (RFC 7292, appendix B.3).
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    Key = 1,
    Iv = 2,
    Mac = 3,
}

/// The key derivation of PKCS#12 (RFC 7292, appendix B.2).
pub(crate) fn pkcs12_kdf(
    function: &'static digest::Algorithm,
    password: Password<'_>,
    salt: &[u8],
    iterations: NonZeroU32,
    purpose: Purpose,
    len: usize,
) -> Vec<u8> {
    let block = function.block_len();
    let filled = |bytes: &[u8]| -> Vec<u8> {
        bytes.iter().copied().cycle().take(bytes.len().div_ceil(block) * block).collect()
    };
    let mut input = [filled(salt), filled(&password.pkcs12())].concat();
    let mut out = Vec::new();
    loop {
        let mut hash = digest(function, &[&vec![purpose as u8; block][..], &input].concat());
        for _ in 1..iterations.get() {
            hash = digest(function, hash.as_ref());
        }
        out.extend_from_slice(hash.as_ref());
        if out.len() >= len {
            out.truncate(len);
            return out;
        }
        // Each block of the input plus the hash, repeated to a block's length, plus one.
        let addend: Vec<u8> = hash.as_ref().iter().copied().cycle().take(block).collect();
        for piece in input.chunks_mut(block) {
            let mut carry = 1;
            for (digit, other) in piece.iter_mut().zip(&addend).rev() {
                let sum = u16::from(*digit) + u16::from(*other) + carry;
                let [high, low] = sum.to_be_bytes();
                *digit = low;
                carry = u16::from(high);
            }
        }
    }
}

fn cbc<C>(key: &[u8], iv: &[u8], data: &[u8]) -> Result<Vec<u8>, StoreError>
where
    C: KeyInit + BlockDecryptMut + cbc::cipher::BlockCipher,
{
    let cipher = C::new_from_slice(key).map_err(|_| StoreError::Damaged)?;
    finish(cipher, iv, data)
}

fn rc2_cbc(key: &[u8], bits: usize, iv: &[u8], data: &[u8]) -> Result<Vec<u8>, StoreError> {
    finish(Rc2::new_with_eff_key_len(key, bits), iv, data)
}

fn finish<C>(cipher: C, iv: &[u8], data: &[u8]) -> Result<Vec<u8>, StoreError>
where
    C: BlockDecryptMut + cbc::cipher::BlockCipher,
{
    let cipher =
        cbc::Decryptor::<C>::inner_iv_slice_init(cipher, iv).map_err(|_| StoreError::Damaged)?;
    // Only the right password makes the padding right, but for one in 256 wrong ones.
    cipher.decrypt_padded_vec_mut::<Pkcs7>(data).map_err(|_| StoreError::Password)
}

/// A hundred times what `keytool` and `openssl` write.
const ITERATIONS_MAX: u32 = if cfg!(fuzzing) { 2_000 } else { 5_000_000 };

const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 13];
const PBKDF2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 12];
const PBE_SHA_3DES: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 1, 3];
const PBE_SHA_RC2_128: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 1, 5];
const PBE_SHA_RC2_40: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 1, 6];
const AES_128_CBC: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 2];
const AES_192_CBC: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 22];
const AES_256_CBC: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 42];
const DES_EDE3_CBC: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 3, 7];
const HMAC_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 7];
const HMAC_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 9];
const HMAC_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 10];
const HMAC_SHA512: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 11];
