//! Requests with null and empty fields, in any order and in any pieces, each answered as recorded
//! (`zk-service/tests/vectors/nulls`), whatever another connection sends in between.
//!
//! The input is a sequence of steps: a byte with the kind of step and a size of pieces, then two
//! bytes that name a case, or the length of what the other connection sends and that itself.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use zab_harness::client::{Connect, auth, reply, request, xid};
use zk_service::Opcode;

use crate::client::World;

const RECORDED: &str = include_str!("../../zk-service/tests/vectors/nulls/recorded.txt");
const OURS: &str = include_str!("../../zk-service/tests/vectors/nulls/ours.txt");
const JUDGED: usize = 0;
const OTHER: usize = 1;
const AUTH: i32 = Opcode::Auth.wire();
const PING: i32 = Opcode::Ping.wire();

struct Case {
    name: &'static str,
    login: &'static str,
    op: i32,
    record: Vec<u8>,
    answer: String,
}

static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
    let lines = |table: &'static str| {
        table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
    };
    let ours: HashMap<(&str, &str), String> = lines(OURS)
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .map(|words| ((words[0], words[1]), words[2..].join(" ")))
        .collect();
    lines(RECORDED)
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [name, login, op, record, ref answer @ ..] = words[..] else { panic!("{line}") };
            let bytes = (0..record.len() / 2).map(|at| &record[2 * at..2 * at + 2]);
            Case {
                name,
                login,
                op: op.parse().expect("a number"),
                record: bytes.map(|b| u8::from_str_radix(b, 16).expect("hex")).collect(),
                answer: ours.get(&(name, login)).cloned().unwrap_or_else(|| answer.join(" ")),
            }
        })
        .collect()
});

/// Runs the steps in `data`.
pub fn run(data: &[u8]) {
    let mut world = World::new();
    world.clients[JUDGED].frames = Some(Vec::new());
    for case in CASES.iter().filter(|case| matches!(case.name, "setup.node" | "setup.child")) {
        case.run(&mut world, usize::MAX);
    }
    let mut done = HashSet::new();
    let mut rest = data;
    while let Some((&[kind, high, low], more)) = rest.split_first_chunk::<3>() {
        let number = usize::from(u16::from_be_bytes([high, low]));
        let piece = usize::from(kind >> 1) + 1;
        rest = more;
        if kind & 1 == 1 {
            let (bytes, after) = more.split_at(number.min(more.len()));
            rest = after;
            // Not a name that is a case's, or a node that all share.
            let harmless =
                !bytes.windows(5).any(|w| w == b"/case") && !bytes.windows(2).any(|w| w == b"/n");
            if harmless {
                world.send(OTHER, bytes);
                world.settle();
            }
            continue;
        }
        // What belongs together has one name behind the first word: made, changed, looked at.
        let group = CASES[number % CASES.len()].group();
        if done.insert(group) && group != "node" && group != "child" {
            for case in CASES.iter().filter(|case| case.group() == group) {
                case.run(&mut world, piece);
            }
        }
    }
}

impl Case {
    fn group(&self) -> &'static str {
        ["setup.setACL.", "setACL.acl.", "getACL.after.", "setup."]
            .iter()
            .find_map(|head| self.name.strip_prefix(head))
            .unwrap_or(self.name)
    }

    /// Asks on a connection of its own, in pieces of so many bytes.
    fn run(&self, world: &mut World, piece: usize) {
        world.hang_up(JUDGED);
        world.settle();
        world.send(JUDGED, &Connect::new(10_000).to_vec());
        world.settle();
        assert_eq!(take_frames(world).len(), 1, "a session");
        if self.login != "-" {
            let record = auth("digest", self.login.as_bytes());
            assert_eq!(ask(world, 3, AUTH, &record, usize::MAX), Some((0, 0)));
        }
        let found = match ask(world, 5, self.op, &self.record, piece) {
            None => "end".into(),
            Some((code, len)) => {
                let goes_on = ask(world, xid::PING, PING, &[], usize::MAX).is_some();
                format!("{code} {len}{}", if goes_on { "" } else { " end" })
            }
        };
        // How many children the root has depends on the cases before.
        let first = |text: &str| text.split(' ').next().map(str::to_owned);
        if self.name.contains("getChildren") {
            assert_eq!(first(&found), first(&self.answer), "{} {}", self.name, self.login);
        } else {
            assert_eq!(found, self.answer, "{} {}", self.name, self.login);
        }
    }
}

/// The code and the length of the body of the reply; `None` if the connection ends.
fn ask(world: &mut World, xid: i32, op: i32, record: &[u8], piece: usize) -> Option<(i32, usize)> {
    world.clients[JUDGED].conn?;
    for bytes in request(xid, op, record).chunks(piece) {
        world.send(JUDGED, bytes);
        world.settle();
    }
    let frames = take_frames(world);
    let mut replies = frames.iter().map(|frame| reply(frame).expect("a whole one"));
    let (header, body) = replies.find(|(header, _)| [xid, xid::PING].contains(&header.xid))?;
    Some((header.code, body.len()))
}

fn take_frames(world: &mut World) -> Vec<Vec<u8>> {
    world.clients[JUDGED].frames.replace(Vec::new()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_table() {
        let steps: Vec<u8> = (0..u16::try_from(CASES.len()).expect("few"))
            .flat_map(|n| [6, n.to_be_bytes()[0], n.to_be_bytes()[1]])
            .collect();
        run(&steps);
    }

    #[test]
    fn any_order_and_pieces() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..200 {
            let steps: Vec<u8> = (0..150).map(|_| random.u8(..)).collect();
            run(&steps);
        }
    }
}
