//! The recorded leaders' side of every synchronisation is played to our learner, which must say
//! what the protocol wants said. See `tests/vectors/README.md` for the recordings.

mod claims;
mod gaps;
mod learner;

use std::collections::VecDeque;
use std::time::Duration;

use zab_proto::wire::body::{LearnerInfo, SNAPSHOT_END};
use zab_proto::wire::packet::{Packet, PacketType};
use zab_proto::wire::txn::TxnHeader;
use zab_proto::{CloseReason, Input, Phase, Sid, SyncMode, Violation, Zxid};

use gaps::{EQUAL, play_without};
use learner::{Conversation, Learner, NOW, conversations, packet};

/// Plays one conversation and checks what the learner says; how it was synchronised.
fn play(talk: &Conversation, piece: usize) -> SyncMode {
    let epoch = packet(&talk.heard[0].1).zxid.epoch();
    let mut learner = Learner::new(talk);
    learner.find_leader(talk, epoch);
    let (mut pending, mut pings, mut uncommitted) = (VecDeque::new(), 0, None);
    let mut committed = Vec::new();
    for (name, bytes) in &talk.heard {
        if name == "snapshot" {
            // The stream ends with the path "/"; the signature behind it is the core's.
            learner.snapshot = bytes.len() - (SNAPSHOT_END.len() - 5);
        }
        learner.hear(bytes, piece);
        if name == "snapshot" {
            continue;
        }
        let heard = packet(bytes);
        let live = uncommitted.is_some() && committed_started(&learner);
        match heard.kind {
            PacketType::PROPOSAL => pending.push_back(heard.zxid),
            PacketType::COMMIT => committed.extend(pending.pop_front()),
            PacketType::INFORM => committed.push(heard.zxid),
            PacketType::NEWLEADER => uncommitted = Some(pending.clone()),
            PacketType::PING if live => pings += 1,
            _ => {}
        }
    }
    assert_eq!(learner.closed, None, "{}", talk.file);
    let status = learner.peer.status();
    assert_eq!(status.phase, Phase::Broadcast, "{}", talk.file);
    let spoken = learner.spoken();
    assert_eq!(as_java(&spoken[0].2), talk.said[0].1, "{}: introduction", talk.file);
    assert_eq!(spoken[1].2, talk.said[1].1, "{}: promise", talk.file);
    let acks = |zxid: Zxid| spoken.iter().filter(|s| s.0 == PacketType::ACK && s.1 == zxid).count();
    assert_eq!(acks(Zxid::new(epoch, 0)), 2, "{}: of NEWLEADER and UPTODATE", talk.file);
    assert_eq!(spoken.iter().filter(|s| s.0 == PacketType::PING).count(), pings, "{}", talk.file);
    let first_ack = spoken.iter().find(|s| s.0 == PacketType::ACK).map(|s| s.1);
    assert_eq!(first_ack, Some(Zxid::new(epoch, 0)), "{}: NEWLEADER's comes first", talk.file);
    let acked: Vec<Zxid> = spoken
        .iter()
        .filter(|s| s.0 == PacketType::ACK && s.1.counter() > 0)
        .map(|s| s.1)
        .collect();
    assert!(acked.is_sorted(), "{}: {acked:?}", talk.file);
    for zxid in uncommitted.into_iter().flatten() {
        assert!(acked.contains(&zxid), "{}: no acknowledgement of {zxid}", talk.file);
    }
    // The recorded learner acknowledged nothing that ours leaves out, but what was committed
    // before it was synchronised.
    for (_, bytes) in talk.said.iter().filter(|(name, _)| name == "ACK") {
        let zxid = packet(bytes).zxid;
        let known = zxid.counter() == 0 || acked.contains(&zxid) || committed.contains(&zxid);
        assert!(known, "{}: {zxid} was acknowledged", talk.file);
    }
    assert_eq!(learner.delivered, committed, "{}: applied", talk.file);
    status.sync.expect("synchronised")
}

/// An introduction without what only members of ours read.
fn as_java(introduction: &[u8]) -> Vec<u8> {
    let ours = packet(introduction);
    let data = ours.data.map(|data| &data[..LearnerInfo::LEN]);
    let mut bytes = Vec::new();
    Packet::new(ours.kind, ours.zxid, data).write(&mut bytes);
    bytes
}

/// Whether the recording goes from the introduction to broadcast.
fn is_whole(talk: &Conversation) -> bool {
    let names: Vec<&str> = talk.heard.iter().map(|(name, _)| name.as_str()).collect();
    names.contains(&"UPTODATE")
        && talk.said.len() > 2
        && talk.learner != Sid(-1)
        && !names.iter().any(|name| name.contains("cut") || name.contains("ACTIVATE"))
}

fn committed_started(learner: &Learner) -> bool {
    learner.peer.status().phase == Phase::Broadcast
}

#[test]
fn our_learner_understands_the_recorded_leaders() {
    let mut modes = Vec::new();
    let all = conversations();
    for talk in all.iter().filter(|talk| is_whole(talk)) {
        for piece in [usize::MAX, 7] {
            modes.push(play(talk, piece));
        }
    }
    for mode in [SyncMode::Diff, SyncMode::Trunc, SyncMode::Snap] {
        assert!(modes.contains(&mode), "no {mode:?} among {}", modes.len());
    }
    assert!(modes.len() > 100, "only {} of {}", modes.len() / 2, all.len());
}

/// A change of the members may need this server's voice: it acknowledges it, and takes no part any more
/// once it is in force.
#[test]
fn other_members_end_the_learner() {
    const RECONFIG: i32 = 16;
    let (mut acknowledged, mut ended) = (0, 0);
    let all = conversations();
    for talk in all.iter().filter(|talk| talk.said.len() > 2 && talk.learner != Sid(-1)) {
        let known = LearnerInfo::parse(packet(&talk.said[0].1).data).config_version;
        let mut proposals = talk.heard.iter().filter(|(name, _)| name == "PROPOSAL");
        let kind = |bytes| TxnHeader::parse(packet(bytes).data.unwrap_or_default()).unwrap().kind;
        // A configuration's version is its zxid.
        let newer = |bytes| kind(bytes) == RECONFIG && packet(bytes).zxid.raw() > known;
        let Some((_, bytes)) = proposals.find(|(_, bytes)| newer(bytes)) else { continue };
        let zxid = packet(bytes).zxid;
        let learner = play_without(talk, Zxid::NONE, EQUAL);
        let activated = talk.heard.iter().any(|(name, _)| name == "COMMITANDACTIVATE");
        let reason = CloseReason::Violation(Violation::Reconfigured);
        if activated {
            assert_eq!(learner.closed, Some(reason), "{}", talk.file);
            assert!(learner.peer.is_outdated());
            assert_eq!(learner.delivered.last(), Some(&zxid), "{}: what follows counts", talk.file);
            ended += 1;
        }
        let ack = |s: &(PacketType, Zxid, Vec<u8>)| s.0 == PacketType::ACK && s.1 == zxid;
        acknowledged += usize::from(learner.spoken().iter().any(ack));
    }
    assert!(ended > 0 && acknowledged > 0, "{ended} ended, {acknowledged} acknowledged");
}

/// Something between the two takes the connection of a leader that does not listen yet, and drops it: that is
/// a refusal, and dialled again, for as long as a refused dial would be.
#[test]
fn a_connection_that_ends_before_a_word_of_the_leader_is_dialled_again() {
    let all = conversations();
    let talk = all.iter().find(|talk| is_whole(talk)).expect("a whole one");
    let mut learner = Learner::new(talk);
    learner.find_leader(talk, packet(&talk.heard[0].1).zxid.epoch());
    let mut now = NOW;
    for dial in 0..3 {
        let conn = learner.quorum.take().unwrap_or_else(|| panic!("no dial {dial}"));
        assert_eq!(learner.spoken().len(), 1, "introduced itself");
        learner.said.clear();
        learner.peer.handle_input(now, Input::Closed { conn });
        learner.drain();
        assert_eq!(learner.peer.status().leader, Some(talk.leader), "{:?}", learner.peer.status());
        now = now + Duration::from_millis(100);
        learner.peer.handle_input(now, Input::Timeout);
        learner.drain();
    }
    let conn = learner.quorum.expect("dialled");
    learner.peer.handle_input(now + Duration::from_secs(10), Input::Closed { conn });
    assert_eq!(learner.peer.status().phase, Phase::Election, "it is gone");
}
