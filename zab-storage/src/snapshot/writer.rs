//! Writing a snapshot file, compressed or not, with its seals.

use std::io::{self, Write};
use std::path::Path;

use flate2::write::GzEncoder;
use zab_proto::{SnapshotDigest, Zxid};

use super::paced::{Pace, PacedFile};
use super::snappy::SnappyWriter;
use super::{DB_ID, DIGEST_VERSION, MAGIC, SEAL_PATH, VERSION};
use crate::checksum::Checksum;
use crate::error::{Context, Error};
use crate::fs::{Fs, OutFile};
use crate::names::Compression;

/// Writes a snapshot file under a name that is not one of a snapshot; to be renamed when sealed.
#[derive(Debug)]
pub(crate) struct SnapshotWriter {
    sink: Sink,
    checksum: Checksum,
    path: std::path::PathBuf,
}

#[derive(Debug)]
enum Sink {
    Plain(PacedFile),
    Gz(GzEncoder<PacedFile>),
    Snappy(Box<SnappyWriter<PacedFile>>),
}

impl SnapshotWriter {
    /// Begins a file and writes its header.
    pub(crate) fn create(
        fs: &Fs,
        path: &Path,
        compression: Compression,
        pace: Pace,
    ) -> Result<Self, Error> {
        let out = PacedFile::new(fs.create_direct(path.to_path_buf())?, pace);
        let sink = match compression {
            Compression::None => Sink::Plain(out),
            Compression::Gz => Sink::Gz(GzEncoder::new(out, flate2::Compression::default())),
            Compression::Snappy => {
                Sink::Snappy(Box::new(SnappyWriter::new(out).context("write", path)?))
            }
        };
        let mut writer = Self { sink, checksum: Checksum::default(), path: path.to_path_buf() };
        writer.write(&MAGIC.to_be_bytes())?;
        writer.write(&VERSION.to_be_bytes())?;
        writer.write(&DB_ID.to_be_bytes())?;
        Ok(writer)
    }

    /// Writes the next bytes of the application.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.checksum.add(bytes);
        match &mut self.sink {
            Sink::Plain(out) => out.write_all(bytes),
            Sink::Gz(out) => out.write_all(bytes),
            Sink::Snappy(out) => out.write_all(bytes),
        }
        .context("write", &self.path)
    }

    /// Seals the file and makes its content durable. `last` adds ZooKeeper 3.9's zxid section.
    ///
    /// Without a digest the section is all zero, as ZooKeeper writes it for a tree to which
    /// nothing was applied yet: servers with digests enabled expect the section.
    pub(crate) fn finish(
        mut self,
        digest: Option<SnapshotDigest>,
        last: Option<Zxid>,
    ) -> Result<(), Error> {
        self.seal()?;
        let none = SnapshotDigest { zxid: Zxid::ZERO, version: DIGEST_VERSION, digest: 0 };
        let digest = digest.unwrap_or(none);
        self.write(&digest.zxid.raw().to_be_bytes())?;
        self.write(&digest.version.to_be_bytes())?;
        self.write(&digest.digest.to_be_bytes())?;
        self.seal()?;
        if let Some(last) = last {
            self.write(&last.raw().to_be_bytes())?;
            self.seal()?;
        }
        let Self { sink, path, .. } = self;
        sink.into_out().context("write", &path)?;
        Ok(())
    }

    fn seal(&mut self) -> Result<(), Error> {
        let checksum = u64::from(self.checksum.value());
        self.write(&checksum.to_be_bytes())?;
        self.write(&SEAL_PATH)
    }
}

impl Sink {
    fn into_out(self) -> io::Result<OutFile> {
        let paced = match self {
            Self::Plain(out) => out,
            Self::Gz(out) => out.finish()?,
            Self::Snappy(out) => out.finish()?,
        };
        paced.finish()
    }
}
