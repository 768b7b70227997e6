//! Votes on the election port.
//!
//! After the [handshake](super::handshake) both sides send frames, a length and that many bytes.
//! Each holds one [`Notification`].

use bytes::BufMut;

use super::Parsed;
use super::foreign::Foreign;
use super::jute::{BufMutExt, Reader};
use crate::{DecodeError, Epoch, ServerState, Sid, Vote, Zxid};

/// The longest frame that is read, in bytes, not counting its length.
pub const FRAME_LEN_MAX_BYTES: usize = 512 * 1024;

/// Bytes of a frame's length.
pub const FRAME_HEAD_LEN: usize = 4;

/// The version of the format we send.
pub const VERSION: i32 = 2;

/// The payload of the frame at the front of `bytes`.
///
/// A length that is not positive or above [`FRAME_LEN_MAX_BYTES`] is malformed; ZooKeeper drops
/// the connection then.
#[must_use]
pub fn parse_frame(bytes: &[u8]) -> Parsed<&[u8]> {
    let read = || {
        let mut reader = Reader::new(bytes);
        let len = reader.i32()?;
        let payload = match usize::try_from(len) {
            Ok(n @ 1..=FRAME_LEN_MAX_BYTES) => reader.bytes(n)?,
            _ => {
                return Err(match Foreign::of(bytes) {
                    // It comes after the handshake, unlike all others.
                    Some(Foreign::Sasl) => DecodeError::Foreign(Foreign::Sasl),
                    _ => DecodeError::BadLength(i64::from(len)),
                });
            }
        };
        Ok((payload, reader.position()))
    };
    Parsed::from_result(read())
}

/// A server's vote, and what it knows. The sender's id is that of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Notification<'a> {
    /// The sender's state as it came, see [`server_state`](Self::server_state).
    pub state: i32,
    /// Whom the sender votes for or follows.
    pub leader: Sid,
    /// The candidate's last zxid, as far as the sender knows.
    pub zxid: Zxid,
    /// The round the vote belongs to (ZooKeeper's logical clock).
    pub election_epoch: i64,
    /// The candidate's current epoch.
    pub peer_epoch: Epoch,
    /// Format version; 0 for all that 3.4 and older send.
    pub version: i32,
    /// Text of the sender's committed configuration; `None` below version 2.
    pub config: Option<&'a [u8]>,
}

/// Length of a 3.3 notification: no peer epoch, no version.
const LEN_3_3: usize = 28;
/// Length of a late 3.4 notification, whose version field (1) is not read.
const LEN_3_4: usize = 40;
/// Length in front of the configuration.
const LEN_BARE: usize = 44;

impl<'a> Notification<'a> {
    /// Reads the payload of a frame, in any of its historical sizes. What follows the
    /// configuration is ignored, as ZooKeeper does.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEof`] if a field is missing, [`DecodeError::BadLength`] if the
    /// configuration's length is negative or larger than the payload. ZooKeeper drops such a
    /// message and keeps the connection.
    pub fn parse(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        let mut notification = Self {
            state: reader.i32()?,
            leader: Sid(reader.i64()?),
            zxid: Zxid::from_raw(reader.i64()?),
            election_epoch: reader.i64()?,
            peer_epoch: Epoch(0),
            version: 0,
            config: None,
        };
        if payload.len() == LEN_3_3 {
            notification.peer_epoch = notification.zxid.epoch();
            return Ok(notification);
        }
        notification.peer_epoch = Epoch(reader.i64()?);
        if payload.len() == LEN_3_4 {
            return Ok(notification);
        }
        notification.version = reader.i32()?;
        if notification.version >= VERSION {
            let len = reader.i32()?;
            let config = match usize::try_from(len) {
                Ok(n) if n <= payload.len() => reader.bytes(n)?,
                _ => return Err(DecodeError::BadLength(i64::from(len))),
            };
            notification.config = Some(config);
        }
        Ok(notification)
    }

    /// The sender's state, if it is one of the four.
    #[must_use]
    pub fn server_state(&self) -> Option<ServerState> {
        match self.state {
            0 => Some(ServerState::Looking),
            1 => Some(ServerState::Following),
            2 => Some(ServerState::Leading),
            3 => Some(ServerState::Observing),
            _ => None,
        }
    }

    /// The number of a state on the wire.
    #[must_use]
    pub fn state_code(state: ServerState) -> i32 {
        match state {
            ServerState::Looking => 0,
            ServerState::Following => 1,
            ServerState::Leading => 2,
            ServerState::Observing => 3,
        }
    }

    /// The vote it carries.
    #[must_use]
    pub fn vote(&self) -> Vote {
        Vote { leader: self.leader, zxid: self.zxid, peer_epoch: self.peer_epoch }
    }

    /// Length of the payload up to the end of the configuration, in the layout of today. What follows
    /// is thrown away by ZooKeeper, and may be an [extension](super::extension).
    #[must_use]
    pub fn known_len(&self) -> usize {
        LEN_BARE + self.config.map_or(0, <[u8]>::len)
    }

    /// Length of the frame in bytes, in the layout of today.
    #[must_use]
    pub fn frame_len(&self) -> usize {
        FRAME_HEAD_LEN + self.known_len()
    }

    /// Writes it as a whole frame, in the layout of today, and returns the frame's length.
    ///
    /// # Panics
    /// If `buf` is shorter than [`frame_len`](Self::frame_len).
    pub fn emit_frame(&self, mut buf: &mut [u8]) -> usize {
        self.write_frame(&mut buf);
        self.frame_len()
    }

    /// Writes it as a whole frame, in the layout of today.
    pub fn write_frame(&self, out: &mut impl BufMut) {
        self.write_extended_frame(&[], out);
    }

    /// Writes it as a whole frame, in the layout of today, with an extension after it.
    pub fn write_extended_frame(&self, extension: &[u8], out: &mut impl BufMut) {
        out.put_len(self.known_len() + extension.len());
        out.put_i32(self.state);
        out.put_i64(self.leader.0);
        out.put_i64(self.zxid.raw());
        out.put_i64(self.election_epoch);
        out.put_i64(self.peer_epoch.0);
        out.put_i32(self.version);
        out.put_buffer(Some(self.config.unwrap_or_default()));
        out.put_slice(extension);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    const LOOKING: Notification<'_> = Notification {
        state: 0,
        leader: Sid(2),
        zxid: Zxid::from_raw(0x5_0000_0003),
        election_epoch: 1,
        peer_epoch: Epoch(4),
        version: VERSION,
        config: Some(b"version=0"),
    };

    fn payload(notification: &Notification<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        notification.write_frame(&mut out);
        assert_eq!(out.len(), notification.frame_len());
        out.split_off(FRAME_HEAD_LEN)
    }

    #[test]
    fn sizes_of_all_releases() {
        let full = payload(&LOOKING);
        assert_eq!(Notification::parse(&full), Ok(LOOKING));
        let bare = Notification { version: 0, config: None, ..LOOKING };
        let oldest = Notification { peer_epoch: Epoch(5), ..bare };
        for len in 0..full.len() {
            let expected = match len {
                28 => Ok(oldest),
                40 => Ok(bare),
                _ => Err(DecodeError::UnexpectedEof),
            };
            // A configuration cut short is longer than the payload at first, then than the rest.
            let got = Notification::parse(&full[..len]);
            assert_eq!(got.map_err(|_| DecodeError::UnexpectedEof), expected, "{len} bytes");
        }
        let longer = [&full[..], b"more"].concat();
        assert_eq!(Notification::parse(&longer), Ok(LOOKING));
    }

    #[test]
    fn versions() {
        let newer = Notification { version: 3, ..LOOKING };
        assert_eq!(Notification::parse(&payload(&newer)), Ok(newer));
        let empty = Notification { config: Some(b""), ..LOOKING };
        assert_eq!(Notification::parse(&payload(&empty)), Ok(empty));
        let older = Notification { version: 1, config: None, ..LOOKING };
        assert_eq!(Notification::parse(&payload(&older)), Ok(older));
        assert_eq!(Notification::parse(&payload(&older)[..41]), Ok(older));
    }

    #[test]
    fn config_lengths() {
        let mut bytes = payload(&LOOKING);
        for (len, error) in [
            (-1, DecodeError::BadLength(-1)),
            (54, DecodeError::BadLength(54)),
            (53, DecodeError::UnexpectedEof),
            (10, DecodeError::UnexpectedEof),
        ] {
            bytes[40..44].copy_from_slice(&i32::to_be_bytes(len));
            assert_eq!(Notification::parse(&bytes), Err(error));
        }
    }

    #[test]
    fn frames() {
        for len in [0, -1, i32::MIN, 524_289, i32::MAX] {
            let malformed = Parsed::Malformed(DecodeError::BadLength(i64::from(len)));
            assert_eq!(parse_frame(&len.to_be_bytes()), malformed);
        }
        let login = Parsed::Malformed(DecodeError::Foreign(Foreign::Sasl));
        assert_eq!(parse_frame(&0x5f24_3501_i32.to_be_bytes()), login);
        let mut longest = vec![7; FRAME_HEAD_LEN + FRAME_LEN_MAX_BYTES];
        longest[..4].copy_from_slice(&[0, 8, 0, 0]);
        let value = &longest[4..];
        assert_eq!(parse_frame(&longest), Parsed::Complete { value, len: longest.len() });
        assert_eq!(parse_frame(&longest[..longest.len() - 1]), Parsed::Incomplete);
        assert_eq!(parse_frame(&[]), Parsed::Incomplete);
    }

    #[test]
    fn states() {
        for code in 0..4 {
            let notification = Notification { state: code, ..LOOKING };
            assert_eq!(notification.server_state().map(Notification::state_code), Some(code));
        }
        for state in [-1, 4] {
            assert_eq!(Notification { state, ..LOOKING }.server_state(), None);
        }
    }
}
