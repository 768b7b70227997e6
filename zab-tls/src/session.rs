//! One connection's TLS.

use std::fmt;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::sync::Arc;

use runtime_core::{Cipher, CipherError};
use rustls::{AlertDescription, Connection, Error, PeerMisbehaved, ProtocolVersion};

use crate::context::suite_name;
use crate::names::matches;
use crate::settings::Names;
use crate::verify::Verifier;
use crate::x509::Certificate;

/// A TLS connection, in either role.
pub(crate) struct Session {
    connection: Connection,
    verifier: Option<Arc<Verifier>>,
    /// What the other side's certificate has to name, until it was looked at.
    expected: Option<Expected>,
    ended: bool,
    end_said: bool,
}

/// Names and addresses of which the certificate of the other side must have one.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) hosts: Vec<String>,
    pub(crate) names: Names,
}

impl Expected {
    /// Those of `addresses` (`host:port`, joined by `|`), and where the connection leads.
    pub(crate) fn new(addresses: &str, remote: Option<IpAddr>, names: Names) -> Self {
        let mut hosts: Vec<String> = addresses.split('|').map(host).collect();
        hosts.extend(remote.map(|ip| ip.to_string()));
        hosts.retain(|host| !host.is_empty());
        hosts.dedup();
        Self { hosts, names }
    }
}

/// The host of `host:port`, without brackets.
pub(crate) fn host(address: &str) -> String {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("handshaking", &self.connection.is_handshaking())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(
        connection: Connection,
        verifier: Option<Arc<Verifier>>,
        expected: Expected,
    ) -> Self {
        let expected = Some(expected);
        Self { connection, verifier, expected, ended: false, end_said: false }
    }

    /// The handshake is done: is the certificate for whom it has to be?
    fn check_name(&mut self) -> Result<(), CipherError> {
        let Some(Expected { hosts, names }) = self.expected.take() else { return Ok(()) };
        let Some(leaf) = self.connection.peer_certificates().and_then(|chain| chain.first()) else {
            return Ok(());
        };
        if names == Names::Ignored {
            return Ok(());
        }
        let leaf = Certificate::parse(leaf)?;
        if hosts.iter().any(|host| matches(&leaf, host)) {
            return Ok(());
        }
        let text = format!(
            "its certificate ({}; {}) is for none of {}",
            leaf.subject_name(),
            named(&leaf),
            hosts.join(", ")
        );
        if names == Names::Warned {
            if self.verifier.as_ref().is_some_and(|verifier| verifier.misses(&text)) {
                log::warn!(
                    "A connection is accepted although {text}: ssl.quorum.hostnameVerification is not set; \
                     true would refuse it"
                );
            }
            return Ok(());
        }
        Err(format!("{text} (hostnameVerification)").into())
    }

    /// What `rustls` says, in words that tell an operator what to do.
    fn explain(&self, error: &Error) -> String {
        if let Error::InvalidCertificate(_) = error
            && let Some(text) = self.verifier.as_ref().and_then(|verifier| verifier.take_refusal())
        {
            return text;
        }
        match error {
            Error::NoCertificatesPresented => {
                "it has sent no certificate, which clientAuth=need demands".into()
            }
            Error::AlertReceived(
                alert @ (AlertDescription::UnknownCA
                | AlertDescription::CertificateUnknown
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateExpired
                | AlertDescription::UnsupportedCertificate),
            ) => format!("it does not trust our certificate (alert {alert:?})"),
            Error::AlertReceived(
                alert @ (AlertDescription::CertificateRequired | AlertDescription::AccessDenied),
            ) => {
                format!("it demands a certificate that we have not shown (alert {alert:?})")
            }
            Error::AlertReceived(alert) => format!("it has ended the handshake (alert {alert:?})"),
            Error::InvalidMessage(what) => format!("what it sends is not TLS ({what:?})"),
            Error::PeerIncompatible(what) => {
                format!("there is no protocol version or cipher suite in common ({what:?})")
            }
            Error::PeerMisbehaved(PeerMisbehaved::TooManyRenegotiationRequests) => {
                "it asks for renegotiation".into()
            }
            other => other.to_string(),
        }
    }
}

/// What a certificate names.
fn named(leaf: &Certificate<'_>) -> String {
    let names = leaf.dns_names.iter().map(|name| (*name).to_owned());
    let names: Vec<String> = names.chain(leaf.addresses.iter().map(IpAddr::to_string)).collect();
    if names.is_empty() { "no subjectAltName".into() } else { names.join(", ") }
}

impl Cipher for Session {
    fn read(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<usize, CipherError> {
        let mut source = bytes;
        let taken = self.connection.read_tls(&mut source)?;
        let state = match self.connection.process_new_packets() {
            Ok(state) => state,
            Err(error) => return Err(self.explain(&error).into()),
        };
        self.ended |= state.peer_has_closed();
        if !self.connection.is_handshaking() {
            self.check_name()?;
        }
        let (at, more) = (plain.len(), state.plaintext_bytes_to_read());
        if more > 0 {
            plain.resize(at + more, 0);
            self.connection.reader().read_exact(&mut plain[at..])?;
        }
        Ok(taken)
    }

    fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    fn has_ended(&self) -> bool {
        self.ended
    }

    fn seal(&mut self, plain: &[u8]) -> Result<(), CipherError> {
        Ok(self.connection.writer().write_all(plain)?)
    }

    fn write(&mut self, buf: &mut [u8]) -> usize {
        let len = buf.len();
        let mut left = buf;
        while !left.is_empty() && self.connection.wants_write() {
            // A slice takes what it has room for, and never fails.
            if !self.connection.write_tls(&mut left).is_ok_and(|n| n > 0) {
                break;
            }
        }
        len - left.len()
    }

    fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.end_said, true) {
            self.connection.send_close_notify();
        }
    }

    fn subject(&self) -> Option<String> {
        let leaf = self.connection.peer_certificates()?.first()?;
        Certificate::parse(leaf).ok().map(|leaf| leaf.subject_name())
    }

    fn describe(&self) -> String {
        let version = match self.connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "?",
        };
        let suite = self.connection.negotiated_cipher_suite();
        let resumed = match self.connection.handshake_kind() {
            Some(rustls::HandshakeKind::Resumed) => " - resumed",
            _ => "",
        };
        format!("{version} - {}{resumed}", suite.as_ref().map_or_else(|| "?".into(), suite_name))
    }
}
