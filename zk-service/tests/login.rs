//! Who has to log in, and with what.

mod harness;

use std::collections::BTreeSet;
use std::time::Duration;

use harness::{Client, World, reply};
use zab_harness::client::{auth, create, request};
use zk_service::{EnsembleAuth, Opcode, ServiceOptions, WallClock};

const CREATE: i32 = Opcode::Create.wire();
const PING: i32 = Opcode::Ping.wire();
const CLOSE: i32 = Opcode::CloseSession.wire();
const AUTH: i32 = Opcode::Auth.wire();
const SASL: i32 = Opcode::Sasl.wire();
const WHO_AM_I: i32 = Opcode::WhoAmI.wire();

fn options() -> ServiceOptions {
    ServiceOptions::default().with(|options| options.tick_time = Duration::from_secs(2))
}

fn schemes(names: &[&str]) -> ServiceOptions {
    let enforce_auth = names.iter().map(|&name| name.into()).collect();
    options().with(|options| options.enforce_auth = enforce_auth)
}

/// The code of the next reply.
fn code(world: &mut World, client: Client) -> Option<i32> {
    world.frame(client).map(|frame| reply(&frame).2)
}

#[test]
fn nothing_but_a_login_is_answered_to_who_has_none() {
    let mut world = World::ensemble(3, 0, &schemes(&["digest"]));
    for server in 0..3 {
        for op in [CREATE, 2, 3, 4, 5, 9, PING, 14, 22, 101, 106, WHO_AM_I, CLOSE, 999] {
            let (client, ..) = world.open(server, 10_000);
            // What comes behind is not looked at.
            let record = create("/stranger", b"", 0);
            let frames = [request(5, op, &record), request(6, AUTH, &auth("digest", b"a:b"))];
            world.send(client, &frames.concat());
            let frame = world.frame(client).expect("an answer");
            assert_eq!(reply(&frame), (5, 0, -124, &[][..]), "{op}");
            assert!(world.has_ended(client) && world.frame(client).is_none());
        }
        let (client, ..) = world.open(server, 10_000);
        assert_eq!(world.call(client, SASL, &[0; 4]), (0, vec![0xff; 4]), "a way to log in");
        assert_eq!(world.call(client, AUTH, &auth("ip", b"")).0, 0, "no login");
        world.send(client, &request(5, PING, &[]));
        assert_eq!(code(&mut world, client), Some(-124));
        let (client, ..) = world.open(server, 10_000);
        assert_eq!(world.call(client, AUTH, &auth("digest", b"a:b")).0, 0);
        assert_eq!(world.call(client, CREATE, &create("/n", b"", 2)).0, 0);
        assert_eq!(world.call(client, PING, &[]).0, 0);
    }
}

#[test]
fn one_of_several_schemes_is_enough() {
    let mut world = World::standalone(schemes(&["x509", "digest"]));
    let (client, ..) = world.open(0, 10_000);
    assert_eq!(world.call(client, AUTH, &auth("digest", b"a:b")).0, 0);
    assert_eq!(world.call(client, PING, &[]).0, 0);
    let mut world = World::standalone(schemes(&["ip"]));
    let (client, ..) = world.open(0, 10_000);
    assert_eq!(world.call(client, PING, &[]).0, 0, "who connects has an address");
    let super_digest = Some("super:lK75jTNcA+U9vtVEw5vB51mj/w4=".into());
    let mut world =
        World::standalone(schemes(&["super"]).with(|options| options.super_digest = super_digest));
    for (login, answer) in [("super:secret", 0), ("super:other", -124)] {
        let (client, ..) = world.open(0, 10_000);
        assert_eq!(world.call(client, AUTH, &auth("digest", login.as_bytes())).0, 0);
        world.send(client, &request(2, PING, &[]));
        assert_eq!(code(&mut world, client), Some(answer), "{login}");
    }
}

#[test]
fn the_session_of_who_is_refused_stays_until_it_expires() {
    let mut world = World::standalone(schemes(&["digest"]));
    let (client, session, password) = world.open(0, 10_000);
    world.send(client, &request(1, PING, &[]));
    assert!(world.has_ended(client));
    let (client, valid) = world.reopen(0, session, password);
    assert!(valid);
    assert_eq!(world.call(client, AUTH, &auth("digest", b"a:b")).0, 0);
    assert_eq!(world.call(client, PING, &[]).0, 0);
}

#[test]
fn a_client_can_make_sure_of_the_ensemble() {
    let names = |names: &[&str]| Some(names.iter().map(|&name| name.into()).collect());
    let cases: [(Option<EnsembleAuth>, &[u8], Option<i32>); 7] = [
        (None, b"blue", Some(-115)),
        (Some(EnsembleAuth { names: None }), b"blue", Some(0)),
        (Some(EnsembleAuth { names: names(&["red", "blue"]) }), b"blue", Some(0)),
        (Some(EnsembleAuth { names: names(&["red"]) }), b"", Some(0)),
        (Some(EnsembleAuth { names: names(&["red"]) }), b"blue", None),
        (Some(EnsembleAuth { names: names(&["red"]) }), b"Red", None),
        (Some(EnsembleAuth { names: names(&["red"]) }), b"red ", None),
    ];
    for (ensemble_auth, name, answer) in cases {
        let mut world =
            World::standalone(options().with(|options| options.ensemble_auth = ensemble_auth));
        let (client, ..) = world.open(0, 10_000);
        world.send(client, &request(1, AUTH, &auth("ensemble", name)));
        let why = String::from_utf8_lossy(name);
        assert_eq!(code(&mut world, client), answer, "{why}");
        assert_eq!(world.has_ended(client), answer != Some(0), "{why}");
        if answer == Some(0) {
            let (_, who) = world.call(client, WHO_AM_I, &[]);
            assert_eq!(who[..4], [0, 0, 0, 1], "it earns no identity");
        }
    }
}

/// Of three servers, one of which starts with a clock before 1970: nobody finds a session by looking
/// beside another one, and a restart gives none again.
#[test]
fn session_ids_cannot_be_guessed_from_others() {
    let wall_clock = WallClock::new(|| -1);
    let mut seen = BTreeSet::new();
    for _boot in 0..2 {
        let options = options().with(|options| {
            options.wall_clock = wall_clock.clone();
            options.max_client_cnxns = 0;
        });
        let mut world = World::ensemble(3, 0, &options);
        for server in 0..3 {
            for _ in 0..100 {
                let (_, session, password) = world.open(server, 10_000);
                assert_eq!(session >> 56, i64::try_from(server).expect("small") + 1);
                assert!(seen.insert(session), "given twice");
                assert!(world.reopen(server, session, password).1);
            }
        }
    }
    let seen: Vec<i64> = seen.into_iter().collect();
    let nearest = seen.windows(2).map(|pair| pair[1] - pair[0]).min().expect("many");
    // Of 600 numbers of 56 bits two are nearer than this once in ten million runs.
    assert!(nearest > 1 << 14, "{nearest}");
}
