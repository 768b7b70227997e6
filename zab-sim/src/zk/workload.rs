//! What clients ask for: few nodes, many clients, so that they meet.

use std::collections::BTreeMap;

use crate::rng::Rng;
use crate::zk::acl;
use crate::zk::wire::{Answer, Kind, Mode, Request, WatchKind};

/// The parents of all other nodes.
const PARENTS: [&str; 4] = ["/a", "/b", "/e", "/q"];
const PLAIN: Mode = Mode { kind: Kind::Persistent, sequential: false };

/// Long multis of a client.
pub(super) const LONG_MAX: u32 = 2;

/// One client's choices.
#[derive(Debug)]
pub(crate) struct Workload {
    client: u64,
    /// Makes all data different.
    serial: u64,
    /// Long multis that are still to come.
    long: u32,
    /// The versions it knows, by path.
    versions: BTreeMap<String, i32>,
}

impl Workload {
    /// With so many long multis, if it comes to that.
    pub(crate) fn new(client: usize, long: u32) -> Self {
        Self { client: client as u64 + 1, serial: 0, long, versions: BTreeMap::new() }
    }

    /// Creates the parents.
    pub(crate) fn furniture(&mut self) -> Vec<Request> {
        let open = || acl::world(acl::perms::ALL);
        let create = |path: &&str| Request::Create {
            path: (*path).to_owned(),
            data: self.data(),
            acl: open(),
            mode: PLAIN,
        };
        PARENTS.iter().map(create).collect()
    }

    fn data(&mut self) -> u64 {
        self.serial += 1;
        self.client << 32 | self.serial
    }

    fn create(&mut self, path: String, mode: Mode, rng: &mut Rng) -> Request {
        let open = !rng.chance(300);
        let acl = if open { acl::world(acl::perms::ALL) } else { list(&path, rng) };
        Request::Create { path, data: self.data(), acl, mode }
    }

    /// The next request. With `write` often enough a write.
    pub(crate) fn next(&mut self, rng: &mut Rng, write: bool) -> Request {
        match rng.below(if write { 60 } else { 100 }) {
            0..5 => set_acl(rng),
            5..50 => self.write(rng),
            50..58 => self.multi(rng),
            58..62 => Request::Sync { path: path(rng) },
            62..64 => Request::Ping,
            64..66 => Request::Ephemerals,
            66..72 => watch(rng),
            _ => self.read(rng),
        }
    }

    fn write(&mut self, rng: &mut Rng) -> Request {
        let ephemeral = rng.chance(500);
        let kind = if ephemeral { Kind::Ephemeral } else { Kind::Persistent };
        match rng.below(11) {
            0..3 => {
                let path = if ephemeral { lock(rng) } else { path(rng) };
                self.create(path, Mode { kind, sequential: false }, rng)
            }
            3..5 => {
                let path = rng.pick(&["/q/n-", "/q/n-", "/a/n-", "/b/n-"]).to_owned();
                self.create(path, Mode { kind, sequential: true }, rng)
            }
            5..7 => {
                let path = self.known_or_random(rng);
                let version = self.version(&path, rng);
                Request::Delete { path, version }
            }
            7 => self.short_lived(rng),
            _ => {
                let path = path(rng);
                let version = self.version(&path, rng);
                Request::Set { path, data: self.data(), version }
            }
        }
    }

    /// A container or TTL node, or something in one.
    fn short_lived(&mut self, rng: &mut Rng) -> Request {
        let (path, mode) = match rng.below(6) {
            0 | 1 => (container(rng), Mode { kind: Kind::Container, sequential: false }),
            2 => (ttl_node(rng), Mode { kind: ttl(rng), sequential: false }),
            3 => ("/q/t-".to_owned(), Mode { kind: ttl(rng), sequential: true }),
            n => {
                let above = if n == 4 { container(rng) } else { ttl_node(rng) };
                let kind = if rng.chance(500) { Kind::Ephemeral } else { Kind::Persistent };
                (format!("{above}/x"), Mode { kind, sequential: false })
            }
        };
        self.create(path, mode, rng)
    }

    fn multi(&mut self, rng: &mut Rng) -> Request {
        // Some are long, and take many turns of a server with short ones. They are few, as a list of thousands
        // of children that come and go is made in one piece in the end.
        let is_long = self.long > 0 && rng.chance(60);
        self.long -= u32::from(is_long);
        let count = if is_long { rng.range(20, 120) } else { rng.range(1, 4) };
        let numbered = |rng: &mut Rng| {
            let kind = if rng.chance(700) { Kind::Ephemeral } else { Kind::Persistent };
            (rng.pick(&["/q/n-", "/a/n-"]).to_owned(), Mode { kind, sequential: true })
        };
        let parts = (0..count).map(|_| {
            if count > 4 && rng.chance(950) {
                // Else hardly one of them would succeed as a whole.
                let (path, mode) = numbered(rng);
                self.create(path, mode, rng)
            } else if rng.chance(200) {
                let path = path(rng);
                let version = self.version(&path, rng);
                Request::Check { path, version }
            } else {
                self.write(rng)
            }
        });
        Request::Multi(parts.collect())
    }

    /// A read, with or without a watch.
    pub(crate) fn read(&mut self, rng: &mut Rng) -> Request {
        let watch = rng.chance(500);
        match rng.below(4) {
            0 => Request::GetAcl { path: path(rng) },
            1 => Request::Get { path: path(rng), watch },
            2 => Request::Exists { path: path(rng), watch },
            _ => Request::Children { path: rng.pick(&PARENTS).to_owned(), watch },
        }
    }

    /// Sometimes one of the nodes with a number, which are many.
    fn known_or_random(&self, rng: &mut Rng) -> String {
        if rng.chance(500) && !self.versions.is_empty() {
            let at = rng.index(self.versions.len());
            return self.versions.keys().nth(at).expect("below the length").clone();
        }
        path(rng)
    }

    fn version(&self, path: &str, rng: &mut Rng) -> i32 {
        match self.versions.get(path) {
            Some(version) if rng.chance(500) => *version,
            _ if rng.chance(100) => 1,
            _ => -1,
        }
    }

    /// Remembers the versions in an answer.
    pub(crate) fn learn(&mut self, request: &Request, answer: &Answer) {
        match (request, answer) {
            (_, Answer::Created(path, stat)) => {
                self.versions.insert(path.clone(), stat.version);
            }
            (
                Request::Set { path, .. } | Request::Exists { path, .. },
                Answer::Numbers(stat) | Answer::Data(_, stat),
            )
            | (Request::Get { path, .. }, Answer::Data(_, stat)) => {
                self.versions.insert(path.clone(), stat.version);
            }
            (Request::Delete { path, .. }, _) => {
                self.versions.remove(path);
            }
            _ => {}
        }
    }
}

fn set_acl(rng: &mut Rng) -> Request {
    let path = if rng.chance(200) { rng.pick(&PARENTS).to_owned() } else { path(rng) };
    let version = if rng.chance(800) { -1 } else { i32::from(rng.chance(500)) };
    Request::SetAcl { acl: list(&path, rng), path, version }
}

/// A list for a node: the parents must not be closed for good.
fn list(path: &str, rng: &mut Rng) -> Vec<acl::Entry> {
    if PARENTS.contains(&path) { acl::for_parents(rng) } else { acl::any(rng) }
}

/// Sets or removes a watch, with no look at the node.
fn watch(rng: &mut Rng) -> Request {
    let path = match rng.below(3) {
        0 => "/".to_owned(),
        1 => rng.pick(&PARENTS).to_owned(),
        _ => path(rng),
    };
    match rng.below(3) {
        0 => {
            let kinds = [
                WatchKind::Child,
                WatchKind::Data,
                WatchKind::Any,
                WatchKind::Persistent,
                WatchKind::Recursive,
            ];
            Request::RemoveWatches { path, kind: rng.pick(&kinds) }
        }
        n => Request::AddWatch { path, recursive: n == 1 },
    }
}

fn path(rng: &mut Rng) -> String {
    match rng.below(23) {
        20 => container(rng),
        21 => ttl_node(rng),
        22 => format!("{}/x", if rng.chance(500) { container(rng) } else { ttl_node(rng) }),
        0 => "/b".to_owned(),
        1 => "/e/lock0/below".to_owned(),
        2..6 => lock(rng),
        n => format!("{}/x{}", if n % 2 == 0 { "/a" } else { "/b" }, rng.below(3)),
    }
}

fn container(rng: &mut Rng) -> String {
    format!("/a/box{}", rng.below(2))
}

fn ttl_node(rng: &mut Rng) -> String {
    format!("/b/ttl{}", rng.below(2))
}

fn ttl(rng: &mut Rng) -> Kind {
    Kind::Ttl(rng.pick(&[1, 20, 100, 1000]))
}

fn lock(rng: &mut Rng) -> String {
    format!("/e/lock{}", rng.below(3))
}
