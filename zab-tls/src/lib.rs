//! TLS as ZooKeeper configures it.
//!
//! * [`Identity`] and [`Trust`] are read from key and trust stores: PEM, PKCS#12 and Java's own, told apart by
//!   their content.
//! * [`ClientSettings`] and [`Dialer`] are for programs that only connect.
//! * [`Settings`] say how they are used, for clients or for members, and [`Tls`] is what a server's
//!   [`Listeners`](runtime_core::Listeners) are secured with.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod context;
mod crl;
mod der;
mod dialer;
mod error;
mod jks;
mod names;
mod pbe;
mod pem;
mod pkcs12;
mod session;
mod settings;
mod store;
mod tls;
mod verify;
mod version1;
mod x509;

pub use context::SetupError;
pub use crl::RevocationLists;
pub use dialer::{ClientSettings, Dialer};
pub use error::StoreError;
pub use names::matches;
pub use settings::{ClientAuth, Names, Secret, Settings, StoreFile};
pub use store::{Format, Identity, Trust};
pub use tls::{ADMIN, CLIENTS, Counts, MEMBERS, Ports, Tls};
pub use x509::{CLIENT_AUTH, Certificate, SERVER_AUTH};
