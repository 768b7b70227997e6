//! `backup.json`: what a backup is, so that it can be told from another one and be checked.

use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zab_proto::{Epoch, Zxid};

use crate::Error;
use crate::error::Context;
use crate::tree::Figures;

/// The name of the file in the backup's directory.
pub const MANIFEST_NAME: &str = "backup.json";
/// A reader refuses what is newer than it knows.
const FORMAT: u64 = 1;

/// What a backup holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// The state is the one after this transaction.
    pub zxid: Zxid,
    /// The highest epoch that the member knew of.
    pub epoch: Epoch,
    /// How many nodes there are, the root and `/zookeeper` among them.
    pub nodes: u64,
    /// How many sessions were open.
    pub sessions: u64,
    /// ZooKeeper's digest of the tree.
    pub digest: u64,
    /// The snapshot's file in the directory.
    pub file: String,
    /// Its length in bytes.
    pub len_bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
    /// Why all of it is committed, or what of it may not be.
    pub committed: String,
    /// The ensemble's id, if it has one.
    pub ensemble: Option<String>,
    /// The `dataDir` that it was taken from.
    pub source: String,
    /// When it was taken, in milliseconds since 1970.
    pub created_ms: u64,
}

impl Manifest {
    pub(crate) fn figures(&self) -> Figures {
        Figures { nodes: self.nodes, sessions: self.sessions, digest: self.digest }
    }

    /// As JSON, one key a line.
    #[must_use]
    pub fn to_json(&self) -> String {
        let value = json!({
            "format": FORMAT,
            "zxid": format!("{:#x}", self.zxid.raw()),
            "epoch": self.epoch.0,
            "nodes": self.nodes,
            "sessions": self.sessions,
            "digest": format!("{:#x}", self.digest),
            "file": self.file,
            "bytes": self.len_bytes,
            "sha256": self.sha256,
            "committed": self.committed,
            "ensemble": self.ensemble,
            "source": self.source,
            "createdMs": self.created_ms,
            "createdBy": concat!("zabd ", env!("CARGO_PKG_VERSION")),
        });
        format!("{value:#}\n")
    }

    /// Reads what [`to_json`](Self::to_json) writes; `None` if it is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let text = |key: &str| Some(value.get(key)?.as_str()?.to_owned());
        let number = |key: &str| value.get(key)?.as_u64();
        let hex = |key: &str| u64::from_str_radix(text(key)?.strip_prefix("0x")?, 16).ok();
        if number("format")? != FORMAT {
            return None;
        }
        let file = text("file")?;
        // A file beside the manifest, and nothing else.
        if !file.starts_with("snapshot.") || file.contains('/') {
            return None;
        }
        Some(Self {
            zxid: Zxid::from_raw(hex("zxid")?.cast_signed()),
            epoch: Epoch(value.get("epoch")?.as_i64()?),
            nodes: number("nodes")?,
            sessions: number("sessions")?,
            digest: hex("digest")?,
            file,
            len_bytes: number("bytes")?,
            sha256: text("sha256")?,
            committed: text("committed")?,
            ensemble: text("ensemble"),
            source: text("source")?,
            created_ms: number("createdMs")?,
        })
    }

    pub(crate) fn read(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(MANIFEST_NAME);
        let text = fs::read_to_string(&path).context("read", &path)?;
        let refused = || Error::Refused(format!("{} is no manifest of a backup", path.display()));
        Self::parse(&text).ok_or_else(refused)
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join(MANIFEST_NAME);
        let written = File::create_new(&path).and_then(|mut file| {
            file.write_all(self.to_json().as_bytes())?;
            file.sync_all()
        });
        written.context("write", &path)
    }
}

/// Length and SHA-256 of a file.
pub(crate) fn checksum(
    path: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<(u64, String), Error> {
    let mut file = BufReader::new(File::open(path).context("open", path)?);
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 16];
    let (mut len, mut told) = (0, 0);
    loop {
        let n = file.read(&mut piece).context("read", path)?;
        if n == 0 {
            break;
        }
        hash.update(&piece[..n]);
        len += n as u64;
        if len - told >= PROGRESS_EVERY_LEN {
            told = len;
            progress(&format!("{} MiB checked", len >> 20));
        }
    }
    Ok((len, hex(&hash.finalize())))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

const PROGRESS_EVERY_LEN: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let manifest = Manifest {
            zxid: Zxid::from_raw(0x3_0000_0017),
            epoch: Epoch(4),
            nodes: 5,
            sessions: 2,
            digest: u64::MAX,
            file: "snapshot.300000017.gz".into(),
            len_bytes: 1234,
            sha256: "ab".into(),
            committed: "said \"so\"".into(),
            ensemble: None,
            source: "/data".into(),
            created_ms: 1_700_000_000_000,
        };
        let text = manifest.to_json();
        assert_eq!(Manifest::parse(&text), Some(manifest.clone()));
        let named = Manifest { ensemble: Some("00ff".into()), ..manifest };
        assert_eq!(Manifest::parse(&named.to_json()), Some(named));
        for (old, new) in [
            ("\"format\": 1", "\"format\": 2"),
            ("snapshot.300000017.gz", "../snapshot.1"),
            ("snapshot.300000017.gz", "snapshot./../../x"),
            ("snapshot.300000017.gz", "log.1"),
            ("0x300000017", "300000017"),
            ("1234", "-1"),
            ("\"sessions\"", "\"Sessions\""),
        ] {
            assert!(text.contains(old));
            assert_eq!(Manifest::parse(&text.replace(old, new)), None, "{new}");
        }
    }
}
