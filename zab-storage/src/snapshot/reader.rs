//! Reading a snapshot file: the application's bytes, then the seals that vouch for them.

use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use byteorder::{BigEndian, ByteOrder};
use flate2::read::GzDecoder;
use zab_proto::{SnapshotDigest, Zxid};

use super::snappy::{self, SnappyReader};
use super::{DIGEST_LEN, MAGIC, SEAL_LEN, SEAL_PATH, ZXID_LEN};
use crate::checksum::Checksum;
use crate::error::{Context, Damage, Error};
use crate::names::Compression;

/// Bytes of the file header: magic, version, database id.
const HEADER_LEN: usize = 16;
/// Bytes read from the file at a time.
const CHUNK_LEN: usize = 1 << 16;
/// How much more of a long node is read at a time, before it is looked at again.
const GROWTH_LEN_MAX: usize = 1 << 20;
/// No valid trailer is longer: three seals, a digest as text, a zxid.
const TRAILER_LEN_MAX: usize = 256;

/// Reads a snapshot file: first the application's bytes, then what follows them.
///
/// Only the application knows where its bytes end. Take them from [`fill`](Self::fill), say how
/// many were used with [`consume`](Self::consume), and check the seals with
/// [`finish`](Self::finish) before believing any of it.
pub struct SnapshotReader {
    path: PathBuf,
    input: Box<dyn Read + Send>,
    checksum: Checksum,
    buf: Vec<u8>,
    start: usize,
    offset: u64,
    eof: bool,
}

/// What follows the tree in a snapshot file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Trailer {
    /// The digest section.
    pub digest: Option<SnapshotDigest>,
    /// The zxid section of ZooKeeper 3.9.
    pub last_processed: Option<Zxid>,
    /// How many seals there were, all of them good.
    pub seals: u32,
}

impl Trailer {
    /// The last transaction that has left traces in a snapshot that is named for `zxid`: ZooKeeper
    /// writes one while the tree changes.
    pub(crate) fn end(&self, zxid: Zxid) -> Zxid {
        let traces = [self.digest.map(|digest| digest.zxid), self.last_processed];
        traces.into_iter().flatten().fold(zxid, Zxid::max)
    }
}

impl fmt::Debug for SnapshotReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotReader")
            .field("path", &self.path)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl SnapshotReader {
    /// Opens a snapshot after its file header. The last part of the name tells the compression.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it does not begin like a snapshot.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = BufReader::with_capacity(CHUNK_LEN, File::open(path).context("open", path)?);
        let input: Box<dyn Read + Send> = match compression_of(path) {
            Compression::None => Box::new(file),
            Compression::Gz => Box::new(GzDecoder::new(file)),
            Compression::Snappy => Box::new(SnappyReader::new(file).context("read", path)?),
        };
        let mut reader = Self {
            path: path.to_path_buf(),
            input,
            checksum: Checksum::default(),
            buf: Vec::new(),
            start: 0,
            offset: 0,
            eof: false,
        };
        while reader.buf.len() < HEADER_LEN {
            if reader.fill()?.is_none() {
                return Err(reader.damaged(Damage::ShortHeader));
            }
        }
        let magic = BigEndian::read_u32(&reader.buf);
        if magic != MAGIC {
            return Err(reader.damaged(Damage::BadMagic(magic)));
        }
        reader.consume(HEADER_LEN);
        Ok(reader)
    }

    /// The bytes that were read and not consumed yet.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.buf[self.start..]
    }

    /// Reads more and returns all that is not consumed yet; `None` if the file has no more.
    ///
    /// # Errors
    /// [`Error::Io`], also for a damaged compressed stream.
    pub fn fill(&mut self) -> Result<Option<&[u8]>, Error> {
        let old = self.buf.len() - self.start;
        if self.start > 0 {
            self.buf.copy_within(self.start.., 0);
            self.start = 0;
        }
        // A long node is looked at again each time.
        self.buf.resize(old + old.clamp(CHUNK_LEN, GROWTH_LEN_MAX), 0);
        let read = self.input.read(&mut self.buf[old..]).context("read", &self.path);
        self.buf.truncate(old + *read.as_ref().unwrap_or(&0));
        self.eof = read? == 0;
        Ok((!self.eof).then_some(&self.buf))
    }

    /// Says that `n` of the bytes were used.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn consume(&mut self, n: usize) {
        self.checksum.add(&self.buf[self.start..self.start + n]);
        self.start += n;
        self.offset += n as u64;
    }

    /// Reads what follows the application's last byte and checks every seal.
    ///
    /// # Errors
    /// [`Error::Damaged`]: checksum mismatch, or neither of the known forms.
    pub fn finish(mut self) -> Result<Trailer, Error> {
        while !self.eof && self.buf.len() - self.start <= TRAILER_LEN_MAX {
            self.fill()?;
        }
        let mut trailer = Trailer::default();
        self.seal(&mut trailer)?;
        match self.left() {
            0 => {}
            n if n == ZXID_LEN + SEAL_LEN => self.zxid_section(&mut trailer)?,
            n => {
                self.digest_section(&mut trailer)?;
                if n > DIGEST_LEN + SEAL_LEN && self.left() == ZXID_LEN + SEAL_LEN {
                    self.zxid_section(&mut trailer)?;
                }
                if self.left() != 0 {
                    return Err(self.damaged(Damage::BadSeal));
                }
            }
        }
        Ok(trailer)
    }

    fn left(&self) -> usize {
        self.buf.len() - self.start
    }

    fn seal(&mut self, trailer: &mut Trailer) -> Result<(), Error> {
        let expected = u64::from(self.checksum.value());
        let checksum = u64::from_be_bytes(self.take()?);
        let path: [u8; 5] = self.take()?;
        if path != SEAL_PATH {
            return Err(self.damaged(Damage::BadSeal));
        }
        if checksum != expected {
            return Err(self.damaged(Damage::BadChecksum));
        }
        trailer.seals += 1;
        Ok(())
    }

    fn zxid_section(&mut self, trailer: &mut Trailer) -> Result<(), Error> {
        trailer.last_processed = Some(Zxid::from_raw(i64::from_be_bytes(self.take()?)));
        self.seal(trailer)
    }

    fn digest_section(&mut self, trailer: &mut Trailer) -> Result<(), Error> {
        let zxid = Zxid::from_raw(i64::from_be_bytes(self.take()?));
        let version = i32::from_be_bytes(self.take()?);
        let digest =
            if version < 2 { self.hex_digest()? } else { u64::from_be_bytes(self.take()?) };
        trailer.digest = Some(SnapshotDigest { zxid, version, digest });
        self.seal(trailer)
    }

    /// Digests of the first versions were text.
    fn hex_digest(&mut self) -> Result<u64, Error> {
        let len = u32::from_be_bytes(self.take()?) as usize;
        let Some(text) = self.buf[self.start..].get(..len) else {
            return Err(self.damaged(Damage::BadSeal));
        };
        let digest = std::str::from_utf8(text).ok().and_then(|t| u64::from_str_radix(t, 16).ok());
        self.consume(len);
        digest.ok_or_else(|| self.damaged(Damage::BadSeal))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let Some(bytes) = self.buf[self.start..].first_chunk::<N>().copied() else {
            return Err(self.damaged(Damage::BadSeal));
        };
        self.consume(N);
        Ok(bytes)
    }

    pub(crate) fn damaged(&self, what: Damage) -> Error {
        Error::Damaged { path: self.path.clone(), offset: self.offset, after: None, what }
    }
}

pub(crate) fn compression_of(path: &Path) -> Compression {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => Compression::Gz,
        Some("snappy") => Compression::Snappy,
        _ => Compression::None,
    }
}

/// ZooKeeper's quick check: does the file begin (compressed) or end (plain) like a snapshot?
///
/// Source: ZooKeeper `SnapStream.isValidSnapshot`.
pub(crate) fn is_plausible(path: &Path) -> Result<bool, Error> {
    const PLAIN_LEN_MIN: u64 = 10;
    let mut file = File::open(path).context("open", path)?;
    let len = file.metadata().context("read", path)?.len();
    let mut start = [0; 8];
    let n = file.read(&mut start).context("read", path)?;
    match compression_of(path) {
        Compression::Gz => Ok(n >= 2 && start[..2] == [0x1f, 0x8b]),
        Compression::Snappy => Ok(start == snappy::MAGIC),
        Compression::None if len < PLAIN_LEN_MIN => Ok(false),
        Compression::None => {
            let mut end = [0; SEAL_PATH.len()];
            file.seek(SeekFrom::End(-5)).context("read", path)?;
            file.read_exact(&mut end).context("read", path)?;
            Ok(end == SEAL_PATH)
        }
    }
}
