//! JAAS files, the messages of DIGEST-MD5 and the packets in which members carry them, as the first and as
//! a later message of an exchange.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zab_sasl::digest_md5::{Acceptor, CLIENTS, Initiator, MEMBERS, NONCE_LEN, Step};
use zab_sasl::members::{MemberAcceptor, MemberDialler};
use zab_sasl::{Jaas, NameRules};

const RANDOM: [u8; NONCE_LEN] = [7; NONCE_LEN];
const PASSWORD: &str = "a password that nobody sees";

fuzz_target!(|data: &[u8]| {
    jaas(data);
    clients(data);
    members(data);
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(name) = NameRules::default().identity(text, None)
    {
        assert!(name.len() <= text.len());
    }
});

fn jaas(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let known = |name: &str| (name == "known").then(|| PASSWORD.to_owned());
    match Jaas::parse(text, known) {
        Ok(file) => {
            let names: Vec<&str> = file.names().collect();
            for name in names {
                let module = file.section(name).expect("it has a name");
                assert!(module.users().len() <= text.len());
                let _ = module.login();
                assert!(!format!("{module:?}").contains(PASSWORD), "a password is shown");
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn clients(data: &[u8]) {
    let password = |user: &str| (user == "bob").then_some(PASSWORD);
    let mut acceptor = Acceptor::new(CLIENTS, RANDOM);
    let first = acceptor.evaluate(data, password).expect("whatever comes first begins");
    assert!(matches!(first, Step::Challenge(_)));
    // Who does not know the password, which no input can, is not let in.
    match acceptor.evaluate(data, password) {
        Ok(step) => panic!("{step:?}"),
        Err(failure) => assert!(!failure.to_string().contains(PASSWORD)),
    }
    assert!(acceptor.evaluate(data, password).is_err(), "it is over");
    let mut initiator = Initiator::new(CLIENTS, "bob", PASSWORD, RANDOM);
    if let Ok(Some(answer)) = initiator.evaluate(data) {
        // Realm and nonce come back in it, and between quotes a character may become two.
        assert!(answer.len() <= 2 * data.len() + 1000);
        assert!(initiator.evaluate(data).is_err(), "nobody has proved to know the password");
    }
    assert!(!initiator.is_done());
}

fn members(data: &[u8]) {
    let password = |user: &str| (user == "member").then_some(PASSWORD);
    let (mut acceptor, mut out) = (MemberAcceptor::new(Acceptor::new(MEMBERS, RANDOM)), Vec::new());
    let mut rest = data;
    while let Ok((len @ 1.., login)) = acceptor.receive(rest, &mut out, password) {
        assert_eq!(login, None, "nobody knows the password");
        rest = &rest[len..];
    }
    assert!(out.len() <= 1000 * (1 + data.len() / 8));
    let mut dialler =
        MemberDialler::new(Initiator::new(MEMBERS, "member", PASSWORD, RANDOM), &mut out);
    out.clear();
    let mut rest = data;
    while let Ok((len @ 1.., is_done)) = dialler.receive(rest, &mut out) {
        assert!(!is_done, "nobody knows the password");
        rest = &rest[len..];
    }
    assert!(out.len() <= data.len() + 2000);
}
