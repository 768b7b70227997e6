//! SASL as ZooKeeper uses it: bytes in, bytes out, and who it was.
//!
//! * [`Jaas`] is the file in which Java programs write names and passwords.
//! * [`properties`] is the syntax of Java's other configuration files.
//! * [`digest_md5`] is the mechanism, for the side that is asked and the side that asks.
//! * [`members`] is how servers carry it on the election and quorum ports.
//! * [`PrincipalName`] turns the name somebody logged in with into the identity that ACLs have.
//!
//! Kerberos (GSSAPI) is not here.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod digest_md5;
mod directives;
mod jaas;
pub mod members;
mod name;
pub mod properties;

pub use jaas::{Jaas, JaasError, LoginModule, Users};
pub use name::{MalformedName, NameRules, PrincipalName};
