//! What is prepared, applied: random requests, with more or fewer of them in flight.

use bytes::BufMut;
use zab_proto::wire::jute::BufMutExt;

use super::begun::Kept;
use super::*;
use crate::options::ServiceOptions;
use crate::protocol::acl::{Acl, write_acls};
use crate::protocol::txn::Payload;
use crate::state::database::{Database, DigestCheck};
use crate::state::tree::node_digest;

struct Random(fastrand::Rng);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0.usize(..n)
    }

    fn path(&mut self) -> String {
        let top = ["", "", "", "/zookeeper", "/zookeeper/quota"][self.below(5)];
        (0..=self.below(3)).fold(top.into(), |path, _| format!("{path}/{}", self.below(3)))
    }

    fn version(&mut self) -> i32 {
        [-1, -1, -1, 0, 1, 2][self.below(6)]
    }
}

/// A leader and one replica: requests are prepared, then wait to be applied.
struct Fixture {
    random: Random,
    access: Access,
    database: Database,
    prep: Prep,
    pending: VecDeque<Vec<u8>>,
    zxid: i64,
    applied: usize,
    refused: usize,
    /// Requests that took more than one piece.
    in_pieces: usize,
}

impl Fixture {
    fn new(seed: u64) -> Self {
        let database = Database::new(true);
        Self {
            random: Random(fastrand::Rng::with_seed(seed)),
            access: Access::new(&ServiceOptions::default()),
            prep: Prep::new(&database.tree),
            database,
            pending: VecDeque::new(),
            zxid: 0,
            applied: 0,
            refused: 0,
            in_pieces: 0,
        }
    }

    fn put_create(&mut self, flags: i32, out: &mut Vec<u8>) {
        let data = vec![1; self.random.below(20)];
        out.put_ustring(Some(&self.random.path()));
        out.put_buffer((self.random.below(9) > 0).then_some(&data));
        let perms = if self.random.below(12) == 0 { perms::READ } else { perms::ALL };
        write_acls(&[Acl::world(perms), Acl::new(1, "ip", "10.0.0.1")], out);
        out.put_i32(flags);
    }

    fn put_other(&mut self, op: Opcode, out: &mut Vec<u8>) {
        let path = if self.random.below(20) == 0 { "/".into() } else { self.random.path() };
        out.put_ustring(Some(&path));
        match op {
            Opcode::SetData => out.put_buffer(Some(&vec![2; self.random.below(20)])),
            Opcode::SetAcl => write_acls(&[Acl::world(perms::ALL)], out),
            _ => {}
        }
        out.put_i32(self.random.version());
    }

    /// The record of a random operation other than a multi.
    fn single(&mut self, in_multi: bool, out: &mut Vec<u8>) -> Opcode {
        let op = match self.random.below(12) {
            0..3 => Opcode::Create,
            3 => Opcode::Create2,
            4 => Opcode::CreateContainer,
            5 => Opcode::CreateTtl,
            6..9 => Opcode::Delete,
            9 | 10 => Opcode::SetData,
            _ if in_multi => Opcode::Check,
            _ => Opcode::SetAcl,
        };
        if in_multi {
            put_header(op, false, out);
        }
        match op {
            Opcode::Create | Opcode::Create2 => {
                let flags = i32::try_from(self.random.below(4)).unwrap();
                self.put_create(flags, out);
            }
            Opcode::CreateContainer => self.put_create(4, out),
            Opcode::CreateTtl => {
                let flags = 5 + i32::from(self.random.below(2) == 0);
                self.put_create(flags, out);
                out.put_i64(500);
            }
            _ => self.put_other(op, out),
        }
        op
    }

    /// Prepares a request; sometimes it is not proposed after all.
    fn prepare(&mut self) {
        let session = i64::try_from(self.random.below(3)).unwrap() + 1;
        let (kind, mut record) = (self.random.below(20), Vec::new());
        let op = match kind {
            0..3 => {
                for _ in 0..self.random.below(5) {
                    self.single(true, &mut record);
                }
                put_header(Opcode::Error, true, &mut record);
                Opcode::Multi
            }
            _ => self.single(false, &mut record),
        };
        let container = self.random.path();
        // All at once, or in pieces, between which others are applied.
        let work = if self.random.below(2) == 0 { u64::MAX } else { 1 };
        let mut kept = None;
        self.with(session, |prep, view, from, txn| match kind {
            17 => prep.create_session(view, from, 1000, txn),
            18 => kept = prep.begin_close(view, from, work, txn),
            19 => prep.delete_container(view, from, &container, txn),
            0..3 => kept = prep.begin_multi(view, from, (&record, work), txn),
            _ => prep.request(view, from, op, &record, txn),
        });
        if let Some(kept) = kept {
            self.go_on(kept);
        }
        if self.random.below(10) == 0 {
            self.pending.pop_back();
            self.zxid -= 1;
            self.prep.undo();
        }
    }

    /// Goes on with what was begun. What is pending before it is applied meanwhile, if it may be.
    fn go_on(&mut self, mut kept: Kept) {
        self.in_pieces += 1;
        let mut txn = self.pending.pop_back().unwrap();
        while !kept.is_done() {
            if !kept.holds_commits() && self.random.below(4) == 0 {
                self.apply();
            }
            let work = 1 + self.random.below(1000) as u64;
            self.prep.go_on(view(&self.database.tree, &self.access), &mut kept, work, &mut txn);
        }
        self.pending.push_back(txn);
    }

    /// Proposes what the first session wants.
    fn propose(&mut self, act: impl FnOnce(&mut Prep, View<'_>, &Requester<'_>, &mut Vec<u8>)) {
        self.with(1, act);
    }

    fn with(
        &mut self,
        session: i64,
        act: impl FnOnce(&mut Prep, View<'_>, &Requester<'_>, &mut Vec<u8>),
    ) {
        let view = view(&self.database.tree, &self.access);
        let from = Requester {
            session,
            cxid: 1,
            valid: Ok(()),
            local: None,
            ids: Ids::default(),
            zxid: Zxid::from_raw(self.zxid + 1),
            time: 1000 + self.zxid,
        };
        let mut txn = Vec::new();
        act(&mut self.prep, view, &from, &mut txn);
        self.zxid += 1;
        self.pending.push_back(txn);
    }

    fn apply(&mut self) {
        let Some(bytes) = self.pending.pop_front() else { return };
        let Payload { header, txn, digest } = Payload::decode(&bytes).unwrap();
        let applied = self.database.apply(&header, &txn, &mut |_| {});
        let refused = match &txn {
            Txn::Error(_) => true,
            Txn::Multi(parts) => parts.is_failed(),
            _ => false,
        };
        assert_eq!(applied.outcome.code.is_ok(), !refused, "{txn:?}");
        assert_eq!(digest.is_none(), matches!(txn, Txn::Error(_)));
        let check = self.database.check_digest(header.zxid, digest);
        assert!(!matches!(check, DigestCheck::Mismatch { .. }), "{txn:?}: {check:?}");
        let closed = matches!(txn, Txn::CloseSession(_)).then_some(header.client_id);
        self.prep.applied(&self.database.tree, header.zxid, closed);
        self.applied += usize::from(!refused);
        self.refused += usize::from(refused);
    }
}

fn view<'a>(tree: &'a Tree, access: &'a Access) -> View<'a> {
    View {
        tree,
        access,
        members: None,
        extended_types: true,
        enforce_quota: false,
        digests: true,
        txn_len_max: usize::MAX,
    }
}

fn put_header(op: Opcode, done: bool, out: &mut Vec<u8>) {
    out.put_i32(op.wire());
    out.put_bool(done);
    out.put_i32(-1);
}

/// What the tree keeps as sums is what a walk finds.
fn check_sums(tree: &Tree) {
    let root = tree.node("/").unwrap();
    let mut digest = 0_u64;
    for node in root.subtree() {
        let below = node.subtree().count() - 1;
        assert_eq!(node.descendant_count() as usize, below, "{}", node.path());
        let counted = node_digest(node.path(), node.data(), node.persisted());
        assert_eq!(node.digest(), counted, "{}", node.path());
        digest = digest.wrapping_add(counted);
    }
    assert_eq!(tree.digest(), Some(digest));
}

/// The end of a session with more ephemerals than a record lists, most of them in the tree and some
/// pending: as many units of work as there are nodes, and the same tree as the digest says.
#[test]
fn a_session_ends_with_more_ephemerals_than_a_record_lists() {
    let mut fixture = Fixture::new(1);
    let create = |fixture: &mut Fixture, path: &str, flags: i32| {
        let mut record = Vec::new();
        record.put_ustring(Some(path));
        record.put_buffer(Some(b"x"));
        write_acls(&[Acl::world(perms::ALL)], &mut record);
        record.put_i32(flags);
        fixture.propose(|prep, view, from, txn| {
            prep.request(view, from, Opcode::Create, &record, txn);
        });
    };
    for parent in 0..3 {
        create(&mut fixture, &format!("/{parent}"), 0);
    }
    // 2 MiB of paths.
    let long = "n".repeat(200);
    for n in 0..10_000 {
        create(&mut fixture, &format!("/{}/{n}{long}", n % 3), 1);
        if n < 9990 {
            while !fixture.pending.is_empty() {
                fixture.apply();
            }
        }
    }
    fixture.prep.work = 0;
    fixture.propose(|prep, view, from, txn| {
        assert!(prep.begin_close(view, from, u64::MAX, txn).is_none(), "at once");
    });
    assert!(fixture.prep.work < 2 * 10_000 * cost::NODE);
    let txn = fixture.pending.back().unwrap();
    assert!(txn.len() < 100, "no list");
    // Somebody takes one of the names while the end of the session is under way.
    create(&mut fixture, &format!("/0/0{long}"), 0);
    while !fixture.pending.is_empty() {
        fixture.apply();
    }
    assert_eq!(fixture.refused, 0);
    assert_eq!(fixture.database.tree.ephemerals_count(), 0);
    assert_eq!(fixture.database.tree.node("/0").unwrap().child_count(), 1);
    check_sums(&fixture.database.tree);
}

#[test]
fn a_prepared_request_applies_and_its_digest_is_reached() {
    let (mut applied, mut refused, mut in_pieces) = (0, 0, 0);
    for seed in 1..=100 {
        let mut fixture = Fixture::new(seed);
        for _ in 0..300 {
            // In flight: none at times, twenty at others.
            let full = fixture.pending.len() >= 20;
            if full || fixture.random.below(5) < 2 {
                fixture.apply();
            } else {
                fixture.prepare();
            }
            if fixture.random.below(40) == 0 {
                while !fixture.pending.is_empty() {
                    fixture.apply();
                }
                assert!(fixture.prep.records.is_empty() && fixture.prep.queue.is_empty());
                assert!(fixture.prep.closed.is_empty());
                check_sums(&fixture.database.tree);
            }
        }
        (applied, refused) = (applied + fixture.applied, refused + fixture.refused);
        in_pieces += fixture.in_pieces;
    }
    assert!(in_pieces > 500, "{in_pieces} in pieces");
    assert!(applied > 2000 && refused > 2000, "{applied} applied, {refused} refused");
}

#[test]
fn hard_limits_of_a_quota() {
    let mut fixture = Fixture::new(1);
    let request = |fixture: &mut Fixture, op: Opcode, path: &str, data: &[u8]| {
        let mut record = Vec::new();
        record.put_ustring(Some(path));
        record.put_buffer(Some(data));
        if op == Opcode::Create {
            write_acls(&[Acl::world(perms::ALL)], &mut record);
            record.put_i32(0);
        } else {
            record.put_i32(-1);
        }
        fixture.zxid += 1;
        let tree = &fixture.database.tree;
        let access = &fixture.access;
        let view = View {
            tree,
            access,
            members: None,
            extended_types: false,
            enforce_quota: true,
            digests: true,
            txn_len_max: usize::MAX,
        };
        let from = Requester {
            session: 1,
            cxid: 1,
            valid: Ok(()),
            local: None,
            ids: Ids::default(),
            zxid: Zxid::from_raw(fixture.zxid),
            time: 1,
        };
        let mut txn = Vec::new();
        fixture.prep.request(view, &from, op, &record, &mut txn);
        let payload = Payload::decode(&txn).unwrap();
        let applied = fixture.database.apply(&payload.header, &payload.txn, &mut |_| {});
        fixture.prep.applied(&fixture.database.tree, payload.header.zxid, None);
        applied.outcome.code
    };
    let limits = b"count=1,bytes=1=;byteHardLimit=10;countHardLimit=3";
    for (path, data) in [
        ("/app", &b"1234"[..]),
        ("/zookeeper/quota/app", b""),
        ("/zookeeper/quota/app/zookeeper_limits", limits),
        ("/zookeeper/quota/app/zookeeper_stats", b""),
    ] {
        assert_eq!(request(&mut fixture, Opcode::Create, path, data), Code::OK, "{path}");
    }
    for (op, path, data, code) in [
        (Opcode::Create, "/app/1", &b"123456"[..], Code::OK),
        (Opcode::SetData, "/app/1", b"1234567", Code::QUOTA_EXCEEDED),
        (Opcode::SetData, "/app/1", b"654321", Code::OK),
        (Opcode::Create, "/app/2", b"x", Code::QUOTA_EXCEEDED),
        (Opcode::Create, "/app/2", b"", Code::OK),
        (Opcode::Create, "/app/3", b"", Code::QUOTA_EXCEEDED),
        (Opcode::Create, "/elsewhere", b"", Code::OK),
    ] {
        assert_eq!(request(&mut fixture, op, path, data), code, "{path}");
    }
}

/// A node that is changed, used or replaced by what is under way is not the one in the tree.
#[test]
fn what_is_under_way_keeps_a_node_alive() {
    let mut fixture = Fixture::new(1);
    let prepare = |fixture: &mut Fixture, op: Opcode, path: &str| {
        let mut record = Vec::new();
        record.put_ustring(Some(path));
        match op {
            Opcode::CreateTtl => {
                record.put_buffer(None);
                write_acls(&[Acl::world(perms::ALL)], &mut record);
                record.put_i32(5);
                record.put_i64(500);
            }
            Opcode::SetData => {
                record.put_buffer(None);
                record.put_i32(-1);
            }
            _ => record.put_i32(-1),
        }
        fixture.zxid += 1;
        let view = View {
            tree: &fixture.database.tree,
            access: &fixture.access,
            members: None,
            extended_types: true,
            enforce_quota: false,
            digests: true,
            txn_len_max: usize::MAX,
        };
        let from = Requester {
            session: 1,
            cxid: 1,
            valid: Ok(()),
            local: None,
            ids: Ids::default(),
            zxid: Zxid::from_raw(fixture.zxid),
            time: 1000 * fixture.zxid,
        };
        let mut txn = Vec::new();
        fixture.prep.request(view, &from, op, &record, &mut txn);
        fixture.pending.push_back(txn);
    };
    let mtime = |fixture: &Fixture| {
        fixture.prep.childless(&fixture.database.tree, "/t").map(|stat| stat.mtime)
    };
    prepare(&mut fixture, Opcode::CreateTtl, "/t");
    fixture.apply();
    assert_eq!(mtime(&fixture), Some(1000));
    prepare(&mut fixture, Opcode::SetData, "/t");
    assert_eq!(mtime(&fixture), Some(2000));
    prepare(&mut fixture, Opcode::CreateTtl, "/t/child");
    assert_eq!(mtime(&fixture), None);
    prepare(&mut fixture, Opcode::Delete, "/t/child");
    assert_eq!(mtime(&fixture), Some(2000));
    prepare(&mut fixture, Opcode::Delete, "/t");
    assert_eq!(mtime(&fixture), None);
    prepare(&mut fixture, Opcode::CreateTtl, "/t");
    assert_eq!(mtime(&fixture), Some(6000));
}
