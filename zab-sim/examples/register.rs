//! An application of one's own in the simulator: a register that keeps the largest value written.
//! `Replica` makes a server of any `StateMachine`; the rest is a client and its judgement.

use zab_sim::check::Failure;
use zab_sim::replica::{ANSWER_LEN, Ask, Replica, StateMachine, parse_answer, request};
use zab_sim::{Client, Options, Wish, run};

#[derive(Default)]
struct Register(u64);

impl StateMachine for Register {
    type Client = Writer;

    fn apply(&mut self, command: u64) -> u64 {
        self.0 = self.0.max(command);
        self.0
    }

    fn read(&self) -> u64 {
        self.0
    }

    fn save(&self, out: &mut Vec<u8>) {
        out.extend(self.0.to_be_bytes());
    }

    fn load(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|bytes| Self(u64::from_be_bytes(bytes)))
    }

    fn judge(clients: &[Writer]) -> Result<(), Failure> {
        let text = "a client saw less than it had written".to_owned();
        let lost = clients.iter().any(|client| client.lost);
        if lost { Err(Failure { invariant: "register", text }) } else { Ok(()) }
    }
}

/// Writes ever larger values, and must be answered with at least what it wrote.
#[derive(Default)]
struct Writer {
    index: u64,
    connected: bool,
    value: u64,
    answered: u64,
    silence: u32,
    lost: bool,
}

impl Client for Writer {
    fn new(index: usize, _options: &Options) -> Self {
        Self { index: index as u64, ..Self::default() }
    }

    fn wake(&mut self, wish: &mut Wish<'_>) {
        wish.wake_at = Some(wish.now + 20_000_000 + wish.rng.below(20_000_000));
        if self.silence > 50 {
            (wish.disconnect, self.connected, self.silence) = (true, false, 0);
        } else if self.connected {
            (self.value, self.silence) = (self.value + 1, self.silence + 1);
            wish.send = request(Ask::Write, self.index << 32 | self.value, self.value, 0).into();
        } else {
            wish.connect = Some(wish.rng.index(wish.servers));
            wish.wake_at = Some(wish.now + 500_000_000);
        }
    }

    fn opened(&mut self, _wish: &mut Wish<'_>) {
        (self.connected, self.silence) = (true, 0);
    }

    fn received(&mut self, bytes: &[u8], _wish: &mut Wish<'_>) -> usize {
        self.silence = 0;
        let (answers, _) = bytes.as_chunks::<ANSWER_LEN>();
        for (number, value) in answers.iter().map(parse_answer) {
            self.answered += u64::from(value.is_some());
            self.lost |= value.is_some_and(|value| value < number & u64::from(u32::MAX));
        }
        answers.len() * ANSWER_LEN
    }

    fn closed(&mut self, _wish: &mut Wish<'_>) {
        self.connected = false;
    }

    fn completed(&self) -> u64 {
        self.answered
    }
}

pub(crate) fn main() {
    for seed in 0..10 {
        assert_eq!(run::<Replica<Register>>(&Options::swarm(seed), 0).failure, None, "seed {seed}");
    }
}
