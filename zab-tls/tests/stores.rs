//! Stores as `keytool` and `openssl` write them; `tests/data/make.sh` has the commands.

use std::fs;
use std::path::Path;

use zab_tls::{Certificate, Format, Identity, StoreError, Trust};

const SECRET: &str = "changeit";
/// 2026-11-28.
const NOW: i64 = 1_795_824_000;

fn data(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name))
        .expect("it is there")
}

fn identity(name: &str, password: &str) -> Result<Identity, StoreError> {
    Identity::read(&data(name), password, NOW)
}

fn error(name: &str, password: &str) -> StoreError {
    identity(name, password).expect_err(name)
}

/// The subjects of an identity's certificates.
fn chain(identity: &Identity) -> Vec<String> {
    let name = |der| Certificate::parse(der).expect("it was read").subject_name();
    identity.chain().map(name).collect()
}

const LEAF: &str = "CN=zk1.example.com,O=Test,C=DE";
const CA: &str = "CN=Test CA,O=Test,C=DE";

#[test]
fn key_stores_of_every_kind() {
    for (name, format, alias) in [
        ("pkcs8.store.pem", Format::Pem, ""),
        ("sec1.store.pem", Format::Pem, ""),
        ("pbes2.store.pem", Format::Pem, ""),
        ("pbes2-sha1.store.pem", Format::Pem, ""),
        ("pbes2-des3.store.pem", Format::Pem, ""),
        ("pbe-3des.store.pem", Format::Pem, ""),
        ("openssl.p12", Format::Pkcs12, "zk"),
        ("openssl-legacy.p12", Format::Pkcs12, "zk"),
        ("keytool.p12", Format::Pkcs12, "zk"),
        ("keytool-legacy.p12", Format::Pkcs12, "zk"),
        ("keytool.jks", Format::Jks, "zk"),
    ] {
        assert_eq!(Format::of(&data(name)), Ok(format), "{name}");
        let identity = identity(name, SECRET).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(chain(&identity), [LEAF, CA], "{name}");
        assert_eq!((&*identity.alias, identity.others), (alias, 0), "{name}");
    }
    assert_eq!(chain(&identity("pkcs1.store.pem", "").unwrap()), ["CN=rsa,O=Test,C=DE"]);
}

#[test]
fn trust_stores_of_every_kind() {
    for (name, unmarked) in
        [("ca.pem", 0), ("trust.jks", 0), ("trust.p12", 0), ("openssl-trust.p12", 1)]
    {
        let trust =
            Trust::read(&data(name), SECRET).unwrap_or_else(|error| panic!("{name}: {error}"));
        let names: Vec<_> = trust
            .certificates()
            .map(|der| Certificate::parse(der).unwrap().subject_name())
            .collect();
        assert_eq!((names, trust.unmarked), (vec![CA.to_owned()], unmarked), "{name}");
    }
    let two = [data("ca.pem"), data("self-ca.pem")].concat();
    assert_eq!(Trust::read(&two, "").unwrap().certificates().count(), 2);
    // As in Java, a key's own certificates are not what is trusted, but in PEM, which knows no difference.
    for name in ["keytool.jks", "keytool.p12", "openssl.p12", "two.p12"] {
        assert_eq!(Trust::read(&data(name), SECRET), Err(StoreError::NoCertificate), "{name}");
    }
    assert_eq!(Trust::read(&data("chain.pem"), "").unwrap().certificates().count(), 2);
}

#[test]
fn passwords_are_right_or_nothing_is_read() {
    for name in [
        "keytool.jks",
        "keytool.p12",
        "keytool-legacy.p12",
        "openssl.p12",
        "openssl-legacy.p12",
        "pbes2.store.pem",
        "pbes2-des3.store.pem",
        "pbe-3des.store.pem",
        "own.jks",
    ] {
        for password in ["", "wrong", "changei", "changeit2", "Ünicode"] {
            assert_eq!(error(name, password), StoreError::Password, "{name} {password}");
        }
    }
    for name in ["trust.jks", "trust.p12", "openssl-trust.p12"] {
        for password in ["", "wrong"] {
            let trust = Trust::read(&data(name), password);
            assert_eq!(trust, Err(StoreError::Password), "{name} {password}");
        }
    }
    // The store's password is right, the key has another one.
    assert_eq!(error("own.jks", SECRET), StoreError::Password);
    // What is not encrypted takes any password.
    assert!(identity("pkcs8.store.pem", "any").is_ok());
}

#[test]
fn what_cannot_be_used_is_named() {
    assert_eq!(error("ca.pem", ""), StoreError::NoKey);
    assert_eq!(error("trust.jks", SECRET), StoreError::NoKey);
    assert_eq!(error("pkcs8.key", ""), StoreError::NoCertificate);
    assert_eq!(error("acme.der", ""), StoreError::Damaged, "a certificate is no PKCS#12");
    for (name, text) in [("keytool.jceks", "JCEKS"), ("proc-type.store.pem", "Proc-Type")] {
        let error = error(name, SECRET).to_string();
        assert!(error.contains(text), "{error}");
    }
    let read = |bytes: &[u8]| Identity::read(bytes, "", NOW).expect_err("no store");
    assert_eq!((read(b""), read(b"hello"), read(&[0xff; 9])), {
        (StoreError::Unknown, StoreError::Unknown, StoreError::Unknown)
    });
    for other in ["rsa.pem", "cn.pem"] {
        let mixed = [data("pkcs8.key"), data(other)].concat();
        assert_eq!(read(&mixed), StoreError::KeyMismatch);
    }
}

#[test]
fn of_several_keys_one_is_taken_and_the_others_are_counted() {
    let identity = identity("two.p12", SECRET).unwrap();
    assert_eq!(identity.others, 1);
    assert_eq!(chain(&identity), [format!("CN={}", identity.alias)]);
    // The first that is valid now: nobody's, so the first.
    let later = Identity::read(&data("two.p12"), SECRET, i64::MAX).unwrap();
    assert_eq!(later.alias, identity.alias);
}

#[test]
fn files_that_end_early_or_are_changed_are_refused() {
    for name in ["keytool.jks", "keytool.p12", "openssl.p12", "pkcs8.store.pem", "sec1.store.pem"] {
        let whole = data(name);
        let last = if name.ends_with("pem") { 300 } else { whole.len() - 1 };
        for len in (0..=last).step_by(97).chain([last]) {
            assert!(Identity::read(&whole[..len], SECRET, NOW).is_err(), "{name} {len}");
        }
    }
    // The sum of JKS and the MAC of PKCS#12 cover all that matters.
    for name in ["keytool.jks", "keytool.p12"] {
        let whole = data(name);
        for at in (0..whole.len()).step_by(150) {
            let mut changed = whole.clone();
            changed[at] ^= 0x40;
            let read = Identity::read(&changed, SECRET, NOW);
            assert!(read.is_err() || chain(&read.unwrap()) == [LEAF, CA], "{name} {at}");
        }
    }
}
