//! The keys of TLS.

use runtime_core::Expects;
use zab_tls::{ClientAuth, Names, Secret, Settings};

use super::*;

#[test]
fn a_secure_port_needs_a_key_store_and_may_be_the_only_one() {
    let alone = THREE.replace("clientPort=2181", "secureClientPort=2281");
    for text in [&alone, &format!("{THREE}client.portUnification=true")] {
        let error = load_with(text, "").unwrap_err().to_string();
        assert!(error.contains("ssl.keyStore.location: "), "{error}");
        assert!(error.contains(" needs it, and it is not set"), "{error}");
    }
    let stores = "ssl.keyStore.location=/k\nssl.trustStore.location=/t\n";
    let config = load_with(&format!("{alone}{stores}"), "").unwrap();
    assert_eq!((config.client, config.tls.secure_client), (None, Some(("0.0.0.0".into(), 2281))));
    assert!(config.tls.clients.is_some() && config.tls.members.is_none());
    let both = format!("{THREE}secureClientPort=2281\nsecureClientPortAddress=::1\n{stores}");
    let config = load_with(&both, "").unwrap();
    assert!(config.client.is_some());
    assert_eq!(config.tls.secure_client, Some(("::1".into(), 2281)));
}

/// The members' side of the configuration `THREE` with these lines, which are written once as lines of the
/// file and once as properties.
fn members_tls(lines: &[&str]) -> Result<Settings, String> {
    let stores = ["ssl.quorum.keyStore.location=/k", "ssl.quorum.trustStore.location=/t"];
    let of = |text: &str, flags: &str| {
        let config = load_with(text, flags).map_err(|error| error.to_string())?;
        Ok(config.tls.members.expect("members speak TLS"))
    };
    let text = format!("{THREE}sslQuorum=true\n");
    let all = || stores.iter().chain(lines);
    let by_file = of(&format!("{text}{}", all().map(|l| format!("{l}\n")).collect::<String>()), "");
    let flags = all().map(|line| format!("-Dzookeeper.{line} ")).collect::<String>();
    let by_flags = of(&text, &flags);
    match (&by_file, &by_flags) {
        (Ok(file), Ok(flags)) => assert_eq!(file, flags),
        _ => assert!(by_file.is_err() && by_flags.is_err(), "{lines:?} {by_file:?} {by_flags:?}"),
    }
    by_file
}

#[test]
fn settings_of_tls() {
    let plain = members_tls(&[]).unwrap();
    assert_eq!((plain.client_auth, plain.tls12, plain.tls13), (ClientAuth::Need, true, true));
    assert_eq!(plain.key_store.password, Secret::Text(String::new()));
    for (lines, expected) in [
        (vec!["clientAuth=want"], Settings { client_auth: ClientAuth::Want, ..plain.clone() }),
        (vec!["clientAuth=NONE"], Settings { client_auth: ClientAuth::None, ..plain.clone() }),
        (vec!["clientAuth="], plain.clone()),
        (vec!["protocol=TLSv1.2"], Settings { tls13: false, ..plain.clone() }),
        (vec!["protocol=TLSv1.3"], plain.clone()),
        (vec!["enabledProtocols=TLSv1.3"], Settings { tls12: false, ..plain.clone() }),
        (
            vec!["enabledProtocols=TLSv1.1,TLSv1.2", "protocol=TLS"],
            Settings { tls13: false, ..plain.clone() },
        ),
        (
            vec!["ciphersuites=A_B,C_D"],
            Settings { suites: Some(vec!["A_B".into(), "C_D".into()]), ..plain.clone() },
        ),
    ] {
        let lines: Vec<_> = lines.iter().map(|line| format!("ssl.quorum.{line}")).collect();
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        assert_eq!(members_tls(&lines).unwrap(), expected, "{lines:?}");
    }
    let password = "ssl.quorum.keyStore.password=geheim";
    let store = members_tls(&[password]).unwrap().key_store;
    assert_eq!(store.password, Secret::Text("geheim".into()));
    let file = "ssl.quorum.keyStore.passwordPath=/p";
    assert_eq!(
        members_tls(&[password, file]).unwrap().key_store.password,
        Secret::File("/p".into())
    );
}

/// Without a word ZooKeeper 3.9 looks at no names, 3.8 does; who asks for something gets it.
#[test]
fn names_of_members_are_looked_at_as_asked_for() {
    use Names::{Ignored, Required, Warned};
    for (lines, expected) in [
        (vec![], (Warned, Warned)),
        (vec!["fips-mode=true"], (Warned, Warned)),
        (vec!["fips-mode=false"], (Required, Required)),
        (vec!["ssl.quorum.hostnameVerification=true"], (Required, Required)),
        (vec!["ssl.quorum.hostnameVerification=false"], (Ignored, Ignored)),
        (vec!["ssl.quorum.hostnameVerification=false", "fips-mode=false"], (Ignored, Ignored)),
        (
            vec!["fips-mode=false", "ssl.quorum.clientHostnameVerification=false"],
            (Required, Ignored),
        ),
    ] {
        let settings = members_tls(&lines).unwrap();
        assert_eq!((settings.server_names, settings.client_names), expected, "{lines:?}");
    }
}

#[test]
fn what_tls_cannot_do_is_refused_with_its_key() {
    for line in [
        "ssl.quorum.crl=true",
        "ssl.quorum.ocsp=True",
        "ssl.quorum.context.supplier.class=my.Supplier",
        "ssl.quorum.keyStore.type=BCFKS",
        "ssl.quorum.trustStore.type=bcfks",
        "ssl.quorum.clientAuth=maybe",
        "ssl.quorum.enabledProtocols=TLSv1,TLSv1.1",
        "ssl.crl=true",
        "ssl.authProvider=sasl",
    ] {
        let error = members_tls(&[line]).unwrap_err();
        let key = line.split('=').next().unwrap();
        assert!(error.contains(&format!(": {key}: ")), "{line}: {error}");
    }
    // Whether members speak TLS or not.
    let error = load_with(&format!("{THREE}ssl.ocsp=true"), "").unwrap_err().to_string();
    assert!(error.contains(":9: ssl.ocsp: nothing is fetched"), "{error}");
    for line in ["ssl.quorum.keyStore.type=pkcs12", "ssl.quorum.crl=false", "ssl.authProvider=X509"]
    {
        assert!(members_tls(&[line]).is_ok(), "{line}");
    }
    let both = ["ssl.quorum.crl=true", "zab.tls.crlFile=/lists.pem"];
    let lists = |settings: Result<Settings, String>| settings.map(|settings| settings.crl_file);
    assert_eq!(lists(members_tls(&both)), Ok(Some("/lists.pem".into())));
    let error = members_tls(&both[1..]).unwrap_err();
    assert!(error.contains(": zab.tls.crlFile: nobody looks at it"), "{error}");
    let log =
        warnings(|| drop(load_with(&format!("{THREE}ssl.keystore.location=/x"), "").unwrap()));
    assert!(log[0].contains("did you mean ssl.keyStore.location?"), "{log:?}");
}

#[test]
fn ways_to_tls_and_back() {
    let stores = "ssl.quorum.keyStore.location=/k\nssl.quorum.trustStore.location=/t\n";
    for (lines, peers, dials) in [
        ("", Expects::Plain, false),
        ("portUnification=true\n", Expects::Either, false),
        ("sslQuorum=true\nportUnification=true\n", Expects::Either, true),
        ("sslQuorum=true\n", Expects::Handshake, true),
    ] {
        let tls = load_with(&format!("{THREE}{lines}{stores}"), "").unwrap().tls;
        assert_eq!((tls.ports.peers, tls.ports.dial_peers), (peers, dials), "{lines}");
        assert_eq!(tls.members.is_some(), !lines.is_empty());
        assert_eq!(tls.ports.members.len(), 3);
    }
    for line in ["sslQuorum=true", "portUnification=true"] {
        let error = load_with(&format!("{THREE}{line}"), "").unwrap_err().to_string();
        assert!(error.contains("ssl.quorum.keyStore.location: "), "{error}");
    }
}

/// The AdminServer has the stores of members, with or without TLS between those.
#[test]
fn https_of_the_admin_server() {
    let stores = "ssl.quorum.keyStore.location=/k\nssl.quorum.clientAuth=need\n";
    let of = |lines: &str| load_with(&format!("{THREE}{stores}{lines}"), "").map(|c| c.tls.admin);
    let (forced, unified) = ("admin.forceHttps=true\n", "admin.portUnification=true\n");
    assert_eq!(of("").unwrap(), None);
    let (settings, expects) = of(forced).unwrap().expect("https");
    assert_eq!((expects, settings.client_auth), (Expects::Handshake, ClientAuth::None));
    assert_eq!(of(unified).unwrap().expect("https").1, Expects::Either);
    assert_eq!(of(&format!("{forced}{unified}")).unwrap().expect("https").1, Expects::Handshake);
    let needed = of(&format!("{forced}admin.needClientAuth=true\n")).unwrap().expect("https");
    assert_eq!((needed.0.client_auth, needed.0.client_names), (ClientAuth::Need, Names::Ignored));
    let narrow = of(&format!("{forced}ssl.quorum.enabledProtocols=TLSv1.3\n")).unwrap();
    assert!(!narrow.expect("https").0.tls12);
    // Without an AdminServer nobody needs it.
    assert_eq!(of(&format!("{forced}admin.enableServer=false\n")).unwrap(), None);
    for (lines, says) in [
        (forced.to_owned(), "admin.forceHttps needs it"),
        (unified.to_owned(), "admin.portUnification needs it"),
        ("admin.needClientAuth=true\n".into(), "plain HTTP shows no certificates"),
    ] {
        let error = load_with(&format!("{THREE}{lines}"), "").unwrap_err().to_string();
        assert!(error.contains(says), "{lines} {error}");
    }
}
