//! The keys of SASL.

use super::*;

const JAAS: &str = r#"
Server { org.apache.zookeeper.server.auth.DigestLoginModule required
    user_super="first" user_bob="bobsecret"; };
QuorumServer { org.apache.zookeeper.server.auth.DigestLoginModule required user_member="pw"; };
QuorumLearner { org.apache.zookeeper.server.auth.DigestLoginModule required
    username="member" password="pw"; };
Kerberos { com.sun.security.auth.module.Krb5LoginModule required; };
"#;

const PROVIDER: &str =
    "authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider\n";

/// `THREE` with these lines and a JAAS file.
fn load(jaas: &str, lines: &str) -> Result<ServerConfig, String> {
    let dir = Dir::new();
    dir.write("myid", "1");
    let path = dir.write("jaas.conf", jaas);
    let file = format!("java.security.auth.login.config={}\n", path.display());
    let text = format!("{THREE}{file}{lines}");
    dir.load(&text).map_err(|error| error.to_string())
}

#[test]
fn clients_log_in_with_the_names_of_the_file() {
    let config = load(JAAS, "").unwrap();
    let clients = config.sasl.clients;
    let users = clients.users.expect("users");
    assert_eq!(users.password("bob"), Some("bobsecret"));
    assert_eq!(users.password("super"), Some("first"));
    assert!(!clients.in_acls && clients.super_users.is_empty() && !clients.failed_may_stay);
    assert!(config.sasl.members.is_none());
    let lines = format!(
        "{PROVIDER}superUser=bob\nsuperUser.2=eve\nSASLAuthenticationProvider.superPassword=second\n\
         allowSaslFailedClients=true\nletAnySaslUserDoX=any\n\
         kerberos.removeHostFromPrincipal=true\nkerberos.removeRealmFromPrincipal=true\n"
    );
    let clients = load(JAAS, &lines).unwrap().sasl.clients;
    assert_eq!(clients.users.expect("users").password("super"), Some("second"));
    assert_eq!(clients.super_users, ["bob", "eve"]);
    assert_eq!(clients.any_user.as_deref(), Some("any"));
    assert!(clients.in_acls && clients.failed_may_stay);
    let names = clients.names;
    assert!(names.remove_host && names.remove_realm);
    let config = load_with(THREE, "-Dzookeeper.server.realm=R").unwrap();
    assert_eq!(config.sasl.clients.names.realm.as_deref(), Some("R"));
}

#[test]
fn who_must_log_in_must_be_able_to() {
    let must = "sessionRequireClientSASLAuth=true\n";
    let error = load(JAAS, must).unwrap_err();
    assert!(error.contains(":10: sessionRequireClientSASLAuth: "), "{error}");
    assert!(error.contains("Authentication scheme sasl is not available."), "{error}");
    assert_eq!(load(JAAS, &format!("{PROVIDER}{must}")).unwrap().enforce_auth, ["sasl"]);
    let error = load("", &format!("{PROVIDER}{must}")).unwrap_err();
    assert!(error.contains("nobody could log in"), "{error}");
    let schemes = "enforce.auth.enabled=true\nenforce.auth.schemes=digest,sasl\n";
    assert_eq!(
        load(JAAS, &format!("{PROVIDER}{schemes}")).unwrap().enforce_auth,
        ["digest", "sasl"]
    );
    assert!(load("", &format!("{PROVIDER}{schemes}")).is_err());
}

#[test]
fn members_need_both_sections() {
    let enable = "quorum.auth.enableSasl=true\n";
    let members = load(JAAS, enable).unwrap().sasl.members.expect("members");
    assert_eq!(members.users.password("member"), Some("pw"));
    assert!(members.login.is_none() && !members.required, "nothing is said and nothing asked");
    let all = format!(
        "{enable}quorum.auth.learnerRequireSasl=true\nquorum.auth.serverRequireSasl=true\n"
    );
    let members = load(JAAS, &all).unwrap().sasl.members.expect("members");
    assert_eq!(members.login, Some(("member".into(), "pw".into())));
    assert!(members.required);
    for (removed, key) in [("QuorumServer", "QuorumServer"), ("QuorumLearner", "QuorumLearner")] {
        let error = load(&JAAS.replace(removed, "Other"), enable).unwrap_err();
        let wanted = format!(
            "quorum.auth.enableSasl: SASL-authentication failed because the specified JAAS \
             configuration section '{key}' could not be found."
        );
        assert!(error.contains(&wanted), "{error}");
    }
    let alone = load_with(&format!("{ALONE}{enable}"), "").unwrap_err().to_string();
    assert!(alone.contains(":3: quorum.auth.enableSasl: "), "a server alone: {alone}");
    let other = format!("{enable}quorum.auth.server.saslLoginContext=Other\n");
    let error = load(JAAS, &other).unwrap_err();
    assert!(error.contains(":11: quorum.auth.server.saslLoginContext: "), "{error}");
    assert!(load(&JAAS.replace("QuorumServer", "Other"), &other).is_ok());
    for (line, wanted) in [
        (
            "learnerRequireSasl",
            "quorum.auth.enableSasl is disabled, so cannot enable quorum.auth.learnerRequireSasl",
        ),
        (
            "serverRequireSasl",
            "quorum.auth.enableSasl is disabled, so cannot enable quorum.auth.serverRequireSasl",
        ),
        (
            "enableSasl=true\nquorum.auth.serverRequireSasl",
            "quorum.auth.learnerRequireSasl is disabled, so cannot enable quorum.auth.serverRequireSasl",
        ),
    ] {
        let error = load(JAAS, &format!("quorum.auth.{line}=true\n")).unwrap_err();
        assert!(error.contains(wanted), "{error}");
    }
}

/// Whichever section asks for it: the start is refused, by the class, the section and what is missing.
#[test]
fn kerberos_is_refused_by_name() {
    let kerberos = "{ com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true\n \
                    keyTab=\"/etc/zookeeper.keytab\" principal=\"zookeeper/zk1@REALM\"; };";
    let members = "quorum.auth.enableSasl=true\n";
    for (section, lines) in [("Server", ""), ("QuorumServer", members), ("QuorumLearner", members)]
    {
        let digest = JAAS.replace(&format!("{section} {{"), &format!("Unused{section} {{"));
        let error = load(&format!("{section} {kerberos}\n{digest}"), lines).unwrap_err();
        for wanted in [
            &format!(
                "section {section}: com.sun.security.auth.module.Krb5LoginModule is not supported"
            ),
            "no acceptor over a keytab",
            "no exchanges with a KDC",
            "org.apache.zookeeper.server.auth.DigestLoginModule",
        ] {
            assert!(error.contains(wanted), "{section}: no {wanted:?} in {error}");
        }
    }
    let error = load("", "requireKerberosConfig=true\n").unwrap_err();
    assert!(error.contains("Kerberos is not supported"), "{error}");
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/security.md");
    let page = fs::read_to_string(page).expect("the page");
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    for wanted in ["Kerberos is not there", "acceptor over a keytab", "exchanges with a KDC"] {
        assert!(page.contains(wanted), "{wanted}");
    }
}

#[test]
fn a_file_that_cannot_be_used_stops_the_start() {
    let error = load("Server {\n x needed;\n};", "").unwrap_err();
    assert!(error.contains(":9: java.security.auth.login.config: "), "{error}");
    assert!(error.contains("jaas.conf:2: required, requisite"), "{error}");
    let error = load_with(THREE, "-Djava.security.auth.login.config=/nowhere/at/all").unwrap_err();
    assert!(error.to_string().contains("-Djava.security.auth.login.config: /nowhere/at/all: "));
    let error = load_with(THREE, "-Dzookeeper.sasl.serverconfig=Mine").unwrap_err().to_string();
    assert!(error.contains("names a section, and java.security.auth.login.config no file"));
    let error = load(JAAS, "sasl.serverconfig=Kerberos\n").unwrap_err();
    assert!(error.contains("Krb5LoginModule is not supported"), "{error}");
    let error = load(JAAS, "fips-mode=true\n").unwrap_err();
    assert!(error.contains(":10: fips-mode: is on, and section Server of "), "{error}");
    assert!(load(JAAS, "fips-mode=false\n").is_ok());
    let log = warnings(|| assert!(load("", "").unwrap().sasl.clients.users.is_none()));
    assert!(log.iter().any(|line| line.contains("has no section Server")), "{log:?}");
}
