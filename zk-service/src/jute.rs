//! Jute, the encoding of ZooKeeper's records: big-endian numbers, length-prefixed text and buffers,
//! counted vectors.
//!
//! Decoding borrows and never reserves memory from an unchecked count. Encoding appends to a
//! `Vec<u8>`.

use std::borrow::Cow;

use zab_proto::DecodeError;

type Result<T> = std::result::Result<T, DecodeError>;

/// Longest string or buffer that is decoded: `jute.maxbuffer` plus its extra, by default.
pub(crate) const FIELD_LEN_MAX: i32 = 2 * 0xfffff;

/// Reads records from a byte slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `n` bytes as they are.
    pub(crate) fn raw(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(DecodeError::UnexpectedEof)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(DecodeError::UnexpectedEof)?;
        self.rest = rest;
        Ok(*head)
    }

    /// Any byte but 0 is true.
    pub(crate) fn bool(&mut self) -> Result<bool> {
        Ok(self.array::<1>()?[0] != 0)
    }

    pub(crate) fn i32(&mut self) -> Result<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64> {
        self.array().map(i64::from_be_bytes)
    }

    /// A buffer; `None` is null, which is not the same as empty.
    pub(crate) fn buffer(&mut self) -> Result<Option<&'a [u8]>> {
        match self.i32()? {
            -1 => Ok(None),
            n => match usize::try_from(n) {
                Ok(len) if n <= FIELD_LEN_MAX => self.raw(len).map(Some),
                _ => Err(DecodeError::BadLength(n.into())),
            },
        }
    }

    /// Text; each malformed piece reads as U+FFFD.
    pub(crate) fn string(&mut self) -> Result<Option<Cow<'a, str>>> {
        Ok(self.buffer()?.map(String::from_utf8_lossy))
    }

    /// The count of a vector; `None` is null, other negative counts are empty vectors.
    pub(crate) fn count(&mut self) -> Result<Option<u32>> {
        match self.i32()? {
            -1 => Ok(None),
            n => Ok(Some(u32::try_from(n).unwrap_or(0))),
        }
    }
}

/// Appends fields of records.
pub(crate) trait Put {
    fn put_bool(&mut self, value: bool);
    fn put_i32(&mut self, value: i32);
    fn put_i64(&mut self, value: i64);
    /// A length or count.
    fn put_len(&mut self, len: usize);
    fn put_buffer(&mut self, bytes: &[u8]);
    /// A buffer or null.
    fn put_nullable(&mut self, bytes: Option<&[u8]>);
    fn put_str(&mut self, text: &str);
}

impl Put for Vec<u8> {
    fn put_bool(&mut self, value: bool) {
        self.push(value.into());
    }

    fn put_i32(&mut self, value: i32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_i64(&mut self, value: i64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_len(&mut self, len: usize) {
        self.put_i32(i32::try_from(len).expect("records are shorter than 2 GiB"));
    }

    fn put_buffer(&mut self, bytes: &[u8]) {
        self.put_len(bytes.len());
        self.extend_from_slice(bytes);
    }

    fn put_nullable(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.put_buffer(bytes),
            None => self.put_i32(-1),
        }
    }

    fn put_str(&mut self, text: &str) {
        self.put_buffer(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_empty_differ() {
        let mut out = Vec::new();
        out.put_nullable(None);
        out.put_buffer(b"");
        out.put_str("/a");
        let mut reader = Reader::new(&out);
        assert_eq!(reader.buffer(), Ok(None));
        assert_eq!(reader.buffer(), Ok(Some(&b""[..])));
        assert_eq!(reader.string(), Ok(Some(Cow::Borrowed("/a"))));
        assert_eq!(reader.i32(), Err(DecodeError::UnexpectedEof));
    }

    #[test]
    fn bad_lengths() {
        let read = |n: i32| Reader::new(&n.to_be_bytes()).buffer().map(|_| ());
        assert_eq!(read(-2), Err(DecodeError::BadLength(-2)));
        assert_eq!(read(FIELD_LEN_MAX + 1), Err(DecodeError::BadLength(2_097_151)));
        assert_eq!(read(FIELD_LEN_MAX), Err(DecodeError::UnexpectedEof));
        let count = |n: i32| Reader::new(&n.to_be_bytes()).count();
        assert_eq!(count(-1), Ok(None));
        assert_eq!(count(-5), Ok(Some(0)));
    }

    #[test]
    fn malformed_text_is_replaced() {
        let mut out = Vec::new();
        out.put_buffer(b"/\xff\xfe");
        assert_eq!(Reader::new(&out).string().unwrap().unwrap(), "/\u{fffd}\u{fffd}");
    }
}
