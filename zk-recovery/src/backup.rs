//! Backups: the tree at one zxid, and the proof that it was written.
//!
//! A backup is a directory with one snapshot file, in ZooKeeper's own format, and `backup.json`. It is made
//! from the member's files: the newest sealed snapshot, and after it every record of the log up to a
//! zxid that is known to be committed, each with its checksum and none missing. Because all members
//! apply the same transactions in the same order (atomic broadcast), the tree that comes out is the tree
//! of the whole ensemble at that zxid, whatever the member does meanwhile; where the last transaction
//! brings the leader's digest of the tree, the two are compared.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use zab_proto::{DigestVerdict, Epoch, Zxid};
use zab_storage::{Compression, Loaded, Survey, Through};

use crate::error::{Context, Error};
use crate::manifest::{self, Manifest};
use crate::tree::Tree;
use crate::{Member, running};

/// What to save, and how.
#[derive(Clone, Debug)]
pub struct Source {
    /// The member's directories.
    pub member: Member,
    /// Its client port as `host:port`, which is asked what has been committed (`srvr`).
    pub server: Option<String>,
    /// It is a server of its own: all that it has logged is committed.
    pub alone: bool,
    /// What the log has after the last transaction that is known to be committed is left out.
    pub committed_only: bool,
}

/// Makes a backup in `target`, which must not exist or be empty, and reads it again. `progress` gets a
/// line every so often.
///
/// # Errors
/// What keeps the member's files from being read or the backup from being written; nothing is left of
/// the backup then.
pub fn create(
    source: &Source,
    target: &Path,
    compression: Compression,
    progress: &mut dyn FnMut(&str),
) -> Result<Manifest, Error> {
    check_target(target)?;
    let made = with_suffix(target, ".partial");
    if made.exists() {
        fs::remove_dir_all(&made).context("remove", &made)?;
    }
    fs::create_dir_all(&made).context("create directory", &made)?;
    let result = create_in(source, &made, compression, progress);
    let result = result.and_then(|manifest| {
        // One rename: a backup is there as a whole or not at all.
        fs::rename(&made, target).context("rename", &made)?;
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_dir(parent.unwrap_or_else(|| Path::new(".")))?;
        Ok(manifest)
    });
    if result.is_err() {
        // What cannot be removed is said by its name.
        let _ = fs::remove_dir_all(&made);
    }
    result
}

fn create_in(
    source: &Source,
    dir: &Path,
    compression: Compression,
    progress: &mut dyn FnMut(&str),
) -> Result<Manifest, Error> {
    let (mut tree, survey, committed) = read(source, progress)?;
    progress(&format!("writing {} nodes as of {}", tree.figures().nodes, tree.zxid));
    let zxid = tree.zxid;
    let path = zab_storage::write_snapshot(&mut tree.service, dir, zxid, compression, |bytes| {
        progress(&format!("{} MiB written", bytes >> 20));
    })?;
    let (len_bytes, sha256) = manifest::checksum(&path, progress)?;
    let epochs = [survey.accepted_epoch, survey.current_epoch, Some(survey.last.epoch())];
    let figures = tree.figures();
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let manifest = Manifest {
        zxid,
        epoch: epochs.into_iter().flatten().max().unwrap_or(Epoch(0)),
        nodes: figures.nodes,
        sessions: figures.sessions,
        digest: figures.digest,
        file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        len_bytes,
        sha256,
        committed,
        ensemble: survey.identity.map(|identity| identity.id.to_string()),
        source: source.member.data_dir.display().to_string(),
        created_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
    };
    manifest.write(dir)?;
    sync_dir(dir)?;
    progress("reading what was written");
    verify(dir, progress)?;
    Ok(manifest)
}

/// Reads a backup as a whole: its checksum, its seals, and whether the tree is the one that the manifest
/// speaks of.
///
/// # Errors
/// Whatever is wrong with it.
pub fn verify(dir: &Path, progress: &mut dyn FnMut(&str)) -> Result<Manifest, Error> {
    read_backup(dir, progress).map(|(manifest, _)| manifest)
}

pub(crate) fn read_backup(
    dir: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<(Manifest, Tree), Error> {
    let manifest = Manifest::read(dir)?;
    let path = dir.join(&manifest.file);
    let wrong = |what: String| Err(Error::Refused(format!("{}: {what}", path.display())));
    let (len, sha256) = manifest::checksum(&path, progress)?;
    if (len, &sha256) != (manifest.len_bytes, &manifest.sha256) {
        return wrong(format!(
            "its SHA-256 is {sha256} ({len} bytes), and the manifest says {} ({} bytes)",
            manifest.sha256, manifest.len_bytes
        ));
    }
    let tree = Tree::read(&path, manifest.zxid)?;
    let (found, expected) = (tree.figures(), manifest.figures());
    if found != expected {
        return wrong(format!("it holds {found:?}, and the manifest says {expected:?}"));
    }
    Ok((manifest, tree))
}

/// The member's tree, at a zxid that is known to be committed if that can be had; and how it is known.
fn read(source: &Source, progress: &mut dyn FnMut(&str)) -> Result<(Tree, Survey, String), Error> {
    let view = source.member.view();
    let mut attempt = 1;
    loop {
        // Asked first: all that it names is in the files already, or will be in a moment.
        let bound = Bound::find(source, view.is_in_use()?);
        let read = Tree::load(&view, bound.through, progress)
            .and_then(|read| view.survey().map(|survey| (read, survey)).map_err(Into::into));
        match read {
            Ok(((tree, loaded), survey)) => {
                let committed = bound.words(&tree, &survey, loaded);
                return Ok((tree, survey, committed));
            }
            // Files come and go under a running member, and a record may be on its way to the log.
            Err(error) if bound.running && attempt < ATTEMPTS => {
                log::debug!("attempt {attempt}: {error}");
                progress(&format!("beginning again: {error}"));
                attempt += 1;
                thread::sleep(PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
}

/// How far the member's log is read, and why.
struct Bound {
    through: Through,
    why: String,
    running: bool,
}

impl Bound {
    fn find(source: &Source, in_use: bool) -> Self {
        let asked = source.server.as_deref().map(|server| (server, running::applied(server)));
        match asked {
            Some((server, Ok(Some(zxid)))) => Self {
                through: Through::Zxid(zxid),
                why: format!("all of it: {server} has applied {zxid} (srvr)"),
                running: true,
            },
            // It runs, and nothing says what of its last records is committed.
            Some((server, Ok(None))) => Self::known(&format!("{server} does not serve")),
            Some((server, Err(error))) if in_use => {
                Self::known(&format!("{server} cannot be asked ({error})"))
            }
            None if in_use => Self::known("no server was named to be asked"),
            _ if source.alone => Self {
                through: Through::Last,
                why: "all of it: a server of its own, which is stopped".into(),
                running: false,
            },
            _ if source.committed_only => Self::known("the member is stopped"),
            _ => Self { through: Through::Last, why: String::new(), running: false },
        }
    }

    fn known(why: &str) -> Self {
        let why = format!("all of it: what the files show to be committed; {why}");
        Self { through: Through::Committed, why, running: true }
    }

    /// Why what was read is committed; or what of it may not be.
    fn words(self, tree: &Tree, survey: &Survey, loaded: Loaded) -> String {
        let mut words = self.why;
        if words.is_empty() {
            let known = survey.committed;
            words = if known >= tree.zxid {
                format!("all of it: the files show it up to {known}")
            } else {
                let count = unknown(known, tree.zxid);
                format!(
                    "up to {known}; {count} are the stopped member's own and may not have been \
                     committed"
                )
            };
        }
        words
            + match loaded.digest {
                DigestVerdict::Agrees => "; the tree has the digest that the leader has logged",
                DigestVerdict::Differs => {
                    "; THE TREE HAS ANOTHER DIGEST THAN THE LEADER HAS LOGGED"
                }
                DigestVerdict::Absent => "; the log has no digest to compare the tree with",
            }
    }
}

/// How many transactions lie after `known`.
pub(crate) fn unknown(known: Zxid, last: Zxid) -> String {
    if known.epoch() == last.epoch() {
        let count = last.raw() - known.raw();
        format!("{count} transaction{}", if count == 1 { "" } else { "s" })
    } else {
        format!("the transactions from there up to {last}")
    }
}

/// A backup never takes the place of anything.
fn check_target(target: &Path) -> Result<(), Error> {
    match fs::read_dir(target) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Error::Refused(format!(
                "{} is not empty, and nothing is overwritten",
                target.display()
            ))),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).context("read", target),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

pub(crate) fn sync_dir(dir: &Path) -> Result<(), Error> {
    fs::File::open(dir).and_then(|dir| dir.sync_all()).context("sync directory", dir)
}

/// A running member's files are read so often, for as long as they change under the reader.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);
