//! Jute, the encoding of ZooKeeper's records: fields one after the other, big-endian, without
//! tags, alignment or record lengths.

use alloc::borrow::Cow;
use alloc::string::String;

use bytes::{Buf, BufMut};

use crate::DecodeError;

/// Reads fields off the front of a byte slice.
///
/// After an error the position is unspecified, and the record is best given up.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    len: usize,
    field_len_max: usize,
}

impl<'a> Reader<'a> {
    /// Reads a record that is here as a whole.
    ///
    /// No field is longer than `bytes`, and whoever let them in has kept to the limit that is
    /// configured: there is none here that could be another one.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::with_field_len_max(bytes, usize::MAX)
    }

    /// Reads the front of a stream, refusing buffers and strings of more than `field_len_max`
    /// bytes rather than waiting for them.
    #[must_use]
    pub fn with_field_len_max(bytes: &'a [u8], field_len_max: usize) -> Self {
        Self { rest: bytes, len: bytes.len(), field_len_max }
    }

    /// Changes the limit for the fields to come.
    pub fn set_field_len_max(&mut self, field_len_max: usize) {
        self.field_len_max = field_len_max;
    }

    /// Bytes read so far.
    #[must_use]
    pub fn position(&self) -> usize {
        self.len - self.rest.len()
    }

    /// Bytes left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The bytes left.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// `n` raw bytes.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEof`] if there are fewer.
    #[inline]
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or(DecodeError::UnexpectedEof)?;
        self.rest = rest;
        Ok(taken)
    }

    /// An `int`.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEof`].
    #[inline]
    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        self.rest.try_get_i32().map_err(|_| DecodeError::UnexpectedEof)
    }

    /// A `long`.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEof`].
    #[inline]
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.rest.try_get_i64().map_err(|_| DecodeError::UnexpectedEof)
    }

    /// A `boolean`: any byte but zero is true.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEof`].
    #[inline]
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        self.rest.try_get_u8().map(|byte| byte != 0).map_err(|_| DecodeError::UnexpectedEof)
    }

    /// A `buffer`; `None` is null, which is not the same as empty.
    ///
    /// # Errors
    /// [`DecodeError::BadLength`] if the length is below -1 or above the limit,
    /// [`DecodeError::UnexpectedEof`] if it reaches beyond the bytes.
    #[inline]
    pub fn buffer(&mut self) -> Result<Option<&'a [u8]>, DecodeError> {
        let len = self.i32()?;
        if len == -1 {
            return Ok(None);
        }
        match usize::try_from(len) {
            Ok(n) if n <= self.field_len_max => self.bytes(n).map(Some),
            _ => Err(DecodeError::BadLength(i64::from(len))),
        }
    }

    /// The raw bytes of a `ustring`; `None` is null. See [`text`] for what they mean.
    ///
    /// # Errors
    /// As [`buffer`](Self::buffer).
    #[inline]
    pub fn ustring(&mut self) -> Result<Option<&'a [u8]>, DecodeError> {
        self.buffer()
    }

    /// A `ustring` as text, borrowed if it is plain UTF-8; `None` is null.
    ///
    /// # Errors
    /// As [`buffer`](Self::buffer). Malformed text is no error, see [`text`].
    pub fn string(&mut self) -> Result<Option<Cow<'a, str>>, DecodeError> {
        Ok(self.ustring()?.map(text))
    }

    /// The element count of a `vector`; `None` is null. A count below -1 is an empty vector, as in
    /// ZooKeeper. A large count promises nothing: reserve no memory for it.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEof`].
    #[inline]
    pub fn vector(&mut self) -> Result<Option<usize>, DecodeError> {
        let count = self.i32()?;
        Ok(if count == -1 { None } else { Some(usize::try_from(count).unwrap_or(0)) })
    }
}

/// Decodes the bytes of a `ustring`. Never fails: what is malformed becomes U+FFFD.
///
/// ZooKeeper's own encoder writes a supplementary character as two surrogates of three bytes each
/// (CESU-8); such a pair is joined here. A surrogate without its partner becomes one U+FFFD, which
/// is what a Java server makes of it.
#[must_use]
pub fn text(raw: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = core::str::from_utf8(raw) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Err(error) = core::str::from_utf8(rest) {
        let (valid, bad) = rest.split_at(error.valid_up_to());
        out.push_str(core::str::from_utf8(valid).unwrap_or_default());
        let (decoded, skip) = match (surrogate(bad), bad.get(3..).and_then(surrogate)) {
            (Some(high @ 0xd800..0xdc00), Some(low @ 0xdc00..)) => {
                (char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00)), 6)
            }
            (Some(_), _) => (None, 3),
            (None, _) => (None, error.error_len().unwrap_or(bad.len())),
        };
        out.push(decoded.unwrap_or(char::REPLACEMENT_CHARACTER));
        rest = &bad[skip..];
    }
    out.push_str(core::str::from_utf8(rest).unwrap_or_default());
    Cow::Owned(out)
}

/// The surrogate (U+D800..=U+DFFF) encoded in the first three bytes, if they are one.
fn surrogate(bytes: &[u8]) -> Option<u32> {
    match bytes {
        [0xed, second @ 0xa0..=0xbf, third @ 0x80..=0xbf, ..] => {
            Some(0xd000 | u32::from(second & 0x3f) << 6 | u32::from(third & 0x3f))
        }
        _ => None,
    }
}

/// The fields that jute adds to the numbers of [`BufMut`], whose `put_i32` and `put_i64` are jute's
/// `int` and `long`. Implemented for every `BufMut`: a `Vec<u8>` and a `BytesMut`, which grow, and a
/// `&mut [u8]`, which panics when a field does not fit.
pub trait BufMutExt: BufMut {
    /// A `boolean`.
    #[inline]
    fn put_bool(&mut self, value: bool) {
        self.put_u8(u8::from(value));
    }

    /// A `buffer`; `None` is null.
    ///
    /// # Panics
    /// If it is longer than `i32::MAX` bytes, which the encoding cannot say.
    #[inline]
    fn put_buffer(&mut self, value: Option<&[u8]>) {
        match value {
            None => self.put_i32(-1),
            Some(bytes) => {
                self.put_len(bytes.len());
                self.put_slice(bytes);
            }
        }
    }

    /// A `ustring`, as plain UTF-8; `None` is null.
    ///
    /// # Panics
    /// As [`put_buffer`](Self::put_buffer).
    #[inline]
    fn put_ustring(&mut self, value: Option<&str>) {
        self.put_buffer(value.map(str::as_bytes));
    }

    /// The length of a buffer or string, or the count of a `vector`.
    ///
    /// # Panics
    /// If it is larger than `i32::MAX`, which the encoding cannot say.
    #[inline]
    fn put_len(&mut self, len: usize) {
        self.put_i32(i32::try_from(len).expect("a jute length fits an int"));
    }
}

impl<B: BufMut + ?Sized> BufMutExt for B {}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use bytes::BytesMut;

    use super::*;

    #[test]
    fn fields_round_trip() {
        fn fields(out: &mut impl BufMut) {
            out.put_i32(-2);
            out.put_i64(i64::MIN);
            out.put_bool(true);
            out.put_buffer(None);
            out.put_buffer(Some(b""));
            out.put_ustring(Some("/a"));
            out.put_len(3);
        }
        let mut out = Vec::new();
        fields(&mut out);
        let mut reader = Reader::new(&out);
        assert_eq!(reader.i32(), Ok(-2));
        assert_eq!(reader.i64(), Ok(i64::MIN));
        assert_eq!(reader.bool(), Ok(true));
        assert_eq!(reader.buffer(), Ok(None));
        assert_eq!(reader.buffer(), Ok(Some(&b""[..])));
        assert_eq!(reader.string(), Ok(Some(Cow::Borrowed("/a"))));
        assert_eq!(reader.vector(), Ok(Some(3)));
        assert_eq!((reader.position(), reader.remaining()), (out.len(), 0));

        let mut memory = [0; 64];
        let mut rest = &mut memory[..];
        fields(&mut rest);
        assert_eq!(64 - rest.remaining_mut(), out.len());
        assert_eq!(memory[..out.len()], out);
        let mut bytes = BytesMut::new();
        fields(&mut bytes);
        assert_eq!(bytes, out);
    }

    #[test]
    #[should_panic(expected = "advance out of bounds")]
    fn a_slice_that_is_too_short_panics() {
        (&mut [0; 7][..]).put_buffer(Some(b"data"));
    }

    #[test]
    fn lengths() {
        let read = |len: i32, limit: usize| {
            let mut bytes = len.to_be_bytes().to_vec();
            bytes.extend([7; 4]);
            Reader::with_field_len_max(&bytes, limit).buffer().map(|b| b.map(<[u8]>::len))
        };
        assert_eq!(read(-1, 4), Ok(None));
        assert_eq!(read(4, 4), Ok(Some(4)));
        assert_eq!(read(5, 4), Err(DecodeError::BadLength(5)));
        assert_eq!(read(5, 5), Err(DecodeError::UnexpectedEof));
        assert_eq!(read(-2, 4), Err(DecodeError::BadLength(-2)));
        assert_eq!(read(i32::MIN, 4), Err(DecodeError::BadLength(i64::from(i32::MIN))));
        assert_eq!(read(i32::MAX, usize::MAX), Err(DecodeError::UnexpectedEof));
        assert_eq!(Reader::new(&(-1_i32).to_be_bytes()).vector(), Ok(None));
        assert_eq!(Reader::new(&(-2_i32).to_be_bytes()).vector(), Ok(Some(0)));
        assert_eq!(Reader::new(&[0, 0, 0]).vector(), Err(DecodeError::UnexpectedEof));
    }

    #[test]
    fn malformed_text() {
        assert!(matches!(text("a\u{1f600}".as_bytes()), Cow::Borrowed("a\u{1f600}")));
        assert_eq!(text(b"a\xed\xa0\xbd\xed\xb8\x80b"), "a\u{1f600}b", "a joined pair");
        assert_eq!(text(b"\xed\xb8\x80\xed\xa0\xbd"), "\u{fffd}\u{fffd}", "one per lone surrogate");
        assert_eq!(text(b"\xed\xa0\xbd\xed\xa0\xbd\xed\xb8\x80"), "\u{fffd}\u{1f600}");
        assert_eq!(text(b"a\xffb\xc3"), "a\u{fffd}b\u{fffd}");
        assert_eq!(text(b"\xed\xa0"), "\u{fffd}\u{fffd}");
        assert_eq!(text(b"\xf0\x9f\x98"), "\u{fffd}", "cut off");
    }
}
