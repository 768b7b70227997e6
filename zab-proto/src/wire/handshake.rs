//! The first bytes on an election connection, from the side that dialled. There is no answer.

use core::net::IpAddr;

use bytes::BufMut;

use super::jute::{BufMutExt, Reader};
use super::{Foreign, Parsed};
use crate::{DecodeError, Sid};

/// The longest address text that is read, in bytes.
pub const ADDRESSES_LEN_MAX_BYTES: usize = 2048;

/// The longest handshake in bytes. A dialler must send it in one write: a Java server reads the
/// address text only once.
pub const LEN_MAX: usize = HEAD_LEN + ADDRESSES_LEN_MAX_BYTES;

/// Bytes in front of the address text.
const HEAD_LEN: usize = 20;

/// Which of its forms a handshake has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// 3.4 and older: only the server id.
    Legacy,
    /// 3.5 and newer: with one of the dialler's addresses.
    V1,
    /// 3.6 and newer with `multiAddress.enabled`: with all of its addresses.
    V2,
}

impl Form {
    /// The protocol version on the wire; `None` for [`Form::Legacy`], which has none.
    #[must_use]
    pub fn version(self) -> Option<i64> {
        match self {
            Self::Legacy => None,
            Self::V1 => Some(-65536),
            Self::V2 => Some(-65535),
        }
    }
}

/// Who dials, and where it can be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handshake<'a> {
    /// The form it has on the wire.
    pub form: Form,
    /// The dialler's id.
    pub sid: Sid,
    /// The dialler's election addresses as sent: `host:port`, more of them joined by `|`. Empty in
    /// [`Form::Legacy`].
    pub text: &'a str,
}

impl<'a> Handshake<'a> {
    /// Reads the handshake at the front of `bytes`.
    ///
    /// Malformed are an unknown protocol version, an address text that is empty or longer than
    /// [`ADDRESSES_LEN_MAX_BYTES`], and any address that is not a host and a port.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Parsed<Self> {
        Parsed::from_result(Self::read(bytes))
    }

    fn read(bytes: &'a [u8]) -> Result<(Self, usize), DecodeError> {
        if let Some(protocol) = Foreign::of(bytes) {
            return Err(DecodeError::Foreign(protocol));
        }
        let mut reader = Reader::new(bytes);
        let version = reader.i64()?;
        let form = match version {
            0.. => {
                let legacy = Self { form: Form::Legacy, sid: Sid(version), text: "" };
                return Ok((legacy, reader.position()));
            }
            -65536 => Form::V1,
            -65535 => Form::V2,
            _ => return Err(DecodeError::BadValue(version)),
        };
        let sid = Sid(reader.i64()?);
        let len = reader.i32()?;
        let text = match usize::try_from(len) {
            Ok(n @ 1..=ADDRESSES_LEN_MAX_BYTES) => reader.bytes(n)?,
            _ => return Err(DecodeError::BadLength(i64::from(len))),
        };
        let text = core::str::from_utf8(text).map_err(|_| DecodeError::BadText)?;
        if text.split('|').any(|address| split_address(address).is_none()) {
            return Err(DecodeError::BadText);
        }
        Ok((Self { form, sid, text }, reader.position()))
    }

    /// The addresses at which the dialler can be called back. Wildcards are left out; if there are
    /// none, the configured addresses must be used.
    pub fn addresses(&self) -> impl Iterator<Item = (&'a str, u16)> + use<'a> {
        self.text
            .split('|')
            .filter_map(split_address)
            .filter(|(host, _)| !host.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified()))
    }

    /// Length on the wire in bytes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        match self.form {
            Form::Legacy => 8,
            Form::V1 | Form::V2 => HEAD_LEN + self.text.len(),
        }
    }

    /// Writes the handshake to the front of `buf` and returns its length.
    ///
    /// # Panics
    /// If `buf` is shorter than [`encoded_len`](Self::encoded_len).
    pub fn emit(&self, mut buf: &mut [u8]) -> usize {
        self.write(&mut buf);
        self.encoded_len()
    }

    /// Writes the handshake.
    pub fn write(&self, out: &mut impl BufMut) {
        match self.form.version() {
            None => out.put_i64(self.sid.0),
            Some(version) => {
                out.put_i64(version);
                out.put_i64(self.sid.0);
                out.put_ustring(Some(self.text));
            }
        }
    }
}

/// Host and port of `host:port` or `[host]:port`.
fn split_address(address: &str) -> Option<(&str, u16)> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => rest.split_once("]:")?,
        None => address.split_once(':')?,
    };
    // A sign is no digit, though `parse` takes one; a second colon is no digit either.
    if host.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((host, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use alloc::vec::Vec;

    use super::*;

    fn encode(handshake: &Handshake<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        handshake.write(&mut out);
        assert_eq!(out.len(), handshake.encoded_len());
        out
    }

    fn addresses(text: &str) -> Parsed<Vec<(String, u16)>> {
        let bytes = encode(&Handshake { form: Form::V1, sid: Sid(3), text });
        match Handshake::parse(&bytes) {
            Parsed::Complete { value, len } => Parsed::Complete {
                value: value.addresses().map(|(host, port)| (host.into(), port)).collect(),
                len,
            },
            Parsed::Incomplete => Parsed::Incomplete,
            Parsed::Malformed(error) => Parsed::Malformed(error),
        }
    }

    #[test]
    fn forms() {
        for (form, text) in [
            (Form::Legacy, ""),
            (Form::V1, "127.0.0.1:25201"),
            (Form::V2, "a:1|b:2"),
            (Form::V1, "a:1|b:2"),
        ] {
            let handshake = Handshake { form, sid: Sid(7), text };
            let bytes = encode(&handshake);
            for len in 0..bytes.len() {
                assert_eq!(Handshake::parse(&bytes[..len]), Parsed::Incomplete);
            }
            let complete = Parsed::Complete { value: handshake, len: bytes.len() };
            assert_eq!(Handshake::parse(&[&bytes[..], b"frame"].concat()), complete);
        }
    }

    #[test]
    fn call_back_addresses() {
        let list = |text: &str| match addresses(text) {
            Parsed::Complete { value, .. } => value,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(list("h:1"), [("h".into(), 1)]);
        assert_eq!(list("[::1]:3888|h:65535"), [("::1".into(), 3888), ("h".into(), 65535)]);
        assert_eq!(list("0.0.0.0:1|h:2|[::]:3"), [("h".into(), 2)]);
        assert_eq!(list("0.0.0.0:1"), []);
        assert_eq!(list("[0:0:0:0:0:0:0:0]:1"), []);
    }

    #[test]
    fn malformed() {
        let bad = Parsed::Malformed(DecodeError::BadText);
        for text in [
            "h", "h:", ":1", "h:x", "h:+1", "h:1:2", "h:65536", "[::1", "[::1]", "[]:1", "h:1||i:2",
        ] {
            assert_eq!(addresses(text), bad, "{text}");
        }
        let long = "h".repeat(ADDRESSES_LEN_MAX_BYTES);
        assert_eq!(addresses(&long[..1]), bad);
        assert_eq!(addresses(&(long + ":1")), Parsed::Malformed(DecodeError::BadLength(2050)));
        assert_eq!(addresses(""), Parsed::Malformed(DecodeError::BadLength(0)));
        for version in [-1, -2, -65534, -65537, i64::MIN] {
            let error = DecodeError::BadValue(version);
            assert_eq!(Handshake::parse(&version.to_be_bytes()), Parsed::Malformed(error));
        }
    }
}
