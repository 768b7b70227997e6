//! `ensembleId`: which ensemble a data directory belongs to (rule R24).
//!
//! One line of text, so that an operator can read and compare it: the id, whether it is confirmed, and
//! a checksum of both. The name is none of ZooKeeper's, which leaves the file alone. To remove it is the
//! operator's way to say that the directory belongs where it is: the next leader writes it again.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use zab_proto::{EnsembleId, Identity};

use crate::checksum::Checksum;
use crate::error::{Context, Error};
use crate::foreign::warn_once;
use crate::fs::Fs;

/// The file beside the epochs.
pub(crate) const NAME: &str = "ensembleId";

/// Replaces the file, durably: temporary file, fsync, rename, fsync of the directory.
pub(crate) fn write(fs: &Fs, dir: &Path, identity: Identity) -> Result<(), Error> {
    fs.replace(dir, NAME, text(identity).as_bytes())
}

/// The id in the directory; `None` if there is no file.
///
/// A file that cannot be understood counts as none, too, with a warning. It keeps nobody apart then,
/// and is written again when a leader has synchronised this server: to refuse the start would cost a
/// member for the loss of a precaution.
///
/// # Errors
/// [`Error::Io`] if there is something that cannot be read.
pub fn read_identity(dir: &Path) -> Result<Option<Identity>, Error> {
    let path = dir.join(NAME);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("read", &path),
    };
    let identity = parse_identity(&bytes);
    if identity.is_none() {
        warn_once(&path, "it is damaged; the next leader writes it anew");
    }
    Ok(identity)
}

/// The content of the file, if it is whole.
#[must_use]
pub fn parse_identity(bytes: &[u8]) -> Option<Identity> {
    std::str::from_utf8(bytes).ok().and_then(parse)
}

fn parse(line: &str) -> Option<Identity> {
    let mut words = line.split(' ');
    let id = EnsembleId::parse(words.next()?)?;
    let confirmed = match words.next()? {
        CONFIRMED => true,
        TENTATIVE => false,
        _ => return None,
    };
    let identity = Identity { id, confirmed };
    (text(identity) == line).then_some(identity)
}

fn text(identity: Identity) -> String {
    let state = if identity.confirmed { CONFIRMED } else { TENTATIVE };
    let text = format!("{} {state}", identity.id);
    let check = Checksum::of(text.as_bytes());
    format!("{text} {check:08x}\n")
}

const CONFIRMED: &str = "confirmed";
/// Not known to be stored by a quorum.
const TENTATIVE: &str = "tentative";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let dir = std::env::temp_dir().join(format!("zab-identity-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        assert_eq!(read_identity(&dir).unwrap(), None);
        let identity = |bits, confirmed| Identity { id: EnsembleId::new(bits), confirmed };
        for identity in [identity(7, false), identity(7, true), identity(u128::MAX, true)] {
            write(&Fs::default(), &dir, identity).unwrap();
            assert_eq!(read_identity(&dir).unwrap(), Some(identity));
        }
        let good = text(identity(7, true));
        let path = dir.join(NAME);
        for len in 0..good.len() {
            fs::write(&path, &good[..len]).unwrap();
            assert_eq!(read_identity(&dir).unwrap(), None, "{len} bytes");
        }
        for at in 0..good.len() {
            let mut bytes = good.clone().into_bytes();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert_eq!(read_identity(&dir).unwrap(), None, "byte {at}");
        }
        for bytes in [&[0xff; 60][..], &[0; 60], b"\n", format!("{good}{good}").as_bytes()] {
            fs::write(&path, bytes).unwrap();
            assert_eq!(read_identity(&dir).unwrap(), None);
        }
        // What is no file at all is not guessed at.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(read_identity(&dir).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }
}
