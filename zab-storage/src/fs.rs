//! The few file-system calls that change something. All of them go through [`Fs`], so that tests
//! can stop the world between any two of them and look at what a crash would have left.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use rustix::fs::OFlags;

use crate::error::{Context, Error};

/// The real file system; in tests also a recorder and executioner.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fs {
    #[cfg(test)]
    pub(crate) probe: Option<std::sync::Arc<crate::crash_tests::Probe>>,
    /// Stands for a file system that has nothing but its page cache.
    #[cfg(test)]
    pub(crate) only_cached: bool,
}

/// A change of the file system, as tests see it.
#[cfg_attr(not(test), expect(dead_code, reason = "only tests record the changes"))]
#[derive(Debug)]
pub(crate) enum Change<'a> {
    Create(&'a Path),
    Open(&'a Path),
    Write(&'a Path, &'a [u8]),
    /// Past the page cache.
    WriteDirect(&'a Path, &'a [u8]),
    Resize(&'a Path, u64),
    Sync(&'a Path),
    Rename(&'a Path, &'a Path),
    Remove(&'a Path),
    SyncDir(&'a Path),
}

impl Fs {
    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "the probe exists in tests only"))]
    fn step(&self, change: &Change<'_>) -> io::Result<()> {
        #[cfg(test)]
        if let Some(probe) = &self.probe {
            return probe.step(change);
        }
        let _ = change;
        Ok(())
    }

    /// Whether syncs reach the medium. Where a probe keeps a model of it, they need not.
    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "the probe exists in tests only"))]
    fn is_real(&self) -> bool {
        #[cfg(test)]
        return self.probe.is_none();
        #[cfg(not(test))]
        true
    }

    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "without in tests only"))]
    fn has_direct(&self) -> bool {
        #[cfg(test)]
        return !self.only_cached;
        #[cfg(not(test))]
        true
    }

    /// Creates a file for writing; an existing one is emptied.
    pub(crate) fn create(&self, path: PathBuf) -> Result<OutFile, Error> {
        let file = self
            .step(&Change::Create(&path))
            .and_then(|()| patiently(|| create_file(&path)))
            .context("create", &path)?;
        Ok(OutFile { fs: self.clone(), file, path, is_direct: false })
    }

    /// Creates a file that is written past the page cache, where the file system has that: whole
    /// blocks of [`BLOCK_LEN`] from memory that is aligned to it.
    pub(crate) fn create_direct(&self, path: PathBuf) -> Result<OutFile, Error> {
        let mut out = self.create(path)?;
        out.is_direct = self.has_direct() && set_direct(&out.file, true).is_ok();
        Ok(out)
    }

    /// Opens an existing file to change or sync it in place.
    pub(crate) fn open(&self, path: PathBuf) -> Result<OutFile, Error> {
        let file = self
            .step(&Change::Open(&path))
            .and_then(|()| patiently(|| OpenOptions::new().read(true).write(true).open(&path)))
            .context("open", &path)?;
        Ok(OutFile { fs: self.clone(), file, path, is_direct: false })
    }

    /// Makes a file durable that somebody else has written. It need not be writable.
    pub(crate) fn sync_file(&self, path: &Path) -> Result<(), Error> {
        let file = self
            .step(&Change::Open(path))
            .and_then(|()| patiently(|| File::open(path)))
            .context("open", path)?;
        OutFile { fs: self.clone(), file, path: path.to_path_buf(), is_direct: false }.sync()
    }

    /// Renames, replacing `to` if it exists. Durable after `sync_dir`.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<(), Error> {
        self.step(&Change::Rename(from, to))
            .and_then(|()| fs::rename(from, to))
            .context("rename", from)
    }

    /// Removes a file. Durable after `sync_dir`.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), Error> {
        self.step(&Change::Remove(path))
            .and_then(|()| fs::remove_file(path))
            .context("remove", path)
    }

    /// Makes the names in a directory durable.
    pub(crate) fn sync_dir(&self, dir: &Path) -> Result<(), Error> {
        self.sync_open_dir(dir, &self.open_dir(dir)?)
    }

    /// Opens a directory, to be synced.
    pub(crate) fn open_dir(&self, dir: &Path) -> Result<File, Error> {
        patiently(|| File::open(dir)).context("open directory", dir)
    }

    /// The second half of [`sync_dir`](Self::sync_dir), which is never to be tried again.
    pub(crate) fn sync_open_dir(&self, dir: &Path, opened: &File) -> Result<(), Error> {
        let mut result = self.step(&Change::SyncDir(dir));
        if self.is_real() {
            result = result.and_then(|()| opened.sync_all());
        }
        result.context("sync directory", dir)
    }

    /// Writes a small file as one durable change: temporary file, fsync, rename, directory fsync.
    pub(crate) fn replace(&self, dir: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let tmp = dir.join(format!("{name}.tmp"));
        let mut out = self.create(tmp.clone())?;
        out.write_all(bytes).context("write", &tmp)?;
        out.sync()?;
        self.rename(&tmp, &dir.join(name))?;
        self.sync_dir(dir)
    }
}

/// Opens a file, if need be a little later: descriptors that others of the process have used up for the
/// moment must not end a server. Nothing has been written at this point that could be lost.
fn patiently(open: impl Fn() -> io::Result<File>) -> io::Result<File> {
    const PAUSE: Duration = Duration::from_millis(10);
    const ATTEMPTS: u32 = 100;
    for _ in 0..ATTEMPTS {
        match open() {
            Err(error) if is_out_of_descriptors(&error) => std::thread::sleep(PAUSE),
            result => return result,
        }
    }
    open()
}

/// Creates or empties a file that the group may read: with what is in a tree go the digests of its
/// passwords, which are nobody else's business.
pub(crate) fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(path)
}

/// EMFILE or ENFILE, which have no kind of their own.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24))
}

/// What is written past the page cache is whole blocks of so many bytes, from memory that is aligned to it. No
/// disk in use asks for more.
pub(crate) const BLOCK_LEN: usize = 4 << 10;

/// Whether writes go past the page cache. A file system without that refuses.
fn set_direct(file: &File, direct: bool) -> io::Result<()> {
    let mut flags = rustix::fs::fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, direct);
    Ok(rustix::fs::fcntl_setfl(file, flags)?)
}

/// A file that is being written, from its start to its end.
#[derive(Debug)]
pub(crate) struct OutFile {
    fs: Fs,
    file: File,
    path: PathBuf,
    is_direct: bool,
}

impl OutFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether what is written goes past the page cache, so that no sync of another file waits for it.
    pub(crate) fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// From here on the page cache takes what is written.
    pub(crate) fn end_direct(&mut self) -> io::Result<()> {
        if self.is_direct {
            set_direct(&self.file, false)?;
            self.is_direct = false;
        }
        Ok(())
    }

    /// As `write_all`. A file system may say only now that it takes nothing past the page cache, or no such blocks.
    fn write_through(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => bytes = &bytes[len..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if self.is_direct && error.kind() == io::ErrorKind::InvalidInput => {
                    self.end_direct()?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sets the length: zeros are added, or the end is cut off.
    pub(crate) fn resize(&mut self, len: u64) -> Result<(), Error> {
        self.fs
            .step(&Change::Resize(&self.path, len))
            .and_then(|()| self.file.set_len(len))
            .context("resize", &self.path)
    }

    /// Writes zeros over the zeros in a part of the padding: nothing changes but where they are
    /// kept, so that tests need not know of it.
    pub(crate) fn write_zeros(&mut self, from: u64, through: u64) -> Result<(), Error> {
        let mut write = || {
            let position = self.file.stream_position()?;
            let mut at = self.file.seek(SeekFrom::Start(from))?;
            while at < through {
                let n = usize::try_from(through - at).map_or(ZEROS_LEN, |n| n.min(ZEROS_LEN));
                self.file.write_all(&ZEROS[..n])?;
                at += n as u64;
            }
            self.file.seek(SeekFrom::Start(position)).map(drop)
        };
        write().context("extend", &self.path)
    }

    /// Makes the content (and the length) durable. Never call again after an error: the kernel
    /// has dropped the pages it could not write, and the next call would succeed without them.
    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        self.sync_written().context("fsync", &self.path)
    }

    /// [`sync`](Self::sync) for those who know the path.
    pub(crate) fn sync_written(&mut self) -> io::Result<()> {
        let mut result = self.fs.step(&Change::Sync(&self.path));
        if self.fs.is_real() {
            result = result.and_then(|()| self.file.sync_data());
        }
        result
    }
}

/// Made when it is needed: as a constant it would take its length in the program's file.
static ZEROS: LazyLock<Box<[u8]>> = LazyLock::new(|| vec![0; ZEROS_LEN].into_boxed_slice());
const ZEROS_LEN: usize = 64 << 10;

impl Write for OutFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let change = if self.is_direct { Change::WriteDirect } else { Change::Write };
        self.fs.step(&change(&self.path, buf))?;
        self.write_through(buf)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
