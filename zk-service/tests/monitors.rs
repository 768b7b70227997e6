//! What monitoring agents make of `mntr` and `stat`: the rules of their parsers, as far as they can go
//! wrong. From their sources: Telegraf `plugins/inputs/zookeeper`, Datadog `zk/datadog_checks/zk/zk.py`,
//! collectd `src/zookeeper.c`.

mod harness;

use harness::World;
use zab_harness::client::create;
use zk_service::{Probe, ServiceOptions, Summary};

/// Sends a word on a connection of its own.
fn ask(world: &mut World, server: usize, word: &str) -> String {
    let client = world.connect(server).expect("accepted");
    world.send(client, word.as_bytes());
    world.text(client)
}

fn measured() -> ServiceOptions {
    ServiceOptions::default().with(|options| {
        options.four_letter_whitelist = vec!["*".into()];
        options.figures = vec![("unsuccessful_handshake", Probe::new(|_| 0))];
        options.gauges = vec![("tls_certificate_expiry_seconds", Probe::new(|_| 86_400))];
        options.fsync_times = Some(Probe::new(|_| Summary { count: 3, sum: 7, min: 1, max: 5 }));
        options.descriptors = Some(Probe::new(|_| (41, 1024)));
        options.enforce_quota = true;
    })
}

/// A server alone, a leader and a follower, with nodes, quotas of awkward names and a watch.
fn texts(word: &str) -> Vec<String> {
    let mut alone = World::standalone(measured());
    let (client, ..) = alone.open(0, 20_000);
    for path in ["/app", "/zookeeper/quota/app", "/zookeeper/quota/app/zookeeper_limits"] {
        alone.call(client, 1, &create(path, b"count=5,bytes=1000", 0));
    }
    for name in ["/a b", "/\u{e9}t\u{e9}", "/x{y}\"=", "/tab\there"] {
        alone.call(client, 1, &create(name, b"", 0));
        let quota = format!("/zookeeper/quota{name}");
        alone.call(client, 1, &create(&quota, b"", 0));
        alone.call(client, 1, &create(&format!("{quota}/zookeeper_limits"), b"count=5,bytes=9", 0));
    }
    let mut ensemble = World::ensemble(3, 0, &measured());
    let leader = ensemble.leader();
    vec![
        ask(&mut alone, 0, word),
        ask(&mut ensemble, leader, word),
        ask(&mut ensemble, (leader + 1) % 3, word),
    ]
}

/// `^zk_(\w[\w\.\-]*)\s+([\w\.\-]+)`: one line that does not match, and there is no figure at all.
#[test]
fn telegraf_takes_every_line() {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for text in texts("mntr") {
        let mut names = Vec::new();
        for line in text.lines() {
            let rest = line.strip_prefix("zk_").unwrap_or_else(|| panic!("{line:?}"));
            let (name, value) = rest.split_once('\t').unwrap_or_else(|| panic!("{line:?}"));
            assert!(name.starts_with(is_word), "{line:?}");
            assert!(name.chars().all(|c| is_word(c) || ".-".contains(c)), "{line:?}");
            assert!(value.starts_with(|c| is_word(c) || ".-".contains(c)), "{line:?}");
            names.push(name);
        }
        assert!(names.len() > 80, "{}", names.len());
        assert!(names.contains(&"server_state"), "{text}");
    }
}

#[test]
fn namespaces_of_awkward_names_are_shown_in_letters() {
    let text = texts("mntr").swap_remove(0);
    for line in
        ["zk_app_quota_count_limit_per_namespace\t5", "zk_a_b_quota_count_limit_per_namespace\t5"]
    {
        assert!(text.lines().any(|shown| shown == line), "{line} in {text}");
    }
}

/// It reads into 4096 bytes and leaves the rest, and cuts numbers off at the first other character.
#[test]
fn collectd_finds_its_figures_in_the_first_4096_bytes() {
    for text in texts("mntr") {
        let head = &text.as_bytes()[..text.len().min(4096)];
        let head = String::from_utf8_lossy(head);
        for name in [
            "avg_latency",
            "min_latency",
            "max_latency",
            "packets_received",
            "packets_sent",
            "num_alive_connections",
            "outstanding_requests",
            "znode_count",
            "watch_count",
            "ephemerals_count",
            "approximate_data_size",
        ] {
            let found = head.lines().filter_map(|line| line.strip_prefix(&format!("zk_{name}\t")));
            let numbers: Vec<&str> = found.collect();
            assert_eq!(numbers.len(), 1, "{name} in {head}");
            let whole = numbers[0].split('.').next().unwrap_or_default();
            assert!(whole.parse::<i64>().is_ok(), "{name}: {numbers:?}");
        }
    }
}

/// Line by line in a fixed order behind the version and the clients; the mode is a known word.
#[test]
fn datadog_reads_stat_line_by_line() {
    for text in texts("stat") {
        let mut lines = text.lines();
        let version = lines.next().expect("a version");
        let numbers = version.split(|c: char| !(c.is_ascii_digit() || c == '.'));
        assert!(numbers.into_iter().any(|part| part.split('.').count() == 3), "{version}");
        assert_eq!(lines.next(), Some("Clients:"));
        assert!(lines.by_ref().any(|line| line.trim().is_empty()), "the clients end: {text}");
        let mut value = |name: &str| {
            let line = lines.next().unwrap_or_else(|| panic!("no {name}: {text}"));
            let (key, value) = line.split_once(':').unwrap_or_else(|| panic!("{line}"));
            assert_eq!(key, name);
            value.trim().to_owned()
        };
        let latencies = value("Latency min/avg/max");
        assert_eq!(latencies.split('/').filter(|n| n.parse::<f64>().is_ok()).count(), 3);
        for name in ["Received", "Sent", "Connections", "Outstanding"] {
            assert!(value(name).parse::<u64>().is_ok(), "{name}");
        }
        let zxid = value("Zxid");
        let digits = zxid.strip_prefix("0x").expect("hexadecimal");
        assert!(u64::from_str_radix(digits, 16).is_ok(), "{zxid}");
        assert!(["leader", "follower", "standalone"].contains(&&*value("Mode")));
        assert!(value("Node count").parse::<u64>().is_ok());
    }
}

/// Two words on each line but the version's, whole numbers where it takes any; the first line is the
/// version's, which it skips.
#[test]
fn datadog_reads_mntr() {
    for text in texts("mntr") {
        assert!(text.starts_with("zk_version\t"), "{text}");
        let mut modes = Vec::new();
        for line in text.lines().skip(1) {
            let (key, value) = line.split_once('\t').expect("two words");
            if key == "zk_server_state" {
                modes.push(value);
            }
        }
        assert_eq!(modes.len(), 1);
        assert!(["leader", "follower", "standalone"].contains(&modes[0]));
    }
}
