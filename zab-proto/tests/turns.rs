//! An application that takes a few transactions in a turn only, and one that must not go on.

use std::time::Duration;

use zab_proto::wire::txn::TxnHeader;
use zab_proto::{
    Application, BadSnapshot, Config, Core, Input, InstallProgress, Instant, MemoryStorage, Node,
    Origin, Recovered, Sid, SnapshotDigest, Zxid,
};

const NOW: Instant = Instant::ZERO;
const PER_TURN: usize = 10;

#[derive(Debug, Default)]
struct Slow {
    taken: usize,
    left: usize,
    /// Turns that the last one still takes.
    applying: usize,
    /// How many were taken when the sync ended.
    synced: Option<usize>,
    failure: Option<String>,
}

impl Application for Slow {
    fn deliver(&mut self, _: Instant, zxid: Zxid, txn: &[u8]) {
        assert!(self.left > 0 && self.applying == 0 && self.failure.is_none());
        self.left -= 1;
        self.taken += 1;
        if txn.ends_with(b"long") {
            self.applying = 3;
        }
        if txn.ends_with(b"bad") {
            self.failure = Some(format!("{zxid} is bad"));
        }
    }

    fn may_deliver(&self) -> bool {
        self.left > 0
    }

    fn is_applying(&self) -> bool {
        self.applying > 0
    }

    fn failed(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    fn request(&mut self, _: &mut Core<'_>, _: Origin, _: &[u8], _: &[u8]) {}

    fn synced(&mut self, _: &mut Core<'_>, _: Option<u64>) {
        self.synced = Some(self.taken);
    }

    fn handle_timeout(&mut self, _: &mut Core<'_>) {
        self.left = PER_TURN;
        self.applying = self.applying.saturating_sub(1);
    }

    fn snapshot_open(&mut self) -> u32 {
        assert_eq!(self.applying, 0);
        0
    }

    fn snapshot_read(&mut self, _: u32, _: &mut [u8]) -> usize {
        0
    }

    fn snapshot_close(&mut self, _: u32) {}

    fn install(&mut self, _: &[u8]) -> Result<InstallProgress, BadSnapshot> {
        Err(BadSnapshot)
    }

    fn install_commit(&mut self, _: Zxid, _: Option<SnapshotDigest>) {}

    fn install_abort(&mut self) {}
}

struct Alone {
    node: Node<Slow>,
    disk: MemoryStorage,
}

impl Alone {
    fn new() -> Self {
        let config = Config::standalone(Sid(1));
        let app = Slow::default();
        let node = Node::new(NOW, config, Recovered::default(), app).expect("a good configuration");
        let mut alone = Self { node, disk: MemoryStorage::default() };
        alone.turn();
        alone
    }

    fn propose(&mut self, body: &[u8]) {
        self.node.with(NOW, |_, core| {
            let zxid = core.next_zxid().expect("it leads");
            let mut txn = Vec::new();
            TxnHeader { client_id: 1, cxid: 0, zxid, time: 0, kind: 5 }.write(&mut txn);
            txn.extend_from_slice(body);
            core.propose(&txn).expect("there is room");
        });
    }

    fn settle(&mut self) {
        loop {
            while self.node.poll_output(NOW, &mut self.disk).is_some() {}
            let Some(persisted) = self.disk.persisted() else { return };
            self.node.handle_input(NOW, persisted);
        }
    }

    fn turn(&mut self) {
        self.node.handle_input(NOW, Input::Timeout);
        self.settle();
    }
}

#[test]
fn transactions_beyond_a_turn_wait_for_the_next_with_what_depends_on_them() {
    let mut alone = Alone::new();
    let before = alone.node.app().taken;
    alone.node.app_mut().left = PER_TURN;
    (0..35).for_each(|_| alone.propose(b"good"));
    alone.node.with(NOW, |_, core| core.sync());
    alone.settle();
    for turn in 1..=3 {
        assert_eq!(alone.node.app().taken - before, turn * PER_TURN);
        assert!(alone.node.wants_turn(), "the next turn is wanted at once");
        let next = alone.node.poll_timeout().expect("a turn is wanted");
        assert_eq!(next - NOW, Duration::from_nanos(1), "a deadline is later than its turn");
        assert_eq!(alone.node.app().synced, None, "it is behind all of them");
        alone.settle();
        assert_eq!(alone.node.app().taken - before, turn * PER_TURN, "not before it");
        alone.turn();
    }
    assert_eq!(alone.node.app().taken - before, 35);
    assert_eq!(alone.node.app().synced, Some(before + 35));
    assert!(!alone.node.wants_turn());
}

#[test]
fn nothing_leaves_a_server_whose_application_has_failed() {
    let mut alone = Alone::new();
    alone.node.app_mut().left = PER_TURN;
    for body in [&b"good"[..], b"bad", b"good"] {
        alone.propose(body);
    }
    alone.settle();
    let taken = alone.node.app().taken;
    assert!(alone.node.app().failed().is_some_and(|reason| reason.ends_with("is bad")));
    alone.propose(b"good");
    alone.turn();
    assert_eq!(alone.node.app().taken, taken, "nothing is delivered");
    assert!(alone.node.poll_output(NOW, &mut alone.disk).is_none());
}

/// While a transaction is applied that takes several turns, nothing else is delivered, though there is
/// room for more, no sync ends, and each next turn is wanted at once.
#[test]
fn what_depends_on_a_long_transaction_waits_until_it_is_applied() {
    let mut alone = Alone::new();
    let before = alone.node.app().taken;
    for body in [&b"good"[..], b"long", b"good"] {
        alone.propose(body);
    }
    alone.node.with(NOW, |_, core| core.sync());
    alone.settle();
    for left in [3, 2, 1] {
        let app = alone.node.app();
        assert_eq!((app.taken - before, app.applying, app.synced), (2, left, None));
        assert!(alone.node.wants_turn());
        alone.turn();
    }
    let app = alone.node.app();
    assert_eq!((app.taken - before, app.applying, app.synced), (3, 0, Some(before + 3)));
    assert!(!alone.node.wants_turn());
}
