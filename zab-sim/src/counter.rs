//! The simulator's own application: a counter, whose every answer can be judged.

use crate::check::Failure;
use crate::options::Options;
use crate::queue::{HostIx, MILLI, SECOND};
use crate::replica::{ANSWER_LEN, Ask, StateMachine, parse_answer, request};
use crate::subject::{Client, Wish};

/// Counts commands, and mixes them so that order matters.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counter {
    count: u64,
    mixed: u64,
}

impl StateMachine for Counter {
    type Client = CounterClient;

    fn apply(&mut self, command: u64) -> u64 {
        self.count += 1;
        self.mixed = self.mixed.wrapping_mul(31).wrapping_add(command);
        self.count
    }

    fn read(&self) -> u64 {
        self.count
    }

    fn save(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(&self.mixed.to_be_bytes());
    }

    fn load(bytes: &[u8]) -> Option<Self> {
        let (count, mixed) = bytes.split_first_chunk()?;
        let (mixed, rest) = mixed.split_first_chunk()?;
        let state = Self { count: u64::from_be_bytes(*count), mixed: u64::from_be_bytes(*mixed) };
        rest.is_empty().then_some(state)
    }

    fn digest(&self) -> u64 {
        self.count ^ self.mixed.rotate_left(20)
    }

    fn judge(clients: &[CounterClient]) -> Result<(), Failure> {
        judge(clients)
    }
}

/// An operation as its client saw it.
#[derive(Clone, Copy, Debug)]
struct Done {
    invoked: u64,
    answered: u64,
    ask: Ask,
    value: u64,
}

/// A client that adds and reads, one request at a time or several.
#[derive(Debug)]
pub struct CounterClient {
    name: u64,
    left: u32,
    think: u64,
    number: u64,
    pending: Vec<(u64, u64, Ask)>,
    history: Vec<Done>,
    connected: bool,
    dialling: bool,
    /// The lowest value this connection may still be answered with.
    floor: u64,
    broken: Option<String>,
    patience: u64,
    /// A request with more than this may be longer than a field holds, and is waited for in vain.
    pad_max: usize,
    in_vain_until: u64,
    /// Requests of a script that wait for the connection.
    scripted: Vec<Ask>,
}

impl Client for CounterClient {
    fn new(index: usize, options: &Options) -> Self {
        Self {
            name: index as u64 + 1,
            left: options.requests,
            think: options.think,
            number: 0,
            pending: Vec::new(),
            history: Vec::new(),
            connected: false,
            dialling: false,
            floor: 0,
            broken: None,
            patience: 0,
            pad_max: options.limits.field_len_max_bytes - REQUEST_LEN,
            in_vain_until: 0,
            scripted: Vec::new(),
        }
    }

    fn wake(&mut self, wish: &mut Wish<'_>) {
        if self.left == 0 {
            return;
        }
        wish.wake_at = Some(wish.now + 1 + wish.rng.exponential(self.think));
        if self.connected && wish.now > self.patience {
            wish.disconnect = true;
            self.forget();
        }
        if !self.connected {
            if !self.dialling || wish.now > self.patience {
                wish.connect = Some(wish.rng.index(wish.servers));
                self.dialling = true;
                self.patience = wish.now + SECOND;
            }
            return;
        }
        if self.pending.len() >= 8 {
            return;
        }
        self.left -= 1;
        let ask = wish.rng.pick(&[Ask::Write, Ask::Write, Ask::Write, Ask::Read, Ask::SyncRead]);
        self.send(ask, wish);
    }

    fn opened(&mut self, wish: &mut Wish<'_>) {
        self.connected = true;
        self.dialling = false;
        self.patience = wish.now + 2 * SECOND;
        for ask in std::mem::take(&mut self.scripted) {
            self.send(ask, wish);
        }
    }

    fn received(&mut self, bytes: &[u8], wish: &mut Wish<'_>) -> usize {
        let mut used = 0;
        while let Some(answer) = bytes[used..].first_chunk::<ANSWER_LEN>() {
            used += ANSWER_LEN;
            let (number, value) = parse_answer(answer);
            let Some(at) = self.pending.iter().position(|(n, _, _)| *n == number) else {
                self.broken = Some(format!("client {}: unasked answer {number:#x}", self.name));
                continue;
            };
            let (_, invoked, ask) = self.pending.remove(at);
            let Some(value) = value else { continue };
            if value < self.floor {
                let (name, floor) = (self.name, self.floor);
                self.broken = Some(format!("client {name} sees {value} after {floor}"));
            }
            self.floor = value;
            self.history.push(Done { invoked, answered: wish.now, ask, value });
        }
        used
    }

    fn closed(&mut self, wish: &mut Wish<'_>) {
        self.forget();
        if self.left == 0 {
            return;
        }
        self.patience = wish.now + wish.rng.range(MILLI, 50 * MILLI);
        self.dialling = true;
        wish.wake_at = Some(self.patience + 1);
    }

    fn completed(&self) -> u64 {
        self.history.iter().filter(|done| done.ask == Ask::Write).count() as u64
    }

    fn in_vain_until(&self) -> u64 {
        self.in_vain_until
    }

    fn persevere(&mut self) {
        self.left = u32::MAX;
        self.think = self.think.max(20 * MILLI);
    }
}

/// More than a request has besides its padding, forwarded or as a transaction.
const REQUEST_LEN: usize = 150;

impl CounterClient {
    /// Sends a request to `server` as soon as it is connected; for scripts.
    pub(crate) fn ask(&mut self, server: HostIx, ask: Ask, wish: &mut Wish<'_>) {
        if self.connected {
            self.send(ask, wish);
            return;
        }
        self.scripted.push(ask);
        if !self.dialling {
            self.dialling = true;
            wish.connect = Some(server);
        }
    }

    fn send(&mut self, ask: Ask, wish: &mut Wish<'_>) {
        self.number += 1;
        let number = self.name << 32 | self.number;
        let long = wish.rng.chance(20);
        let pad = u16::try_from(wish.rng.below(if long { 1200 } else { 200 })).unwrap_or(0);
        if usize::from(pad) > self.pad_max {
            // It sends a few more, and gives up two seconds later.
            self.in_vain_until = wish.now + 3 * SECOND;
        }
        let command = wish.rng.next_u64();
        wish.send.extend_from_slice(&request(ask, number, command, pad));
        self.pending.push((number, wish.now, ask));
        self.patience = wish.now + 2 * SECOND;
    }

    fn forget(&mut self) {
        self.connected = false;
        self.dialling = false;
        self.pending.clear();
        self.floor = 0;
    }
}

/// W1, W2, W5, W13: writes and synced reads are linearizable, plain reads of a connection never go
/// back, no two writes got the same place.
fn judge(clients: &[CounterClient]) -> Result<(), Failure> {
    let fail = |invariant, text| Err(Failure { invariant, text });
    if let Some(text) = clients.iter().find_map(|client| client.broken.clone()) {
        return fail("W2", text);
    }
    let mut done: Vec<&Done> = clients.iter().flat_map(|client| &client.history).collect();
    let mut writes: Vec<u64> =
        done.iter().filter(|d| d.ask == Ask::Write).map(|d| d.value).collect();
    writes.sort_unstable();
    if let Some(pair) = writes.windows(2).find(|pair| pair[0] == pair[1]) {
        return fail("W13", format!("two writes were answered with {}", pair[0]));
    }
    let mut answers: Vec<(u64, u64)> = done.iter().map(|d| (d.answered, d.value)).collect();
    answers.sort_unstable();
    done.sort_by_key(|d| d.invoked);
    let (mut seen, mut highest) = (0, 0);
    for d in done {
        while seen < answers.len() && answers[seen].0 < d.invoked {
            highest = highest.max(answers[seen].1);
            seen += 1;
        }
        let stale = match d.ask {
            Ask::Write => d.value <= highest,
            Ask::SyncRead => d.value < highest,
            Ask::Read => false,
        };
        if stale {
            let invariant = if d.ask == Ask::Write { "W1" } else { "W5" };
            let text = format!("{:?} got {} when {highest} was known before", d.ask, d.value);
            return fail(invariant, text);
        }
    }
    Ok(())
}
