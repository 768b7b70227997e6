//! Forced recovery: an ensemble that has lost its majority for good goes on with what is left of it.
//!
//! A majority is what makes a transaction safe, and here there is none: nobody can prove any more what
//! the lost members had acknowledged. So this is two steps. [`plan`] reads the directories that are left and
//! changes nothing: it says which of them has the newest history, what may be lost, and what would be
//! done. [`execute`] does that, if it is given the token of exactly this plan: whatever has changed in the
//! directories meanwhile changes the token.
//!
//! The new ensemble is fenced from the old one twice. Its epoch is so far above any that the lost members
//! can have promised that none of their transactions, and none of their votes, outranks it (rules R3, R21).
//! And it has an id of its own: a lost member that turns up again, with whatever it holds, is neither
//! counted nor followed (rule R24).

mod journal;
mod report;

use std::hash::{BuildHasher, RandomState};

use sha2::{Digest, Sha256};
use zab_proto::{EnsembleId, Epoch, Identity, Membership, Sid, Zxid};
use zab_storage::{Seed, Survey, Through, read_myid};

use crate::Member;
use crate::error::Error;
use crate::manifest::hex;
use crate::tree::Tree;

/// What is known of one directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Survivor {
    /// Where it is.
    pub member: Member,
    /// Its server id, if the directory has one.
    pub sid: Option<i64>,
    /// What its files tell.
    pub survey: Survey,
}

impl Survivor {
    /// How elections compare histories: the epoch of the last leader, then the last transaction.
    fn rank(&self) -> (Epoch, Zxid) {
        let epoch = self.survey.current_epoch.unwrap_or_else(|| self.survey.last.epoch());
        (epoch, self.survey.last)
    }
}

/// What would be done. [`Display`](std::fmt::Display) tells it to the operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The directories, in the order in which they were given.
    pub survivors: Vec<Survivor>,
    /// Which of them has the newest history.
    pub newest: usize,
    /// Who voted.
    pub votes: Votes,
    /// The epoch that fences the new ensemble.
    pub fence: Epoch,
    /// The ensemble that the directories belong to.
    pub ensemble: Option<EnsembleId>,
    /// Nodes in the newest tree.
    pub nodes: u64,
}

/// Who voted in the ensemble that has lost its majority.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Votes {
    /// The members of a configuration, with its weights and groups.
    Members(Box<Membership>),
    /// So many of the same weight, and all directories are those of voters.
    Count(usize),
    /// Neither was said, nor does the tree say it.
    Unknown,
}

/// What can be said of what was acknowledged and is not in any of the directories.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// Every majority has one of the directories in it, so one of them has all that was acknowledged.
    Nothing,
    /// The lost members may have acknowledged more among themselves.
    Possible,
    /// It is not known how many voters there were.
    Unknown,
}

impl Plan {
    /// Whether something that was acknowledged may be lost.
    #[must_use]
    pub fn loss(&self) -> Loss {
        let possible = match &self.votes {
            Votes::Unknown => return Loss::Unknown,
            Votes::Count(count) => self.lost() > count / 2,
            Votes::Members(members) => {
                members.is_quorum(|sid| members.is_voter(sid) && !self.is_left(sid))
            }
        };
        if possible { Loss::Possible } else { Loss::Nothing }
    }

    /// How many voters there were, if that is known.
    #[must_use]
    pub fn voters(&self) -> Option<usize> {
        match &self.votes {
            Votes::Members(members) => Some(members.voters().count()),
            Votes::Count(count) => Some(*count),
            Votes::Unknown => None,
        }
    }

    /// How many of them have no directory here. One without `myid` counts as lost, so that what may be
    /// lost is rather overstated.
    fn lost(&self) -> usize {
        match &self.votes {
            Votes::Members(members) => members.voters().filter(|sid| !self.is_left(*sid)).count(),
            Votes::Count(count) => count.saturating_sub(self.survivors.len()),
            Votes::Unknown => 0,
        }
    }

    fn is_left(&self, sid: Sid) -> bool {
        self.survivors.iter().any(|survivor| survivor.sid == Some(sid.0))
    }

    /// What [`execute`] must be given: a digest of the plan.
    #[must_use]
    pub fn token(&self) -> String {
        let plan = (&self.survivors, self.newest, &self.votes, self.fence, self.nodes);
        hex(&Sha256::digest(format!("{plan:?}"))[..TOKEN_LEN])
    }

    fn newest(&self) -> &Survivor {
        &self.survivors[self.newest]
    }
}

/// Reads the directories of `members`, all of them stopped. Changes nothing.
///
/// `votes` says who voted; if it does not, the tree may.
///
/// # Errors
/// If one of the directories is in use or cannot be read as a whole (leave it out, and know that the
/// newest history may have been there); if they belong to different ensembles; if there is none.
pub fn plan(
    members: &[Member],
    votes: Votes,
    progress: &mut dyn FnMut(&str),
) -> Result<Plan, Error> {
    let mut survivors = Vec::new();
    for member in members {
        survivors.push(survivor(member, progress)?);
    }
    let ensemble = common_ensemble(&survivors)?;
    let best = survivors.iter().enumerate().max_by_key(|(n, s)| (s.rank(), std::cmp::Reverse(*n)));
    let Some((newest, _)) = best else {
        return Err(Error::Refused("no data directory was named".into()));
    };
    // Loaded as a whole: what cannot be applied is found out now.
    let (tree, _) = Tree::load(&survivors[newest].member.view(), Through::Last, progress)?;
    let votes = match (votes, tree.members()) {
        (Votes::Unknown, Some(members)) => Votes::Members(Box::new(members)),
        (votes, _) => votes,
    };
    let epochs = survivors.iter().flat_map(|Survivor { survey, .. }| {
        [survey.accepted_epoch, survey.current_epoch, Some(survey.last.epoch())]
    });
    let highest = epochs.flatten().max().unwrap_or_default();
    let fence = Epoch(highest.0.saturating_add(FENCE));
    if !fence.is_plausible(survivors[newest].survey.last.epoch()) {
        return Err(Error::Refused(format!(
            "the epoch files say {highest}, which is too far above the history to be believed: one of \
             them is damaged"
        )));
    }
    let nodes = tree.figures().nodes;
    Ok(Plan { survivors, newest, votes, fence, ensemble, nodes })
}

fn survivor(member: &Member, progress: &mut dyn FnMut(&str)) -> Result<Survivor, Error> {
    let name = member.data_dir.display();
    progress(&format!("reading {name}"));
    let view = member.view();
    if !member.data_dir.is_dir() {
        return Err(Error::Refused(format!("{name} is no directory")));
    }
    if view.is_in_use()? {
        return Err(Error::Refused(format!("{name}: a server runs there; stop all members first")));
    }
    let survey = view.survey()?;
    Ok(Survivor { member: member.clone(), sid: read_myid(&member.data_dir).ok(), survey })
}

/// The ensemble that all the directories with a confirmed id belong to; or did, before a recovery that
/// was cut short.
fn common_ensemble(survivors: &[Survivor]) -> Result<Option<EnsembleId>, Error> {
    let mut common = None::<(EnsembleId, &Survivor)>;
    for survivor in survivors {
        let identity = survivor.survey.identity.filter(|identity| identity.confirmed);
        let Some(id) = identity.map(|identity| identity.id) else { continue };
        let id = journal::before(&survivor.member.data_dir, id).unwrap_or(id);
        match common {
            Some((other, first)) if other != id => {
                return Err(Error::Refused(format!(
                    "{} belongs to ensemble {other}, and {} to {id}: these are not members of one \
                     ensemble",
                    first.member.data_dir.display(),
                    survivor.member.data_dir.display()
                )));
            }
            _ => common = Some((id, survivor)),
        }
    }
    Ok(common.map(|(id, _)| id))
}

/// Does what the plan says: every one of its directories gets the newest history, the fence and the id
/// of the new ensemble. What was there before stays beside it, under the names that are returned.
///
/// # Errors
/// If `token` is not that of what is found in the directories now, or if one cannot be written. Those in front of it have
/// been made then; the same call with the token of a new plan goes on.
pub fn execute(
    plan: &Plan,
    token: &str,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<std::path::PathBuf>, Error> {
    let members: Vec<Member> = plan.survivors.iter().map(|s| s.member.clone()).collect();
    let found = self::plan(&members, plan.votes.clone(), progress)?;
    if token != plan.token() || token != found.token() {
        return Err(Error::Refused(format!(
            "{token} is not the token of this plan. Read the plan, and what may be lost; then give its \
             token"
        )));
    }
    let (mut tree, _) = Tree::load(&plan.newest().member.view(), Through::Last, progress)?;
    let identity = Identity { id: new_id(), confirmed: true };
    let mut kept = Vec::new();
    // The newest comes last: until then it is where it was.
    let others = plan.survivors.iter().enumerate().filter(|(n, _)| *n != plan.newest);
    for survivor in others.map(|(_, s)| s).chain([plan.newest()]) {
        let Member { data_dir, log_dir } = &survivor.member;
        progress(&format!("writing {}", data_dir.display()));
        // Written first: who finds the new id in the directory finds out what it was before.
        journal::append(plan, survivor, identity.id)?;
        let (accepted, current) = (plan.fence, plan.fence);
        let seed = Seed { zxid: tree.zxid, accepted, current, identity: Some(identity) };
        kept.extend(zab_storage::seed(&mut tree.service, data_dir, log_dir, seed, true)?);
        log::warn!(
            "forced recovery: {} now has the history of {} up to {}, epoch {}, ensemble {}",
            data_dir.display(),
            plan.newest().member.data_dir.display(),
            tree.zxid,
            plan.fence,
            identity.id
        );
    }
    Ok(kept)
}

/// 128 random bits: the standard library seeds its hash maps from the system's source of randomness.
fn new_id() -> EnsembleId {
    let half = || u128::from(RandomState::new().hash_one(0));
    EnsembleId::new(half() << 64 | half())
}

/// How far the new ensemble's epoch is above the highest that is found: more elections than the lost
/// members can have held among themselves, and far less than what counts as damage.
const FENCE: i64 = 1000;
/// Bytes of a token.
const TOKEN_LEN: usize = 6;
