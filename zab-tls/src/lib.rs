//! TLS as ZooKeeper configures it.
//!
//! * [`Identity`] and [`Trust`] are read from key and trust stores: PEM, PKCS#12 and Java's own, told apart by
//!   their content.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod der;
mod error;
mod jks;
mod names;
mod pbe;
mod pem;
mod pkcs12;
mod store;
mod x509;

pub use error::StoreError;
pub use names::matches;
pub use store::{Format, Identity, Trust};
pub use x509::{CLIENT_AUTH, Certificate, SERVER_AUTH};
