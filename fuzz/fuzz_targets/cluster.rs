//! Three voters and an observer under an arbitrary schedule of writes, crashes, partitions, stalled
//! disks and time. What a client heard of is never lost, and in the end all journals are the same.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use zab_harness::Cluster;

#[derive(Clone, Copy, Arbitrary, Debug)]
enum Step {
    Write(u8),
    Kill(u8),
    Start(u8),
    Isolate(u8),
    Heal,
    Stall(u8),
    Unstall(u8),
    Pass(u8),
    ReadBytewise(bool),
}

const SERVERS: usize = 4;

/// Longer schedules say nothing that two short ones do not.
const STEPS_MAX: usize = 40;

fuzz_target!(|steps: Vec<Step>| {
    let mut cluster = Cluster::new(3, 1);
    cluster.start_all();
    let mut written = 0_u32;
    for step in steps.into_iter().take(STEPS_MAX) {
        run(&mut cluster, step, &mut written);
    }
    heal(&mut cluster);
    cluster.run(Duration::from_secs(120));
    let leader = cluster.leader().expect("a healed ensemble elects");
    cluster.write(leader, &[b"last"]);
    cluster.run(Duration::from_secs(10));
    let lines = cluster.lines(leader);
    assert_eq!(lines.last().map(String::as_str), Some("last"));
    for i in 0..SERVERS {
        assert_eq!(cluster.lines(i), lines, "server {i}");
    }
    for heard in cluster.client_bytes.chunks(4) {
        let heard = std::str::from_utf8(heard).expect("four digits");
        let times = lines.iter().filter(|line| *line == heard).count();
        assert_eq!(times, 1, "{heard} was acknowledged");
    }
});

fn run(cluster: &mut Cluster, step: Step, written: &mut u32) {
    let at = |server: u8| usize::from(server) % SERVERS;
    match step {
        Step::Write(server) if cluster.servers[at(server)].node.is_some() => {
            *written += 1;
            let line = format!("{written:04}");
            cluster.write(at(server), &[line.as_bytes()]);
        }
        Step::Kill(server) => cluster.kill(at(server)),
        Step::Start(server) if cluster.servers[at(server)].node.is_none() => {
            cluster.start(at(server));
        }
        Step::Write(_) | Step::Start(_) => {}
        Step::Isolate(server) => cluster.isolate(at(server)),
        Step::Heal => cluster.cut.clear(),
        Step::Stall(server) => cluster.servers[at(server)].disk.stalled = true,
        Step::Unstall(server) => cluster.servers[at(server)].disk.stalled = false,
        Step::Pass(time) => {
            // From 1 ms to half a minute.
            let unit = [1, 20, 100, 500][usize::from(time >> 6)];
            cluster.run(Duration::from_millis(unit * u64::from(time & 63)));
        }
        Step::ReadBytewise(on) => cluster.read_max = if on { 1 } else { usize::MAX },
    }
}

fn heal(cluster: &mut Cluster) {
    cluster.cut.clear();
    for i in 0..SERVERS {
        cluster.servers[i].disk.stalled = false;
        if cluster.servers[i].node.is_none() {
            cluster.start(i);
        }
    }
}
