//! `ensembleConfigurations`: which configurations of the ensemble count (`docs/membership.md`).
//!
//! The texts that the core gives, the committed one first, each followed by an empty line, and a checksum
//! of it all. The name is none of ZooKeeper's, which keeps its own beside its configuration file and leaves
//! this one alone.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use crate::checksum::Checksum;
use crate::error::{Context, Error};
use crate::fs::Fs;

/// The file beside the epochs.
pub(crate) const NAME: &str = "ensembleConfigurations";

/// Who wants to hear of each change, on the thread that writes and in the order of what it writes, before
/// the change counts as durable: for copies in other places, such as ZooKeeper's dynamic configuration
/// files. What storage itself reads at the next start is its own file.
#[derive(Clone, Default)]
pub struct OnConfigurations(Option<Arc<Listener>>);

type Listener = dyn Fn(&[String]) + Send + Sync;

impl OnConfigurations {
    /// Calls `listener` with the texts: the committed configuration, then those that are being introduced.
    #[must_use]
    pub fn new(listener: impl Fn(&[String]) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    pub(crate) fn tell(&self, texts: &[String]) {
        if let Some(listener) = &self.0 {
            listener(texts);
        }
    }
}

impl fmt::Debug for OnConfigurations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "OnConfigurations(..)" } else { "OnConfigurations" })
    }
}

/// Replaces the file, durably.
pub(crate) fn write(fs: &Fs, dir: &Path, texts: &[String]) -> Result<(), Error> {
    fs.replace(dir, NAME, encode(texts).as_bytes())
}

/// What the directory says; nothing, if there is no file.
///
/// A damaged file ends the start: a server that forgets which configuration is being introduced may vote
/// by one that is over.
///
/// # Errors
/// [`Error::Io`] and [`Error::Directory`].
pub fn read_configurations(dir: &Path) -> Result<Vec<String>, Error> {
    let path = dir.join(NAME);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context("read", &path),
    };
    decode(&bytes).ok_or(Error::Directory {
        path,
        reason: "is damaged; remove it if the configuration file names the members of now",
    })
}

/// The content of the file for these texts, which have no empty lines.
pub(crate) fn encode(texts: &[String]) -> String {
    let body: String = texts.iter().map(|text| format!("{}\n\n", text.trim_end())).collect();
    let check = Checksum::of(body.as_bytes());
    format!("{body}{check:08x}\n")
}

pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<String>> {
    let content = std::str::from_utf8(bytes).ok()?;
    let body = content.get(..content.len().checked_sub(9)?)?;
    let texts: Vec<String> =
        body.split("\n\n").filter(|text| !text.is_empty()).map(String::from).collect();
    (encode(&texts) == content).then_some(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_damaged_is_not() {
        let dir = std::env::temp_dir().join(format!("zab-configurations-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        assert_eq!(read_configurations(&dir).unwrap(), Vec::<String>::new());
        let text =
            |version: i64| format!("server.1=h:1:2:participant;0.0.0.0:3\nversion={version:x}");
        for texts in [vec![text(0)], vec![text(0), text(1 << 32)], vec![text(1), text(2), text(3)]]
        {
            write(&Fs::default(), &dir, &texts).unwrap();
            assert_eq!(read_configurations(&dir).unwrap(), texts);
        }
        let good = encode(&[text(1), text(2)]);
        for at in 0..good.len() {
            let mut bad = good.clone().into_bytes();
            bad[at] ^= 1;
            fs::write(dir.join(NAME), &bad).unwrap();
            assert!(read_configurations(&dir).is_err(), "byte {at}");
            fs::write(dir.join(NAME), &good.as_bytes()[..at]).unwrap();
            assert!(read_configurations(&dir).is_err(), "{at} bytes");
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
