//! What is read, written and refused below each child of the root: `read_per_namespace`,
//! `write_per_namespace` and `quota_exceeded_error_per_namespace` of ZooKeeper.
//!
//! How many bytes a read or a write is: the length of the path, that of the data which is written or
//! read, or of the names of the children which are listed, and with each read [`STAT_LEN_BYTES`] for the
//! numbers of the node. ZooKeeper keeps a summary for every name that it has ever seen. Here there are
//! [`NAMESPACES_MAX`] at one time: the first that come, and others in the place of those whose node has
//! been deleted since. What has no place is counted together.

use hashbrown::HashMap;

use super::Value;
use super::summary::{IS_MEASURED, Summary};
/// So many have summaries of their own.
const NAMESPACES_MAX: usize = 256;
/// Longer names have none, so that all together keep a tenth of a megabyte.
const NAME_LEN_MAX_BYTES: usize = 255;
/// What a node's numbers are on the wire: they come with every read.
const STAT_LEN_BYTES: usize = 68;

/// The first part of a path: the name of the child of the root that it leads through. The root has none.
pub(crate) fn namespace(path: &str) -> &str {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.find('/').map_or(path, |end| &path[..end])
}

/// What is read and written below one child of the root.
#[derive(Clone, Debug)]
struct Namespace {
    /// The child's name.
    name: Box<str>,
    /// Bytes of each read.
    reads: Summary,
    /// Bytes of each write.
    writes: Summary,
    /// Leader: writes refused for their quota.
    quota_exceeded: u64,
    /// The child has been deleted, and another name may have this place.
    is_gone: bool,
    /// This place is among [`Namespaces::gone`].
    is_listed: bool,
}

impl Namespace {
    /// Whether the path is that of the child or leads through it. To compare is less than to look where
    /// the path's first part ends.
    fn has(&self, path: &str) -> bool {
        let rest =
            path.as_bytes().get(1..).and_then(|path| path.strip_prefix(self.name.as_bytes()));
        rest.is_some_and(|rest| rest.first().is_none_or(|next| *next == b'/'))
    }
}

/// All that have summaries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Namespaces {
    places: Vec<Namespace>,
    by_name: HashMap<Box<str>, usize>,
    /// Places whose node is gone, or was and has come back. Each is here once at most.
    gone: Vec<usize>,
    /// Where the one before was: the next is often of the same namespace.
    last: usize,
    /// Reads and writes of namespaces that have no place.
    unlisted: u64,
}

impl Namespaces {
    /// The node at `path` was read, and `len` bytes of its data or of its children's names.
    pub(crate) fn read(&mut self, path: &str, len: usize) {
        if let Some(namespace) = self.of(path) {
            namespace.reads.add((path.len() + len + STAT_LEN_BYTES) as u64);
        }
    }

    /// A node was created or changed at `path`, with `len` bytes of data.
    pub(super) fn wrote(&mut self, path: &str, len: usize) {
        if let Some(namespace) = self.of(path) {
            namespace.writes.add((path.len() + len) as u64);
            namespace.is_gone = false;
        }
    }

    /// The node at `path` was deleted.
    pub(super) fn deleted(&mut self, path: &str) {
        let Some(of) = self.of(path) else { return };
        of.writes.add(path.len() as u64);
        // The child of the root itself. What was below it has gone before it.
        if of.name.len() + 1 != path.len() {
            return;
        }
        of.is_gone = true;
        if !std::mem::replace(&mut of.is_listed, true) {
            self.gone.push(self.last);
        }
    }

    /// A write below a namespace was refused for its quota.
    pub(crate) fn quota_exceeded(&mut self, path: &str) {
        if let Some(namespace) = self.of(path) {
            namespace.quota_exceeded += 1;
        }
    }

    /// What there is of each namespace, by its name, and of all that have no place.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (Option<&str>, &'static str, Value<'_>)> {
        let of_each = self.places.iter().flat_map(|place| {
            let some = |summary| Some(Value::Summary(summary)).filter(|_| summary.count > 0);
            let count = place.quota_exceeded;
            let rows = [
                ("read_per_namespace", some(&place.reads)),
                ("write_per_namespace", some(&place.writes)),
                (
                    "quota_exceeded_error_per_namespace",
                    Some(Value::Counter(count)).filter(|_| count > 0),
                ),
            ];
            let name = Some(&*place.name);
            rows.into_iter().filter_map(move |(metric, value)| Some((name, metric, value?)))
        });
        let unlisted = (None, "zab_unlisted_namespaces", Value::Counter(self.unlisted));
        of_each.chain([unlisted])
    }

    /// The namespace of a path. `None`: the root has none, and this one has no place.
    fn of(&mut self, path: &str) -> Option<&mut Namespace> {
        if !IS_MEASURED {
            return None;
        }
        if !self.places.get(self.last).is_some_and(|place| place.has(path)) {
            let name = namespace(path);
            if name.is_empty() {
                return None;
            }
            match self.by_name.get(name).copied().or_else(|| self.add(name)) {
                Some(at) => self.last = at,
                None => {
                    self.unlisted += 1;
                    return None;
                }
            }
        }
        self.places.get_mut(self.last)
    }

    fn add(&mut self, name: &str) -> Option<usize> {
        if name.len() > NAME_LEN_MAX_BYTES {
            return None;
        }
        let new = Namespace {
            name: name.into(),
            reads: Summary::default(),
            writes: Summary::default(),
            quota_exceeded: 0,
            is_gone: false,
            is_listed: false,
        };
        let at = if self.places.len() < NAMESPACES_MAX {
            self.places.push(new);
            self.places.len() - 1
        } else {
            let at = self.take_gone()?;
            let old = std::mem::replace(&mut self.places[at], new);
            self.by_name.remove(&old.name);
            at
        };
        self.by_name.insert(name.into(), at);
        Some(at)
    }

    /// A place whose node is gone.
    fn take_gone(&mut self) -> Option<usize> {
        while let Some(at) = self.gone.pop() {
            self.places[at].is_listed = false;
            if self.places[at].is_gone {
                return Some(at);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get<'a>(all: &'a Namespaces, name: &str) -> Option<&'a Namespace> {
        all.places.iter().find(|namespace| *namespace.name == *name)
    }

    #[test]
    fn bytes_are_those_of_zookeeper() {
        let mut all = Namespaces::default();
        all.wrote("/app", 0);
        all.wrote("/app/a", 100);
        all.read("/app", 3);
        all.wrote("/b", 1);
        all.deleted("/app/a");
        // The root has no namespace.
        all.read("/", 0);
        all.wrote("/", 5);
        let app = get(&all, "app").expect("it is there");
        assert_eq!(app.writes, Summary { count: 3, sum: 4 + 106 + 6, min: 4, max: 106 });
        assert_eq!(app.reads, Summary { count: 1, sum: 75, min: 75, max: 75 });
        let b = get(&all, "b").expect("it is there");
        assert_eq!(b.writes, Summary { count: 1, sum: 3, min: 3, max: 3 });
        assert_eq!((all.places.len(), all.unlisted), (2, 0));
    }

    #[test]
    fn twice_as_many_as_have_a_place() {
        let mut all = Namespaces::default();
        for n in 0..2 * NAMESPACES_MAX {
            all.wrote(&format!("/n{n}"), 0);
        }
        assert_eq!(all.places.len(), NAMESPACES_MAX);
        assert_eq!(all.unlisted, NAMESPACES_MAX as u64);
        all.read(&format!("/n{}", NAMESPACES_MAX), 0);
        assert_eq!(all.unlisted, NAMESPACES_MAX as u64 + 1);
        // Those that have one go on.
        all.read("/n0", 0);
        assert_eq!(get(&all, "n0").expect("it is there").reads.count, 1);
        let long = format!("/{}", "x".repeat(2 * NAME_LEN_MAX_BYTES));
        let mut few = Namespaces::default();
        few.wrote(&long, 0);
        assert_eq!((few.places.len(), few.unlisted), (0, 1));
        few.wrote(&long[..=NAME_LEN_MAX_BYTES], 0);
        assert_eq!(few.places.len(), 1);
    }

    #[test]
    fn a_place_that_is_free_is_used_again() {
        let mut all = Namespaces::default();
        let full = |all: &Namespaces| all.places.len() == NAMESPACES_MAX;
        for n in 0..NAMESPACES_MAX {
            all.wrote(&format!("/n{n}"), 0);
        }
        // It has come back: its place is not free.
        for _ in 0..5 {
            all.deleted("/n3");
            all.wrote("/n3", 0);
        }
        assert_eq!(all.gone.len(), 1);
        all.wrote("/late", 0);
        assert!(get(&all, "late").is_none() && get(&all, "n3").is_some() && full(&all));
        // Another one is gone, with a child before it.
        all.deleted("/n7/x");
        all.deleted("/n7");
        assert!(get(&all, "n7").is_some(), "until somebody needs its place");
        all.wrote("/late", 0);
        assert!(get(&all, "n7").is_none() && full(&all));
        assert_eq!(get(&all, "late").expect("it has a place").writes.count, 1);
        assert_eq!(all.by_name.len(), NAMESPACES_MAX);
        // And the name that had it comes again, for which there is none.
        all.wrote("/n7", 0);
        assert!(get(&all, "n7").is_none());
        for n in 0..10_000 {
            all.wrote(&format!("/t{n}"), 0);
            all.deleted(&format!("/t{n}"));
        }
        assert!(full(&all) && all.gone.len() <= NAMESPACES_MAX);
    }
}
