//! The members of an ensemble change: what clients ask, are answered and are told.

mod harness;

use std::time::Duration;

use harness::{Client, World, reply};
use zab_harness::client::{auth, request, set_data, string, xid};
use zab_proto::{Limits, Membership, ServerState};
use zk_service::{Opcode, ServiceOptions};

const GET_DATA: i32 = Opcode::GetData.wire();
const SET_DATA: i32 = Opcode::SetData.wire();
const SET_ACL: i32 = Opcode::SetAcl.wire();
const RECONFIG: i32 = Opcode::Reconfig.wire();
const AUTH: i32 = Opcode::Auth.wire();

const MARSHALLING_ERROR: i32 = -5;
const BAD_ARGUMENTS: i32 = -8;
const NO_QUORUM: i32 = -13;
const NO_AUTH: i32 = -102;
const BAD_VERSION: i32 = -103;
const DISABLED: i32 = -123;

fn line(n: i64, role: &str) -> String {
    format!("server.{n}=10.0.0.{n}:10{n:02}:20{n:02}:{role};10.0.0.{n}:30{n:02}")
}

/// The configuration of these voters and observers.
fn ensemble(voters: &[i64], observers: &[i64]) -> Membership {
    let lines = voters.iter().map(|n| line(*n, "participant"));
    let lines = lines.chain(observers.iter().map(|n| line(*n, "observer")));
    let text = lines.collect::<Vec<_>>().join("\n");
    Membership::parse_text(text.as_bytes()).expect("good")
}

fn options(ensemble: &Membership) -> ServiceOptions {
    ServiceOptions::default().with(|options| {
        // super:secret
        options.super_digest = Some("super:lK75jTNcA+U9vtVEw5vB51mj/w4=".into());
        options.membership = Some(ensemble.text());
        options.reconfig = true;
    })
}

fn world(ensemble: &Membership) -> World {
    World::of(ensemble, &options(ensemble), &[], Limits::default())
}

fn text(text: Option<&str>) -> Vec<u8> {
    text.map_or_else(|| vec![0xff; 4], string)
}

fn change(
    joining: Option<&str>,
    leaving: Option<&str>,
    members: Option<&str>,
    version: i64,
) -> Vec<u8> {
    [text(joining), text(leaving), text(members), version.to_be_bytes().to_vec()].concat()
}

fn superuser(world: &mut World, server: usize) -> Client {
    let (client, ..) = world.open(server, 10_000);
    world.send(client, &request(xid::AUTH, AUTH, &auth("digest", b"super:secret")));
    assert_eq!(reply(&world.frame(client).expect("an answer")).2, 0);
    client
}

/// What the server answers, waiting for it.
fn ask(world: &mut World, client: Client, op: i32, record: &[u8]) -> (i32, Vec<u8>) {
    world.send(client, &request(77, op, record));
    for _ in 0..200 {
        if let Some(frame) = world.frame(client) {
            let (xid, _, code, body) = reply(&frame);
            assert_eq!(xid, 77, "events are read before");
            return (code, body.to_vec());
        }
        world.pass(Duration::from_millis(10));
    }
    panic!("no answer");
}

fn data(body: &[u8]) -> String {
    let len = i32::from_be_bytes(body[..4].try_into().expect("a length"));
    let end = 4 + usize::try_from(len).expect("data");
    assert_eq!(body.len(), end + 68, "a stat is behind it");
    String::from_utf8(body[4..end].to_vec()).expect("text")
}

fn mzxid(body: &[u8]) -> i64 {
    let stat = &body[body.len() - 68..];
    i64::from_be_bytes(stat[8..16].try_into().expect("eight bytes"))
}

fn config(world: &mut World, client: Client, watch: bool) -> (String, i64) {
    let record = [string("/zookeeper/config"), vec![u8::from(watch)]].concat();
    let (code, body) = ask(world, client, GET_DATA, &record);
    assert_eq!(code, 0);
    (data(&body), mzxid(&body))
}

/// The versions of members that each server has.
fn versions(world: &World) -> Vec<i64> {
    world.nodes.iter().map(|node| node.peer().config().ensemble.version).collect()
}

#[test]
fn the_first_configuration_has_the_version_of_its_epoch() {
    let members = ensemble(&[1, 2, 3], &[]);
    let mut world = world(&members);
    for server in 0..3 {
        let (client, ..) = world.open(server, 10_000);
        let (text, mzxid) = config(&mut world, client, false);
        assert_eq!(text, members.text().replace("version=0", "version=100000000"));
        assert_eq!(mzxid, 1 << 32);
    }
}

/// Each kind of refusal, in the order of the checks: every request has all that comes later wrong, too.
#[test]
fn refusals_in_their_order() {
    let members = ensemble(&[1, 2, 3], &[]);
    let mut world = world(&members);
    for server in [world.leader(), (world.leader() + 1) % 3] {
        let (nobody, ..) = world.open(server, 10_000);
        let joins = line(4, "participant");
        let strangers = [line(7, "participant"), line(8, "participant")].join(",");
        for (record, code) in [
            (vec![0; 3], MARSHALLING_ERROR),
            (change(Some("x"), Some("y"), Some(""), 17), BAD_VERSION),
            (change(Some("x"), Some("y"), None, -1), MARSHALLING_ERROR),
            (change(Some("x"), None, None, -1), BAD_ARGUMENTS),
            (change(None, Some("1,2,3"), None, -1), BAD_ARGUMENTS),
            (change(None, Some("1,2"), None, -1), BAD_ARGUMENTS),
            (change(None, None, Some(""), -1), BAD_ARGUMENTS),
            (change(None, None, Some(&line(1, "participant")), -1), BAD_ARGUMENTS),
            (change(None, None, Some(&strangers), -1), NO_QUORUM),
            (change(Some(&joins), Some("2,3"), None, -1), NO_QUORUM),
            (change(Some(&joins), None, None, -1), NO_AUTH),
            (change(None, None, None, 1 << 32), NO_AUTH),
        ] {
            assert_eq!(ask(&mut world, nobody, RECONFIG, &record).0, code, "{record:?}");
        }
    }
    assert_eq!(versions(&world), [1 << 32; 3]);
}

#[test]
fn without_reconfig_enabled_nothing_is_changed() {
    let members = ensemble(&[1, 2, 3], &[]);
    let options = options(&members).with(|options| options.reconfig = false);
    let mut world = World::of(&members, &options, &[], Limits::default());
    for server in 0..3 {
        let client = superuser(&mut world, server);
        let record = change(None, Some("3"), None, -1);
        assert_eq!(ask(&mut world, client, RECONFIG, &record).0, DISABLED);
        assert_eq!(config(&mut world, client, false), (members.text(), 0));
    }
}

/// Who has WRITE on `/zookeeper/config` may change the members. A superuser gives it, and no change of the
/// members takes it away.
#[test]
fn an_acl_gives_the_right() {
    let members = ensemble(&[1, 2, 3], &[]);
    let mut world = world(&members);
    let follower = (world.leader() + 1) % 3;
    let admin = superuser(&mut world, follower);
    let (user, ..) = world.open(follower, 10_000);
    let allow = |perms: i32| {
        let list = [&1_i32.to_be_bytes()[..], &perms.to_be_bytes()].concat();
        let who = [string("world"), string("anyone")].concat();
        [string("/zookeeper/config"), list, who, vec![0xff; 4]].concat()
    };
    let (read, write) = (1, 2);
    for (perms, code) in [(read, NO_AUTH), (read | write, 0), (read | write, 0), (read, NO_AUTH)] {
        assert_eq!(ask(&mut world, admin, SET_ACL, &allow(perms)).0, 0);
        assert_eq!(ask(&mut world, user, RECONFIG, &change(None, None, None, -1)).0, code);
    }
}

/// `conf` shows the members, ports and role of now.
#[test]
fn conf_follows() {
    let members = ensemble(&[1, 2, 3], &[]);
    let options = options(&members).with(|options| {
        options.four_letter_whitelist = vec!["*".into()];
        let rows =
            [("clientPort", "3001"), ("electionPort", "1"), ("quorumPort", "2"), ("peerType", "0")];
        options.conf = rows.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    });
    let mut world = World::of(&members, &options, &[], Limits::default());
    let moved = (world.leader() + 1) % 3;
    let n = i64::try_from(moved).expect("few") + 1;
    let line = format!("server.{n}=10.0.0.{n}:11{n:02}:21{n:02}:observer;10.0.0.{n}:31{n:02}");
    let leader = world.leader();
    let client = superuser(&mut world, leader);
    let record = change(Some(&line), None, None, -1);
    assert_eq!(ask(&mut world, client, RECONFIG, &record).0, 0);
    world.pass(Duration::from_secs(4));
    let asking = world.connect(moved).expect("accepted");
    world.send(asking, b"conf");
    let said = world.text(asking);
    let rows =
        format!("clientPort=31{n:02}\nelectionPort=21{n:02}\nquorumPort=11{n:02}\npeerType=1\n");
    assert!(said.starts_with(&rows) && said.contains(&line), "{said}");
}

/// One server joins, as an observer and then as a voter; everybody who watches hears of it, once, and a
/// client finds the version of its change.
#[test]
fn a_server_joins_and_is_promoted_and_another_one_leaves() {
    let members = ensemble(&[1, 2, 3], &[]);
    let mut world = world(&members);
    world.join(&ensemble(&[1, 2, 3], &[4]), &options(&members));
    let follower = (world.leader() + 1) % 3;
    let asking = superuser(&mut world, follower);
    let watching: Vec<Client> = (0..4).map(|server| world.open(server, 10_000).0).collect();
    for (joining, leaving, wanted) in [
        (Some(line(4, "observer")), None, ensemble(&[1, 2, 3], &[4])),
        (Some(line(4, "participant")), None, ensemble(&[1, 2, 3, 4], &[])),
        (None, Some((follower + 1).to_string()), {
            let left: Vec<i64> =
                (1..=4).filter(|n| *n != i64::try_from(follower).unwrap() + 1).collect();
            ensemble(&left, &[])
        }),
    ] {
        for client in &watching {
            config(&mut world, *client, true);
        }
        let record = change(joining.as_deref(), leaving.as_deref(), None, -1);
        let (code, body) = ask(&mut world, asking, RECONFIG, &record);
        assert_eq!(code, 0);
        let version = mzxid(&body);
        assert_eq!(
            data(&body),
            wanted.text().replace("version=0", &format!("version={version:x}"))
        );
        world.pass(Duration::from_secs(4));
        for client in &watching {
            // Clients of a server whose role changes are told when they go on, and may come first.
            let event = world.frame(*client).expect("an event");
            assert_eq!(event[..4], (-1_i32).to_be_bytes());
            assert!(event.ends_with(b"/zookeeper/config"));
            assert_eq!(config(&mut world, *client, false), (data(&body), version));
        }
        assert_eq!(versions(&world), [version; 4]);
    }
    // Who is asked to write: the one that is no member any more still forwards.
    let record = change(None, None, None, -1);
    assert_eq!(ask(&mut world, asking, RECONFIG, &record).0, 0);
}

/// The leader is removed: it hands over, and everybody goes on.
#[test]
fn the_leader_leaves() {
    let members = ensemble(&[1, 2, 3], &[]);
    let mut world = world(&members);
    let leader = world.leader();
    let client = superuser(&mut world, (leader + 1) % 3);
    let record = change(None, Some(&(leader + 1).to_string()), None, -1);
    assert_eq!(ask(&mut world, client, RECONFIG, &record).0, 0);
    world.pass(Duration::from_secs(4));
    world.wait_serving();
    assert_ne!(world.leader(), leader);
    assert_eq!(world.nodes[leader].peer().status().state, ServerState::Following);
    assert_eq!(ask(&mut world, client, RECONFIG, &change(None, None, None, -1)).0, 0);
}

/// A client may write into the node; that changes no member, and the next change replaces it.
#[test]
fn data_written_by_a_superuser_changes_no_member() {
    let members = ensemble(&[1, 2, 3], &[]);
    let mut world = world(&members);
    let client = superuser(&mut world, 0);
    let record = set_data("/zookeeper/config", line(9, "participant").as_bytes());
    assert_eq!(ask(&mut world, client, SET_DATA, &record).0, 0);
    assert_eq!(config(&mut world, client, false).0, line(9, "participant"));
    assert_eq!(versions(&world), [1 << 32; 3]);
    let (code, body) = ask(&mut world, client, RECONFIG, &change(None, Some("3"), None, -1));
    assert_eq!(code, 0);
    assert!(data(&body).starts_with(&line(1, "participant")));
    assert_eq!(config(&mut world, client, false).0, data(&body));
}
