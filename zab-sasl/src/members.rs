//! How members of an ensemble log in to each other (`QuorumAuth`): tokens in packets at the beginning
//! of a connection, the dialler first.
//!
//! On the quorum port nothing stands in front of them, on the election port the dialler's handshake.

use std::fmt;

use crate::digest_md5::{Acceptor, Failure, Initiator, Login, Step};

/// The first byte of a packet. Nothing else that members say first begins with it: packets of the
/// quorum port and handshakes of the election port do with 0x00 or 0xff, TLS with 0x16.
pub const FIRST_BYTE: u8 = 0x5f;

const MAGIC: u64 = 0x5f24_3501_3501_edcc;
const IN_PROGRESS: i32 = 0;
const SUCCESS: i32 = 1;
const ERROR: i32 = -1;
const HEAD_LEN: usize = 16;
/// The longest token, in bytes. Java's bound is `jute.maxbuffer`; those of this mechanism have at most
/// a sixteenth of this.
const TOKEN_LEN_MAX: usize = 64 << 10;

/// Why a member was not let in, or did not let this one in.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum MemberFailure {
    /// The bytes are no such packet.
    Malformed,
    /// The other side has refused this one.
    Refused,
    /// The login itself.
    Login(Failure),
    /// Whoever has logged in as `user` wanted to act as somebody else.
    Other {
        /// Who it is.
        user: String,
        /// Who it wanted to be.
        authzid: String,
    },
}

impl fmt::Display for MemberFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("malformed SASL packet"),
            Self::Refused => f.write_str("the other side has refused the login"),
            Self::Login(failure) => write!(f, "SASL: {failure}"),
            Self::Other { user, authzid } => write!(f, "{user:?} must not act as {authzid:?}"),
        }
    }
}

impl std::error::Error for MemberFailure {}

impl From<Failure> for MemberFailure {
    fn from(failure: Failure) -> Self {
        Self::Login(failure)
    }
}

/// Status and token of a packet, and how long it was.
type Packet<'a> = (i32, &'a [u8], usize);

/// The first packet; `None`: there is more of it to come.
fn read(bytes: &[u8]) -> Result<Option<Packet<'_>>, MemberFailure> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_LEN>() else {
        // What cannot become one is not waited for.
        let magic = MAGIC.to_be_bytes();
        let known = bytes.len().min(magic.len());
        let fits = bytes[..known] == magic[..known];
        return if fits { Ok(None) } else { Err(MemberFailure::Malformed) };
    };
    let number =
        |at: usize| i32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if head[..8] != MAGIC.to_be_bytes() {
        return Err(MemberFailure::Malformed);
    }
    let (status, len) = (number(8), number(12));
    // Null is as good as empty.
    let len = if len == -1 { 0 } else { usize::try_from(len).unwrap_or(usize::MAX) };
    if len > TOKEN_LEN_MAX {
        return Err(MemberFailure::Malformed);
    }
    Ok(rest.get(..len).map(|token| (status, token, HEAD_LEN + len)))
}

fn write(out: &mut Vec<u8>, status: i32, token: Option<&[u8]>) {
    out.extend(MAGIC.to_be_bytes());
    out.extend(status.to_be_bytes());
    let len = token.map_or(-1, |token| i32::try_from(token.len()).unwrap_or(i32::MAX));
    out.extend(len.to_be_bytes());
    out.extend(token.unwrap_or_default());
}

/// The accepting member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberAcceptor(Acceptor);

impl MemberAcceptor {
    /// With a new exchange.
    #[must_use]
    pub fn new(acceptor: Acceptor) -> Self {
        Self(acceptor)
    }

    /// Takes at most one packet and appends the answer to `out`. Returns how many bytes that was, and
    /// who it is, once that is known.
    ///
    /// # Errors
    /// What is in `out` by then must still be sent.
    pub fn receive<'p>(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        password: impl FnOnce(&str) -> Option<&'p str>,
    ) -> Result<(usize, Option<Login>), MemberFailure> {
        let refused = |out: &mut Vec<u8>, failure| {
            write(out, ERROR, Some(&[]));
            Err(failure)
        };
        let (token, len) = match read(bytes) {
            Ok(None) => return Ok((0, None)),
            Ok(Some((_, token, len))) => (token, len),
            Err(failure) => return refused(out, failure),
        };
        match self.0.evaluate(token, password) {
            Ok(Step::Challenge(challenge)) => {
                write(out, IN_PROGRESS, Some(&challenge));
                Ok((len, None))
            }
            Ok(Step::Done(_, Login { user, authzid: Some(authzid) })) if user != authzid => {
                refused(out, MemberFailure::Other { user, authzid })
            }
            Ok(Step::Done(answer, login)) => {
                write(out, SUCCESS, Some(&answer));
                Ok((len, Some(login)))
            }
            Err(failure) => refused(out, failure.into()),
        }
    }
}

/// The dialling member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberDialler(Initiator);

impl MemberDialler {
    /// With a new exchange; its first packet is appended to `out`.
    #[must_use]
    pub fn new(initiator: Initiator, out: &mut Vec<u8>) -> Self {
        write(out, IN_PROGRESS, Some(&[]));
        Self(initiator)
    }

    /// Takes at most one packet and appends the answer to `out`. Returns how many bytes that was, and
    /// whether the login is done.
    ///
    /// # Errors
    /// The other side refuses this one, or has not shown that it knows the password.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(usize, bool), MemberFailure> {
        let Some((status, token, len)) = read(bytes)? else { return Ok((0, false)) };
        if !matches!(status, IN_PROGRESS | SUCCESS) {
            return Err(MemberFailure::Refused);
        }
        let answer = self.0.evaluate(token)?;
        match (answer, status) {
            (Some(answer), IN_PROGRESS) => write(out, IN_PROGRESS, Some(&answer)),
            (None, SUCCESS) => return Ok((len, true)),
            _ => return Err(MemberFailure::Malformed),
        }
        Ok((len, false))
    }
}

#[cfg(test)]
mod tests;
