//! What a multi's parts are in the log. Servers of 3.8.0 and 3.8.1 apply a multi no further than to a part that they
//! do not know: one of a kind that their own leader would not write makes their trees differ.

mod harness;

use harness::{Client, World, reply};
use zab_harness::client::{create, multi, request};
use zab_proto::wire::Parsed;
use zab_proto::wire::jute::Reader;
use zab_proto::wire::packet::{Packet, PacketType};
use zk_service::{Opcode, ServiceOptions};

const MULTI: i32 = Opcode::Multi.wire();
/// The types that `DataTree.processTxn` of 3.8.0 knows in a multi.
const KNOWN: [i32; 8] = [1, 2, 5, 13, 19, 20, 21, -1];
const TIMEOUT_MS: i32 = 30_000;

fn options() -> ServiceOptions {
    ServiceOptions::default().with(|options| options.extended_types = true)
}

/// The parts that create a node with each of these operations and flags.
fn parts(tag: &str, ops: &[(i32, i32)]) -> Vec<(i32, Vec<u8>)> {
    let part = |(at, (op, flags)): (usize, &(i32, i32))| {
        let mut record = create(&format!("/{tag}{at}"), b"x", *flags);
        if *op == Opcode::CreateTtl.wire() {
            record.extend(5000_i64.to_be_bytes());
        }
        (*op, record)
    };
    ops.iter().enumerate().map(part).collect()
}

/// The types of the results in the body of an answer; each tells the node's path and, if it is of type 15, when it was
/// made.
fn results(body: &[u8], zxid: i64) -> Vec<i32> {
    let mut reader = Reader::new(body);
    let mut types = Vec::new();
    loop {
        let (kind, done, _) = (reader.i32(), reader.bool(), reader.i32());
        if done.expect("a header") {
            return types;
        }
        let kind = kind.expect("a header");
        types.push(kind);
        match kind {
            1 => assert!(reader.ustring().is_ok(), "a path"),
            15 => {
                reader.ustring().expect("a path");
                assert_eq!(reader.i64().expect("a stat"), zxid, "czxid");
                (0..15).for_each(|_| assert!(reader.i32().is_ok(), "the rest of it"));
            }
            -1 => assert!(reader.i32().is_ok(), "a code"),
            _ => panic!("{kind}"),
        }
    }
}

/// The types of the parts of all multis that `from` has proposed to `to`.
fn logged(world: &World, from: usize, to: usize) -> Vec<Vec<i32>> {
    let mut bytes = world.sent.get(&(from, to)).map_or(&[][..], Vec::as_slice);
    let mut multis = Vec::new();
    while let Parsed::Complete { value, len } = Packet::parse(bytes, usize::MAX) {
        bytes = &bytes[len..];
        let mut reader = Reader::new(value.data.unwrap_or_default());
        // The header is client, cxid, zxid, time, type.
        let kind = (reader.i64(), reader.i32(), reader.i64(), reader.i64(), reader.i32()).4;
        if value.kind != PacketType::PROPOSAL || kind != Ok(MULTI) {
            continue;
        }
        let count = reader.i32().expect("a count");
        let part = |_| (reader.i32().expect("a type"), reader.buffer().expect("a record")).0;
        multis.push((0..count).map(part).collect());
    }
    multis
}

/// Each kind of create with each of its flags, asked of the leader and of a follower: the log has what 3.8.0 knows, and
/// the answers are those of 3.8.2 and 3.9.
#[test]
fn a_multi_is_logged_in_parts_that_all_releases_know() {
    let flags = |op, flags: std::ops::Range<i32>| flags.map(move |flags| (op, flags));
    let ops: Vec<(i32, i32)> =
        [1, 15, 19].into_iter().flat_map(|op| flags(op, 0..5)).chain(flags(21, 0..7)).collect();
    let mut world = World::ensemble(3, 0, &options());
    let leader = world.leader();
    let other = (leader + 1) % 3;
    for server in [leader, other] {
        let (client, ..) = world.open(server, TIMEOUT_MS);
        let record = multi(parts(&format!("s{server}-"), &ops));
        world.send(client, &request(7, MULTI, &record));
        let frame = world.frame(client).expect("an answer");
        let (xid, zxid, code, body) = reply(&frame);
        assert_eq!((xid, code), (7, 0));
        let told = [[1, 1, 1, 1, 15], [15; 5], [15; 5], [1, 1, 1, 1, 15]].concat();
        assert_eq!(results(body, zxid), [told, vec![15, 15]].concat());
    }
    let multis = logged(&world, leader, other);
    let wanted = [[1, 1, 1, 1, 19], [1, 1, 1, 1, 19], [19; 5], [1, 1, 1, 1, 19]].concat();
    let wanted = [wanted, vec![21, 21]].concat();
    assert!(wanted.iter().all(|kind| KNOWN.contains(kind)));
    assert_eq!(multis, [wanted.clone(), wanted]);
}

/// Each of many multis, asked one behind the other, some refused, is answered as it was asked.
#[test]
fn each_multi_is_answered_as_it_was_asked() {
    let mut world = World::ensemble(3, 0, &options());
    let leader = world.leader();
    for server in [leader, (leader + 1) % 3] {
        let (client, ..) = world.open(server, TIMEOUT_MS);
        ask(&mut world, client, server);
        check(&mut world, client, 0..30);
    }
}

/// What was under way when the leader was lost is submitted to the next one, and answered as it was asked.
#[test]
fn a_multi_that_is_submitted_again_is_answered_as_it_was_asked() {
    let mut world = World::ensemble(3, 0, &options());
    let leader = world.leader();
    let server = (leader + 1) % 3;
    let (client, ..) = world.open(server, TIMEOUT_MS);
    world.part(leader, server);
    ask(&mut world, client, server);
    world.kill(leader);
    world.heal();
    world.pass(std::time::Duration::from_secs(3));
    check(&mut world, client, 0..30);
}

/// Thirty multis: every third is refused, as its second part creates what its first has.
fn ask(world: &mut World, client: Client, server: usize) {
    let multis = (0..30).flat_map(|xid| {
        let ops = if xid % 2 == 0 { [(15, 0), (1, 0)] } else { [(1, 0), (1, 0)] };
        let mut parts = parts(&format!("m{server}-{xid}-"), &ops);
        if xid % 3 == 0 {
            parts.extend(parts.clone());
        }
        request(xid, MULTI, &multi(parts))
    });
    let bytes: Vec<u8> = multis.collect();
    world.send(client, &bytes);
}

fn check(world: &mut World, client: Client, xids: std::ops::Range<i32>) {
    for wanted in xids {
        let frame = world.frame(client).unwrap_or_else(|| panic!("no answer to {wanted}"));
        let (xid, zxid, code, body) = reply(&frame);
        assert_eq!((xid, code), (wanted, 0));
        let told = match (wanted % 3, wanted % 2) {
            (0, _) => vec![-1; 4],
            (_, 0) => vec![15, 1],
            _ => vec![1, 1],
        };
        assert_eq!(results(body, zxid), told, "{wanted}");
    }
}
