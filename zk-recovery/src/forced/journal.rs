//! `forced-recovery.log` in `dataDir`: what was done here, for whoever asks later.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use serde_json::{Value, json};
use zab_proto::EnsembleId;

use super::{Plan, Survivor};
use crate::backup::sync_dir;
use crate::error::{Context, Error};

/// One JSON object a line.
const NAME: &str = "forced-recovery.log";

pub(super) fn append(plan: &Plan, survivor: &Survivor, id: EnsembleId) -> Result<(), Error> {
    let (dir, newest) = (&survivor.member.data_dir, plan.newest());
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let line = json!({
        "timeMs": u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
        "ensembleBefore": plan.ensemble.map(|id| id.to_string()),
        "ensemble": id.to_string(),
        "zxidBefore": format!("{:#x}", survivor.survey.last.raw()),
        "zxid": format!("{:#x}", newest.survey.last.raw()),
        "historyOf": newest.member.data_dir.display().to_string(),
        "epoch": plan.fence.0,
        "voters": plan.voters(),
        "directories": plan.survivors.len(),
        "loss": format!("{:?}", plan.loss()),
    });
    let path = dir.join(NAME);
    let written = OpenOptions::new().create(true).append(true).open(&path).and_then(|mut file| {
        writeln!(file, "{line}")?;
        file.sync_all()
    });
    written.context("write", &path)?;
    sync_dir(dir)
}

/// The ensemble that a directory belonged to before a recovery made it one of `id`.
pub(super) fn before(dir: &Path, id: EnsembleId) -> Option<EnsembleId> {
    let text = fs::read_to_string(dir.join(NAME)).ok()?;
    let entries = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let entry = entries.into_iter().find(|entry| id_of(entry, "ensemble") == Some(id))?;
    id_of(&entry, "ensembleBefore")
}

fn id_of(entry: &Value, key: &str) -> Option<EnsembleId> {
    EnsembleId::parse(entry.get(key)?.as_str()?)
}
