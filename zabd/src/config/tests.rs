//! Whole configuration files: what is taken, refused and warned of.

use std::cell::RefCell;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

mod sasl;
mod tls;

/// A directory of its own for each test, gone with it.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("zabd-config-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// `text` with `DIR` standing for this directory.
    fn load(&self, text: &str) -> Result<ServerConfig, LoadError> {
        let path = self.write("zoo.cfg", &text.replace("DIR", self.0.to_str().unwrap()));
        ServerConfig::load(&path, SystemProperties::default())
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

thread_local! {
    static WARNINGS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Collect;

impl log::Log for Collect {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            WARNINGS.with_borrow_mut(|all| all.push(record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

/// The warnings that `run` logs.
fn warnings(run: impl FnOnce()) -> Vec<String> {
    static LOGGER: Once = Once::new();
    LOGGER.call_once(|| {
        log::set_logger(&Collect).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
    });
    WARNINGS.take();
    run();
    WARNINGS.take()
}

const ALONE: &str = "dataDir=DIR\nclientPort=2181\n";
const THREE: &str = "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir=DIR\nclientPort=2181\n\
    server.1=a:2888:3888\nserver.2=b:2888:3888\nserver.3=c:2888:3888\n";

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn messages() {
    let peers = THREE;
    for (text, want) in [
        ("clientPort=2181", "dataDir is not set"),
        ("DIR\ndataDir=DIR\ntickTime=0", "tickTime is not set"),
        (
            "dataDir=DIR\ntickTime=abc",
            ":2: tickTime: For input string: \"abc\" (accepted: milliseconds, at least 1: the unit of time)",
        ),
        ("dataDir=DIR\n\nclientPort=99999", ":3: clientPort: port out of range:99999"),
        (
            "dataDir=DIR\nclientPortAddress=::1",
            "clientPortAddress is set but clientPort is not set",
        ),
        (
            "dataDir=DIR\nsecureClientPortAddress=::1",
            "secureClientPortAddress is set but secureClientPort is not set",
        ),
        (
            "dataDir=DIR\nsyncEnabled=yes",
            ":2: syncEnabled: Invalid option yes for syncEnabled. Choose 'true' or 'false.'",
        ),
        (
            "dataDir=DIR\nelectionAlg=1",
            ":2: electionAlg: Invalid electionAlg value. Only 3 is supported.",
        ),
        ("dataDir=DIR\npeerType=foo", ":2: peerType: Unrecognised peertype: foo"),
        (
            "dataDir=DIR\nminSessionTimeout=9\nmaxSessionTimeout=8",
            "minSessionTimeout must not be larger than maxSessionTimeout",
        ),
        (
            "dataDir=DIR\nmetricsProvider.className=x",
            ":2: metricsProvider.className: metrics provider class was not found",
        ),
        (
            "dataDir=DIR\nserver.1=a:2888",
            ":2: server.1: a:2888 does not have the form server_config or server_config;client_config",
        ),
        (
            "dataDir=DIR\nserver.1=a:1:1",
            "Client and election port must be different! Please update the configuration file on server.1",
        ),
        ("dataDir=DIR\nserver.1=a:1:2:foo", "Unrecognised peertype: foo"),
        ("dataDir=DIR\nserver.1=a:1:x", "Address unresolved: a:x"),
        (
            "dataDir=DIR\nserver.1=a:1:2|b:1:2\nserver.2=c:1:2",
            "Multiple address feature is disabled, but multiple addresses were specified for sid 1",
        ),
        (
            "dataDir=DIR\nmultiAddress.enabled=true\nserver.1=a:1:2:participant|b:1:2:observer",
            "Multiple addresses should have similar roles: ",
        ),
        ("dataDir=DIR\nserver.a=a:1:2", ":2: server.a: For input string: \"a\""),
        (
            "dataDir=DIR\nserver.1=a:1:2:observer",
            "Observers w/o participants is an invalid configuration",
        ),
        (
            "dataDir=DIR\nserver.1=a:1:2\nserver.2=a:3:4:observer",
            "Observers w/o quorum is an invalid configuration",
        ),
        (
            "dataDir=DIR\nstandaloneEnabled=false",
            "standaloneEnabled = false then number of participants should be >0",
        ),
        ("dataDir=DIR\nserver.1=a:1:2\nserver.2=b:1:2\nsyncLimit=1", "initLimit is not set"),
        ("dataDir=DIR\nserver.1=a:1:2\nserver.2=b:1:2\ninitLimit=1", "syncLimit is not set"),
        ("dataDir=DIR\nserver.1=a:1:2\nserver.2=b:1:2\ninitLimit=-1", "initLimit: -1 is negative"),
        (&format!("{peers}group.1=1:2"), "Server 3is not in a group"),
        (&format!("{peers}group.1=1:2:3\ngroup.2=3"), "Server 3is in multiple groups"),
        (peers, "myid: myid file is missing"),
        (
            &format!("{peers}sslQuorum=true"),
            ": ssl.quorum.keyStore.location: sslQuorum needs it, and it is not set",
        ),
        ("dataDir=DIR\ndynamicConfigFile=DIR/nope", "nope: No such file or directory"),
        (
            &format!("{peers}dynamicConfigFile=DIR/d"),
            "parameter: server.1 must be in a separate dynamic config file",
        ),
        ("dataDir=DIR\nx=\\u00zz", ":2: Malformed \\uxxxx encoding."),
    ] {
        let error = Dir::new().load(text).unwrap_err();
        assert!(matches!(error, LoadError::Invalid(_)), "{text}: {error}");
        assert!(error.to_string().contains(want), "{text}:\n  {error}\nis not\n  {want}");
    }
}

#[test]
fn myid() {
    for (myid, want) in [
        ("1 ", "myid: serverid 1  is not a number"),
        ("", "myid: serverid  is not a number"),
        ("x", "myid: serverid x is not a number"),
        ("4", "My id 4 not in the peer list"),
    ] {
        let dir = Dir::new();
        dir.write("myid", myid);
        let error = dir.load(THREE).unwrap_err();
        assert!(error.to_string().contains(want), "{myid}: {error}");
        assert_eq!(matches!(error, LoadError::NotAMember(_)), myid == "4");
    }
    for myid in ["2", "2\n", "2\r\nmore"] {
        let dir = Dir::new();
        dir.write("myid", myid);
        assert_eq!(dir.load(THREE).unwrap().sid, Sid(2));
    }
}

#[test]
fn client_address_in_both_places() {
    let text = |line: &str, port: &str| {
        format!("{}\n{port}", THREE.replace("b:2888:3888", line).replace("clientPort=2181\n", ""))
    };
    let load = |line, port| {
        let dir = Dir::new();
        dir.write("myid", "2");
        dir.load(&text(line, port))
    };
    let line = "b:2888:3888;2181";
    assert_eq!(load(line, "").unwrap().client, Some(("0.0.0.0".into(), 2181)));
    assert_eq!(load("b:2888:3888", "").unwrap().client, None);
    assert!(load(line, "clientPort=2181").is_ok());
    assert!(load(line, "clientPort=2181\nclientPortAddress=::").is_ok());
    let want = "client address for this server (id = 2) in static config file is 0.0.0.0:2182 is \
                different from client address found in dynamic file: 0.0.0.0:2181";
    assert_eq!(
        load(line, "clientPort=2182")
            .unwrap_err()
            .to_string()
            .split(": ")
            .skip(1)
            .collect::<Vec<_>>()
            .join(": "),
        want
    );
    assert!(load(line, "clientPort=2181\nclientPortAddress=127.0.0.1").is_err());
}

#[test]
fn dynamic_file() {
    let dir = Dir::new();
    dir.write("myid", "1");
    let members = "server.1=a:1:2;5\nserver.2=b:1:2\nserver.3=c:1:2:observer\n";
    let text =
        |name: &str| format!("dataDir=DIR\ninitLimit=1\nsyncLimit=1\ndynamicConfigFile=DIR/{name}");
    dir.write("zoo.cfg.dynamic.100000000", members);
    let config = dir.load(&text("zoo.cfg.dynamic.100000000")).unwrap();
    assert_eq!(config.ensemble.version, 0x1_0000_0000);
    assert_eq!((config.ensemble.members.len(), config.client.unwrap().1), (3, 5));
    dir.write("plain.dynamic", members);
    assert_eq!(dir.load(&text("plain.dynamic")).unwrap().ensemble.version, 0);
    for (more, want) in [
        ("version=1", "bad.cfg:4: version: dynamic file shouldn't have version inside"),
        ("clientPort=1", "bad.cfg:4: clientPort: Unrecognised parameter: clientPort"),
        ("server.4=x", "bad.cfg:4: server.4: x does not have the form"),
    ] {
        dir.write("bad.cfg", &[members, more].concat());
        let error = dir.load(&text("bad.cfg")).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}

/// How soon a silent leader is noticed has to fit the ticks.
#[test]
fn heartbeats_fit_the_ticks() {
    let dir = Dir::new();
    dir.write("myid", "1");
    let members = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\n";
    let load = |more: &str| {
        dir.load(&format!("dataDir=DIR\ntickTime=100\ninitLimit=5\nsyncLimit=2\n{members}{more}"))
    };
    for fits in ["", "zab.heartbeatMs=50", "zab.heartbeatMs=0", "zab.suspectMinMs=200"] {
        assert!(load(fits).is_ok(), "{fits}");
    }
    for (bad, wanted) in [
        ("zab.heartbeatMs=51", "above half of tickTime"),
        ("zab.heartbeatMs=100", "above half of tickTime"),
        ("zab.suspectMinMs=201", "above syncLimit ticks"),
        ("zab.suspectMinMs=400", "above syncLimit ticks"),
        ("zab.suspectMinMs=0", "zab.suspectMinMs"),
        ("zab.heartbeatMs=-1", "zab.heartbeatMs"),
        ("zab.diskStallMaxMs=soon", "zab.diskStallMaxMs"),
    ] {
        let error = load(bad).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(wanted), "{bad}: {error}");
    }
}

#[test]
fn defaults_and_modes() {
    let dir = Dir::new();
    let alone = dir.load(ALONE).unwrap();
    assert!(alone.standalone);
    assert_eq!((alone.sid, alone.tick_time), (Sid(0), Duration::from_secs(3)));
    assert_eq!(alone.min_session_timeout, Duration::from_secs(6));
    assert_eq!(alone.max_session_timeout, Duration::from_secs(60));
    assert_eq!((alone.max_client_cnxns, alone.client_backlog), (60, None));
    assert_eq!((alone.snap_retain_count, alone.purge_interval), (3, None));
    assert_eq!(alone.data_log_dir, alone.data_dir);

    let one = format!("{ALONE}initLimit=1\nsyncLimit=1\nserver.1=a:1:2\n");
    assert!(dir.load(&one).unwrap().standalone);
    dir.write("myid", "1");
    let alone = dir.load(&format!("{one}standaloneEnabled=False")).unwrap();
    assert!(!alone.standalone);
    assert_eq!(alone.ensemble.members.len(), 1);

    let arguments = ["2183", "/tmp/zk", "500", "7"].map(String::from);
    let config =
        ServerConfig::from_arguments(&arguments[..2], SystemProperties::default()).unwrap();
    assert_eq!((config.client, config.max_client_cnxns), (Some(("0.0.0.0".into(), 2183)), 0));
    let config = ServerConfig::from_arguments(&arguments, SystemProperties::default()).unwrap();
    assert_eq!((config.tick_time, config.max_client_cnxns), (Duration::from_millis(500), 7));
    let bad = ["x".to_owned(), "/tmp/zk".to_owned()];
    let error = ServerConfig::from_arguments(&bad, SystemProperties::default()).unwrap_err();
    assert!(error.to_string().starts_with("command line: clientPort: For input string: \"x\""));
}

#[test]
fn other_keys_are_system_properties() {
    let dir = Dir::new();
    let mut properties = SystemProperties::default();
    properties.set_jvm_flags(
        &Origin::Variable("SERVER_JVMFLAGS"),
        "-Xmx1g -Dzookeeper.snapCount=5 -Djute.maxbuffer=100 -Dzookeeper.a.b=c=d",
    );
    let text = format!(
        "{ALONE}snapCount=7\nforceSync=no\n4lw.commands.whitelist=*\nznode.container.checkIntervalMs=9"
    );
    let path = dir.write("zoo.cfg", &text.replace("DIR", dir.0.to_str().unwrap()));
    let config = ServerConfig::load(&path, properties).unwrap();
    let text = |key| config.properties.text(key);
    assert_eq!(config.properties.number("snapCount", 0), 7, "the file wins");
    assert_eq!(text("jute.maxbuffer"), Some("100"));
    assert_eq!(config.properties.number("jute.maxbuffer", 0), 100);
    assert!(!config.properties.bool("forceSync", true));
    assert_eq!(text("4lw.commands.whitelist"), Some("*"));
    assert_eq!(config.properties.number("znode.container.checkIntervalMs", 0), 9);
}

#[test]
fn warnings_name_what_is_odd() {
    let dir = Dir::new();
    dir.write("myid", "1");
    let log = |text: &str| warnings(|| drop(dir.load(text).unwrap())).join("\n");
    assert_eq!(log(ALONE), "");
    let odd = log(&format!("{ALONE}ticktime=1\nzookeeper.snapCount=2\nfoo.bar=3\nsnapcount=4"));
    assert!(odd.contains("zoo.cfg:3: unknown key ticktime, did you mean tickTime?"), "{odd}");
    assert!(odd.contains("zoo.cfg:4: zookeeper.snapCount has no effect"), "{odd}");
    assert!(odd.contains("write snapCount"), "{odd}");
    assert!(odd.contains("zoo.cfg:5: unknown key foo.bar"), "{odd}");
    assert!(odd.contains("zoo.cfg:6: unknown key snapcount, did you mean snapCount?"), "{odd}");
    let odd = log(&format!("{ALONE}snapConut=4\nconnectionMaxTokens=9\nrequestThrottleLimit=8"));
    assert!(odd.contains("unknown key snapConut, did you mean snapCount?"), "{odd}");
    assert!(odd.contains("did you mean connection_throttle_tokens?"), "{odd}");
    assert!(odd.contains("did you mean request_throttle_max_requests?"), "{odd}");
    assert_eq!(log(THREE), "");
    assert!(log(&format!("{THREE}server.4=d:1:2")).contains("Non-optimal configuration"));
    let two = THREE.replace("server.3=c:2888:3888\n", "");
    assert!(log(&two).contains("No server failure will be tolerated. You need at least 3"));
    assert!(log(&format!("{ALONE}server.1=a:1:2")).contains("only one server specified"));
    assert!(log(&format!("{ALONE}autopurge.snapRetainCount=1")).contains("Defaulting to 3"));
    let observer = THREE.replace("a:2888:3888", "a:2888:3888:observer");
    assert!(!log(&format!("{observer}server.4=d:1:2\npeerType=observer")).contains("peerType"));
    assert!(log(&format!("{observer}server.4=d:1:2")).contains("doesn't match peerType"));
}

/// The oracle is only ever asked by an ensemble of two (`QuorumOracleMaj`), which is told what it may lose.
#[test]
fn an_oracle_is_for_two_voters_and_all_are_told_what_it_does() {
    let dir = Dir::new();
    dir.write("myid", "1");
    let log = |text: &str| warnings(|| drop(dir.load(text).unwrap())).join("\n");
    for text in [ALONE, THREE] {
        let said = log(&format!("{text}oraclePath=/oracle"));
        assert!(said.contains("oraclePath has no effect: an oracle is asked by"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let two = THREE.replace("server.3=c:2888:3888\n", "oraclePath=/oracle\n");
    let said = log(&two);
    assert!(said.contains("oraclePath: of these two voters one serves"), "{said}");
    assert!(said.contains("is lost"), "{said}");
    let said = log(&format!("{THREE}reconfigEnabled=true\noraclePath=/oracle"));
    assert!(
        said.contains("oraclePath has no effect with 3 voters: an oracle is asked when"),
        "{said}"
    );
    let said = log(&format!("{two}group.1=1:2"));
    assert!(said.contains("oraclePath has no effect beside group.N"), "{said}");
    let oracle = |text: &str| crate::options::server(&dir.load(text).unwrap());
    for (text, asks) in
        [(THREE, false), (&two, true), (&format!("{ALONE}oraclePath=/oracle"), false)]
    {
        let options = oracle(text);
        assert_eq!((options.config.oracle, options.oracle.is_some()), (asks, asks));
    }
}

/// Properties as given by `-D` on the command line, and one of them as the file has it.
fn load_with(text: &str, flags: &str) -> Result<ServerConfig, LoadError> {
    let dir = Dir::new();
    dir.write("myid", "1");
    let mut properties = SystemProperties::default();
    properties.set_jvm_flags(&Origin::CommandLine, flags);
    let path = dir.write("zoo.cfg", &text.replace("DIR", dir.0.to_str().unwrap()));
    ServerConfig::load(&path, properties)
}

#[test]
fn what_would_leave_open_is_refused() {
    for (line, want) in [
        ("enforce.auth.enabled=True", "is true, so enforce.auth.schemes must be set"),
        ("enforce.auth.enabled=yes", "\"yes\" is not true or false"),
        (
            "sessionRequireClientSASLAuth=true",
            "Authentication scheme sasl is not available. (no authProvider.N is ",
        ),
        (
            "DigestAuthenticationProvider.digestAlg=MD5",
            "\"MD5\" is not supported, only SHA1, SHA-1",
        ),
        ("requireKerberosConfig=true", "Kerberos is not supported"),
        ("emulate353TTLNodes=true", "TTL nodes of ZooKeeper 3.5.3"),
        ("zab.checkPeerAddresses=yes", "\"yes\" is not true or false"),
        ("maxCnxns=many", "For input string: \"many\""),
        ("enforceQuota=yes", "\"yes\" is not true or false"),
        ("jute.maxbuffer=10MB", "For input string: \"10MB\""),
        ("jute.maxbuffer=-1", "For input string: \"-1\""),
        ("jute.maxbuffer=0x80000000", "For input string: \"0x80000000\""),
        ("jute.maxbuffer.extrasize=4m", "For input string: \"4m\""),
        ("cnxTimeout=0x10", "For input string: \"0x10\""),
    ] {
        let key = line.split('=').next().unwrap();
        let error = load_with(&format!("{THREE}{line}"), "").unwrap_err().to_string();
        assert!(error.contains(want), "{line}: {error}");
        assert!(error.contains(&format!("zoo.cfg:9: {key}: ")), "{line}: {error}");
        let plain = line.starts_with("jute.maxbuffer=") || line.starts_with("zab.");
        let prefix = if plain { "" } else { "zookeeper." };
        let error = load_with(THREE, &format!("-D{prefix}{line}")).unwrap_err().to_string();
        assert!(error.contains(want), "{line}: {error}");
        assert!(error.starts_with(&format!("command line: -D{prefix}{key}: ")), "{line}: {error}");
    }
    for key in ["sslQuorum", "quorum.auth.enableSasl", "quorum.auth.serverRequireSasl"] {
        let error = load_with(&format!("{THREE}{key}=true"), "").unwrap_err().to_string();
        assert!(error.contains(&format!(":9: {key}: ")) || key == "sslQuorum", "{error}");
        // No property in ZooKeeper; whoever writes it so relies on it all the same.
        let error = load_with(THREE, &format!("-Dzookeeper.{key}=true")).unwrap_err().to_string();
        assert!(error.contains("has no effect like this, it is a key of the file, "), "{error}");
    }
    for flags in ["-Denforce.auth.enabled=true", "-DsessionRequireClientSASLAuth=true"] {
        let error = load_with(THREE, flags).unwrap_err().to_string();
        assert!(error.contains("the prefix is missing"), "{error}");
    }
    let text = format!("{THREE}zookeeper.sessionRequireClientSASLAuth=true");
    let error = load_with(&text, "").unwrap_err().to_string();
    assert!(error.contains("has no effect like this, the prefix is one too many"), "{error}");
}

#[test]
fn a_forced_login_needs_schemes_that_are_there() {
    for (schemes, want) in [
        ("sasl", "Authentication scheme sasl is not available."),
        ("digest,x509", "Authentication scheme x509 is not available."),
        ("world", "Authentication scheme world is not available."),
    ] {
        let text = format!("{THREE}enforce.auth.enabled=true\nenforce.auth.schemes={schemes}");
        let error = load_with(&text, "").unwrap_err().to_string();
        assert!(error.contains(&format!(":10: enforce.auth.schemes: {want}")), "{error}");
    }
    let text = format!("{THREE}enforce.auth.enabled=true\nenforce.auth.schemes= digest , ip,,");
    let log = warnings(|| {
        assert_eq!(load_with(&text, "").unwrap().enforce_auth, ["digest", "ip"]);
    });
    assert!(log[0].contains("lets in every client"), "{log:?}");
    let off = "-Dzookeeper.enforce.auth.enabled=false -Dzookeeper.enforce.auth.schemes=sasl";
    let log = warnings(|| assert!(load_with(THREE, off).unwrap().enforce_auth.is_empty()));
    assert!(log[0].contains("-Dzookeeper.enforce.auth.schemes has no effect"), "{log:?}");
    let text = format!(
        "{THREE}enforce.auth.enabled=true\nenforce.auth.schemes=digest\n\
         DigestAuthenticationProvider.enabled=false"
    );
    let error = load_with(&text, "").unwrap_err().to_string();
    assert!(error.contains("Authentication scheme digest is not available."), "{error}");
}

#[test]
fn the_scheme_ensemble_has_to_be_asked_for() {
    let names = "-Dzookeeper.ensembleAuthName=a,b";
    let class = "org.apache.zookeeper.server.auth.EnsembleAuthenticationProvider";
    let of = |text: &str, flags: &str| load_with(text, flags).unwrap().ensemble_auth;
    let log = warnings(|| assert_eq!(of(THREE, names), None));
    assert!(log[0].contains("-Dzookeeper.ensembleAuthName has no effect: no authProvider.N"));
    let with = format!("{THREE}authProvider.x={class}");
    assert_eq!(of(&with, ""), Some(EnsembleAuth { names: None }));
    let both = Some(EnsembleAuth { names: Some(vec!["a".into(), "b".into()]) });
    assert_eq!(of(&format!("{with}\nensembleAuthName=a, b"), ""), both);
}

/// Where Java reads with `getInteger` or `getLong`, other notations are numbers, too; where it
/// reads with `parseInt`, they are none.
#[test]
fn numbers_are_read_as_java_reads_each_of_them() {
    let number =
        |flags: &str, key: &str| load_with(ALONE, flags).unwrap().properties.number::<i64>(key, -7);
    for text in ["0x9fffff", "#9fffff", "0X9FFFFF", "10485759", "047777777", "+10485759"] {
        assert_eq!(number(&format!("-Djute.maxbuffer={text}"), "jute.maxbuffer"), 10_485_759);
    }
    assert_eq!(number("-Dzookeeper.snapCount=010", "snapCount"), 8);
    assert_eq!(number("-Dzookeeper.commitLogCount=01000", "commitLogCount"), 1000);
    assert_eq!(number("-Dfsync.warningthresholdms=0x10", "fsync.warningthresholdms"), 16);
    let fallen_back = warnings(|| {
        assert_eq!(number("-Dzookeeper.commitLogCount=0x1000", "commitLogCount"), -7);
        assert_eq!(number("-Dzookeeper.snapCount=1e6", "snapCount"), -7);
        assert_eq!(
            number("-Dzookeeper.nio.sessionlessCnxnTimeout=-1", "nio.sessionlessCnxnTimeout"),
            -7
        );
    });
    assert_eq!(fallen_back.len(), 3, "{fallen_back:?}");
    assert!(
        fallen_back[1].contains("-Dzookeeper.snapCount")
            || fallen_back[1]
                .contains("zookeeper.snapCount: \"1e6\" is not usable, 100000 is used instead"),
        "{fallen_back:?}"
    );
    let file = |line: &str| load_with(&format!("{ALONE}{line}"), "");
    assert!(file("tickTime=0x100").is_err());
    assert_eq!(file("tickTime=0100").unwrap().tick_time, Duration::from_millis(100));
    assert_eq!(file("snapCount=0100").unwrap().properties.number("snapCount", 0), 64);
}

/// Files as they are found in installations; each must start.
#[test]
fn files_in_the_wild() {
    for text in [
        // Apache's zoo_sample.cfg.
        "# The number of milliseconds of each tick\ntickTime=2000\n# The number of ticks that the initial \n\
         # synchronization phase can take\ninitLimit=10\nsyncLimit=5\ndataDir=DIR\nclientPort=2181\n\
         #maxClientCnxns=60\n#autopurge.snapRetainCount=3\n#autopurge.purgeInterval=1\n\
         ## Metrics Providers\n#metricsProvider.httpPort=7000\n",
        // Debian's package.
        "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir=DIR\nclientPort=2181\n\n#server.1=zookeeper1:2888:3888\n\
         #preAllocSize=65536\n#snapCount=1000\n#traceFile=trace.log\nleaderServes=yes\n",
        // The Docker image.
        "dataDir=DIR\ndataLogDir=DIR/log\ntickTime=2000\ninitLimit=5\nsyncLimit=2\nautopurge.snapRetainCount=3\n\
         autopurge.purgeInterval=0\nmaxClientCnxns=60\nstandaloneEnabled=true\nadmin.enableServer=true\n\
         server.1=localhost:2888:3888;2181\n",
        // An operator on Kubernetes.
        "4lw.commands.whitelist=cons, envi, conf, crst, srvr, stat, mntr, ruok\ndataDir=DIR\nstandaloneEnabled=false\n\
         reconfigEnabled=true\nskipACL=yes\nmetricsProvider.className=org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider\n\
         metricsProvider.httpPort=7000\nmetricsProvider.exportJvmInfo=true\ninitLimit=10\nsyncLimit=2\ntickTime=2000\n\
         globalOutstandingLimit=1000\npreAllocSize=65536\nsnapCount=10000\ncommitLogCount=500\nsnapSizeLimitInKb=4194304\n\
         maxCnxns=0\nmaxClientCnxns=60\nminSessionTimeout=4000\nmaxSessionTimeout=40000\nautopurge.snapRetainCount=3\n\
         autopurge.purgeInterval=1\nquorumListenOnAllIPs=false\nadmin.serverPort=8080\n\
         server.1=zk-0.zk-headless.default.svc.cluster.local:2888:3888:participant;0.0.0.0:2181\n",
        // Blanks, Windows line ends, IPv6, weights.
        "tickTime = 2000\r\ninitLimit : 10\r\nsyncLimit 5\r\ndataDir=DIR\r\nclientPort=2181\r\n\
         server.1 = [2001:db8::1]:2888:3888\r\nserver.2=[2001:db8::2]:2888:3888\r\nserver.3=[::1]:2888:3888:observer\r\n\
         server.4=h:2888:3888\r\ngroup.1=1:2\r\ngroup.2=4\r\nweight.4=0\r\nelectionAlg=3\r\n\
         ssl.quorum.keyStore.location=/x\r\nauthProvider.1=org.apache.zookeeper.server.auth.DigestAuthenticationProvider\r\n\
         jvm.pause.monitor=true\r\ncnxTimeout=1000\r\nautopurge.purgeInterval=4h\r\n",
    ] {
        let dir = Dir::new();
        dir.write("myid", "1\n");
        let unknown = warnings(|| {
            dir.load(text).unwrap_or_else(|error| panic!("{text}\n{error}"));
        });
        assert!(!unknown.iter().any(|line| line.contains("unknown key")), "{unknown:?}");
    }
}
