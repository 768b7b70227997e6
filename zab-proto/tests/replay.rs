//! The recorded leaders' side of every synchronisation is played to our learner, which must say
//! what the protocol wants said. See `vectors/README.md` for the recordings.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;

use zab_proto::wire::Parsed;
use zab_proto::wire::body::{LearnerInfo, SNAPSHOT_END};
use zab_proto::wire::handshake::{Form, Handshake};
use zab_proto::wire::notification::Notification;
use zab_proto::wire::packet::{Packet, PacketType};
use zab_proto::wire::txn::TxnHeader;
use zab_proto::{
    Channel, CloseReason, Config, ConnId, Ensemble, Epoch, Input, Instant, Member, Message, Output,
    Peer, Phase, Recovered, Sid, SyncMode, Violation, Zxid,
};

const LIMIT: usize = 2_097_150;
const NOW: Instant = Instant::ZERO;

/// One recorded connection of a learner to its leader, from the beginning.
#[derive(Clone)]
struct Conversation {
    file: String,
    learner: Sid,
    leader: Sid,
    said: Vec<(String, Vec<u8>)>,
    heard: Vec<(String, Vec<u8>)>,
}

fn from_hex(pieces: &str) -> Vec<u8> {
    let byte = |digits: &str| u8::from_str_radix(digits, 16).expect("hex");
    let mut bytes = Vec::new();
    for piece in pieces.split(',') {
        match piece.split_once('*') {
            Some((one, times)) => {
                bytes.resize(bytes.len() + times.parse::<usize>().expect("count"), byte(one));
            }
            None => bytes.extend((0..piece.len()).step_by(2).map(|at| byte(&piece[at..at + 2]))),
        }
    }
    bytes
}

fn conversations() -> Vec<Conversation> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/quorum");
    let mut all: Vec<Conversation> = Vec::new();
    for entry in fs::read_dir(dir).expect("the recordings") {
        let path = entry.expect("a file").path();
        let mut resumed = true;
        for line in fs::read_to_string(&path).expect("text").lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let sid = |at: usize| words[at].parse().map_or(Sid(-1), Sid);
            match words[0] {
                "conn" => {
                    resumed = line.ends_with(" resumed");
                    if !resumed {
                        let file = path.file_name().expect("a name").to_string_lossy().into_owned();
                        let (said, heard) = (Vec::new(), Vec::new());
                        all.push(Conversation {
                            file,
                            learner: sid(1),
                            leader: sid(2),
                            said,
                            heard,
                        });
                    }
                }
                "a2b" | "b2a" if !resumed => {
                    let last = all.last_mut().expect("after its conn line");
                    let side = if words[0] == "a2b" { &mut last.said } else { &mut last.heard };
                    side.push((words[1].to_owned(), from_hex(words[2])));
                }
                _ => {}
            }
        }
    }
    all
}

fn packet(bytes: &[u8]) -> Packet<'_> {
    match Packet::parse(bytes, LIMIT) {
        Parsed::Complete { value, .. } => value,
        other => panic!("{other:?}"),
    }
}

/// The learner as it was when the recorded one connected, as far as that can be told: its epochs,
/// and a history that ends where it said.
struct Learner {
    peer: Peer,
    election: Vec<(Sid, ConnId)>,
    quorum: Option<ConnId>,
    said: Vec<u8>,
    delivered: Vec<Zxid>,
    unread: Vec<u8>,
    /// What is left of the snapshot stream that is coming.
    snapshot: usize,
    /// Why the connection to the leader was closed.
    closed: Option<CloseReason>,
    /// Everything logged.
    logged: Vec<(Zxid, Vec<u8>)>,
    /// What the application says of gaps: in front of them, and behind.
    proof: [Option<bool>; 2],
}

impl Learner {
    fn new(talk: &Conversation) -> Self {
        let first = packet(&talk.said[0].1);
        let promise = packet(&talk.said[1].1);
        let observer = first.kind == PacketType::OBSERVERINFO;
        let third = (1..).map(Sid).find(|sid| *sid != talk.learner && *sid != talk.leader);
        let mut ensemble = Ensemble::default();
        for sid in [talk.learner, talk.leader, third.expect("endless")] {
            let role = if observer && sid == talk.learner { "observer" } else { "participant" };
            let line = format!("h:{}:{}:{role}", 100 + sid.0, 200 + sid.0);
            ensemble.members.insert(sid, Member::parse(sid, &line).expect("a good line"));
        }
        ensemble.version = LearnerInfo::parse(first.data).config_version;
        let accepted = first.zxid.epoch();
        let epoch = promise.data.and_then(|data| data.first_chunk().copied());
        let epoch = i64::from(i32::from_be_bytes(epoch.expect("an epoch")));
        let mut recovered = Recovered::default();
        recovered.accepted_epoch = Some(accepted);
        // One that had promised the epoch before does not tell its current one.
        let current = if epoch == -1 { accepted.max(promise.zxid.epoch()) } else { Epoch(epoch) };
        recovered.current_epoch = Some(current);
        let plan = talk.heard.get(1).map(|(_, bytes)| packet(bytes));
        let kept = plan.filter(|plan| plan.kind == PacketType::TRUNC).map(|plan| plan.zxid);
        recovered.snapshot = Some(kept.unwrap_or(promise.zxid));
        recovered.snapshot_end = kept.unwrap_or(promise.zxid);
        let cut = kept.map(|kept| kept.counter() + 1..=promise.zxid.counter());
        for counter in cut.into_iter().flatten() {
            let zxid = Zxid::new(promise.zxid.epoch(), counter);
            let mut txn = Vec::new();
            TxnHeader { client_id: 0, cxid: 0, zxid, time: 0, kind: -1 }.write(&mut txn);
            recovered.push(zxid, &txn);
        }
        let mut config = Config::new(talk.learner, ensemble);
        config.trust_empty = true;
        let peer = Peer::new(NOW, config, recovered).expect("a good configuration");
        Self {
            peer,
            election: Vec::new(),
            quorum: None,
            said: Vec::new(),
            delivered: Vec::new(),
            unread: Vec::new(),
            snapshot: 0,
            closed: None,
            logged: Vec::new(),
            proof: [None; 2],
        }
    }

    /// Plays an ensemble that has a leader, until the learner has dialled it.
    fn find_leader(&mut self, talk: &Conversation, epoch: Epoch) {
        let others: Vec<Sid> = self.peer.config().ensemble.voters().collect();
        self.drain();
        for sid in others.into_iter().filter(|sid| *sid != talk.learner) {
            let state = if sid == talk.leader { 2 } else { 1 };
            let mut bytes = Vec::new();
            // The larger id's dial is the one that counts.
            let dialled = |(of, _): &&(Sid, ConnId)| *of == sid && sid < talk.learner;
            let known = self.election.iter().find(dialled).map(|(_, conn)| *conn);
            let conn = known.unwrap_or_else(|| {
                let address = format!("h:{}", 200 + sid.0);
                Handshake { form: Form::V1, sid, text: &address }.write(&mut bytes);
                self.peer.accept(NOW, Channel::Election).expect("room")
            });
            let config = self.peer.config().ensemble.text();
            let vote = Notification {
                state,
                leader: talk.leader,
                zxid: Zxid::ZERO,
                election_epoch: 1,
                peer_epoch: epoch,
                version: 2,
                config: Some(config.as_bytes()),
            };
            vote.write_frame(&mut bytes);
            let used = self.peer.handle_bytes(NOW, conn, &bytes).consumed;
            assert_eq!(used, bytes.len());
            self.drain();
        }
        assert!(self.quorum.is_some(), "{}: no dial to the leader", talk.file);
    }

    /// Carries out what the core wants; every write is durable at once.
    fn drain(&mut self) {
        while let Some(output) = self.peer.poll_output() {
            match output {
                Output::Append { ticket, zxid, txn } => {
                    self.logged.push((zxid, txn.to_vec()));
                    self.peer.handle_input(NOW, Input::Persisted { through: ticket });
                }
                Output::SetEpoch { ticket, .. }
                | Output::Truncate { ticket, .. }
                | Output::Install { ticket, .. } => {
                    self.peer.handle_input(NOW, Input::Persisted { through: ticket });
                }
                Output::Gap { .. } => self.peer.prove_gap(NOW, self.proof[0]),
                Output::Deliver { zxid, .. } => {
                    self.delivered.push(zxid);
                    if self.peer.awaits_proof() {
                        self.peer.prove_gap(NOW, self.proof[1]);
                    }
                }
                Output::Connect { conn, channel, addresses } => {
                    let port: i64 = addresses[2..].parse().expect("as configured");
                    if channel == Channel::Quorum {
                        self.quorum = Some(conn);
                    } else {
                        self.election.push((Sid(port - 200), conn));
                    }
                    self.peer.handle_input(NOW, Input::Opened { conn });
                }
                Output::Transmit { conn } => {
                    let mut buf = [0; 65536];
                    loop {
                        let n = self.peer.poll_transmit(conn, &mut buf);
                        if n == 0 {
                            break;
                        }
                        if Some(conn) == self.quorum {
                            self.said.extend_from_slice(&buf[..n]);
                        }
                    }
                }
                Output::Close { conn, reason } if Some(conn) == self.quorum => {
                    self.closed = Some(reason);
                }
                _ => {}
            }
        }
    }

    /// The leader says something. False if the connection is not read any more.
    fn hear(&mut self, bytes: &[u8], piece: usize) {
        for piece in bytes.chunks(piece) {
            self.unread.extend_from_slice(piece);
            loop {
                let bytes = std::mem::take(&mut self.unread);
                let conn = self.quorum.expect("dialled");
                let received = self.peer.handle_bytes(NOW, conn, &bytes);
                let mut used = received.consumed;
                match received.message {
                    Some(Message::Ping) => self.peer.pong(&[]),
                    Some(Message::Snapshot { bytes }) => {
                        let n = bytes.len().min(self.snapshot);
                        self.snapshot -= n;
                        used += n;
                        self.peer.snapshot_received(NOW, conn, self.snapshot == 0);
                    }
                    _ => {}
                }
                self.unread = bytes[used..].to_vec();
                self.drain();
                if used == 0 {
                    break;
                }
            }
        }
    }

    /// Kind and zxid of everything said so far, and the bytes of the first two packets.
    fn spoken(&self) -> Vec<(PacketType, Zxid, Vec<u8>)> {
        let mut rest = &self.said[..];
        let mut spoken = Vec::new();
        while let Parsed::Complete { value, len } = Packet::parse(rest, LIMIT) {
            spoken.push((value.kind, value.zxid, rest[..len].to_vec()));
            rest = &rest[len..];
        }
        assert!(rest.is_empty());
        spoken
    }
}

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
    assert_eq!(spoken[0].2, talk.said[0].1, "{}: introduction", talk.file);
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

/// Plays a conversation from which what carries a zxid is left out, as if the leader had never
/// proposed it. Snapshots come in one piece.
fn play_without(talk: &Conversation, left_out: Zxid, proof: [Option<bool>; 2]) -> Learner {
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

const EQUAL: [Option<bool>; 2] = [Some(true), Some(true)];
const DIFFERENT: [Option<bool>; 2] = [Some(true), Some(false)];
const NO_DIGEST: [Option<bool>; 2] = [None, None];

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
                snap.extend(say(PacketType::UPTODATE, Zxid::new(epoch, 0)));
                learner.hear(&snap, usize::MAX);
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
