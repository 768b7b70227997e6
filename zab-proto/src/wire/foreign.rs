//! Protocols that come to the wrong port.

use core::fmt;

/// Another protocol, told by the first four bytes of a connection. As numbers they are lengths or
/// ids that nobody understands in a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Foreign {
    /// A request of HTTP, or an answer.
    Http,
    /// A record of TLS, such as its first, the `ClientHello`.
    Tls,
    /// The greeting of SSH.
    Ssh,
    /// A login of a member (`quorum.auth.learnerRequireSasl`), where nobody takes one.
    Sasl,
}

impl Foreign {
    /// The protocol that a connection with these first bytes speaks, if it is one of these. Nothing
    /// that ZooKeeper sends first looks like one.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes.first_chunk::<4>()? {
            b"GET " | b"POST" | b"HEAD" | b"PUT " | b"OPTI" | b"DELE" | b"PATC" | b"CONN"
            | b"TRAC" | b"PRI " | b"HTTP" => Some(Self::Http),
            [0x14..=0x17, 3, 0..=4, _] => Some(Self::Tls),
            b"SSH-" => Some(Self::Ssh),
            // The first half of `QuorumAuth.QUORUM_AUTH_MAGIC_NUMBER`.
            [0x5f, 0x24, 0x35, 0x01] => Some(Self::Sasl),
            _ => None,
        }
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::Tls => "TLS",
            Self::Ssh => "SSH",
            Self::Sasl => "SASL (quorum.auth.enableSasl is not on here)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes() {
        for (number, want) in [
            (1_195_725_856, Some(Foreign::Http)),
            (1_347_375_956, Some(Foreign::Http)),
            (0x1603_0100, Some(Foreign::Tls)),
            (0x1603_0302, Some(Foreign::Tls)),
            (0x5353_482d, Some(Foreign::Ssh)),
            (0x5f24_3501, Some(Foreign::Sasl)),
            // Lengths of a client's first frame, a four-letter word, FOLLOWERINFO, protocol versions.
            (44, None),
            (45, None),
            (i32::from_be_bytes(*b"ruok"), None),
            (11, None),
            (16, None),
            (-1, None),
            (0x1602_0100, None),
        ] {
            assert_eq!(Foreign::of(&i32::to_be_bytes(number)), want, "{number}");
        }
        assert_eq!(Foreign::of(b"GET"), None);
    }
}
