//! `Replicated`: calls, their bounds and their ends. Three members of it are in the example.

#[path = "../examples/in_memory.rs"]
mod in_memory;

use std::sync::mpsc::{Receiver, channel};

use zab_proto::{
    Application, BadSnapshot, CallError, Config, Core, Instant, Member, Membership, MemoryStorage,
    NetOutput, Node, Phase, Recovered, Replicated, Sid, StateMachine, Status, Zxid,
};

/// Adds up the lengths of commands.
#[derive(Debug, Default, PartialEq, Eq)]
struct Total(u64);

impl StateMachine for Total {
    fn apply(&mut self, command: &[u8]) -> Vec<u8> {
        self.0 += command.len() as u64;
        self.0.to_string().into_bytes()
    }

    fn save(&self, out: &mut Vec<u8>) {
        out.extend(self.0.to_be_bytes());
    }

    fn restore(state: &[u8]) -> Result<Self, BadSnapshot> {
        Ok(Self(u64::from_be_bytes(state.try_into().map_err(|_| BadSnapshot)?)))
    }
}

const NOW: Instant = Instant::ZERO;

type App = Replicated<Total>;
type Answer = Result<String, CallError>;

struct Alone {
    node: Node<App>,
    disk: MemoryStorage,
}

impl Alone {
    fn new(configure: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::standalone(Sid(1));
        configure(&mut config);
        let app = Replicated::new(Total::default(), 7);
        let node = Node::new(NOW, config, Recovered::default(), app).expect("a good configuration");
        let mut alone = Self { node, disk: MemoryStorage::default() };
        alone.settle();
        alone
    }

    fn drain(&mut self) {
        while let Some(output) = self.node.poll_output(NOW, &mut self.disk) {
            assert!(matches!(output, NetOutput::Became(_)), "{output:?}");
        }
    }

    fn settle(&mut self) {
        self.drain();
        while let Some(persisted) = self.disk.persisted() {
            self.node.handle_input(NOW, persisted);
            self.drain();
        }
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut App, &mut Core<'_>) -> T) -> T {
        self.node.with(NOW, act)
    }

    fn call(&mut self, len: usize) -> Receiver<Answer> {
        let (done, answer) = channel();
        self.with(|app, core| {
            app.call(core, &vec![0; len], move |answer| {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let _ = done.send(answer.map(text));
            });
        });
        answer
    }
}

#[test]
fn three_members() {
    in_memory::main().expect("the example ends well");
}

#[test]
fn answers_come_in_the_order_of_the_calls_once_the_disk_has_them() {
    let mut alone = Alone::new(|_| ());
    let calls = [1, 10, 100].map(|len| alone.call(len));
    alone.drain();
    assert!(calls[0].try_recv().is_err(), "not durable yet");
    alone.settle();
    let answers = calls.map(|call| call.try_recv().expect("an answer"));
    assert_eq!(answers, [Ok("1".into()), Ok("11".into()), Ok("111".into())]);
    assert_eq!(alone.node.app().state(), &Total(111));
}

#[test]
fn a_sync_sees_what_was_answered_before() {
    let mut alone = Alone::new(|_| ());
    alone.call(5);
    alone.settle();
    let (done, seen) = channel();
    alone.with(|app, core| app.sync(core, move |state| done.send(state.map(|s| s.0)).unwrap()));
    alone.settle();
    assert_eq!(seen.try_recv(), Ok(Ok(5)));
}

#[test]
fn commands_that_members_would_not_read_are_refused() {
    let mut alone = Alone::new(|config| config.limits.field_len_max_bytes = 1000);
    for (len, refused) in [(968, false), (969, true), (2000, true)] {
        let call = alone.call(len);
        alone.settle();
        let answer = call.try_recv().expect("an answer");
        assert_eq!(answer.err(), refused.then_some(CallError::TooLong), "{len} bytes");
    }
    assert_eq!(alone.node.app().state(), &Total(968));
}

#[test]
fn what_waits_for_room_is_bounded_and_goes_on_when_there_is_some() {
    let mut alone = Alone::new(|config| {
        config.limits.field_len_max_bytes = 1000;
        config.limits.window_len_max_bytes = 4000;
        config.limits.retained_len_max_bytes = 0;
        config.limits.requests_len_max_bytes = 3000;
    });
    // Twice what window and queue hold, while the disk is slow.
    let calls: Vec<_> = (0..140).map(|_| alone.call(100)).collect();
    let busy = calls.iter().filter(|call| call.try_recv() == Ok(Err(CallError::Busy))).count();
    let window = 4000 / 132;
    let queue = 3000 / 116;
    assert!(140 - busy <= window + 1 + queue, "{busy} of 140 are refused");
    assert!(140 - busy >= queue, "{busy} of 140 are refused");
    alone.settle();
    let done = calls.iter().filter(|call| matches!(call.try_recv(), Ok(Ok(_)))).count();
    assert_eq!(done, 140 - busy, "all others are answered");
    assert_eq!(alone.node.app().state(), &Total(100 * done as u64));
    let next = alone.call(1);
    alone.settle();
    assert!(matches!(next.try_recv(), Ok(Ok(_))), "and there is room again");
}

#[test]
fn without_a_leader_nothing_is_carried_out() {
    let mut ensemble = Membership::default();
    for sid in (1..=3).map(Sid) {
        ensemble.members.insert(sid, Member::parse(sid, "h:1:2").expect("a member"));
    }
    let app = Replicated::new(Total::default(), 7);
    let config = Config::new(Sid(1), ensemble);
    let node = Node::new(NOW, config, Recovered::default(), app).expect("a good configuration");
    let mut alone = Alone { node, disk: MemoryStorage::default() };
    assert_eq!(alone.call(1).try_recv(), Ok(Err(CallError::Unavailable)));
    let (done, seen) = channel();
    alone.with(|app, core| app.sync(core, move |s| done.send(s.map(|s| s.0)).unwrap()));
    assert_eq!(seen.try_recv(), Ok(Err(CallError::Unavailable)));
}

#[test]
fn a_lost_leader_leaves_open_only_what_had_been_sent() {
    let mut alone = Alone::new(|config| {
        config.limits.window_len_max_bytes = 1000;
        config.limits.retained_len_max_bytes = 0;
        config.limits.field_len_max_bytes = 1000;
    });
    let calls: Vec<_> = (0..20).map(|_| alone.call(100)).collect();
    let status = Status { phase: Phase::Election, ..alone.node.peer().status() };
    alone.with(|app, core| app.became(core, &status));
    let ends: Vec<_> = calls.iter().map(|call| call.try_recv().expect("an end")).collect();
    let sent = ends.iter().take_while(|end| **end == Err(CallError::Unknown)).count();
    assert!(sent > 0 && sent < 20, "{sent} were sent");
    assert!(ends[sent..].iter().all(|end| *end == Err(CallError::Unavailable)));
    // What was sent is carried out after all; nobody waits for it any more.
    alone.settle();
    assert_eq!(alone.node.app().state(), &Total(100 * sent as u64));
}

#[test]
fn a_snapshot_is_read_whole_or_not_at_all() {
    let mut alone = Alone::new(|_| ());
    alone.call(5);
    alone.settle();
    let mut bytes = vec![0; 100];
    let image = alone.with(|app, _| {
        let snapshot = app.snapshot_open();
        let n = app.snapshot_read(snapshot, &mut bytes);
        app.snapshot_close(snapshot);
        bytes[..n].to_vec()
    });
    let mut other = Replicated::new(Total::default(), 8);
    assert!(!other.install(&image[..10]).expect("a part").done);
    other.install_abort();
    let mut short = image.clone();
    short[7] -= 1; // the length
    assert_eq!(other.install(&short), Err(BadSnapshot));
    other.install_abort();
    assert_eq!(other.state(), &Total(0));
    assert!(other.install(&image).expect("the whole").done);
    other.install_commit(Zxid::ZERO, None);
    assert_eq!(other.state(), &Total(5));
}
