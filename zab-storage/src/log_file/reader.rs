//! Reading a log file record by record, and telling a torn end from damage.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use byteorder::{BigEndian, ByteOrder};
use zab_proto::Zxid;

use super::{END_OF_RECORD, HEADER_LEN, MAGIC, PREFIX_LEN, TXN_HEADER_LEN, VERSION, zxid_of};
use crate::checksum::Checksum;
use crate::error::{Context, Damage, Error};

/// Up to this length a record that reaches beyond the end of the file counts as cut off. Above, which a
/// large `jute.maxbuffer` allows, only one whose header says that it is the next one: else the length is
/// what is wrong, and what follows would be lost.
const TORN_LEN_MAX: u64 = 64 << 20;
/// Above this length it is wrong whatever the header says.
const ABSURD_LEN: u64 = 1 << 30;

/// Reads the records of one log file in order.
///
/// Source: ZooKeeper `FileTxnLog.FileTxnIterator`; `spec` rules on torn tails in `docs/storage.md`.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    file: BufReader<File>,
    file_len: u64,
    offset: u64,
    last: Option<Zxid>,
    /// The present record, with its end marker.
    payload: Vec<u8>,
    place: Option<Place>,
    end: Option<End>,
}

/// What is known of the present record beside its payload.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    zxid: Zxid,
    checksum: u32,
}

/// One record of a log.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Where the record begins in the file.
    pub offset: u64,
    /// The zxid in its header.
    pub zxid: Zxid,
    /// The stored (and checked) Adler-32 of the payload.
    pub checksum: u32,
    /// The payload: `TxnHeader`, body and perhaps a digest.
    pub txn: &'a [u8],
}

/// Why a log ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The file ends after a whole record (or its header).
    File,
    /// Zeros follow: the rest was allocated in advance.
    Padding,
    /// A record is cut off, as by a crash.
    Torn,
}

impl LogReader {
    /// Opens a log at its first record.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the file header is cut short or is not that of a log.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).context("open", path)?;
        let file_len = file.metadata().context("read", path)?.len();
        let mut reader = Self {
            path: path.to_path_buf(),
            file: BufReader::with_capacity(1 << 16, file),
            file_len,
            offset: 0,
            last: None,
            payload: Vec::new(),
            place: None,
            end: None,
        };
        if file_len < HEADER_LEN {
            return Err(reader.damaged(Damage::ShortHeader));
        }
        let mut header = [0; 16];
        reader.fill(&mut header)?;
        let (magic, version) = (BigEndian::read_u32(&header), BigEndian::read_u32(&header[4..]));
        if magic != MAGIC {
            return Err(reader.damaged(Damage::BadMagic(magic)));
        }
        if version != VERSION || header[8..] != [0; 8] {
            log::warn!("{}: unusual version {version} or database id", path.display());
        }
        reader.offset = HEADER_LEN;
        Ok(reader)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the next record begins or would begin: after the last whole one.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Why the log ended, once it has.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// The next record; `None` at the end of the log, for good.
    ///
    /// # Errors
    /// [`Error::Damaged`] for a wrong checksum, an impossible length or a record without a
    /// transaction header.
    #[expect(clippy::should_implement_trait, reason = "a record borrows the reader")]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, Error> {
        Ok(if self.advance()? { self.record() } else { None })
    }

    /// The record that [`next`](Self::next) returned last, unless the log has ended.
    #[must_use]
    pub fn record(&self) -> Option<Record<'_>> {
        let (_, txn) = self.payload.split_last()?;
        let Place { offset, zxid, checksum } = self.place?;
        Some(Record { offset, zxid, checksum, txn })
    }

    /// Goes to the next record; false at the end of the log.
    pub(crate) fn advance(&mut self) -> Result<bool, Error> {
        self.place = None;
        if self.end.is_some() {
            return Ok(false);
        }
        let left = self.file_len.saturating_sub(self.offset);
        let prefix_len = PREFIX_LEN as u64;
        let mut prefix = [0; PREFIX_LEN];
        if left < prefix_len {
            let rest = prefix.split_at_mut(usize::try_from(left).unwrap_or(0)).0;
            self.file.read_exact(rest).context("read", &self.path)?;
            let padding = if left == 0 { End::File } else { End::Padding };
            return Ok(self.ended(if prefix == [0; PREFIX_LEN] { padding } else { End::Torn }));
        }
        self.fill(&mut prefix)?;
        let checksum = BigEndian::read_u64(&prefix);
        let len = BigEndian::read_i32(&prefix[8..]);
        if len == 0 {
            return Ok(self.ended(if checksum == 0 { End::Padding } else { End::Torn }));
        }
        let Ok(payload_len) = usize::try_from(len) else {
            return Err(self.damaged(Damage::BadLength(len)));
        };
        if payload_len as u64 + 1 > left - prefix_len {
            let len_bytes = payload_len as u64;
            let wrong = len_bytes > TORN_LEN_MAX
                && (len_bytes > ABSURD_LEN || !self.is_next(left - prefix_len)?);
            if wrong {
                return Err(self.damaged(Damage::BadLength(len)));
            }
            return Ok(self.ended(End::Torn));
        }
        let mut payload = std::mem::take(&mut self.payload);
        payload.resize(payload_len + 1, 0);
        let filled = self.fill(&mut payload);
        self.payload = payload;
        filled?;
        if self.payload[payload_len] != END_OF_RECORD {
            return Ok(self.ended(End::Torn));
        }
        if checksum != u64::from(Checksum::of(&self.payload[..payload_len])) {
            return Err(self.damaged(Damage::BadChecksum));
        }
        let Some(zxid) = zxid_of(&self.payload[..payload_len]) else {
            return Err(self.damaged(Damage::NoHeader));
        };
        #[expect(clippy::cast_possible_truncation, reason = "equal to a 32-bit checksum")]
        let checksum = checksum as u32;
        self.place = Some(Place { offset: self.offset, zxid, checksum });
        self.offset += prefix_len + payload_len as u64 + 1;
        self.last = Some(zxid);
        Ok(true)
    }

    /// Whether the header of a record, of which `left` bytes are there, is that of the next one, as far
    /// as can be told.
    fn is_next(&mut self, left: u64) -> Result<bool, Error> {
        let mut header = [0; TXN_HEADER_LEN];
        if left < header.len() as u64 {
            return Ok(true);
        }
        self.fill(&mut header)?;
        let (zxid, last) = (zxid_of(&header), self.last);
        Ok(zxid.is_some_and(|zxid| last.is_none_or(|last| last.is_followed_by(zxid))))
    }

    fn ended(&mut self, end: End) -> bool {
        self.end = Some(end);
        false
    }

    fn fill(&mut self, buf: &mut [u8]) -> Result<(), Error> {
        self.file.read_exact(buf).context("read", &self.path)
    }

    fn damaged(&self, what: Damage) -> Error {
        Error::Damaged { path: self.path.clone(), offset: self.offset, after: self.last, what }
    }
}
