//! What a leader leaves out: never used, lost, or not to be known.

use zab_proto::wire::body::SNAPSHOT_END;
use zab_proto::wire::packet::{Packet, PacketType};
use zab_proto::wire::txn::TxnHeader;
use zab_proto::{CloseReason, DigestVerdict, Input, Phase, ServerState, Violation, Zxid};

use crate::is_whole;
use crate::learner::{Conversation, Learner, NOW, conversations, packet};

/// Plays a conversation from which what carries a zxid is left out, as if the leader had never
/// proposed it. Snapshots come in one piece.
pub(crate) fn play_without(
    talk: &Conversation,
    left_out: Zxid,
    proof: [DigestVerdict; 2],
) -> Learner {
    let epoch = packet(&talk.heard[0].1).zxid.epoch();
    let mut learner = Learner::new(talk);
    learner.proof = proof;
    learner.find_leader(talk, epoch);
    for (name, bytes) in &talk.heard {
        if name == "snapshot" {
            learner.snapshot = bytes.len() - (SNAPSHOT_END.len() - 5);
        }
        let carries = |kinds: &[PacketType]| {
            name != "snapshot"
                && packet(bytes).zxid == left_out
                && kinds.contains(&packet(bytes).kind)
        };
        if !carries(&[PacketType::PROPOSAL, PacketType::COMMIT, PacketType::INFORM]) {
            learner.hear(bytes, usize::MAX);
        }
        if learner.closed.is_some() {
            break;
        }
    }
    learner
}

/// The proposals and informs of a conversation, and whether each came in broadcast: behind NEWLEADER.
fn proposals(talk: &Conversation) -> Vec<(Zxid, bool)> {
    let mut live = false;
    let mut found = Vec::new();
    for (_, bytes) in talk.heard.iter().filter(|(name, _)| name != "snapshot") {
        let heard = packet(bytes);
        live |= heard.kind == PacketType::NEWLEADER;
        if matches!(heard.kind, PacketType::PROPOSAL | PacketType::INFORM) {
            found.push((heard.zxid, live));
        }
    }
    found
}

/// A zxid of the conversation with its neighbours on both sides, all in broadcast or all before.
fn followed(found: &[(Zxid, bool)], wanted: bool) -> Option<Zxid> {
    let mut pairs = found.windows(3).filter(|w| w.iter().all(|(_, live)| *live == wanted));
    let inside = |w: &&[(Zxid, bool)]| w.windows(2).all(|p| p[0].0.is_followed_by(p[1].0));
    let same = |w: &&[(Zxid, bool)]| w[0].0.epoch() == w[2].0.epoch();
    pairs.find(|w| inside(w) && same(w)).map(|w| w[1].0)
}

pub(crate) const EQUAL: [DigestVerdict; 2] = [DigestVerdict::Agrees, DigestVerdict::Agrees];
const DIFFERENT: [DigestVerdict; 2] = [DigestVerdict::Agrees, DigestVerdict::Differs];
const NO_DIGEST: [DigestVerdict; 2] = [DigestVerdict::Absent, DigestVerdict::Absent];

/// A 3.8 leader takes a zxid for some requests and proposes nothing: its place is filled, is not
/// acknowledged, and once the digest behind it agrees everything goes on.
#[test]
fn a_zxid_that_a_live_leader_leaves_out_was_never_used() {
    let (mut followers, mut observers) = (0, 0);
    for talk in conversations().iter().filter(|talk| is_whole(talk)) {
        let found = proposals(talk);
        let Some(unused) = followed(&found, true) else { continue };
        let learner = play_without(talk, unused, EQUAL);
        assert_eq!(learner.closed, None, "{}: {unused}", talk.file);
        assert_eq!(learner.peer.status().phase, Phase::Broadcast, "{}", talk.file);
        let of = |zxid| learner.logged.iter().filter(move |(logged, _)| *logged == zxid);
        let filled: Vec<_> = of(unused).map(|(_, txn)| TxnHeader::parse(txn).unwrap()).collect();
        assert!(matches!(filled[..], [header] if header.is_unused()), "{}", talk.file);
        for pair in learner.logged.windows(2) {
            assert!(pair[0].0.is_followed_by(pair[1].0), "{}: a hole in the log", talk.file);
        }
        let delivered = learner.delivered.windows(2).all(|pair| pair[0].is_followed_by(pair[1]));
        assert!(delivered && learner.delivered.contains(&unused), "{}", talk.file);
        let next = Zxid::from_raw(unused.raw() + 1);
        assert!(learner.delivered.contains(&next), "{}: stuck behind {unused}", talk.file);
        let acks: Vec<Zxid> =
            learner.spoken().iter().filter(|s| s.0 == PacketType::ACK).map(|s| s.1).collect();
        assert!(!acks.contains(&unused), "{}: acknowledged what nobody proposed", talk.file);
        let follower = packet(&talk.said[0].1).kind == PacketType::FOLLOWERINFO;
        if follower {
            assert!(acks.contains(&next), "{}: {next} not acknowledged", talk.file);
        }
        *(if follower { &mut followers } else { &mut observers }) += 1;
    }
    assert!(followers > 5 && observers > 0, "{followers} followers, {observers} observers");
}

/// A zxid that a live leader leaves out may be a transaction that was lost. Unless a digest shows that it
/// is not, nothing behind it is served, and only a snapshot is taken from a leader.
#[test]
fn a_gap_that_is_not_proven_ends_in_a_snapshot() {
    let mut tried = [0; 2];
    for talk in conversations().iter().filter(|talk| is_whole(talk)) {
        let found = proposals(talk);
        let Some(lost) = followed(&found, true) else { continue };
        let next = Zxid::from_raw(lost.raw() + 1);
        for (case, proof) in [DIFFERENT, NO_DIGEST].into_iter().enumerate() {
            let mut learner = play_without(talk, lost, proof);
            let after = Zxid::from_raw(lost.raw() - 1);
            let reason = CloseReason::Violation(Violation::UnprovenGap { after, next });
            assert_eq!(learner.closed.take(), Some(reason), "{}: {lost}", talk.file);
            assert_eq!(learner.peer.status().phase, Phase::Election, "{}", talk.file);
            // Without a digest nothing of it is applied, with another one nothing behind it, which the
            // state does not survive. In neither case anything of it is logged or acknowledged.
            let (last, doubted) = if proof == NO_DIGEST { (after, false) } else { (next, true) };
            assert_eq!(learner.peer.delivered(), last, "{}", talk.file);
            assert_eq!(learner.peer.is_doubted(), doubted, "{}", talk.file);
            assert_eq!(learner.peer.last_zxid(), after, "{}", talk.file);
            assert!(learner.logged.iter().all(|(zxid, _)| *zxid <= after), "{}", talk.file);
            let acks = learner.spoken();
            let of = |zxid: Zxid| zxid.counter() != 0 && zxid > after;
            let acked = acks.iter().any(|said| said.0 == PacketType::ACK && of(said.1));
            assert!(!acked, "{}: {acks:?}", talk.file);
            if packet(&talk.said[0].1).kind == PacketType::OBSERVERINFO {
                continue; // It waits before it looks for a leader again.
            }
            (learner.quorum, learner.said, learner.unread) = (None, Vec::new(), Vec::new());
            let epoch = packet(&talk.heard[0].1).zxid.epoch();
            learner.find_leader(talk, epoch);
            learner.hear(&talk.heard[0].1, usize::MAX);
            let promise = learner.spoken()[1].clone();
            let told = if doubted { Zxid::NONE } else { Zxid::ZERO };
            assert_eq!((promise.0, promise.1), (PacketType::ACKEPOCH, told), "{}", talk.file);
            let say = |kind, zxid| {
                let mut bytes = Vec::new();
                Packet::new(kind, zxid, None).write(&mut bytes);
                bytes
            };
            if tried[case] % 2 == 0 {
                learner.hear(&say(PacketType::DIFF, next), usize::MAX);
                assert!(learner.closed.is_some(), "{}: DIFF onto what is doubted", talk.file);
            } else {
                // Even one of the same zxid replaces all.
                learner.snapshot = 1;
                let mut snap = say(PacketType::SNAP, next);
                snap.push(0);
                snap.extend_from_slice(&SNAPSHOT_END[5..]);
                snap.extend(say(PacketType::NEWLEADER, Zxid::new(epoch, 0)));
                learner.hear(&snap, usize::MAX);
                // A leader waits for the acknowledgement, which waits for the disk.
                learner.hear(&say(PacketType::UPTODATE, Zxid::new(epoch, 0)), usize::MAX);
                assert_eq!(learner.closed, None, "{}", talk.file);
                assert_eq!(learner.peer.status().phase, Phase::Broadcast, "{}", talk.file);
                assert_eq!(learner.peer.delivered(), next, "{}", talk.file);
                assert!(!learner.peer.is_doubted());
            }
            tried[case] += 1;
        }
    }
    assert!(tried.iter().all(|tried| *tried > 5), "{tried:?}");
}

/// What is behind a gap may need this server's voice to be committed, and a commit to be proven. Then the
/// leader is left, so that an epoch begins in which it is committed.
#[test]
fn a_gap_that_nobody_commits_ends_the_role() {
    let mut tried = 0;
    for talk in conversations().iter().filter(|talk| is_whole(talk)) {
        let Some(lost) = followed(&proposals(talk), true) else { continue };
        if packet(&talk.said[0].1).kind == PacketType::OBSERVERINFO {
            continue;
        }
        let next = Zxid::from_raw(lost.raw() + 1);
        let commit = |packet: &Packet<'_>| packet.kind == PacketType::COMMIT && packet.zxid == next;
        let heard = talk
            .heard
            .iter()
            .take_while(|(name, bytes)| name == "snapshot" || !commit(&packet(bytes)));
        let talk = Conversation { heard: heard.cloned().collect(), ..talk.clone() };
        let mut learner = play_without(&talk, lost, EQUAL);
        assert_eq!(learner.closed, None, "{}: {lost}", talk.file);
        assert!(learner.logged.iter().all(|(zxid, _)| *zxid < lost), "{}", talk.file);
        let tick = learner.peer.config().tick_time;
        learner.peer.handle_input(NOW + tick, Input::Timeout);
        learner.drain();
        let after = Zxid::from_raw(lost.raw() - 1);
        let reason = CloseReason::Violation(Violation::UnprovenGap { after, next });
        assert_eq!(learner.closed, Some(reason), "{}", talk.file);
        assert_eq!((learner.peer.last_zxid(), learner.peer.is_doubted()), (after, false));
        tried += 1;
    }
    assert!(tried > 5, "only {tried}");
}

/// What a leader takes from its memory or its log may have holes that were committed transactions.
#[test]
fn a_gap_in_a_diff_is_refused_and_a_snapshot_asked_for() {
    let mut tried = 0;
    for talk in conversations().iter().filter(|talk| is_whole(talk)) {
        let plan = packet(&talk.heard[1].1).kind;
        if plan != PacketType::DIFF && plan != PacketType::TRUNC {
            continue;
        }
        let Some(lost) = followed(&proposals(talk), false) else { continue };
        let mut learner = play_without(talk, lost, EQUAL);
        let reason = CloseReason::Violation(Violation::Gap);
        assert_eq!(learner.closed.take(), Some(reason), "{}: {lost}", talk.file);
        assert!(learner.logged.is_empty() && learner.delivered.is_empty(), "{}", talk.file);
        if packet(&talk.said[0].1).kind == PacketType::OBSERVERINFO {
            continue; // It waits before it looks for a leader again.
        }
        // The next attempt, with the same leader: nothing may build on this history.
        (learner.quorum, learner.said, learner.unread) = (None, Vec::new(), Vec::new());
        let epoch = packet(&talk.heard[0].1).zxid.epoch();
        learner.find_leader(talk, epoch);
        learner.hear(&talk.heard[0].1, usize::MAX);
        let promise = learner.spoken()[1].clone();
        assert_eq!((promise.0, promise.1), (PacketType::ACKEPOCH, Zxid::ZERO), "{}", talk.file);
        learner.hear(&talk.heard[1].1, usize::MAX);
        assert!(learner.closed.is_some(), "{}: {plan:?} onto what was concealed", talk.file);
        tried += 1;
    }
    assert!(tried > 3, "only {tried}");
}

/// So many counters in a row as no leader leaves out are another history: nothing is put in their place,
/// which would cost a record for each.
#[test]
fn more_counters_than_can_be_unused_are_not_filled() {
    const MOST: i64 = 1 << 16;
    let mut tried = 0;
    for talk in conversations().iter().filter(|talk| is_whole(talk)) {
        for beyond in [0, 1, MOST] {
            let mut learner = play_without(talk, Zxid::NONE, EQUAL);
            let (last, status) = (learner.peer.last_zxid(), learner.peer.status());
            let live = learner.closed.is_none() && status.phase == Phase::Broadcast;
            if !live || last.epoch() != status.epoch || status.state != ServerState::Following {
                continue;
            }
            let logged = learner.logged.len();
            let zxid = Zxid::from_raw(last.raw() + MOST + beyond);
            if zxid.epoch() != last.epoch() {
                continue;
            }
            let (mut txn, mut bytes) = (Vec::new(), Vec::new());
            TxnHeader { client_id: 1, cxid: 1, zxid, time: 0, kind: -11 }.write(&mut txn);
            Packet::new(PacketType::PROPOSAL, zxid, Some(&txn)).write(&mut bytes);
            learner.hear(&bytes, usize::MAX);
            let refused = (beyond > 0).then_some(CloseReason::Violation(Violation::Gap));
            assert_eq!(learner.closed, refused, "{}: {beyond} more", talk.file);
            // What is taken waits for its proof.
            assert_eq!(learner.logged.len(), logged, "{}", talk.file);
            let end = if refused.is_some() { last } else { zxid };
            assert_eq!(learner.peer.last_zxid(), end, "{}", talk.file);
            tried += 1;
        }
    }
    assert!(tried > 6, "only {tried}");
}
