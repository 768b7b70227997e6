//! Restoring: a data directory that begins with a backup.

use std::path::Path;

use zab_proto::Epoch;
use zab_storage::Seed;

use crate::backup;
use crate::{Error, Manifest, Member};

/// Makes new directories of `members` from the backup in `dir`, each with the same history, so that
/// any of them may lead. Both epochs become `epoch`, or the highest that the backup knows of: the first
/// leader's is higher.
///
/// They belong to no ensemble yet: the first leader gives them an id of their own, so that members of
/// the ensemble that the backup was taken from stay out.
///
/// # Errors
/// If the backup is not whole, if `epoch` is too low, or if one of the directories holds data. Those in
/// front of it in the list have been made then.
pub fn into(
    members: &[Member],
    dir: &Path,
    epoch: Option<Epoch>,
    progress: &mut dyn FnMut(&str),
) -> Result<Manifest, Error> {
    for member in members {
        if member.view().has_history()? {
            return Err(Error::Refused(format!(
                "{} holds data already, which is not overwritten",
                member.data_dir.display()
            )));
        }
    }
    let (manifest, mut tree) = backup::read_backup(dir, progress)?;
    let known = manifest.epoch.max(manifest.zxid.epoch());
    let epoch = epoch.unwrap_or(known);
    // What is further above a member's history it takes for damage.
    if epoch < known || !epoch.is_plausible(manifest.zxid.epoch()) {
        return Err(Error::Refused(format!(
            "epoch {epoch} is below {known}, which the backup has, or too far above its history"
        )));
    }
    for member in members {
        progress(&format!("writing {}", member.data_dir.display()));
        let seed = Seed { zxid: tree.zxid, accepted: epoch, current: epoch, identity: None };
        zab_storage::seed(&mut tree.service, &member.data_dir, &member.log_dir, seed, false)?;
    }
    Ok(manifest)
}
