//! Restoring a member that runs: its server ends, another state takes the place of its own, and it begins
//! anew.
//!
//! What makes that safe in an ensemble, whose members are restored one after the other, is the ensemble's id
//! (rule R24). The new state gets another id, which is made of the old one and the snapshot: it is the same on each
//! member that is restored from this snapshot, and differs from that of those which are not yet. The two kinds
//! neither count, nor follow, nor synchronise each other, so that the old ones serve for as long as they are a
//! quorum, then nobody, and then the new ones: never both, and never a mixture. Whoever is restored twice has an
//! id of its own again, and cannot take back what the others have acknowledged meanwhile.
//!
//! How elections rank the new history is the same on each of them, too (`currentEpoch` and zxid are the
//! snapshot's). `acceptedEpoch` stays: a quorum of restored members has one in it that took part in the last old
//! epoch, so the first new leader's epoch is above all that clients have seen.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use zab_proto::{EnsembleId, Epoch, Identity, Zxid};
use zab_storage::{Seed, SnapshotReader};
use zk_service::Census;

use crate::error::{Context, Error};
use crate::{Member, manifest};

/// A snapshot that may take the place of a member's state.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Upload {
    /// The file.
    pub path: PathBuf,
    /// The last transaction in it.
    pub zxid: Zxid,
    /// It was written while the tree changed, and is whole only with the log behind it.
    pub is_fuzzy: bool,
    /// What it holds.
    pub census: Census,
    /// Its SHA-256.
    pub sha256: String,
}

/// What became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Replaced {
    /// The zxid of the new state.
    pub zxid: Zxid,
    /// The id of the ensemble that the member belongs to now.
    pub ensemble: EnsembleId,
    /// Where the old state is kept.
    pub kept: Vec<PathBuf>,
}

/// Reads a snapshot in `file`, piece by piece: whether it is whole, and what is in it. It gets the ending of its
/// compression.
///
/// # Errors
/// Damage; a file that is no snapshot.
pub fn inspect(file: &Path) -> Result<Upload, Error> {
    let path = with_ending(file)?;
    let wrong = |what: &str| Error::Refused(format!("the snapshot cannot be used: {what}"));
    let mut census = Census::default();
    let mut reader = SnapshotReader::open(&path)?;
    loop {
        let progress = census.push(reader.bytes()).map_err(|_| wrong("it does not decode"))?;
        reader.consume(progress.consumed);
        if progress.done {
            break;
        }
        if reader.fill()?.is_none() {
            return Err(wrong("it is cut short"));
        }
    }
    let trailer = reader.finish()?;
    let digest = trailer.digest.filter(|digest| digest.zxid != Zxid::ZERO);
    let ends = [digest.map(|digest| digest.zxid), trailer.last_processed];
    // Without either the nodes have to tell.
    let zxid = ends.into_iter().flatten().max().unwrap_or(census.last_zxid);
    let differs = digest.is_some_and(|digest| digest.digest != census.digest);
    let begins_before = trailer.last_processed.is_some_and(|begun| begun < zxid);
    let (_, sha256) = manifest::checksum(&path, &mut |_| {})?;
    Ok(Upload { path, zxid, is_fuzzy: differs || begins_before, census, sha256 })
}

/// The same file under a name that tells how it is compressed.
fn with_ending(file: &Path) -> Result<PathBuf, Error> {
    let mut magic = [0; 2];
    let read = File::open(file).and_then(|mut file| file.read_exact(&mut magic));
    read.context("read", file)?;
    let ending = match magic {
        [0x1f, 0x8b] => "gz",
        [0x82, b'S'] => "snappy",
        _ => return Ok(file.to_path_buf()),
    };
    let path = file.with_extension(ending);
    fs::rename(file, &path).context("rename", file)?;
    Ok(path)
}

/// Puts the snapshot in the place of the state of `member`, whose server must not run.
///
/// The history of a server that is `alone` goes on in the next epoch, above all that its clients have seen; that of a
/// member goes on from the snapshot's zxid, with an id of its own.
///
/// # Errors
/// If the directories are in use or cannot be written; the old state stands then. If the epochs are used up.
pub fn replace(upload: &Upload, member: &Member, alone: bool) -> Result<Replaced, Error> {
    let before = member.view().epochs()?;
    let (accepted, current) =
        (before.accepted.unwrap_or_default(), before.current.unwrap_or_default());
    let of_snapshot = upload.zxid.epoch();
    let seed = |zxid: Zxid, accepted, current, id| {
        let identity = Some(Identity { id, confirmed: true });
        Seed { zxid, accepted, current, identity }
    };
    let id = next_id(before.identity, &upload.sha256);
    let seed = if alone {
        let last = before.last.epoch();
        let epoch = [accepted, current, last, of_snapshot].into_iter().max().and_then(Epoch::next);
        let Some(epoch) = epoch else {
            return Err(Error::Refused("there is no epoch left above the present one".into()));
        };
        seed(Zxid::new(epoch, 0), epoch, epoch, id)
    } else {
        let accepted = accepted.max(current).max(of_snapshot);
        if !accepted.is_plausible(of_snapshot) {
            return Err(Error::Refused(format!(
                "epoch {accepted} is too far above the snapshot's, {of_snapshot}: it would be taken for \
                 damage"
            )));
        }
        // The digest of a fuzzy one belongs to a tree that it is not.
        let zxid =
            if upload.is_fuzzy { Zxid::from_raw(upload.zxid.raw() + 1) } else { upload.zxid };
        seed(zxid, accepted, of_snapshot, id)
    };
    let kept = zab_storage::seed_file(&upload.path, &member.data_dir, &member.log_dir, seed)?;
    Ok(Replaced { zxid: seed.zxid, ensemble: id, kept })
}

/// Undoes [`replace`], as long as nothing was written behind the new state that counts.
///
/// # Errors
/// A rename fails.
pub fn put_back(member: &Member, replaced: &Replaced) -> Result<(), Error> {
    Ok(zab_storage::put_back(&member.data_dir, &member.log_dir, &replaced.kept)?)
}

/// The same for the same two, on every member.
fn next_id(before: Option<Identity>, sha256: &str) -> EnsembleId {
    let before = before.map(|identity| identity.id.to_string()).unwrap_or_default();
    let hash = Sha256::digest(format!("restored {before} {sha256}"));
    let bits = hash.iter().take(16).fold(0, |bits: u128, byte| bits << 8 | u128::from(*byte));
    EnsembleId::new(bits)
}
