//! Hashes of RFC 2831 and of Java, both sides meeting, and one thing wrong at a time.

use super::*;

const NONCE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd";
const CNONCE: &str = "HRwbGhkYFxYVFBMSERAPDg0MCwoJCAcGBQQDAgEA";

fn random() -> [u8; NONCE_LEN] {
    std::array::from_fn(|at| u8::try_from(at).unwrap())
}

fn reversed() -> [u8; NONCE_LEN] {
    let mut bytes = random();
    bytes.reverse();
    bytes
}

fn bob(user: &str) -> Option<&'static str> {
    (user == "bob").then_some("bobsecret")
}

/// RFC 2831, section 4, and values computed by Java's provider.
#[test]
fn hashes() {
    let hashes = Hashes {
        user: "chris",
        realm: "elwood.innosoft.com",
        password: "secret",
        nonce: "OA6MG9tEQGm2hh",
        cnonce: b"OA6MHXh6VqTrRk",
        authzid: None,
        uri: b"imap/elwood.innosoft.com",
    };
    assert_eq!(hashes.response(), "d388dad90d4bbd760a152321f2143af7");
    assert_eq!(hashes.rspauth(), "ea40f60335c427b5527b84dbabcdfffd");
    for (purpose, user, password, authzid, response, rspauth) in [
        (
            CLIENTS,
            "bob",
            "bobsecret",
            Some("bob"),
            "991ee8571b65b9f0bac2f6b601114630",
            "27f14886af602455cf11a83bbae76010",
        ),
        (
            CLIENTS,
            "bob",
            "bobsecret",
            None,
            "c5959edaaeed3468636be5471ae9472d",
            "f5946715f1f38cc0db9028f00d9c88e6",
        ),
        (
            MEMBERS,
            "learner",
            "learnpw",
            Some("learner"),
            "4e7d53e97f29a9a5be8df301268f2ac8",
            "b893766ec04168c267972122db6e06c7",
        ),
    ] {
        let (uri, authzid) = (purpose.uri(), authzid.map(str::as_bytes));
        let (nonce, cnonce, uri) = (NONCE, CNONCE.as_bytes(), uri.as_bytes());
        let hashes = Hashes { user, realm: purpose.realm, password, nonce, cnonce, authzid, uri };
        assert_eq!((hashes.response().as_str(), hashes.rspauth().as_str()), (response, rspauth));
    }
}

#[test]
fn both_sides_meet() {
    for (user, password) in [("bob", "bobsecret"), ("Jürgen", "naïve"), ("名前", "パス\"\\")]
    {
        let mut acceptor = Acceptor::new(MEMBERS, random());
        let mut initiator = Initiator::new(MEMBERS, user, password, reversed());
        let known = |name: &str| (name == user).then_some(password);
        assert!(acceptor.is_new());
        let Ok(Step::Challenge(challenge)) = acceptor.evaluate(b"any", known) else { panic!() };
        assert_eq!(
            String::from_utf8(challenge.clone()).unwrap(),
            format!(
                "realm=\"zk-quorum-sasl-md5\",nonce=\"{NONCE}\",charset=utf-8,algorithm=md5-sess"
            )
        );
        let response = initiator.evaluate(&challenge).unwrap().unwrap();
        let Ok(Step::Done(answer, login)) = acceptor.evaluate(&response, known) else { panic!() };
        assert_eq!(login, Login { user: user.into(), authzid: Some(user.into()) });
        assert!(!initiator.is_done());
        assert_eq!(initiator.evaluate(&answer), Ok(None));
        assert!(initiator.is_done());
        // No second time.
        assert_eq!(initiator.evaluate(&answer), Err(Failure::Over));
        assert_eq!(acceptor.evaluate(&response, known), Err(Failure::Over));
    }
}

/// What Java's client says, with the order of its directives.
#[test]
fn the_response_is_written_as_by_java() {
    let mut initiator = Initiator::new(MEMBERS, "learner", "learnpw", reversed());
    let challenge = Acceptor::new(MEMBERS, random()).challenge();
    let response = initiator.evaluate(&challenge).unwrap().unwrap();
    assert_eq!(
        String::from_utf8(response).unwrap(),
        format!(
            "charset=utf-8,username=\"learner\",realm=\"zk-quorum-sasl-md5\",nonce=\"{NONCE}\",\
             nc=00000001,cnonce=\"{CNONCE}\",digest-uri=\"zookeeper-quorum/zk-quorum-sasl-md5\",\
             maxbuf=65536,response=4e7d53e97f29a9a5be8df301268f2ac8,qop=auth,authzid=\"learner\""
        )
    );
}

/// One thing wrong at a time.
#[test]
fn responses_are_checked() {
    let right = format!(
        "charset=utf-8,username=\"bob\",realm=\"zk-sasl-md5\",nonce=\"{NONCE}\",nc=00000001,\
         cnonce=\"{CNONCE}\",digest-uri=\"zookeeper/zk-sasl-md5\",maxbuf=65536,\
         response=991ee8571b65b9f0bac2f6b601114630,qop=auth,authzid=\"bob\""
    );
    let evaluate = |response: &str| {
        let mut acceptor = Acceptor::new(CLIENTS, random());
        acceptor.evaluate(b"", bob).unwrap();
        acceptor.evaluate(response.as_bytes(), bob)
    };
    assert!(evaluate(&right).is_ok());
    assert!(evaluate(&right.replace("nc=00000001,", "")).is_ok());
    assert!(evaluate(&right.replace(",qop=auth", "")).is_ok());
    assert!(evaluate(&format!("new=1,{right}")).is_ok(), "what is not known does not matter");
    for (from, to, failure) in [
        ("utf-8", "ascii", Failure::Wrong("charset")),
        ("username=\"bob\",", "", Failure::Missing("username")),
        ("\"bob\"", "\"eve\"", Failure::UnknownUser("eve".into())),
        ("realm=\"zk", "realm=\"ck", Failure::Wrong("realm")),
        ("realm=\"zk-sasl-md5\",", "", Failure::Wrong("realm")),
        ("nonce=\"AA", "nonce=\"BB", Failure::Wrong("nonce")),
        ("cnonce=", "dnonce=", Failure::Missing("cnonce")),
        ("nc=00000001", "nc=00000002", Failure::Wrong("nc")),
        ("qop=auth", "qop=auth-int", Failure::Wrong("qop")),
        ("zookeeper/", "keeper/", Failure::Wrong("digest-uri")),
        ("response=99", "response=98", Failure::WrongPassword("bob".into())),
        (",authzid=\"bob\"", "", Failure::WrongPassword("bob".into())),
        ("authzid=\"bob\"", "authzid=\"\"", Failure::WrongPassword("bob".into())),
        ("maxbuf=65536", "nc=00000001", Failure::Twice("nc".into())),
        ("charset", "\"charset", Failure::Malformed),
    ] {
        let response = right.replacen(from, to, 1);
        assert_ne!(response, right);
        assert_eq!(evaluate(&response), Err(failure), "{response}");
    }
    let long = format!("{right},pad=\"{}\"", "x".repeat(2 * MESSAGE_LEN_MAX));
    assert_eq!(evaluate(&long), Err(Failure::Malformed));
}

#[test]
fn challenges_and_answers_are_checked() {
    let challenge = String::from_utf8(Acceptor::new(CLIENTS, random()).challenge()).unwrap();
    let evaluate = |challenge: &str| {
        Initiator::new(CLIENTS, "bob", "bobsecret", reversed()).evaluate(challenge.as_bytes())
    };
    assert!(evaluate(&challenge).is_ok());
    assert!(evaluate(&format!("{challenge},realm=\"other\"")).is_ok(), "several realms");
    for (from, to, failure) in [
        ("md5-sess", "md5", Failure::Wrong("algorithm")),
        ("nonce=", "once=", Failure::Missing("nonce")),
        ("zk-sasl-md5", "other", Failure::Wrong("realm")),
        ("charset=utf-8", "qop=\"auth-conf\"", Failure::Wrong("qop")),
        ("charset", "nonce=a,charset", Failure::Twice("nonce".into())),
    ] {
        assert_eq!(evaluate(&challenge.replacen(from, to, 1)), Err(failure), "{from}");
    }
    // Who cannot show that he knows the password, too, is not trusted.
    let mut initiator = Initiator::new(CLIENTS, "bob", "bobsecret", reversed());
    initiator.evaluate(challenge.as_bytes()).unwrap();
    let answer = format!("rspauth={}", "0".repeat(32));
    assert_eq!(initiator.evaluate(answer.as_bytes()), Err(Failure::Wrong("rspauth")));
}

/// What comes back of a challenge grows by its quotes alone: every character may become two, and no more.
#[test]
fn an_answer_is_twice_its_challenge_at_most() {
    for len in [1, 2000] {
        let nonce = "\\".repeat(len);
        let challenge =
            format!("realm=\"zk-sasl-md5\",nonce={nonce},charset=utf-8,algorithm=md5-sess");
        let mut initiator = Initiator::new(CLIENTS, "bob", "bobsecret", reversed());
        let answer = initiator.evaluate(challenge.as_bytes()).unwrap().unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.contains(&format!("nonce=\"{}\"", nonce.repeat(2))), "{answer}");
        assert!(answer.len() <= 2 * challenge.len() + 1000, "{}", answer.len());
    }
}
