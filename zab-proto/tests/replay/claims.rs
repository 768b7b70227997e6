//! What a learner is told that cannot be, or that nobody has to believe (rules R20, R21, R24).

use zab_proto::wire::extension::{self, Tag};
use zab_proto::wire::handshake::{Form, Handshake};
use zab_proto::wire::notification::Notification;
use zab_proto::wire::packet::{Packet, PacketType};
use zab_proto::{
    Channel, CloseReason, EnsembleId, Epoch, Identity, Phase, Recovered, ServerState, Sid,
    Violation, Zxid,
};

use super::is_whole;
use super::learner::{Conversation, Learner, NOW, conversations, packet};

fn recorded() -> Conversation {
    let mut all = conversations().into_iter();
    all.find(|talk| is_whole(talk) && talk.learner.0 > 0).expect("a whole one")
}

fn leader_info(epoch: i64, identity: Option<(u128, bool)>) -> Vec<u8> {
    let mut data = 0x1_0000_i32.to_be_bytes().to_vec();
    if let Some((id, confirmed)) = identity {
        extension::begin(&mut data);
        let value = [&id.to_be_bytes()[..], &[u8::from(confirmed)]].concat();
        extension::put(&mut data, Tag::IDENTITY, &value);
    }
    let mut bytes = Vec::new();
    let zxid = Zxid::from_raw(epoch << 32);
    Packet::new(PacketType::LEADERINFO, zxid, Some(&data)).write(&mut bytes);
    bytes
}

/// A learner that has dialled its leader and introduced itself.
fn introduced(talk: &Conversation, change: impl FnOnce(&mut Recovered)) -> Learner {
    let mut learner = Learner::with(talk, change);
    learner.find_leader(talk, packet(&talk.heard[0].1).zxid.epoch());
    learner
}

/// An epoch that no election can have led to is not promised, and nothing of it is kept.
#[test]
fn an_epoch_beyond_belief_is_not_promised() {
    let talk = recorded();
    let known = introduced(&talk, |_| {}).peer.epochs();
    let highest = known.0.max(packet(&talk.heard[0].1).zxid.epoch());
    let most = highest.0 + Epoch::PLAUSIBLE_RISE;
    for epoch in [-1, i64::from(i32::MIN), most + 1, 2 * most, 0x7fff_ffff, 0x7fff_fffe] {
        let mut learner = introduced(&talk, |_| {});
        learner.hear(&leader_info(epoch, None), usize::MAX);
        let violation = Violation::ImplausibleEpoch(Epoch(epoch));
        assert_eq!(learner.closed, Some(CloseReason::Violation(violation)), "{epoch}");
        assert_eq!(learner.peer.epochs(), known, "nothing is stored");
        assert_eq!(learner.spoken().len(), 1, "and nothing is promised");
        assert_eq!(learner.peer.status().phase, Phase::Election);
    }
    // The last one that is plausible is promised.
    let mut learner = introduced(&talk, |_| {});
    learner.hear(&leader_info(most, None), usize::MAX);
    assert_eq!(learner.closed, None);
    assert_eq!(learner.peer.epochs().0, Epoch(most));
    assert_eq!(learner.spoken()[1].0, PacketType::ACKEPOCH);
}

/// A leader of another ensemble gets no promise; one of none, of the same, or of a tentative one does.
#[test]
fn a_leader_of_another_ensemble_is_left_before_anything_is_promised() {
    let talk = recorded();
    let epoch = packet(&talk.heard[0].1).zxid.epoch().0;
    let own = Identity { id: EnsembleId::new(7), confirmed: true };
    for (identity, foreign) in [
        (Some((8, true)), true),
        (Some((8, false)), false),
        (Some((7, true)), false),
        (None, false),
    ] {
        for confirmed in [true, false] {
            let kept = Some(Identity { confirmed, ..own });
            let mut learner = introduced(&talk, |recovered| recovered.identity = kept);
            let known = learner.peer.epochs();
            let said = learner.spoken().remove(0).2;
            let value = extension::field(packet(&said).data, 20, Tag::IDENTITY).expect("its id");
            assert_eq!((value[15], value[16]), (7, u8::from(confirmed)));
            learner.hear(&leader_info(epoch, identity), usize::MAX);
            if foreign && confirmed {
                let (theirs, ours) = (EnsembleId::new(8), own.id);
                let violation = Violation::OtherEnsemble { theirs, ours };
                assert_eq!(learner.closed, Some(CloseReason::Violation(violation)));
                assert_eq!(learner.peer.epochs(), known);
                assert_eq!(learner.spoken().len(), 1, "nothing was promised");
            } else {
                assert_eq!(learner.closed, None, "{identity:?} to {confirmed}");
                assert_eq!(learner.spoken().len(), 2, "promised");
            }
            assert_eq!(learner.peer.identity(), kept, "no id is taken before its history is");
        }
    }
}

/// Votes of all members say that there are other members now. Nobody acts on it.
#[test]
fn a_configuration_in_a_vote_changes_nothing() {
    let talk = recorded();
    let other =
        b"server.1=h:1:2:participant\nserver.77=h:3:4:participant\nversion=7fffffff00000001";
    let mut learner = Learner::with(&talk, |_| {});
    learner.drain();
    let text = learner.peer.config().ensemble.text();
    let voters: Vec<Sid> = learner.peer.config().ensemble.voters().collect();
    for config in [&other[..], b"version=7fffffff00000001", b"\xff\xfe", &[b'x'; 100_000]] {
        for sid in voters.iter().copied().filter(|sid| *sid != talk.learner) {
            let mut bytes = Vec::new();
            let address = format!("h:{}", 200 + sid.0);
            Handshake { form: Form::V1, sid, text: &address }.write(&mut bytes);
            let conn = learner.peer.accept(NOW, Channel::Election, None).expect("room");
            let vote = Notification {
                state: 0,
                leader: sid,
                zxid: Zxid::ZERO,
                election_epoch: 1,
                peer_epoch: Epoch(0),
                version: 2,
                config: Some(config),
            };
            vote.write_frame(&mut bytes);
            learner.peer.handle_bytes(NOW, conn, &bytes);
            learner.drain();
        }
        assert!(!learner.peer.is_outdated());
        assert_eq!(learner.peer.config().ensemble.text(), text);
    }
    // It still finds its leader and follows it.
    learner.find_leader(&talk, packet(&talk.heard[0].1).zxid.epoch());
    learner.hear(&talk.heard[0].1, usize::MAX);
    assert_eq!(learner.closed, None);
    assert_ne!(learner.peer.status().state, ServerState::Looking);
}
