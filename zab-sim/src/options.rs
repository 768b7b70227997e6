//! What a run is like: drawn from its seed before it starts, each fault class on or off ("swarm").

use std::time::Duration;

use zab_proto::{ElectionConfig, Limits};

use crate::away;
use crate::limits;
use crate::mutation::Mutation;
use crate::plan::HOOKS;
use crate::profile;
use crate::queue::{HostIx, MICRO, MILLI, SECOND};
use crate::rng::Rng;
use crate::siege;

/// How written bytes are cut into arrivals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Segmentation {
    /// As written.
    Whole,
    /// A few random pieces.
    Halves,
    /// Byte by byte (the first forty of each write).
    Bytes,
}

/// The network's nature.
#[derive(Clone, Debug)]
pub struct NetOptions {
    /// Shortest delay in ns.
    pub min: u64,
    /// Mean of what comes on top, in ns.
    pub mean: u64,
    /// Chance of a delay spike per segment.
    pub spike_per_mille: u32,
    /// Mean length of a spike in ns.
    pub spike: u64,
    /// Segmentation of writes.
    pub segmentation: Segmentation,
    /// Bytes in flight and unread per direction.
    pub window: usize,
    /// Chance that a reader rests after a read.
    pub slow_reader_per_mille: u32,
    /// Chance that a connection breaks when the cut link under it is mended.
    pub reset_on_heal_per_mille: u32,
    /// Delay between zones in ns, row by row, and each host's zone; empty: none.
    pub zones: Vec<Vec<u64>>,
}

impl NetOptions {
    /// The shortest delay between two hosts.
    #[must_use]
    pub fn base(&self, from: HostIx, to: HostIx) -> u64 {
        if self.zones.is_empty() {
            return self.min;
        }
        let n = self.zones.len();
        self.min + self.zones[from % n][to % n]
    }
}

/// A disk's nature.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// Shortest fsync in ns.
    pub min: u64,
    /// Mean of what comes on top, in ns.
    pub mean: u64,
    /// Chance of a stall per fsync.
    pub stall_per_mille: u32,
    /// Mean length of a stall in ns.
    pub stall: u64,
    /// Most operations made durable by one fsync.
    pub batch: usize,
    /// Transactions between snapshots; 0: none.
    pub snapshot_every: usize,
    /// Chance that an fsync fails, which ends the process, per million.
    pub fail_per_million: u32,
    /// Log records kept below a snapshot, from which learners can be synchronised.
    pub log_kept: usize,
    /// Chance that something is found to be missing in such a log.
    pub log_gap_per_mille: u32,
    /// Whether a killed process had handed all its writes to the kernel.
    pub kill_keeps_all: bool,
    /// Chance that the disk keeps how far the log is committed when it hears that it is.
    pub commit_point_per_mille: u32,
}

/// How often each fault is planned, in events per second of virtual time and per mille.
#[derive(Clone, Debug, Default)]
pub struct FaultOptions {
    /// Process killed; issued writes survive.
    pub kill: u32,
    /// Host crashed; writes that are not durable are lost.
    pub crash: u32,
    /// Process paused.
    pub pause: u32,
    /// One direction of a link cut.
    pub cut_one_way: u32,
    /// Both directions of a link cut.
    pub cut: u32,
    /// A server cut off from all.
    pub isolate: u32,
    /// A connection reset.
    pub reset: u32,
    /// A disk stalled for long.
    pub stall: u32,
    /// A disk wiped, declared.
    pub wipe: u32,
    /// An `acceptedEpoch` that is damaged while its server is down.
    pub misremember: u32,
    /// Faults tied to steps of the protocol.
    pub hooked: u32,
    /// A name that cannot be resolved.
    pub unresolved: u32,
    /// Garbage on an election connection.
    pub garble: u32,
    /// All links cut and mended in turn.
    pub swizzle: u32,
    /// A server that reads its leader slowly, or not at all.
    pub slow: u32,
    /// A leader that is asked to make way.
    pub resign: u32,
    /// A change of the members (not a fault, but planned like one).
    pub reconfigure: u32,
}

/// All that describes a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// What it is biased to; see [`Profile`](crate::profile::Profile).
    pub profile: &'static str,
    /// Voters; they have the sids 1, 2, ….
    pub voters: usize,
    /// Observers, after the voters.
    pub observers: usize,
    /// Observers learn from followers.
    pub masters: bool,
    /// Servers that are no members at the beginning, after the observers. With any, the members change.
    pub spares: usize,
    /// Clients.
    pub clients: usize,
    /// Requests per client.
    pub requests: u32,
    /// Mean pause of a client between requests in ns.
    pub think: u64,
    /// The network.
    pub net: NetOptions,
    /// The disks.
    pub disk: DiskOptions,
    /// Clock drift of up to this many parts per million.
    pub drift_ppm: i64,
    /// The faults.
    pub faults: FaultOptions,
    /// Steps of the protocol that faults are tied to.
    pub hooks: &'static [&'static str],
    /// All they do is to isolate the server that takes the step.
    pub hooks_isolate: bool,
    /// How long faults go on, in ns of virtual time.
    pub chaos: u64,
    /// Upper bound of events in the chaos phase.
    pub events_max: u64,
    /// `tickTime`.
    pub tick_time: Duration,
    /// The pause between heartbeats in ms; 0: none.
    pub heartbeat: u64,
    /// Servers that have none, as Apache's.
    pub without_heartbeat: Vec<usize>,
    /// `initLimit`.
    pub init_limit: u32,
    /// `syncLimit`.
    pub sync_limit: u32,
    /// Committed transactions kept for DIFF.
    pub retained_txns: usize,
    /// The counter at which a new epoch begins.
    pub counter_max: u32,
    /// The bounds of the core, but for the two above.
    pub limits: Limits,
    /// Each server draws its own.
    pub limits_differ: bool,
    /// The times of elections.
    pub election: ElectionConfig,
    /// The quorum port of a server that does not lead refuses, as Apache's does.
    pub quorum_port_when_leading: bool,
    /// Mean delay of transmissions in ns; 0: none has an event of its own.
    pub transmit_delay: u64,
    /// Servers have an oracle, which says no until a script lets it say yes.
    pub oracle: bool,
    /// Members give their ensemble an id, and are besieged at the end.
    pub identities: bool,
    /// A fault built into the code on purpose.
    pub mutation: Option<Mutation>,
    /// Faults of the plan left out, by index (minimisation).
    pub without: Vec<usize>,
}

impl Options {
    /// A calm run: nothing goes wrong.
    #[must_use]
    pub fn calm(seed: u64, voters: usize) -> Self {
        Self {
            seed,
            profile: "plain",
            voters,
            observers: 0,
            masters: false,
            spares: 0,
            clients: 2,
            requests: 50,
            think: 5 * MILLI,
            net: NetOptions {
                min: 50 * MICRO,
                mean: 50 * MICRO,
                spike_per_mille: 0,
                spike: 0,
                segmentation: Segmentation::Whole,
                window: 64 * 1024,
                slow_reader_per_mille: 0,
                reset_on_heal_per_mille: 0,
                zones: Vec::new(),
            },
            disk: DiskOptions {
                min: 100 * MICRO,
                mean: 100 * MICRO,
                stall_per_mille: 0,
                stall: 0,
                batch: 1000,
                snapshot_every: 0,
                fail_per_million: 0,
                log_kept: 0,
                log_gap_per_mille: 0,
                kill_keeps_all: false,
                commit_point_per_mille: 0,
            },
            drift_ppm: 0,
            faults: FaultOptions::default(),
            hooks: HOOKS,
            hooks_isolate: false,
            chaos: 0,
            events_max: 1_000_000,
            tick_time: Duration::from_millis(200),
            heartbeat: 50,
            without_heartbeat: Vec::new(),
            init_limit: 10,
            sync_limit: 5,
            retained_txns: 500,
            counter_max: u32::MAX,
            limits: Limits::default(),
            limits_differ: false,
            election: ElectionConfig::default(),
            quorum_port_when_leading: false,
            transmit_delay: 0,
            oracle: false,
            identities: false,
            mutation: None,
            without: Vec::new(),
        }
    }

    /// A run drawn from `seed`: half of them plain, the others biased to some phase by one of the
    /// profiles in [`profile::ALL`].
    #[must_use]
    pub fn swarm(seed: u64) -> Self {
        let mut rng = Rng::new(seed, 0x9e0f11e);
        let mut options =
            if rng.chance(500) { Self::plain(seed) } else { rng.pick(profile::ALL).options(seed) };
        options.keep_logs();
        away::draw_heartbeats(&mut options);
        options.identities = siege::drawn(seed);
        options.faults.resign = away::resignations(seed);
        options
    }

    /// A run drawn from `seed` without any bias.
    #[must_use]
    pub fn plain(seed: u64) -> Self {
        let mut rng = Rng::new(seed, 0x5ea);
        let rng = &mut rng;
        let voters = rng.pick(&[1, 2, 3, 3, 3, 3, 3, 4, 5, 5, 7]);
        let mut options = Self::calm(seed, voters);
        options.observers = rng.pick(&[0, 0, 0, 1, 1, 2]);
        options.clients = rng.pick(&[1, 2, 3, 5]);
        options.requests = rng.pick(&[20, 100, 300]);
        options.think = rng.pick(&[100 * MICRO, MILLI, 20 * MILLI]);
        options.drift_ppm = rng.pick(&[0, 100, 50_000]);
        options.chaos = rng.range(SECOND, 12 * SECOND);
        options.events_max = rng.pick(&[2000, 6000, 20_000]);
        options.tick_time = Duration::from_millis(rng.pick(&[20, 100, 500]));
        options.init_limit = rng.pick(&[5, 10]);
        options.sync_limit = rng.pick(&[2, 5]);
        options.retained_txns = rng.pick(&[1, 5, 50, 500]);
        options.election.early_finalize = rng.chance(750);
        options.transmit_delay = if rng.chance(300) { 20 * MICRO } else { 0 };
        options.net = draw_net(rng);
        options.disk = draw_disk(rng);
        options.faults = draw_faults(rng);
        // Three of four runs are within narrow bounds of some kind.
        let rng = &mut Rng::new(seed, 0x11_417);
        if rng.chance(750) {
            options.limits = limits::draw(rng);
            options.limits_differ = rng.chance(250);
        }
        options.keep_logs();
        options
    }

    /// What a narrow window has let go of comes from the log, for live learners, too: without it they have
    /// to leave and be sent a snapshot, which the checks that nobody is disturbed would not forgive.
    fn keep_logs(&mut self) {
        let default = Limits::default().window_len_max_bytes;
        if self.limits.window_len_max_bytes < default || self.limits_differ {
            self.disk.log_kept = usize::MAX;
            self.disk.log_gap_per_mille = 0;
        }
    }

    /// Servers.
    #[must_use]
    pub fn servers(&self) -> usize {
        self.voters + self.observers + self.spares
    }

    /// Whether the members change.
    #[must_use]
    pub fn reconfigures(&self) -> bool {
        self.spares > 0
    }
}

fn draw_net(rng: &mut Rng) -> NetOptions {
    let mean = rng.pick(&[10 * MICRO, 100 * MICRO, MILLI, 20 * MILLI]);
    NetOptions {
        min: rng.pick(&[MICRO, 50 * MICRO, MILLI]),
        mean,
        spike_per_mille: rng.pick(&[0, 0, 1, 10]),
        // The times of the election's finalising wait are a hot spot.
        spike: rng.pick(&[20 * MILLI, 200 * MILLI, SECOND]),
        segmentation: rng.pick(&[
            Segmentation::Whole,
            Segmentation::Whole,
            Segmentation::Whole,
            Segmentation::Halves,
            Segmentation::Bytes,
        ]),
        // A message longer than this is never there as a whole: multis of 120 parts have up to 13 KiB.
        window: rng.pick(&[16 * 1024, 64 * 1024]),
        slow_reader_per_mille: rng.pick(&[0, 0, 0, 2]),
        reset_on_heal_per_mille: rng.pick(&[0, 300, 1000]),
        zones: Vec::new(),
    }
}

fn draw_disk(rng: &mut Rng) -> DiskOptions {
    DiskOptions {
        min: rng.pick(&[10 * MICRO, 100 * MICRO, MILLI]),
        mean: rng.pick(&[10 * MICRO, MILLI, 10 * MILLI]),
        stall_per_mille: rng.pick(&[0, 0, 1, 10]),
        stall: rng.pick(&[50 * MILLI, 500 * MILLI]),
        batch: rng.pick(&[1, 3, 1000]),
        snapshot_every: rng.pick(&[0, 7, 40]),
        fail_per_million: rng.pick(&[0, 0, 0, 2000]),
        log_kept: 0,
        log_gap_per_mille: 0,
        kill_keeps_all: false,
        commit_point_per_mille: rng.pick(&[0, 20, 1000]),
    }
}

fn draw_faults(rng: &mut Rng) -> FaultOptions {
    let mut rate = |choices: &[u32]| if rng.chance(400) { rng.pick(choices) } else { 0 };
    FaultOptions {
        kill: rate(&[200, 1000]),
        crash: rate(&[200, 1000]),
        pause: rate(&[200, 1000]),
        cut_one_way: rate(&[200, 1000, 3000]),
        cut: rate(&[200, 1000]),
        isolate: rate(&[200, 1000]),
        reset: rate(&[200, 1000, 5000]),
        stall: rate(&[200, 1000]),
        wipe: rate(&[100]),
        hooked: rate(&[1000, 4000, 8000]),
        ..FaultOptions::default()
    }
}
