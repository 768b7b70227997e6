//! Changes of the membership by ZooKeeper's `reconfig` (`docs/membership.md`).
//!
//! A change is a transaction like any other, whose body is the text of the new configuration and whose
//! zxid is that configuration's version. From the moment it is part of this server's history, the new
//! configuration counts beside the old one ([`Quorums`]), and once it is known to be committed, alone. Both
//! follow from the history and a position in it: there is no message without which a server would be
//! stuck half-way, and what is read back from the log at a start counts as it did before.
//!
//! Beside the log two things can tell of a configuration: a leader, in NEWLEADER, and what this server has
//! stored of that. A snapshot may hold the transaction, and the first version of an epoch has none.
//!
//! Without [`Config::reconfig`](crate::Config::reconfig) this server cannot change its membership while it
//! runs. It detects that `reconfig` has changed the ensemble, finishes with the current leader, and then
//! stops voting and following, because quorums of the old membership are no longer valid. It acknowledges
//! the change itself, which may need its acknowledgement, and must be started again with the new list.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::quorums::Quorums;
use crate::shared::{Control, Shared};
use crate::wire::jute::Reader;
use crate::wire::txn::TxnHeader;
use crate::{CloseReason, Membership, Violation, Zxid};

/// The type of a transaction that changes the membership.
pub(crate) const RECONFIG: i32 = 16;

/// The configuration that a transaction makes, if it changes the members and can be read.
pub(crate) fn configuration(header: &TxnHeader, txn: &[u8]) -> Option<Membership> {
    if header.kind != RECONFIG {
        return None;
    }
    let mut body = Reader::new(txn.get(TxnHeader::LEN..).unwrap_or_default());
    let text = body.ustring().and_then(|_path| body.buffer()).ok().flatten()?;
    Membership::parse_text(text).ok()
}

/// Heeds a transaction that becomes part of the history.
pub(crate) fn observe_txn(shared: &mut Shared, header: &TxnHeader, txn: &[u8]) {
    let Some(ensemble) = configuration(header, txn) else { return };
    if shared.config.reconfig {
        introduce(shared, ensemble);
    } else {
        observe(shared, &ensemble);
    }
}

/// Heeds a change that this server cannot follow.
pub(crate) fn observe(shared: &mut Shared, ensemble: &Membership) {
    if adopt(shared, ensemble) == Adoption::OtherMembers {
        shared.changing = true;
    }
}

/// A change is part of the history from now on, and counts beside what counted before.
///
/// A leader proposes a change when the one before is committed, so of two in one history the older one is.
pub(crate) fn introduce(shared: &mut Shared, ensemble: Membership) {
    let version = ensemble.version;
    let quorums = &shared.quorums;
    if version <= quorums.committed().version {
        return;
    }
    let history = logged(shared, shared.history.window.first());
    let before = history.into_iter().rfind(|older| older.version < ensemble.version);
    let quorums = &shared.quorums;
    let committed = before.filter(|older| older.version > quorums.committed().version);
    let committed = committed.unwrap_or_else(|| quorums.committed().clone());
    let next: Vec<Membership> = quorums.next().iter().cloned().chain([ensemble]).collect();
    set_logging(shared, Quorums::new(committed, next), Some(version));
}

/// The changes in the history from an index on, in its order.
fn logged(shared: &Shared, from: u64) -> Vec<Membership> {
    let window = &shared.history.window;
    let txns = (from.max(window.first())..window.end()).map(|index| window.txn(index));
    let read = |txn| configuration(&TxnHeader::parse(txn).ok()?, txn);
    txns.filter_map(read).collect()
}

/// The transaction of a proposal, as its leader checks it.
pub(crate) fn proposed(shared: &Shared, header: &TxnHeader, txn: &[u8]) -> Option<Membership> {
    configuration(header, txn)
        .filter(|ensemble| shared.config.reconfig && ensemble.version == header.zxid.raw())
}

/// What a leader tells of the members in NEWLEADER: the newest configuration of its history, and after that, in
/// lines which Java's servers take for comments, all others that count there. Such a list is complete, and a
/// learner needs that: whether a snapshot holds a change, or was made after that change was lost, it cannot see.
///
/// What is stored and not part of the history is not told: no learner may put into force what this leader
/// drops when the epoch begins.
pub(crate) fn tell(shared: &Shared) -> String {
    let quorums = &shared.quorums;
    if !shared.config.reconfig {
        return quorums.newest().text();
    }
    let next = quorums.next().iter().filter(|next| is_held(shared, next));
    list(core::iter::once(quorums.committed()).chain(next))
}

/// The same of a follower, or of a leader whose epoch is established: what is in force.
pub(crate) fn tell_committed(shared: &Shared) -> String {
    let committed = shared.quorums.committed();
    if shared.config.reconfig { list([committed]) } else { committed.text() }
}

/// Configurations, ascending, as one text.
fn list<'a>(each: impl IntoIterator<Item = &'a Membership>) -> String {
    let mut older: Vec<String> = each.into_iter().map(Membership::text).collect();
    let mut text = older.pop().unwrap_or_default();
    for older in older {
        for line in [""].into_iter().chain(older.lines()) {
            text.push_str(LISTED);
            text.push_str(line);
        }
    }
    text.push_str(LISTED);
    text
}

/// What such a line begins with.
const LISTED: &str = "\n#zab+";

/// Reads what [`tell`] has written; `None` if the leader tells of one configuration alone, as Java's do.
fn listed(text: &[u8]) -> Option<Vec<Membership>> {
    let text = core::str::from_utf8(text).ok()?;
    let mut lines = text.split(LISTED);
    let mut all: Vec<String> = lines.next().map(Into::into).into_iter().collect();
    let mut is_list = false;
    for line in lines {
        is_list = true;
        match all.last_mut() {
            Some(last) if !line.is_empty() => {
                last.push('\n');
                last.push_str(line);
            }
            _ => all.push(String::new()),
        }
    }
    let read = all.iter().map(|text| Membership::parse_text(text.as_bytes()));
    let read: Vec<Membership> = read.collect::<Result<_, _>>().ok()?;
    is_list.then(|| read.into_iter().filter(|told| !told.members.is_empty()).collect())
}

/// A leader's history is this server's from now on, and `text` is what it [tells](tell) of the members. What was
/// being introduced here goes on to count only if that leader's history has it.
///
/// A leader of ZooKeeper's tells of the newest configuration alone. Then what is above that, or what the history
/// lacks, is not part of what the epoch begins with, and was never committed. What lies behind a snapshot
/// counts on, as the snapshot may hold it.
///
/// Called before the promise that NEWLEADER asks for is made durable, and durable with it: else a server
/// whose snapshot holds a change could forget it in a crash, and vote by the configuration before.
pub(crate) fn observe_leader(shared: &mut Shared, text: &[u8]) {
    if !shared.config.reconfig {
        return;
    }
    let quorums = &shared.quorums;
    let mut committed = quorums.committed().clone();
    let mut next = listed(text).unwrap_or_else(|| {
        let told = Membership::parse_text(text).ok().filter(|told| !told.members.is_empty());
        let known = told.as_ref().map_or(i64::MAX, |told| told.version);
        let counts = |next: &&Membership| next.version <= known && is_held(shared, next);
        quorums.next().iter().filter(counts).cloned().chain(told).collect()
    });
    let mut logged = logged(shared, shared.history.committed());
    if let Some(newest) = logged.pop() {
        // As above: those in front of it are committed.
        let before = logged.pop().filter(|before| before.version > committed.version);
        committed = before.unwrap_or(committed);
        next.push(newest);
    }
    set(shared, Quorums::new(committed, next));
}

/// Everything up to `through` is committed, and so is what it introduces. Whether another configuration is
/// in force now.
pub(crate) fn activate(shared: &mut Shared, through: Zxid) -> bool {
    let next = shared.quorums.next();
    let Some(at) = next.iter().rposition(|next| next.version <= through.raw()) else {
        return false;
    };
    let (committed, rest) = (next[at].clone(), next[at + 1..].to_vec());
    set(shared, Quorums::new(committed, rest));
    true
}

/// Another member, which has a newer configuration in force, tells of it in a vote. Whether that changes
/// anything for this server: then it begins its election again, once this is stored.
///
/// As with ZooKeeper's servers this is believed of a member: else one that was away while all the others
/// it knows were replaced would never find the ensemble again. Who does not trust the senders of votes
/// needs TLS or SASL on the election port.
pub(crate) fn hear(shared: &mut Shared, other: Membership) -> bool {
    let own = shared.quorums.committed();
    if other.version <= own.version {
        return false;
    }
    let next = shared.quorums.next().to_vec();
    set(shared, Quorums::new(other, next));
    true
}

/// What this server knew of at its last end: what it had stored, and the changes in its history, of which
/// the first `applied` are known to be committed, and all but the last one are, too.
pub(crate) fn recover(
    shared: &mut Shared,
    stored: &[String],
    logged: Vec<Membership>,
    applied: usize,
) {
    shared.stored = stored.to_vec();
    let mut stored = stored.iter().filter_map(|text| Membership::parse_text(text.as_bytes()).ok());
    let known = applied.max(logged.len().saturating_sub(1));
    let own = shared.quorums.committed().clone();
    let committed = logged.iter().take(known).cloned().chain(stored.next());
    let committed = committed.chain([own]).max_by_key(|ensemble| ensemble.version);
    let next: Vec<Membership> = stored.chain(logged).collect();
    if let Some(committed) = committed {
        set(shared, Quorums::new(committed, next));
    }
}

/// Whether the history may hold the transaction that makes a configuration: what a snapshot holds is not
/// known here, and the first version of an epoch has none.
///
/// A version at or below the base was committed, or was lost before that base came to be. A leader that [tells](tell)
/// all that counts leaves nothing of the second kind here. What is left comes from a leader of ZooKeeper's, or from
/// its `.dynamic.next`: it counts, so that nothing is decided without a quorum of it, until a leader of ours or
/// a member that has a newer configuration in force says better.
fn is_held(shared: &Shared, ensemble: &Membership) -> bool {
    let (window, zxid) = (&shared.history.window, Zxid::from_raw(ensemble.version));
    zxid.counter() == 0 || zxid <= window.base() || window.holds(zxid)
}

/// Whether the transaction that makes a configuration is in the log.
fn is_logged(shared: &Shared, ensemble: &Membership) -> bool {
    let (window, zxid) = (&shared.history.window, Zxid::from_raw(ensemble.version));
    zxid > window.base() && window.holds(zxid)
}

/// An epoch begins with this history, and what it introduces is in force. What it does not hold was stored
/// and lost before it became part of it: it was never committed, or a quorum would have it, and this
/// leader's history, too.
pub(crate) fn begin(shared: &mut Shared, epoch: Zxid) -> bool {
    let quorums = &shared.quorums;
    let next = quorums.next().iter().filter(|next| is_held(shared, next));
    let next: Vec<Membership> = next.cloned().collect();
    set(shared, Quorums::new(quorums.committed().clone(), next));
    activate(shared, epoch)
}

/// Puts configurations into force, and has them stored, if they are others.
pub(crate) fn set(shared: &mut Shared, quorums: Quorums) {
    set_logging(shared, quorums, None);
}

/// The same, if the transaction that makes the configuration of version `logging` is about to be logged.
fn set_logging(shared: &mut Shared, quorums: Quorums, logging: Option<i64>) {
    // A change that is in the log is read there at the next start, or is gone with it if it is lost.
    let next = quorums.next().iter();
    let next = next.filter(|next| Some(next.version) != logging && !is_logged(shared, next));
    let stored: Vec<String> =
        [quorums.committed()].into_iter().chain(next).map(Membership::text).collect();
    if stored != shared.stored {
        shared.stored.clone_from(&stored);
        shared.history.set_configurations(stored);
    }
    let versions = |quorums: &Quorums| -> Vec<i64> {
        quorums.each().map(|ensemble| ensemble.version).collect()
    };
    if versions(&quorums) == versions(&shared.quorums) {
        return;
    }
    if quorums.version() != shared.quorums.version() {
        shared.config.ensemble = quorums.committed().clone();
        shared.control.push_back(Control::Reconfigured);
    }
    shared.newcomers.clear();
    shared.door.reconfigure(&quorums);
    shared.quorums = Arc::new(quorums.following(&shared.quorums));
    shared.members_changed = true;
}

/// Whether a learner with the configuration of `version` has other members than `own` may have. The
/// first version of an epoch changes nothing, and only a leader that this server follows tells it of
/// that: a member that was restarted leads without.
pub(crate) fn is_newer(version: i64, own: &Membership) -> bool {
    version > own.version && Zxid::from_raw(version).counter() != 0
}

/// A leader tells which configuration is in force, and this server cannot follow a change. Its version, if
/// the members are the same, becomes this server's: a leader refuses learners whose version is above its own.
pub(crate) fn compare_leader(shared: &mut Shared, text: &[u8]) -> Result<(), CloseReason> {
    if shared.config.reconfig {
        return Ok(());
    }
    if Membership::parse_text(text).is_ok_and(|told| adopt(shared, &told) == Adoption::OtherMembers)
    {
        shared.outdated = true;
        return Err(CloseReason::Violation(Violation::Reconfigured));
    }
    Ok(())
}

/// A change has come into force, on a server that cannot follow it.
pub(crate) fn end_outdated(shared: &mut Shared) -> Result<(), CloseReason> {
    if shared.changing {
        shared.outdated = true;
        return Err(CloseReason::Violation(Violation::Reconfigured));
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Adoption {
    Done,
    OtherMembers,
}

/// It comes from a leader that this server has dialled; a vote is no proof of it (rule R20).
fn adopt(shared: &mut Shared, other: &Membership) -> Adoption {
    let own = &mut shared.config.ensemble;
    if other.version <= own.version {
        return Adoption::Done;
    }
    let first = Zxid::from_raw(other.version).counter() == 0;
    if !first && !own.has_same_peers(other) {
        return Adoption::OtherMembers;
    }
    own.version = other.version;
    Adoption::Done
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    fn of(version: i64, host: &str) -> Membership {
        let text = format!(
            "server.1={host}:1:2:participant\nserver.2=b:1:2:observer\nversion={version:x}"
        );
        Membership::parse_text(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_list_of_configurations_is_read_as_it_was_written_and_javas_servers_read_the_newest() {
        let all = [of(1, "a"), of(5, "c"), of(0x10_0000_0002, "d")];
        for n in 1..=3 {
            let text = list(&all[..n]);
            let mut read = listed(text.as_bytes()).unwrap();
            assert_eq!(Membership::parse_text(text.as_bytes()).unwrap(), all[n - 1]);
            read.sort_by_key(|ensemble| ensemble.version);
            assert_eq!(read, all[..n]);
        }
        assert_eq!(listed(all[0].text().as_bytes()), None, "of a server of ZooKeeper's");
        assert_eq!(listed(b"server.1=a\n#zab+"), None, "nothing is made of what cannot be read");
    }
}
