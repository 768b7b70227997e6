//! Members that meet, and packets as Java writes them.

use super::*;
use crate::digest_md5::{MEMBERS, NONCE_LEN};

fn acceptor() -> MemberAcceptor {
    MemberAcceptor::new(Acceptor::new(MEMBERS, [1; NONCE_LEN]))
}

fn initiator(user: &str, password: &str) -> Initiator {
    Initiator::new(MEMBERS, user, password, [2; NONCE_LEN])
}

fn learner(user: &str) -> Option<&'static str> {
    (user == "learner").then_some("learnpw")
}

fn from_hex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap()).collect()
}

/// Bytes in pieces of `len` at most, each direction in turn.
fn meet(len: usize, password: &str) -> (Result<bool, MemberFailure>, Result<Login, MemberFailure>) {
    let (mut out, mut back) = (Vec::new(), Vec::new());
    let mut dialler = MemberDialler::new(initiator("learner", password), &mut out);
    let mut acceptor = acceptor();
    loop {
        let mut login = None;
        let (mut from, mut to) = (0, len.min(out.len()));
        while from < out.len() {
            match acceptor.receive(&out[from..to], &mut back, learner) {
                Ok((used, done)) => (from, login) = (from + used, done.or(login)),
                Err(failure) => {
                    return (dialler.receive(&back, &mut Vec::new()).map(|r| r.1), Err(failure));
                }
            }
            to = (to + len).min(out.len());
        }
        out.clear();
        let (mut from, mut to) = (0, len.min(back.len()));
        let mut done = false;
        while from < back.len() {
            let (used, now) = dialler.receive(&back[from..to], &mut out).unwrap();
            (from, done) = (from + used, now);
            to = (to + len).min(back.len());
        }
        back.clear();
        if let Some(login) = login {
            return (Ok(done), Ok(login));
        }
    }
}

#[test]
fn members_meet() {
    for len in [1, 7, 16, 10_000] {
        let (dialled, accepted) = meet(len, "learnpw");
        assert_eq!(dialled, Ok(true));
        assert_eq!(accepted.unwrap().user, "learner");
    }
}

#[test]
fn a_wrong_password_is_told() {
    let (dialled, accepted) = meet(10_000, "guess");
    assert_eq!(dialled, Err(MemberFailure::Refused));
    let failure = Failure::WrongPassword("learner".into());
    assert_eq!(accepted, Err(MemberFailure::Login(failure)));
}

#[test]
fn packets_are_javas() {
    let mut out = Vec::new();
    let _ = MemberDialler::new(initiator("learner", "learnpw"), &mut out);
    assert_eq!(out, from_hex("5f2435013501edcc0000000000000000"));
    out.clear();
    write(&mut out, SUCCESS, None);
    assert_eq!(out, from_hex("5f2435013501edcc00000001ffffffff"));
    assert_eq!(read(&out), Ok(Some((1, &[][..], 16))));
    out.clear();
    let failure = acceptor().receive(&[0; 20], &mut out, learner).unwrap_err();
    assert_eq!(failure, MemberFailure::Malformed);
    assert_eq!(out, from_hex("5f2435013501edccffffffff00000000"));
}

#[test]
fn what_can_be_no_packet_is_not_waited_for() {
    let mut packet = from_hex("5f2435013501edcc00000000");
    assert_eq!(read(&packet[..3]), Ok(None));
    assert_eq!(read(&packet), Ok(None));
    assert_eq!(read(&[0x5f, 0x25]), Err(MemberFailure::Malformed));
    let len = i32::try_from(2 * TOKEN_LEN_MAX).unwrap();
    packet.extend(len.to_be_bytes());
    assert_eq!(read(&packet), Err(MemberFailure::Malformed));
    packet.splice(12.., (-2_i32).to_be_bytes());
    assert_eq!(read(&packet), Err(MemberFailure::Malformed));
}

/// The password is right, and that is not enough.
#[test]
fn nobody_acts_as_somebody_else() {
    let (mut acceptor, mut out) = (acceptor(), Vec::new());
    let mut packet = Vec::new();
    write(&mut packet, IN_PROGRESS, Some(&[]));
    acceptor.receive(&packet, &mut out, learner).unwrap();
    let nonce = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB";
    // MD5 as of RFC 2831 with authzid="other".
    let response = other_response(nonce);
    packet.clear();
    write(&mut packet, IN_PROGRESS, Some(response.as_bytes()));
    out.clear();
    let failure = acceptor.receive(&packet, &mut out, learner).unwrap_err();
    let (user, authzid) = ("learner".into(), "other".into());
    assert_eq!(failure, MemberFailure::Other { user, authzid });
    assert_eq!(out, from_hex("5f2435013501edccffffffff00000000"));
}

fn other_response(nonce: &str) -> String {
    use md5::{Digest, Md5};
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let (realm, uri) = ("zk-quorum-sasl-md5", "zookeeper-quorum/zk-quorum-sasl-md5");
    let mut a1 = Md5::digest(format!("learner:{realm}:learnpw")).to_vec();
    a1.extend(format!(":{nonce}:c:other").bytes());
    let a2 = hex(&Md5::digest(format!("AUTHENTICATE:{uri}")));
    let all = format!("{}:{nonce}:00000001:c:auth:{a2}", hex(&Md5::digest(a1)));
    let response = hex(&Md5::digest(all));
    format!(
        "username=\"learner\",realm=\"{realm}\",nonce=\"{nonce}\",nc=00000001,cnonce=\"c\",\
         digest-uri=\"{uri}\",response={response},qop=auth,authzid=\"other\""
    )
}
