//! Biased runs: the set-up of a failure known from the field, and faults weighted to its phase.

use crate::away;
use crate::options::{Options, Segmentation};
use crate::queue::{MICRO, MILLI, SECOND};
use crate::rng::Rng;

use std::time::Duration;

/// A kind of run.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// Its name.
    pub name: &'static str,
    /// The entries of the catalogue of failures that it is for.
    pub about: &'static [&'static str],
    /// Steps of the protocol at which faults strike.
    hooks: &'static [&'static str],
    tune: fn(&mut Options, &mut Rng),
}

/// All of them.
pub const ALL: &[Profile] = &[
    Profile {
        name: "synchronisation",
        about: &[
            "B-01", "B-02", "B-03", "B-04", "B-05", "B-06", "B-07", "B-17", "B-18", "B-26", "B-30",
            "H1", "H5",
        ],
        hooks: &["set_epoch", "newleader", "ack newleader", "synchronization", "about to lead"],
        tune: |options, _| {
            options.faults.hooked = 8000;
            options.disk.mean = options.disk.mean.max(MILLI);
        },
    },
    Profile {
        name: "tail",
        about: &[
            "B-08", "B-10a", "B-10b", "B-12", "B-13", "B-14", "B-19", "B-25", "B-47", "B-49", "H2",
            "H3",
        ],
        hooks: &["propose"],
        tune: |options, rng| {
            options.hooks_isolate = true;
            options.faults.hooked = 4000;
            options.faults.kill = rng.pick(&[0, 500]);
            options.faults.crash = rng.pick(&[0, 500]);
            options.retained_txns = rng.pick(&[50, 500]);
            hasty(options);
            busy(options);
        },
    },
    Profile {
        name: "snapshot",
        about: &["B-15", "B-16", "B-17", "B-21", "B-23", "B-24", "B-35b"],
        hooks: &["install", "snapshot", "synchronization", "newleader"],
        tune: |options, rng| {
            options.retained_txns = 1;
            options.disk.snapshot_every = 7;
            options.transmit_delay = rng.pick(&[0, 500 * MICRO]);
            options.faults.hooked = 4000;
            options.faults.kill = 1000;
            options.faults.wipe = 300;
            busy(options);
        },
    },
    Profile {
        name: "log",
        about: &["B-09", "B-20", "B-21"],
        hooks: &["synchronization", "following", "append"],
        tune: |options, rng| {
            options.retained_txns = rng.pick(&[1, 5]);
            options.disk.snapshot_every = rng.pick(&[0, 7, 40]);
            options.disk.log_kept = rng.pick(&[20, 1000]);
            options.disk.log_gap_per_mille = rng.pick(&[0, 100]);
            options.faults.hooked = 1000;
            options.faults.kill = 1000;
            options.faults.isolate = 1000;
            hasty(options);
            busy(options);
        },
    },
    Profile {
        name: "election",
        about: &["B-27", "B-28", "B-29", "B-40", "B-41", "B-42", "B-43", "B-44", "B-45a", "B-46"],
        hooks: &["looking", "about to lead", "discovery", "leading", "following"],
        tune: |options, rng| {
            options.election.max_notification_interval =
                Duration::from_secs(rng.pick(&[1, 10, 60]));
            options.observers = rng.pick(&[0, 1, 3]);
            options.net.spike_per_mille = rng.pick(&[0, 10, 100]);
            options.net.spike = 200 * MILLI;
            options.faults.hooked = 4000;
            options.faults.unresolved = rng.pick(&[0, 1000]);
            options.faults.garble = rng.pick(&[0, 2000]);
            options.faults.reset = rng.pick(&[0, 1000]);
            options.faults.misremember = rng.pick(&[0, 300]);
        },
    },
    Profile {
        name: "disk",
        about: &["B-11", "B-48", "H4", "H7"],
        hooks: &["append", "ack", "commit", "set_epoch"],
        tune: |options, rng| {
            options.disk.fail_per_million = rng.pick(&[0, 5000]);
            options.disk.stall_per_mille = 10;
            options.disk.stall = rng.pick(&[50 * MILLI, 2 * SECOND]);
            options.faults.kill = 1000;
            options.faults.crash = 1000;
            options.faults.stall = 1000;
            options.faults.hooked = rng.pick(&[0, 2000]);
        },
    },
    Profile {
        name: "counter",
        about: &["B-53"],
        hooks: &["propose", "commit", "looking", "leading"],
        tune: |options, rng| {
            options.counter_max = rng.pick(&[20, 50, 200]);
            // An observer comes to each leader when the voters have, and may not be synchronised before the end of a
            // reign of a few milliseconds.
            options.election.observer_delay_max = Duration::from_millis(1);
            if options.counter_max < 200 {
                options.observers = 0;
            }
            options.faults.hooked = rng.pick(&[0, 2000]);
            hasty(options);
            busy(options);
        },
    },
    Profile {
        name: "pace",
        about: &[],
        hooks: &["synchronization", "newleader", "ack newleader", "snapshot", "propose"],
        tune: |options, rng| {
            options.retained_txns = rng.pick(&[1, 5]);
            // A log that is cut at once leaves nothing for who lags by a moment.
            options.disk.log_kept = 1000;
            options.disk.snapshot_every = rng.pick(&[0, 7, 40]);
            options.observers = rng.pick(&[0, 1, 2]);
            options.faults.slow = rng.pick(&[1000, 3000]);
            options.faults.kill = 500;
            options.faults.hooked = rng.pick(&[0, 1000]);
            hasty(options);
            busy(options);
        },
    },
    Profile {
        name: "swizzle",
        about: &["B-10b", "B-41", "B-47"],
        hooks: &["propose", "looking", "leading"],
        tune: |options, rng| {
            options.faults.swizzle = 500;
            options.faults.kill = rng.pick(&[0, 200]);
            options.faults.pause = rng.pick(&[0, 200]);
            options.net.segmentation = Segmentation::Whole;
            hasty(options);
        },
    },
];

/// Those that are not drawn at random.
pub const APART: &[Profile] = &[MEMBERS, TURNOVER, MASTERS];

const MEMBERS: Profile = Profile {
    name: "members",
    about: &[],
    hooks: &[
        "members proposed",
        "members committed",
        "members in force",
        "configurations",
        "append",
        "ack",
        "commit",
        "looking",
        "about to lead",
        "leading",
        "newleader",
    ],
    tune: |options, rng| {
        hasty(options);
        busy(options);
        options.voters = rng.pick(&[1, 2, 3, 3, 5]);
        options.observers = rng.pick(&[0, 0, 1]);
        options.spares = rng.pick(&[1, 2, 3]);
        options.retained_txns = rng.pick(&[1, 50, 500]);
        options.disk.snapshot_every = rng.pick(&[0, 7, 40]);
        options.disk.log_gap_per_mille = 0;
        options.faults.reconfigure = rng.pick(&[2000, 5000]);
        options.faults.hooked = rng.pick(&[0, 2000, 6000]);
        options.faults.kill = rng.pick(&[0, 300]);
        options.faults.crash = rng.pick(&[0, 500]);
        options.faults.wipe = 0;
    },
};

/// Members that change where observers learn from followers, who may be removed, leaders are asked to make
/// way, and some servers have no heartbeats.
const TURNOVER: Profile = Profile {
    name: "turnover",
    tune: |options, rng| {
        (MEMBERS.tune)(options, rng);
        options.masters = rng.chance(500);
        options.observers = rng.pick(&[0, 1, 2]);
        options.election.observer_delay_max = Duration::from_millis(rng.pick(&[1, 200]));
        options.faults.resign = rng.pick(&[0, 300, 2000]);
        options.faults.slow = rng.pick(&[0, 0, 1000]);
        away::draw_heartbeats(options);
    },
    ..MEMBERS
};

/// Observers learn from followers, which come and go.
const MASTERS: Profile = Profile {
    name: "masters",
    about: &[],
    hooks: &[
        "synchronization",
        "following",
        "newleader",
        "snapshot",
        "append",
        "commit",
        "looking",
    ],
    tune: |options, rng| {
        hasty(options);
        busy(options);
        options.masters = true;
        options.observers = rng.pick(&[1, 2, 4]);
        options.retained_txns = rng.pick(&[1, 5, 500]);
        options.disk.snapshot_every = rng.pick(&[0, 7, 40]);
        options.disk.log_kept = rng.pick(&[20, 1000]);
        options.election.observer_delay_max = Duration::from_millis(1);
        options.faults.hooked = rng.pick(&[0, 2000]);
        options.faults.kill = rng.pick(&[500, 2000]);
        options.faults.crash = rng.pick(&[0, 500]);
        options.faults.slow = rng.pick(&[0, 1000]);
        options.faults.isolate = rng.pick(&[0, 1000]);
        options.faults.reset = rng.pick(&[0, 1000]);
    },
};

/// Elections and time-outs take little of the run.
fn hasty(options: &mut Options) {
    options.tick_time = options.tick_time.min(Duration::from_millis(100));
    options.sync_limit = 2;
    options.chaos = options.chaos.max(6 * SECOND);
    options.events_max = 20_000;
    options.voters = options.voters.clamp(3, 5);
    options.net.segmentation = Segmentation::Whole;
}

/// Clients never run out of requests.
fn busy(options: &mut Options) {
    options.requests = 2000;
    options.think = options.think.max(5 * MILLI);
    options.clients = options.clients.max(3);
}

impl Profile {
    /// The run of this kind that is drawn from `seed`.
    #[must_use]
    pub fn options(&self, seed: u64) -> Options {
        let mut options = Options::plain(seed);
        options.profile = self.name;
        options.hooks = self.hooks;
        (self.tune)(&mut options, &mut Rng::new(seed, 0xb1a5));
        options
    }
}

/// The profile of that name, or the first one about that entry of the catalogue.
#[must_use]
pub fn named(name: &str) -> Option<&'static Profile> {
    let about = |profile: &&Profile| profile.about.iter().any(|a| a.eq_ignore_ascii_case(name));
    let mut all = ALL.iter().chain(APART);
    all.find(|profile| profile.name == name).or_else(|| ALL.iter().find(about))
}
