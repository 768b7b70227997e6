//! Ensembles of applications that are not ZooKeeper's: a map.

mod map;

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use map::{Map, member};
use zab_proto::Replicated;
use zab_testing::{Builder, Ensemble, Runtime, Sid};

const PATIENCE: Duration = Duration::from_secs(60);

fn set(
    ensemble: &Ensemble<Replicated<Map>>,
    through: Sid,
    key: &'static str,
    value: &'static str,
) -> bool {
    let (done, committed) = channel();
    ensemble.handle(through).call(move |now, node| {
        node.with(now, |map, core| {
            map.call(core, format!("{key}={value}").as_bytes(), move |answer| {
                let _ = done.send(answer.is_ok());
            });
        });
    });
    committed.recv_timeout(PATIENCE).is_ok_and(|committed| committed)
}

fn wait_for(ensemble: &Ensemble<Replicated<Map>>, at: Sid, key: &'static str, value: &str) {
    let until = Instant::now() + PATIENCE;
    while ensemble.ask(at, move |map| map.state().entries.get(key).cloned()).as_deref()
        != Some(value)
    {
        assert!(Instant::now() < until, "{key} is not {value} on {at}");
        std::thread::yield_now();
    }
}

#[test]
fn a_map_on_every_runtime() {
    for runtimes in [&Runtime::ALL[..1], &Runtime::ALL[1..2], &Runtime::ALL[2..], Runtime::ALL] {
        // Snapshots after a few writes, and no DIFF for whoever was away.
        let small = |_, options: &mut zab_testing::ServerOptions| {
            options.storage.snap_count = 10;
            options.storage.snapshot_size_factor = -1.0;
            options.config.limits.retained_txns = 0;
        };
        let mut ensemble = Builder::default()
            .observers(1)
            .runtimes(runtimes.to_vec())
            .configure(small)
            .start_with(|_| member())
            .unwrap();
        for sid in ensemble.members() {
            assert!(set(&ensemble, sid, "a", "1"));
        }
        let away = ensemble.members().find(|sid| Some(*sid) != ensemble.leader()).unwrap();
        ensemble.stop(away);
        let leader = ensemble.wait().unwrap();
        for value in ["2", "3", "4", "5", "6", "7", "8", "9"] {
            for key in ["a", "b", "c", "d", "e"] {
                assert!(set(&ensemble, leader, key, value));
            }
        }
        ensemble.restart(away).unwrap();
        ensemble.wait().unwrap();
        for sid in ensemble.members() {
            wait_for(&ensemble, sid, "e", "9");
        }
        // All at once, from what their disks have.
        for sid in ensemble.members().collect::<Vec<_>>() {
            ensemble.stop(sid);
        }
        for sid in ensemble.members().collect::<Vec<_>>() {
            ensemble.restart(sid).unwrap();
        }
        ensemble.wait().unwrap();
        for sid in ensemble.members() {
            wait_for(&ensemble, sid, "e", "9");
            wait_for(&ensemble, sid, "a", "9");
        }
    }
}
