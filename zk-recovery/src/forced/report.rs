//! A plan in words, and as JSON.

use std::fmt;

use serde_json::{Value, json};
use zab_proto::Epoch;

use super::{Loss, Plan, Survivor};
use crate::backup::unknown;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Found:")?;
        for (n, survivor) in self.survivors.iter().enumerate() {
            let newest = if n == self.newest { "  <- the newest history" } else { "" };
            writeln!(f, "  {}{newest}", line(survivor))?;
        }
        if let Some(id) = self.ensemble {
            writeln!(f, "  all of ensemble {id}, as far as they say")?;
        }
        self.losses(f)?;
        self.actions(f)
    }
}

impl Plan {
    fn losses(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let newest = self.newest();
        let last = newest.survey.last;
        writeln!(f, "What may be lost:")?;
        match (self.loss(), self.voters()) {
            (Loss::Nothing, Some(voters)) => writeln!(
                f,
                "  nothing that was acknowledged: {} of {voters} voters are here, so every majority \
                 has one of them in it",
                voters - self.lost()
            )?,
            (_, Some(voters)) => writeln!(
                f,
                "  whatever the {} lost voters of {voters} have acknowledged behind {last}: they are a \
                 majority, and nobody else needs to have seen it. Nothing here tells how much that is",
                self.lost()
            )?,
            (_, None) => writeln!(
                f,
                "  nobody knows: how many voters there were is not said (--voters N, or name a zoo.cfg)"
            )?,
        }
        if let Some(ms) = newest.survey.last_time_ms {
            writeln!(
                f,
                "  the last transaction is of {} ms since 1970 (date -d @{})",
                ms,
                ms / 1000
            )?;
        }
        let known = newest.survey.committed;
        if known < last {
            writeln!(
                f,
                "What may come back: {} behind {known} are in the newest log and not known to have been \
                 acknowledged; they are kept",
                unknown(known, last)
            )?;
        }
        for survivor in self.survivors.iter().filter(|s| s.survey.last != last) {
            writeln!(
                f,
                "What goes: the history of {}, which ends with {}",
                survivor.member.data_dir.display(),
                survivor.survey.last
            )?;
        }
        Ok(())
    }

    fn actions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "What would be done:")?;
        writeln!(
            f,
            "  each of these directories gets a version-2 with the newest history ({} nodes as of {}), \
             and keeps the one that it has as version-2.replaced-N",
            self.nodes,
            self.newest().survey.last
        )?;
        writeln!(
            f,
            "  their epoch is {}: the lost members can have promised none so high",
            self.fence
        )?;
        writeln!(
            f,
            "  they get the id of a new ensemble, to which no lost member belongs any more"
        )?;
        writeln!(f, "  forced-recovery.log in each directory tells of it")
    }

    /// The same for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let survivors = self.survivors.iter().enumerate().map(|(n, survivor)| {
            let survey = &survivor.survey;
            json!({
                "dataDir": survivor.member.data_dir.display().to_string(),
                "dataLogDir": survivor.member.log_dir.display().to_string(),
                "sid": survivor.sid,
                "lastZxid": format!("{:#x}", survey.last.raw()),
                "committedZxid": format!("{:#x}", survey.committed.raw()),
                "lastTimeMs": survey.last_time_ms,
                "acceptedEpoch": survey.accepted_epoch.map(|epoch| epoch.0),
                "currentEpoch": survey.current_epoch.map(|epoch| epoch.0),
                "newest": n == self.newest,
            })
        });
        json!({
            "survivors": survivors.collect::<Vec<_>>(),
            "ensemble": self.ensemble.map(|id| id.to_string()),
            "voters": self.voters(),
            "votersLost": self.lost(),
            "loss": format!("{:?}", self.loss()),
            "fenceEpoch": self.fence.0,
            "nodes": self.nodes,
            "token": self.token(),
        })
    }
}

fn line(survivor: &Survivor) -> String {
    let survey = &survivor.survey;
    let sid = survivor.sid.map_or_else(|| "no myid".into(), |sid| format!("member {sid}"));
    let epoch = |epoch: Option<Epoch>| epoch.map_or_else(|| "none".into(), |e| e.to_string());
    format!(
        "{} ({sid}): last transaction {}, known to be committed {}, epochs {} accepted, {} current",
        survivor.member.data_dir.display(),
        survey.last,
        survey.committed,
        epoch(survey.accepted_epoch),
        epoch(survey.current_epoch)
    )
}
