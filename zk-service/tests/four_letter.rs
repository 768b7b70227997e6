//! The four-letter words.

mod harness;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use harness::World;
use zab_harness::client::{Connect, create, read};
use zk_service::{Opcode, Probe, ServiceOptions, Summary, WallClock};

const WORDS: [&str; 19] = [
    "conf", "cons", "crst", "dirs", "dump", "envi", "gtmk", "hash", "isro", "mntr", "ruok", "safe",
    "srst", "srvr", "stat", "stmk", "wchc", "wchp", "wchs",
];

fn options() -> ServiceOptions {
    ServiceOptions::default().with(|options| {
        options.tick_time = Duration::from_secs(2);
        options.four_letter_whitelist = vec!["*".into()];
        options.version = "3.9.4-test, built on 2026-01-01 00:00 UTC".into();
        options.wall_clock = WallClock::new(|| 1_795_249_836_000);
    })
}

/// Sends a word on a connection of its own.
fn ask(world: &mut World, server: usize, word: &str) -> String {
    let client = world.connect(server).expect("accepted");
    world.send(client, word.as_bytes());
    assert!(world.has_ended(client), "{word} ends the connection");
    world.text(client)
}

#[test]
fn short_answers() {
    let mut world = World::standalone(options());
    for (word, answer) in [
        ("ruok", "imok"),
        ("safe", "no: this server is the only one\n"),
        ("isro", "rw"),
        ("gtmk", "306"),
        ("stmk\0\0\0\0\0\0\0\u{7f}", "127"),
        ("srst", "Server stats reset.\n"),
        ("crst", "Connection stats reset.\n"),
        ("dirs", "datadir_size: 0\nlogdir_size: 0\n"),
        ("hash", ""),
        ("wchc", "\n"),
        ("wchs\n", "0 connections watching 0 paths\nTotal watches:0\n"),
    ] {
        assert_eq!(ask(&mut world, 0, word), answer, "{word}");
    }
    assert!(ask(&mut world, 0, "envi").starts_with("Environment:\nzookeeper.version=3.9.4-test"));
}

#[test]
fn only_what_is_whitelisted() {
    let four_letter_whitelist = vec!["ruok".into()];
    let mut world = World::standalone(
        options().with(|options| options.four_letter_whitelist = four_letter_whitelist),
    );
    assert_eq!(ask(&mut world, 0, "ruok"), "imok");
    assert!(ask(&mut world, 0, "srvr").ends_with("Mode: standalone\nNode count: 5\n"));
    let refusal = "mntr is not executed because it is not in the whitelist.\n";
    assert_eq!(ask(&mut world, 0, "mntr"), refusal);
}

#[test]
fn a_word_that_is_not_allowed_is_refused_at_once() {
    let mut world = World::standalone(options().with(|options| {
        options.four_letter_whitelist = Vec::new();
        options.read_only_mode = true;
    }));
    for word in WORDS {
        for tail in ["", "\n", "\0\0\0", "\0\0\0\0\0\0\0\u{7f}", "\0\0\0\0\0\0\0\u{7f}more"] {
            let answer = ask(&mut world, 0, &format!("{word}{tail}"));
            let refused = format!("{word} is not executed because it is not in the whitelist.\n");
            // The first is asked by scripts, the second by clients that may read only.
            let allowed = matches!(word, "srvr" | "isro");
            assert_eq!(answer != refused, allowed, "{word:?} with {tail:?}: {answer}");
        }
    }
}

#[test]
fn a_word_that_is_allowed_is_answered_whatever_comes_behind() {
    let mut world = World::standalone(options());
    for word in WORDS {
        let with_mask = ask(&mut world, 0, &format!("{word}\0\0\0\0\0\0\0\u{7f}and more"));
        for tail in ["", "\n", "\0\0\0\0\0\0\0"] {
            let answer = ask(&mut world, 0, &format!("{word}{tail}"));
            if word == "stmk" {
                assert_eq!((&*answer, &*with_mask), ("", "127"), "with {tail:?}");
            } else {
                let head = |text: &str| text.get(..10).map(str::to_owned);
                assert_eq!(head(&answer), head(&with_mask), "{word} with {tail:?}");
            }
        }
    }
}

#[test]
fn an_answer_counts_as_sent() {
    let mut world = World::standalone(options());
    let sent = |world: &mut World| {
        let text = ask(world, 0, "srvr");
        let sent = text.lines().find_map(|line| line.strip_prefix("Sent: ")).expect("a line");
        sent.parse::<u32>().expect("a number")
    };
    assert_eq!(sent(&mut world), 0);
    assert_eq!(sent(&mut world), 1);
    assert_eq!(ask(&mut world, 0, "hash"), "");
    assert_eq!(sent(&mut world), 2, "nothing was sent for an empty answer");
}

#[test]
fn before_service() {
    let mut world = World::ensemble(3, 0, &options());
    let leader = world.leader();
    world.cut = (0..3).filter(|i| *i != leader).map(|i| (leader, i)).collect();
    world.pass(Duration::from_secs(20));
    let refusal = "This ZooKeeper instance is not currently serving requests\n";
    for (word, answer) in [("ruok", "imok"), ("isro", "null"), ("cons", refusal), ("dump", refusal)]
    {
        assert_eq!(ask(&mut world, leader, word), answer, "{word}");
    }
    // What monitors ask for the state says for whom this server waits, each word in its own form.
    for (word, label) in [("srvr", "Waiting: "), ("stat", "Waiting: "), ("mntr", "zk_waits_for\t")]
    {
        let text = ask(&mut world, leader, word);
        let waits = text.strip_prefix(refusal).and_then(|line| line.strip_prefix(label));
        let waits = waits.unwrap_or_else(|| panic!("{word}: {text:?}"));
        assert_eq!(waits.lines().count(), 1, "{word}: {waits:?}");
        let missing: Vec<usize> = (0..3).filter(|i| *i != leader).collect();
        for server in &missing {
            assert!(waits.contains(&format!("{} (h:", server + 1)), "{word}: {waits:?}");
        }
    }
    let client = world.connect(leader).expect("accepted");
    world.send(client, &Connect::new(10_000).to_vec());
    assert!(world.has_ended(client) && world.received(client) == 0);
    // Who serves waits for nobody.
    world.cut.clear();
    world.pass(Duration::from_secs(20));
    for word in ["srvr", "stat", "mntr"] {
        let text = ask(&mut world, leader, word);
        let names_wait = text.to_lowercase().replace("request_throttle_wait_count", "");
        assert!(!text.contains(refusal) && !names_wait.contains("wait"), "{word}: {text}");
    }
}

/// Asked of a server in every role, and of one that does not serve.
#[test]
fn whether_a_server_may_be_stopped() {
    let mut world = World::ensemble(3, 1, &options());
    world.pass(Duration::from_secs(4));
    let leader = world.leader();
    let follower = (leader + 1) % 3;
    for (server, answer) in [
        (leader, "yes: this server leads; without it the members"),
        (follower, &format!("yes: leader {}, heard ", leader + 1)),
        (3, "yes: this server has no vote"),
    ] {
        let text = ask(&mut world, server, "safe");
        assert!(text.starts_with(answer) && text.ends_with('\n'), "{server}: {text}");
        assert_eq!(metric(&mut world, server, "zk_zab_safe_to_stop"), "1");
    }
    world.cut = (0..4).filter(|i| *i != follower).map(|i| (follower, i)).collect();
    world.pass(Duration::from_secs(1));
    let text = ask(&mut world, leader, "safe");
    assert_eq!(text.strip_prefix("no: "), text.split_once(' ').map(|(_, rest)| rest), "{text}");
    assert!(text.ends_with(&format!(": {}\n", follower + 1)), "{text}");
    assert_eq!(metric(&mut world, leader, "zk_zab_safe_to_stop"), "0");
    assert_eq!(
        ask(&mut world, follower, "safe"),
        "unknown: this server has no leader that it hears\n"
    );
}

#[test]
fn a_telnet_client_may_give_up() {
    let mut world = World::standalone(options());
    let client = world.connect(0).expect("accepted");
    world.send(client, &[0xff, 0xf4, 0xff, 0xfd]);
    assert!(world.has_ended(client) && world.received(client) == 0);
}

#[test]
fn sessions_connections_and_watches() {
    let mut world = World::standalone(options());
    let (client, session, _) = world.open(0, 20_000);
    assert_eq!(world.call(client, 1, &create("/app", b"abc", 0)).0, 0);
    assert_eq!(world.call(client, 1, &create("/app/eph", b"", 1)).0, 0);
    assert_eq!(world.call(client, 4, &read("/app", true)).0, 0);
    assert_eq!(
        ask(&mut world, 0, "srvr"),
        "Zookeeper version: 3.9.4-test, built on 2026-01-01 00:00 UTC\n\
         Latency min/avg/max: 0/0.0/0\nReceived: 5\nSent: 4\nConnections: 2\nOutstanding: 0\n\
         Zxid: 0x3\nMode: standalone\nNode count: 7\n"
    );
    let cons = ask(&mut world, 0, "cons");
    let (first, rest) = cons.split_once('\n').expect("lines");
    assert_eq!(
        first,
        format!(
            " /127.0.0.1:40000[1](queued=0,recved=4,sent=4,sid={session:#x},lop=GETD,\
             est=1795249836000,to=20000,lcxid=0x4d,lzxid=0x3,lresp=1000,llat=0,minlat=0,avglat=0,\
             maxlat=0)"
        )
    );
    assert_eq!(rest, " /127.0.0.1:40000[0](queued=0,recved=1,sent=0)\n\n");
    assert!(ask(&mut world, 0, "stat").contains(
        "Clients:\n /127.0.0.1:40000[1](queued=0,recved=4,sent=4)\n \
         /127.0.0.1:40000[0](queued=0,recved=1,sent=0)\n\nLatency"
    ));
    assert_eq!(ask(&mut world, 0, "wchs"), "1 connections watching 1 paths\nTotal watches:1\n");
    assert_eq!(ask(&mut world, 0, "wchc"), format!("{session:#x}\n\t/app\n\n"));
    assert_eq!(ask(&mut world, 0, "wchp"), format!("/app\n\t{session:#x}\n\n"));
    assert!(ask(&mut world, 0, "dump").starts_with(&format!(
        "SessionTracker dump:\nSession Sets (1)/(1):\n1 expire at Sat Nov 21 08:30:57 UTC 2026:\n\
         \t{session:#x}\nephemeral nodes dump:\nSessions with Ephemerals (1):\n{session:#x}:\n\
         \t/app/eph\nConnections dump:\n"
    )));
}

/// Names in an answer to mntr, without what is before and behind a metric's own name.
fn names(text: &str) -> BTreeSet<&str> {
    let prefixes = ["avg_", "min_", "max_", "cnt_", "sum_", "p50_", "p95_", "p99_", "p999_"];
    let whole = [
        "avg_latency",
        "min_latency",
        "max_latency",
        "min_client_response_size",
        "max_client_response_size",
        "min_proposal_size",
        "max_proposal_size",
    ];
    text.lines()
        .filter_map(|line| line.split_once('\t')?.0.strip_prefix("zk_"))
        .map(|name| {
            let bare = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix));
            let name = bare.filter(|_| !whole.contains(&name)).unwrap_or(name);
            // Whichever znodes there were.
            let of_namespace = ["read_per_namespace", "write_per_namespace"];
            of_namespace.into_iter().find(|of| name.ends_with(of)).unwrap_or(name)
        })
        .collect()
}

/// The page of the repository; None in the package of this crate as published, which has no pages.
fn monitoring() -> Option<String> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    docs.is_dir().then(|| fs::read_to_string(docs.join("monitoring.md")).expect("the page"))
}

/// Whether a name of a metric stands in a list of the documentation, by itself or for each key.
fn is_in(list: &str, name: &str) -> bool {
    let words = list.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| !word.is_empty()).any(|word| {
        word == name
            || (word.contains("_per_namespace") && name.ends_with(word))
            || (word.starts_with("learner_handler") && name.ends_with(word))
            // Of a metric of ours with one value for each of several, in capitals what it is for.
            || word.split_once("_zab_").is_some_and(|(key, rest)| {
                key.chars().all(char::is_uppercase) && name.ends_with(&format!("_zab_{rest}"))
            })
            // By server: `2_ack_latency`.
            || (word == "ack_latency" && name.ends_with("_ack_latency") && !name.starts_with('q'))
    })
}

fn read_and_write(world: &mut World, server: usize) {
    let (client, ..) = world.open(server, 12_000);
    let path = format!("/app-{server}");
    assert_eq!(world.call(client, Opcode::Create.wire(), &create(&path, b"x", 0)).0, 0);
    let record = read(&path, false);
    assert_eq!(world.call(client, Opcode::GetData.wire(), &record).0, 0);
}

#[test]
fn each_name_of_zookeeper_is_shown_or_documented_as_absent() {
    let Some(page) = monitoring() else { return };
    let mut alone = World::standalone(measured());
    let mut ensemble = World::ensemble(3, 0, &measured());
    let leader = ensemble.leader();
    read_and_write(&mut alone, 0);
    for server in [leader, (leader + 1) % 3] {
        read_and_write(&mut ensemble, server);
    }
    let (_, absent) = page.split_once("## What it does not show").expect("a list");
    let cases = [
        (ask(&mut alone, 0, "mntr"), include_str!("vectors/4lw/v394-standalone-mntr.txt")),
        (ask(&mut ensemble, leader, "mntr"), include_str!("vectors/4lw/v394-leader-mntr.txt")),
        (
            ask(&mut ensemble, (leader + 1) % 3, "mntr"),
            include_str!("vectors/4lw/v394-follower-mntr.txt"),
        ),
    ];
    for (answer, recorded) in cases {
        let (ours, theirs) = (names(&answer), names(recorded));
        for name in &theirs {
            let (present, documented) = (ours.contains(name), is_in(absent, name));
            assert!(present != documented, "{name}: shown {present}, in the list {documented}");
        }
        // Our own have names that say so, and stand in the documentation, too.
        let (_, own) = page.split_once("## Of our own").expect("a list");
        let is_own =
            |name: &&&str| (name.starts_with("zab_") || name.contains("_zab_")) && is_in(own, name);
        let unknown: Vec<_> = ours.difference(&theirs).filter(|name| !is_own(name)).collect();
        assert!(unknown.is_empty(), "not names of ZooKeeper: {unknown:?}");
    }
}

/// With figures from elsewhere: of TLS (`zabd/src/tls.rs`), the AdminServer (`zabd/src/admin.rs`) and the disk
/// (`zabd/src/server.rs`).
fn measured() -> ServiceOptions {
    options().with(|options| {
        options.figures = [
            "unsuccessful_handshake",
            "tls_handshake_exceeded",
            "insecure_admin_count",
            "restore_error_count",
            "restore_rate_limited_count",
            "snapshot_error_count",
            "snapshot_rate_limited_count",
            "zab_slow_fsyncs",
        ]
        .map(|name| (name, Probe::new(|_| 0)))
        .into();
        options.fsync_times = Some(Probe::new(|_| Summary { count: 3, sum: 7, min: 1, max: 5 }));
        options.descriptors = Some(Probe::new(|_| (41, 1024)));
        options.summaries = [
            "snapshottime",
            "dbinittime",
            "startup_snap_load_time",
            "startup_txns_load_time",
            "startup_txns_loaded",
            "restore_time",
            "jvm_pause_time_ms",
        ]
        .map(|name| (name, Probe::new(|_| Summary::default())))
        .into();
    })
}

/// The value of a metric.
fn metric(world: &mut World, server: usize, name: &str) -> String {
    let answer = ask(world, server, "mntr");
    let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
    line.unwrap_or_else(|| panic!("no {name}")).into()
}

#[test]
fn reads_and_writes_are_counted_where_the_client_is() {
    let mut world = World::ensemble(3, 0, &measured());
    let leader = world.leader();
    let (here, there) = ((leader + 1) % 3, (leader + 2) % 3);
    let (client, ..) = world.open(here, 20_000);
    assert_eq!(ask(&mut world, here, "srst"), "Server stats reset.\n");
    let writes_before = metric(&mut world, leader, "zk_proposal_count");
    for _ in 0..100 {
        assert_eq!(world.call(client, 1, &create("/n", b"abc", 2)).0, 0);
    }
    let read = read("/", false);
    for _ in 0..7 {
        assert_eq!(world.call(client, 3, &read).0, 0);
    }
    for (server, name, value) in [
        (here, "zk_cnt_updatelatency", "100"),
        (here, "zk_cnt_readlatency", "7"),
        (here, "zk_learner_commit_received_count", "100"),
        (here, "zk_commit_count", "0"),
        (here, "zk_bytes_received_count", "5726"),
        (there, "zk_cnt_updatelatency", "0"),
        (leader, "zk_cnt_updatelatency", "0"),
        (here, "zk_cnt_fsynctime", "3"),
        (here, "zk_avg_fsynctime", "2.3333"),
        (here, "zk_open_file_descriptor_count", "41"),
        (here, "zk_max_file_descriptor_count", "1024"),
    ] {
        assert_eq!(metric(&mut world, server, name), value, "{name} of {server}");
    }
    let number = |text: String| text.parse::<u32>().expect("a number");
    let writes = number(metric(&mut world, leader, "zk_proposal_count")) - number(writes_before);
    assert_eq!(writes, 100);
}

#[test]
fn elections_are_counted() {
    let mut world = World::ensemble(3, 0, &measured());
    let leader = world.leader();
    for (server, name, value) in [
        (0, "zk_looking_count", "1"),
        (0, "zk_cnt_election_time", "1"),
        (0, "zk_cnt_unavailable_time", "1"),
        (leader, "zk_cnt_leader_unavailable_time", "1"),
        ((leader + 1) % 3, "zk_cnt_leader_unavailable_time", "0"),
    ] {
        assert_eq!(metric(&mut world, server, name), value, "{name}");
    }
    world.cut = (0..3).filter(|i| *i != leader).map(|i| (leader, i)).collect();
    world.pass(Duration::from_secs(20));
    let others: Vec<usize> = (0..3).filter(|i| *i != leader).collect();
    for server in others {
        assert_eq!(metric(&mut world, server, "zk_looking_count"), "2");
        assert_eq!(metric(&mut world, server, "zk_cnt_election_time"), "2");
        assert_eq!(metric(&mut world, server, "zk_cnt_unavailable_time"), "2");
    }
}

#[test]
fn a_leader_without_a_transaction_shows_its_epoch() {
    let mut world = World::ensemble(3, 0, &options());
    let leader = world.leader();
    assert!(ask(&mut world, leader, "srvr").contains("\nZxid: 0x100000000\n"));
    let (client, ..) = world.open(leader, 20_000);
    assert!(ask(&mut world, leader, "srvr").contains("\nZxid: 0x100000001\n"));
    world.hang_up(client);
    let follower = (leader + 1) % 3;
    assert!(ask(&mut world, follower, "srvr").contains("\nZxid: 0x100000001\n"));
}

#[test]
fn quotas_are_shown_and_what_they_refuse_is_counted() {
    let mut world = World::standalone(measured().with(|options| options.enforce_quota = true));
    let (client, ..) = world.open(0, 20_000);
    for (path, data) in [
        ("/app", ""),
        ("/app/part", ""),
        ("/zookeeper/quota/app", ""),
        ("/zookeeper/quota/app/part", ""),
        ("/zookeeper/quota/app/part/zookeeper_limits", "count=9,bytes=-1=;countHardLimit=3"),
        ("/zookeeper/quota/app/part/zookeeper_stats", "count=0,bytes=0"),
    ] {
        assert_eq!(world.call(client, 1, &create(path, data.as_bytes(), 0)).0, 0, "{path}");
    }
    assert_eq!(metric(&mut world, 0, "zk_app_quota_count_limit_per_namespace"), "3");
    for n in 0..5 {
        let code = world.call(client, 1, &create(&format!("/app/part/{n}"), b"", 0)).0;
        assert_eq!(code, if n < 2 { 0 } else { -125 });
    }
    assert_eq!(metric(&mut world, 0, "zk_app_quota_count_usage_per_namespace"), "3");
    assert_eq!(metric(&mut world, 0, "zk_app_quota_exceeded_error_per_namespace"), "3");
    assert!(!ask(&mut world, 0, "mntr").contains("bytes_limit"), "none is given");
}

/// Five nodes and 44 bytes of paths are what a new server of ZooKeeper 3.5 to 3.9 shows: the root is
/// counted as the empty path and as `/`.
#[test]
fn an_empty_tree_is_as_large_as_zookeepers() {
    let mut world = World::standalone(options());
    let text = ask(&mut world, 0, "mntr");
    for line in ["zk_znode_count\t5\n", "zk_approximate_data_size\t44\n"] {
        assert!(text.contains(line), "{line} in {text}");
    }
}
