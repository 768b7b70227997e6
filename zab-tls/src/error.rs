//! What is wrong with a store.

use std::fmt;

use crate::der::BadDer;

/// Why a key or trust store cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// None of the formats that are known, by its first bytes.
    Unknown,
    /// A format, or something inside, that cannot be read; the text says what, and what to do.
    Unsupported(String),
    /// The bytes are not what they say they are.
    Damaged,
    /// The password is wrong, or missing, or the file was changed without it.
    Password,
    /// It is no list of revoked certificates; the text says why.
    BadList(String),
    /// There is no private key in it.
    NoKey,
    /// There is no certificate in it, or none that goes with the key.
    NoCertificate,
    /// The key is not that of the certificate.
    KeyMismatch,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("neither PEM nor PKCS#12 nor JKS, by its content"),
            Self::Unsupported(what) => write!(f, "{what} cannot be read"),
            Self::Damaged => f.write_str("it is damaged"),
            Self::Password => f.write_str(
                "the password is wrong or missing, the key has another one, or the file was changed \
                 without it",
            ),
            Self::BadList(why) => {
                write!(f, "lists of revoked certificates cannot be read from it: {why}")
            }
            Self::NoKey => f.write_str("there is no private key in it"),
            Self::NoCertificate => {
                f.write_str("there is no certificate in it, or none for its private key")
            }
            Self::KeyMismatch => f.write_str("its private key is not that of its certificate"),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<BadDer> for StoreError {
    fn from(_: BadDer) -> Self {
        Self::Damaged
    }
}
