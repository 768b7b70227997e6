//! Who trusts whom, with which certificates; between two ends of this crate, without a network.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use runtime_core::{Cipher, Expects, Security};
use zab_proto::Channel;
use zab_tls::{ClientAuth, Names, Ports, Secret, Settings, SetupError, StoreFile, Tls};

fn data(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A directory that is gone with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("zab-tls-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        Self(dir)
    }

    /// A file with these parts of the test data one after the other.
    fn file(&self, name: &str, parts: &[&str]) -> StoreFile {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| data(part)).collect();
        let path = self.0.join(name);
        fs::write(&path, bytes).expect("a file");
        StoreFile { path, password: Secret::Text(String::new()) }
    }

    /// Settings of a member.
    fn settings(&self, who: &str, key: &[&str], trust: &[&str]) -> Settings {
        let key_store = self.file(&format!("{who}-key"), key);
        let trust_store = Some(self.file(&format!("{who}-trust"), trust));
        Settings { trust_store, ..Settings::new(key_store) }
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn member(settings: Settings) -> Tls {
    let ports = Ports { peers: Expects::Handshake, dial_peers: true, ..Ports::default() };
    Tls::new(None, Some(settings), ports).unwrap_or_else(|(_, error)| panic!("{error}"))
}

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Two ends that have shaken hands, and what each of them said if they have not.
fn connect(dials: &Tls, accepts: &Tls, to: &str) -> Result<[Box<dyn Cipher>; 2], [String; 2]> {
    let dialled = dials.dial(Channel::Quorum, to, Some(LOCALHOST)).expect("a client");
    let accepted = accepts.accept(Channel::Quorum.into(), (LOCALHOST, 7).into()).expect("a server");
    let (mut ends, mut errors) = ([dialled, accepted], [String::new(), String::new()]);
    for _ in 0..20 {
        for (from, to) in [(0, 1), (1, 0)] {
            let mut buf = [0; 1000];
            loop {
                let n = ends[from].write(&mut buf);
                let (mut rest, mut plain) = (&buf[..n], Vec::new());
                while !rest.is_empty() && errors[to].is_empty() {
                    match ends[to].read(rest, &mut plain) {
                        Ok(0) => break,
                        Ok(n) => rest = &rest[n..],
                        Err(error) => errors[to] = error.to_string(),
                    }
                }
                if n == 0 {
                    break;
                }
            }
        }
    }
    let failed = errors.iter().any(|error| !error.is_empty());
    if failed || ends.iter().any(|end| end.is_handshaking()) { Err(errors) } else { Ok(ends) }
}

/// Whether a member with this certificate and one that trusts that store find together in both roles.
fn trusted(key: &[&str], trust: &[&str]) -> Result<(), String> {
    let dir = Dir::new();
    let other = member(dir.settings("other", key, &["ca.pem"]));
    let judge = member(Settings {
        server_names: Names::Ignored,
        ..dir.settings("judge", &["leaf.key", "chain.pem"], trust)
    });
    let [as_server, _] =
        connect(&judge, &other, "localhost:1").map_or_else(|e| e, |_| Default::default());
    let [_, as_client] =
        connect(&other, &judge, "localhost:1").map_or_else(|e| e, |_| Default::default());
    assert_eq!(as_server, as_client, "the two roles");
    if as_server.is_empty() { Ok(()) } else { Err(as_server) }
}

#[test]
fn bytes_go_both_ways_and_ends_are_told() {
    let dir = Dir::new();
    let one = member(dir.settings("one", &["leaf.key", "chain.pem"], &["ca.pem"]));
    let [mut dialled, mut accepted] = connect(&one, &one, "localhost:1").expect("a connection");
    assert!(dialled.describe().starts_with("TLSv1.3 - TLS_"), "{}", dialled.describe());
    for (from, to) in [(0, 1), (1, 0)] {
        let ends = [&mut dialled, &mut accepted];
        let said: Vec<u8> = (0..100_000_u32).flat_map(u32::to_be_bytes).collect();
        let (mut heard, mut buf) = (Vec::new(), vec![0; 3000]);
        for piece in said.chunks(runtime_core::PIECE_LEN_MAX) {
            ends[from].seal(piece).expect("sealed");
            while let n @ 1.. = ends[from].write(&mut buf) {
                let mut rest = &buf[..n];
                while !rest.is_empty() {
                    let taken = ends[to].read(rest, &mut heard).expect("opened");
                    rest = &rest[taken..];
                }
            }
        }
        assert!(heard == said);
        ends[from].end();
        ends[from].end();
        let n = ends[from].write(&mut buf);
        assert!(!ends[to].has_ended());
        ends[to].read(&buf[..n], &mut heard).expect("an end");
        assert!(ends[to].has_ended());
    }
}

#[test]
fn what_a_ca_of_the_trust_store_has_issued_is_trusted() {
    assert_eq!(trusted(&["leaf.key", "leaf.pem"], &["ca.pem"]), Ok(()));
    assert_eq!(trusted(&["rsa.pem", "pkcs1.key"], &["self-ca.pem", "ca.pem"]), Ok(()));
    let error = trusted(&["leaf.key", "chain.pem"], &["self-ca.pem"]).expect_err("another CA");
    assert!(error.contains("(CN=zk1.example.com,O=Test,C=DE) is refused: no CA"), "{error}");
}

#[test]
fn what_stands_in_the_trust_store_is_trusted_as_by_java() {
    // With the form of a CA, which `openssl req -x509` makes; of version 1; of a CA that is not there.
    for (key, leaf) in
        [("self.key", "self-ca.pem"), ("self.key", "self-v1.pem"), ("cn.key", "cn.pem")]
    {
        assert_eq!(trusted(&[key, leaf], &[leaf]), Ok(()), "{leaf}");
    }
    // Of TLS 1.2, too.
    let dir = Dir::new();
    let own = Settings {
        tls13: false,
        server_names: Names::Ignored,
        ..dir.settings("v1", &["self.key", "self-v1.pem"], &["self-v1.pem"])
    };
    let v1 = member(own);
    let [dialled, _] = connect(&v1, &v1, "localhost:1").expect("a connection");
    assert!(dialled.describe().starts_with("TLSv1.2"), "{}", dialled.describe());
}

/// Of version 1, as scripts make them that name no extensions: a CA of the trust store has to have issued them itself.
#[test]
fn leaves_of_version_1_are_trusted_if_a_ca_of_the_trust_store_has_issued_them() {
    let own = ["self.key", "old.pem"];
    assert_eq!(trusted(&own, &["ca.pem"]), Ok(()));
    assert_eq!(trusted(&own, &["false-ca.pem", "ca.pem"]), Ok(()), "two of one name");
    assert_eq!(trusted(&["self.key", "old-middle.pem"], &["middle.pem"]), Ok(()));
    let middle = ["self.key", "old-middle.pem", "middle.pem"];
    for (key, trust, why) in [
        (
            &middle[..],
            "ca.pem",
            "no CA of the trust store has issued it itself, as one of version 1 needs it",
        ),
        (&own, "self-ca.pem", "no CA of the trust store has issued it itself"),
        // Nobody becomes a CA by its name alone, or by a leaf that is trusted.
        (&["self.key", "old-false.pem"], "ca.pem", "BadSignature"),
        (&own, "leaf.pem", "no CA of the trust store"),
    ] {
        let error = trusted(key, &[trust]).expect_err(why);
        assert!(error.contains("is refused") && error.contains(why), "{why}: {error}");
    }
    let dir = Dir::new();
    let fine = dir.settings("old.pem", &own, &["ca.pem"]);
    let accepts = dir.settings("accepts", &["leaf.key", "chain.pem"], &["ca.pem"]);
    let crl_file = Some(dir.file("lists", &["nobody.crl"]).path);
    let lists = member(Settings { crl_file, ..accepts.clone() });
    let why = "lists of revoked certificates are not looked up for one of version 1";
    let [_, server] =
        connect(&member(fine.clone()), &lists, "localhost:1").map(drop).expect_err(why);
    assert!(server.contains(why), "{server}");
    // Of TLS 1.2, too.
    let old = member(Settings { tls13: false, ..fine });
    let [dialled, _] = connect(&old, &member(accepts), "localhost:1").expect("a connection");
    assert!(dialled.describe().starts_with("TLSv1.2"), "{}", dialled.describe());
}

/// Otherwise whoever has the key of one trusted server could be all of them.
#[test]
fn what_is_trusted_as_a_leaf_makes_nobody_else_trusted() {
    let error = trusted(&["leaf.key", "leaf.pem"], &["cn.pem"]).expect_err("not issued by it");
    assert!(error.contains("no CA of the trust store has issued it"), "{error}");
}

#[test]
fn who_has_expired_is_refused() {
    let dir = Dir::new();
    let settings = dir.settings("late", &["expired.key", "expired.pem"], &["ca.pem"]);
    let error = Tls::new(None, Some(settings), Ports::default()).expect_err("expired");
    assert!(matches!(error.1, SetupError::NotValid(..)), "{error:?}");
}

/// The list says who; what it does not say is no, as by Java. A new one is used when it is there.
#[test]
fn who_is_revoked_is_refused() {
    let dir = Dir::new();
    let plain = dir.settings("accepts", &["leaf.key", "chain.pem"], &["ca.pem"]);
    let with = |lists: &[&str]| {
        let crl_file = Some(dir.file("lists", lists).path);
        Settings { crl_file, ..plain.clone() }
    };
    let cn = member(dir.settings("cn", &["cn.key", "cn.pem"], &["ca.pem"]));
    let other = member(dir.settings("other", &["leaf.key", "chain.pem"], &["ca.pem"]));
    let verdict = |accepts: &Tls, dials: &Tls| {
        connect(dials, accepts, "localhost:1").map(drop).map_err(|[_, server]| server)
    };
    let cases: [(&[&str], Option<&str>, Option<&str>); 5] = [
        (&["nobody.crl"], None, None),
        (&["revoked.crl"], Some("has been revoked"), None),
        (&["other.crl", "revoked.crl"], Some("has been revoked"), None),
        (&["other.crl"], Some("has no list of the CA"), Some("has no list of the CA")),
        (&["late.crl"], Some("is out of date"), Some("is out of date")),
    ];
    for (lists, of_cn, of_other) in cases {
        let accepts = member(with(lists));
        for (dials, wanted) in [(&cn, of_cn), (&other, of_other)] {
            match (verdict(&accepts, dials), wanted) {
                (Ok(()), None) => {}
                (Err(why), Some(wanted)) if why.contains(wanted) => {}
                (got, wanted) => panic!("{lists:?}: {got:?}, wanted {wanted:?}"),
            }
        }
    }
    let settings = with(&["nobody.crl"]);
    let accepts = member(settings.clone());
    assert_eq!(verdict(&accepts, &cn), Ok(()));
    assert_eq!(verdict(&accepts, &cn), Ok(()), "resumed");
    with(&["revoked.crl"]);
    accepts.reload();
    assert!(verdict(&accepts, &cn).is_err(), "no session from before is resumed");
    // What stands in the trust store itself is on no list, as by Java.
    let trusts = dir.settings("trusts", &["leaf.key", "chain.pem"], &["ca.pem", "cn.pem"]);
    let trusts = Settings { crl_file: Some(dir.file("lists", &["revoked.crl"]).path), ..trusts };
    assert_eq!(verdict(&member(trusts), &cn), Ok(()));
    let bad = Settings { crl_file: Some(dir.file("lists", &["ca.pem"]).path), ..settings };
    let error = Tls::new(None, Some(bad), Ports::default()).expect_err("no list");
    assert!(error.1.to_string().contains("there is none in it"), "{}", error.1);
}

#[test]
fn names_are_those_that_were_dialled_or_the_address() {
    let dir = Dir::new();
    let settings = dir.settings("one", &["leaf.key", "chain.pem"], &["ca.pem"]);
    let accepts = member(settings.clone());
    for (to, names, expected) in [
        ("localhost:1", Names::Required, true),
        ("zk-7.example.com:1", Names::Required, true),
        // The address is in the certificate, whatever it was dialled by.
        ("elsewhere.example.com:1", Names::Required, true),
    ] {
        let dials = member(Settings { server_names: names, ..settings.clone() });
        assert_eq!(connect(&dials, &accepts, to).is_ok(), expected, "{to}");
    }
    let other = member(dir.settings("cn", &["cn.key", "cn.pem"], &["ca.pem"]));
    for (to, names, expected) in [
        ("localhost:1", Names::Required, true),
        ("elsewhere:1", Names::Required, false),
        ("elsewhere:1|localhost:2", Names::Required, true),
        ("elsewhere:1", Names::Warned, true),
        ("elsewhere:1", Names::Ignored, true),
    ] {
        let dials = member(Settings { server_names: names, ..settings.clone() });
        let end = connect(&dials, &other, to).map(drop);
        assert_eq!(end.is_ok(), expected, "{to} {names:?} {end:?}");
        if let Err([error, _]) = end {
            assert!(
                error.contains(
                    "CN=localhost,O=Test,C=DE; no subjectAltName) is for none of elsewhere"
                )
            );
        }
    }
}

#[test]
fn names_of_those_who_connect() {
    let dir = Dir::new();
    let settings = dir.settings("judge", &["leaf.key", "chain.pem"], &["ca.pem"]);
    let dials = member(Settings {
        server_names: Names::Ignored,
        ..dir.settings("cn", &["cn.key", "cn.pem"], &["ca.pem"])
    });
    for (members, expected) in [(vec!["localhost".to_owned()], true), (vec!["zk1".into()], false)] {
        let ports = Ports { peers: Expects::Handshake, members, ..Ports::default() };
        let settings = Settings { client_names: Names::Required, ..settings.clone() };
        let judge = Tls::new(None, Some(settings), ports).expect("a server");
        assert_eq!(connect(&dials, &judge, "localhost:1").is_ok(), expected);
    }
}

#[test]
fn certificates_are_demanded_as_configured() {
    let dir = Dir::new();
    let key = || dir.file("key", &["leaf.key", "chain.pem"]);
    for auth in [ClientAuth::Need, ClientAuth::Want] {
        let settings = Settings { client_auth: auth, ..Settings::new(key()) };
        let error = Tls::new(Some(settings), None, Ports::default()).expect_err("no trust store");
        assert!(matches!(error, ("clients", SetupError::NoTrust)), "{error:?}");
    }
    let settings = Settings { client_auth: ClientAuth::None, ..Settings::new(key()) };
    assert!(Tls::new(Some(settings.clone()), None, Ports::default()).is_ok());
    // Members dial each other and have to know whom.
    assert!(Tls::new(None, Some(settings), Ports::default()).is_err());
    let server_only = dir.settings("server", &["server.key", "server.pem"], &["ca.pem"]);
    let error = Tls::new(None, Some(server_only.clone()), Ports::default()).expect_err("one role");
    assert!(matches!(error.1, SetupError::Purpose(_, "client")), "{error:?}");
    assert!(Tls::new(Some(server_only), None, Ports::default()).is_ok());
}

#[test]
fn sessions_are_resumed_with_the_member_they_were_made_with() {
    let dir = Dir::new();
    for tls13 in [true, false] {
        let settings =
            Settings { tls13, ..dir.settings("one", &["leaf.key", "chain.pem"], &["ca.pem"]) };
        let (dials, one, two) =
            (member(settings.clone()), member(settings.clone()), member(settings));
        let how = |accepts: &Tls, to: &str| {
            let [mut dialled, mut accepted] = connect(&dials, accepts, to).expect("a connection");
            // Tickets of TLS 1.3 come with the first bytes.
            let mut buf = vec![0; 4000];
            let n = accepted.write(&mut buf);
            dialled.read(&buf[..n], &mut Vec::new()).expect("tickets");
            dialled.describe().contains("resumed")
        };
        assert!(!how(&one, "localhost:1") && !how(&two, "localhost:2"));
        assert!(how(&one, "localhost:1") && how(&two, "localhost:2"), "TLS 1.3: {tls13}");
        assert!(how(&one, "localhost:1"));
    }
}

#[test]
fn files_that_change_are_read_and_bad_ones_are_not_used() {
    let dir = Dir::new();
    let settings = dir.settings("one", &["leaf.key", "chain.pem"], &["ca.pem"]);
    let other = member(settings.clone());
    let one = member(settings.clone());
    let finds = |who: &Tls| connect(who, &other, "localhost:1").is_ok();
    assert!(finds(&one));
    // As orchestrators do it: the name is a link to a directory that is exchanged.
    let write = |path: &Path, parts: &[&str]| {
        let next = dir.0.join("next");
        fs::write(&next, parts.iter().flat_map(|part| data(part)).collect::<Vec<_>>())
            .expect("a file");
        fs::rename(next, path).expect("a file");
    };
    let trust = settings.trust_store.as_ref().expect("a trust store").path.clone();
    write(&trust, &["self-ca.pem"]);
    one.reload();
    assert!(!finds(&one), "it trusts others now");
    fs::write(&trust, "half a file").expect("a file");
    one.reload();
    assert!(!finds(&one));
    write(&trust, &["ca.pem"]);
    one.reload();
    assert!(finds(&one));
    // A key without its certificate, and nothing at all.
    write(&settings.key_store.path, &["cn.key", "chain.pem"]);
    one.reload();
    assert!(finds(&one), "the old ones stay");
    fs::remove_file(&settings.key_store.path).expect("it was there");
    one.reload();
    assert!(finds(&one));
}

#[test]
fn links_that_are_exchanged_are_changes() {
    let dir = Dir::new();
    for (name, ca) in [("old", "ca.pem"), ("new", "self-ca.pem")] {
        fs::create_dir(dir.0.join(name)).expect("a directory");
        fs::write(dir.0.join(name).join("trust.pem"), data(ca)).expect("a file");
    }
    let link = dir.0.join("..data");
    std::os::unix::fs::symlink("old", &link).expect("a link");
    let mut settings = dir.settings("one", &["leaf.key", "chain.pem"], &["ca.pem"]);
    let other = member(settings.clone());
    let path = link.join("trust.pem");
    settings.trust_store = Some(StoreFile { path, password: Secret::Text(String::new()) });
    let one = member(settings);
    assert!(connect(&one, &other, "localhost:1").is_ok());
    std::os::unix::fs::symlink("new", dir.0.join("swap")).expect("a link");
    fs::rename(dir.0.join("swap"), &link).expect("exchanged");
    one.reload();
    assert!(connect(&one, &other, "localhost:1").is_err());
}

#[test]
fn versions_and_suites() {
    let dir = Dir::new();
    let settings = dir.settings("one", &["leaf.key", "chain.pem"], &["ca.pem"]);
    let all = member(settings.clone());
    let with = |suites: &[&str], tls12, tls13| {
        let suites = Some(suites.iter().map(|&suite| suite.into()).collect());
        let settings = Settings { suites, tls12, tls13, ..settings.clone() };
        Tls::new(None, Some(settings), Ports { dial_peers: true, ..Ports::default() })
    };
    let suite = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";
    let some = with(&["TLS_RSA_WITH_AES_128_CBC_SHA", suite], true, true).expect("one is left");
    let [dialled, _] = connect(&some, &all, "localhost:1").expect("a connection");
    assert_eq!(dialled.describe(), format!("TLSv1.2 - {suite}"));
    let some = with(&["TLS_AES_128_GCM_SHA256"], true, true).expect("one is left");
    let [_, accepted] = connect(&some, &all, "localhost:1").expect("a connection");
    assert_eq!(accepted.describe(), "TLSv1.3 - TLS_AES_128_GCM_SHA256");
    let error = with(&["TLS_RSA_WITH_AES_128_CBC_SHA"], true, true).expect_err("none is left");
    assert!(error.1.to_string().contains("TLS_AES_256_GCM_SHA384"), "{}", error.1);
    assert!(matches!(with(&[suite], false, true), Err((_, SetupError::NoVersion))));
    // Nothing in common.
    let old = with(&[suite], true, false).expect("TLS 1.2");
    let new = member(Settings { tls12: false, ..settings.clone() });
    let [client, server] = connect(&old, &new, "localhost:1").expect_err("nothing in common");
    assert!(server.contains("no protocol version or cipher suite in common"), "{server}");
    assert!(client.contains("ProtocolVersion"), "{client}");
}

#[test]
fn what_is_no_tls_is_an_error() {
    let dir = Dir::new();
    let one = member(dir.settings("one", &["leaf.key", "chain.pem"], &["ca.pem"]));
    for bytes in [&[0x16; 100][..], b"\x16\x03\x01\x00\x05hello", &[0x16, 3, 1, 0xff, 0xff, 1, 2]] {
        let mut accepted =
            one.accept(Channel::Quorum.into(), (LOCALHOST, 7).into()).expect("a server");
        let error = accepted.read(bytes, &mut Vec::new()).expect_err("no TLS").to_string();
        assert!(error.starts_with("what it sends is not TLS"), "{error}");
    }
}

#[test]
fn passwords_are_read_from_files_and_never_shown() {
    let dir = Dir::new();
    let secret = dir.0.join("secret");
    for (text, opens) in [("changeit", true), ("changeit\r\n", true), ("changeit\n\n", false)] {
        fs::write(&secret, text).expect("a file");
        let store = |password| StoreFile { password, ..dir.file("keys", &["keytool.p12"]) };
        let settings = Settings {
            client_auth: ClientAuth::None,
            ..Settings::new(store(Secret::File(secret.clone())))
        };
        assert_eq!(Tls::new(Some(settings), None, Ports::default()).is_ok(), opens, "{text:?}");
        let shown = format!("{:?}", store(Secret::Text("changeit".into())));
        assert!(!shown.contains("changeit"), "{shown}");
    }
}
