//! The plan of a run: which fault happens when. Drawn from the seed before the run starts, so that
//! a failing run can be made smaller by leaving faults out.

use crate::options::Options;
use crate::queue::{HostIx, MICRO, MILLI, SECOND};
use crate::rng::Rng;

/// How a process or its host dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// The process alone: what was written survives in the page cache.
    Kill,
    /// The host: only what is durable survives, or a little more.
    Power,
}

/// Something bad. Lengths are in ns of virtual time.
#[expect(missing_docs, reason = "the fields are named as in the sentence above each")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A process or host dies and starts again later.
    Die { server: HostIx, death: Death, down: u64 },
    /// A process does nothing for a while; its connections stay open.
    Pause { server: HostIx, length: u64 },
    /// Nothing sent by `from` reaches `to`.
    CutOneWay { from: HostIx, to: HostIx, length: u64 },
    /// Nothing passes between the two.
    Cut { a: HostIx, b: HostIx, length: u64 },
    /// A server is cut off from all others.
    Isolate { server: HostIx, length: u64 },
    /// Some connections of a server break.
    Reset { server: HostIx },
    /// A disk completes nothing for a while.
    Stall { server: HostIx, length: u64 },
    /// A server's name is not resolved for a while: nobody can dial it.
    Unresolved { server: HostIx, length: u64 },
    /// Bytes that nobody meant arrive on an election connection.
    Garble { from: HostIx, to: HostIx, bytes: u64 },
    /// A process that is no member dials a server and says something.
    Accost { server: HostIx, words: u64 },
    /// The links are cut one after the other and mended in another order.
    Swizzle { order: u64, pause: u64 },
    /// A server reads what comes over quorum connections slowly: after each byte it rests for so many
    /// ns. `u64::MAX`: it does not read at all.
    Slow { server: HostIx, rest: u64, length: u64 },
    /// A server gets an empty disk, as its operator declares; only if the others can spare it.
    Wipe { server: HostIx, down: u64 },
    /// Whoever leads is asked to make way.
    Resign,
    /// The members change, if the leader of that time takes it.
    Reconfigure { choice: u64 },
    /// A process dies, and its file says that it has accepted so many more epochs, for `down`.
    Misremember { server: HostIx, rise: i64, down: u64 },
}

impl Fault {
    /// Its class, for the coverage table.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Die { death: Death::Kill, .. } => "fault: kill",
            Self::Die { death: Death::Power, .. } => "fault: power cut",
            Self::Pause { .. } => "fault: pause",
            Self::CutOneWay { .. } => "fault: link cut one way",
            Self::Cut { .. } => "fault: link cut",
            Self::Isolate { .. } => "fault: server isolated",
            Self::Reset { .. } => "fault: connections reset",
            Self::Stall { .. } => "fault: disk stalled",
            Self::Wipe { .. } => "fault: disk wiped",
            Self::Resign => "fault: a leader is asked to make way",
            Self::Misremember { .. } => "fault: accepted epoch damaged",
            Self::Unresolved { .. } => "fault: name not resolved",
            Self::Garble { .. } => "fault: garbage on an election connection",
            Self::Accost { .. } => "fault: a stranger",
            Self::Swizzle { .. } => "fault: links cut and mended in turn",
            Self::Slow { .. } => "fault: a slow reader",
            Self::Reconfigure { .. } => "members: a change is wanted",
        }
    }

    /// The same fault for another server.
    #[must_use]
    pub fn aimed_at(self, server: HostIx) -> Self {
        match self {
            Self::Die { death, down, .. } => Self::Die { server, death, down },
            Self::Pause { length, .. } => Self::Pause { server, length },
            Self::CutOneWay { to, length, .. } => Self::CutOneWay { from: server, to, length },
            Self::Cut { b, length, .. } => Self::Cut { a: server, b, length },
            Self::Isolate { length, .. } => Self::Isolate { server, length },
            Self::Reset { .. } => Self::Reset { server },
            Self::Stall { length, .. } => Self::Stall { server, length },
            Self::Wipe { down, .. } => Self::Wipe { server, down },
            Self::Misremember { rise, down, .. } => Self::Misremember { server, rise, down },
            Self::Unresolved { length, .. } => Self::Unresolved { server, length },
            Self::Slow { rest, length, .. } => Self::Slow { server, rest, length },
            Self::Garble { to, bytes, .. } => Self::Garble { from: server, to, bytes },
            Self::Accost { words, .. } => Self::Accost { server, words },
            Self::Swizzle { .. } | Self::Resign | Self::Reconfigure { .. } => self,
        }
    }
}

/// When a fault happens.
#[expect(missing_docs, reason = "the fields are named as in the sentence above each")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// At a time.
    At(u64),
    /// `delay` after the step `hook` was seen for the `nth` time, at the server that did it.
    After { hook: &'static str, nth: u32, delay: u64 },
}

/// A planned fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Planned {
    /// When.
    pub when: When,
    /// What.
    pub what: Fault,
}

/// Steps of the protocol to which faults can be tied.
pub const HOOKS: &[&str] = &[
    "set_epoch",
    "append",
    "propose",
    "truncate",
    "install",
    "snapshot",
    "newleader",
    "ack newleader",
    "ack",
    "commit",
    "looking",
    "about to lead",
    "leading",
    "discovery",
    "synchronization",
    "following",
];

/// Draws the plan of a run.
#[must_use]
pub fn draw(options: &Options) -> Vec<Planned> {
    let rng = &mut Rng::new(options.seed, 0xfa_017);
    let faults = &options.faults;
    let seconds = options.chaos.div_ceil(SECOND);
    let mut plan = Vec::new();
    let classes: [(u32, Draw); 15] = [
        (faults.kill, |rng, n| die(rng, n, Death::Kill)),
        (faults.crash, |rng, n| die(rng, n, Death::Power)),
        (faults.pause, |rng, n| Fault::Pause { server: rng.index(n), length: length(rng) }),
        (faults.cut_one_way, |rng, n| {
            let (from, to) = pair(rng, n);
            Fault::CutOneWay { from, to, length: length(rng) }
        }),
        (faults.cut, |rng, n| {
            let (a, b) = pair(rng, n);
            Fault::Cut { a, b, length: length(rng) }
        }),
        (faults.isolate, |rng, n| Fault::Isolate { server: rng.index(n), length: length(rng) }),
        (faults.reset, |rng, n| Fault::Reset { server: rng.index(n) }),
        (faults.stall, |rng, n| Fault::Stall { server: rng.index(n), length: length(rng) }),
        (faults.wipe, |rng, n| Fault::Wipe { server: rng.index(n), down: length(rng) }),
        (faults.misremember, |rng, n| Fault::Misremember {
            server: rng.index(n),
            rise: rng.pick(&[1, 2, 100, 1 << 20, i64::from(i32::MAX)]),
            down: length(rng),
        }),
        (faults.slow, |rng, n| Fault::Slow {
            server: rng.index(n),
            rest: slowness(rng),
            length: length(rng),
        }),
        (faults.unresolved, |rng, n| Fault::Unresolved {
            server: rng.index(n),
            length: length(rng),
        }),
        (faults.garble, |rng, n| {
            let (from, to) = pair(rng, n);
            Fault::Garble { from, to, bytes: rng.next_u64() }
        }),
        (faults.swizzle, |rng, _| Fault::Swizzle { order: rng.next_u64(), pause: length(rng) }),
        (faults.reconfigure, |rng, _| Fault::Reconfigure { choice: rng.next_u64() }),
    ];
    for (rate, make) in classes {
        for _ in 0..u64::from(rate) * seconds / 1000 {
            let what = make(rng, options.servers());
            plan.push(Planned { when: When::At(rng.below(options.chaos)), what });
        }
    }
    let hooked = u64::from(faults.hooked) * seconds / 1000;
    for _ in 0..hooked {
        plan.push(draw_hooked(rng, options));
    }
    plan.extend(draw_strangers(options));
    plan.extend(draw_successors(options));
    // A stream of its own, so that what else befalls a seed stays what it is.
    let rng = &mut Rng::new(options.seed, 0x02e5_1617);
    for _ in 0..u64::from(faults.resign) * seconds / 1000 {
        plan.push(Planned { when: When::At(rng.below(options.chaos)), what: Fault::Resign });
    }
    plan
}

/// In one run of three whose members change, some of those whom a change makes the next leader die at once. The
/// draws are a stream of their own.
fn draw_successors(options: &Options) -> Vec<Planned> {
    let mut rng = Rng::new(options.seed, 0x5_0cce);
    // A script or a measurement changes members, too, and nobody is to die there unasked.
    let drawn = options.faults.reconfigure > 0 && rng.chance(333);
    let deaths = if drawn { rng.range(1, 4) } else { 0 };
    let mut plan = Vec::new();
    for _ in 0..deaths {
        let nth = u32::try_from(rng.range(1, 8)).unwrap_or(1);
        let death = rng.pick(&[Death::Kill, Death::Power]);
        let what = die(&mut rng, options.servers(), death);
        let delay = rng.pick(&[0, 0, 10 * MICRO, MILLI, 20 * MILLI]);
        plan.push(Planned { when: When::After { hook: "successor named", nth, delay }, what });
    }
    plan
}

/// Strangers, ten a second in one run of five. The draws are a stream of their own.
fn draw_strangers(options: &Options) -> impl Iterator<Item = Planned> {
    let mut rng = Rng::new(options.seed, 0x57_a9e);
    let seconds = options.chaos.div_ceil(SECOND);
    // Where members change, the word of who can send votes is believed.
    let strangers = rng.chance(200) && !options.reconfigures();
    let count = if strangers { 10 * seconds } else { 0 };
    let (servers, chaos) = (options.servers(), options.chaos);
    (0..count).map(move |_| Planned {
        when: When::At(rng.below(chaos)),
        what: Fault::Accost { server: rng.index(servers), words: rng.next_u64() },
    })
}

/// Draws a fault for one of so many servers.
type Draw = fn(&mut Rng, usize) -> Fault;

fn draw_hooked(rng: &mut Rng, options: &Options) -> Planned {
    let servers = options.servers();
    let hook = rng.pick(options.hooks);
    let often = matches!(hook, "append" | "propose" | "ack" | "commit");
    let nth = u32::try_from(rng.range(1, if often { 200 } else { 12 })).unwrap_or(1);
    let delay = rng.pick(&[0, 0, 10 * MICRO, 200 * MICRO, 3 * MILLI, 50 * MILLI]);
    let what = match rng.below(6) {
        _ if options.hooks_isolate => Fault::Isolate { server: 0, length: 2 * length(rng) },
        0 | 1 => die(rng, servers, Death::Power),
        2 => die(rng, servers, Death::Kill),
        3 => Fault::Isolate { server: 0, length: length(rng) },
        4 => Fault::Reset { server: 0 },
        _ => Fault::Stall { server: 0, length: length(rng) },
    };
    Planned { when: When::After { hook, nth, delay: rng.below(delay + 1) }, what }
}

fn die(rng: &mut Rng, servers: usize, death: Death) -> Fault {
    Fault::Die { server: rng.index(servers), death, down: length(rng) }
}

fn pair(rng: &mut Rng, servers: usize) -> (HostIx, HostIx) {
    let a = rng.index(servers);
    (a, (a + 1 + rng.index(servers.max(2) - 1)) % servers)
}

/// From 1 MB/s down to nothing at all.
pub(crate) fn slowness(rng: &mut Rng) -> u64 {
    rng.pick(&[MICRO, 100 * MICRO, MILLI, 10 * MILLI, u64::MAX])
}

fn length(rng: &mut Rng) -> u64 {
    let mean = rng.pick(&[MILLI, 30 * MILLI, 300 * MILLI, 2 * SECOND]);
    rng.exponential(mean).min(20 * SECOND)
}
