//! An ACL made ready to be asked: what a list grants to whom, without walking it.
//!
//! A list has as many entries as fit into a request, some 39,000, and a client asks about it as
//! often as it likes. So each list is kept as it came, with what it grants to everybody, which is
//! all that most are ever asked; who asks for more has it read, once, into a form in which a question
//! costs a few comparisons per identity of the client.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};

use hashbrown::{DefaultHashBuilder, HashSet};

use crate::protocol::acl::{Acl, AclList, write_acls};

/// Lists up to this length are compared entry by entry: that is faster than looking them up.
const PLAIN_LEN_MAX: usize = 8;

/// An ACL, and what it grants.
#[derive(Debug)]
pub(crate) struct Rules {
    count: i32,
    /// The encoded entries.
    entries: Box<[u8]>,
    /// What it grants to everybody; an empty list grants everything.
    everybody: i32,
    index: OnceLock<Index>,
}

/// A list that has been read.
#[derive(Debug)]
struct Index {
    acls: Box<[Acl]>,
    /// Ranges of addresses, with what they grant: sorted by the length of their prefix, then by the
    /// prefix.
    ranges: Box<[(u8, u32, i32)]>,
    /// The entries that want an identity equal to their own: hash and place, sorted by the hash if
    /// there are more than [`PLAIN_LEN_MAX`].
    names: Box<[(u64, u32)]>,
    /// Seeded, since clients choose the identities.
    hasher: DefaultHashBuilder,
}

impl Rules {
    /// From a list that is not null.
    pub(crate) fn read(list: AclList<'_>) -> Self {
        Self {
            count: i32::try_from(list.len()).unwrap_or(i32::MAX),
            entries: list.raw_entries().into(),
            everybody: if list.is_empty() { -1 } else { list.of_everybody() },
            index: OnceLock::new(),
        }
    }

    pub(crate) fn new(acls: &[Acl]) -> Self {
        let mut encoded = Vec::new();
        write_acls(acls, &mut encoded);
        let count = i32::try_from(acls.len()).unwrap_or(i32::MAX);
        Self::read(AclList::from_raw(count, &encoded[4..]))
    }

    /// The list itself.
    pub(crate) fn acls(&self) -> &[Acl] {
        &self.index().acls
    }

    /// Permissions that everybody has.
    pub(crate) fn of_everybody(&self) -> i32 {
        self.everybody
    }

    /// Length of the encoded list.
    pub(crate) fn len_bytes(&self) -> usize {
        self.entries.len()
    }

    /// Bytes that are read when something is asked.
    pub(super) fn unread_len(&self) -> usize {
        if self.index.get().is_some() { 0 } else { self.entries.len() }
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| Index::new(AclList::from_raw(self.count, &self.entries)))
    }

    /// Permissions that one identity brings.
    pub(super) fn of_identity(&self, scheme: &str, id: &str) -> i32 {
        self.index().of_identity(scheme, id)
    }

    /// Permissions of all entries of a scheme whose ids are names.
    pub(super) fn of_scheme(&self, scheme: &str) -> i32 {
        let Index { acls, names, .. } = self.index();
        let entries = names.iter().map(|(_, at)| &acls[*at as usize]);
        entries.filter(|e| *e.scheme == *scheme).fold(0, |perms, entry| perms | entry.perms)
    }

    /// Permissions that a set of identities brings.
    pub(super) fn of_set(&self, set: &IdSet<'_>) -> i32 {
        self.index().of_set(set)
    }
}

impl Index {
    fn new(list: AclList<'_>) -> Self {
        let acls = list.to_acls();
        let hasher = DefaultHashBuilder::default();
        let (ranges, names) = (ranges(&acls), names(&acls, &hasher));
        Self { acls, ranges, names, hasher }
    }

    fn of_identity(&self, scheme: &str, id: &str) -> i32 {
        match scheme {
            // An IPv6 peer is in no range.
            "ip" if !self.ranges.is_empty() => {
                id.parse().map_or(0, |address| self.of_address(address))
            }
            _ if is_named(scheme) => self.of_name(scheme, id),
            _ => 0,
        }
    }

    /// By a walk over whichever side is shorter.
    fn of_set(&self, set: &IdSet<'_>) -> i32 {
        let mut granted = 0;
        if self.names.len() < set.names.len() {
            for (_, at) in &self.names {
                let Acl { perms, scheme, id } = &self.acls[*at as usize];
                if set.names.contains(&(Cow::Borrowed(&**scheme), Cow::Borrowed(&**id))) {
                    granted |= perms;
                }
            }
        } else {
            for (scheme, id) in &set.names {
                granted |= self.of_name(scheme, id);
            }
        }
        if self.ranges.len() < set.addresses.len() {
            for (bits, from, perms) in &self.ranges {
                let at = set.addresses.partition_point(|address| address < from);
                if set.addresses.get(at).is_some_and(|address| prefix(*address, *bits) == *from) {
                    granted |= perms;
                }
            }
        } else {
            for address in &set.addresses {
                granted |= self.of_address(Ipv4Addr::from_bits(*address));
            }
        }
        granted
    }

    fn of_address(&self, address: Ipv4Addr) -> i32 {
        let mut granted = 0;
        let mut rest = &*self.ranges;
        while let Some(&(bits, ..)) = rest.first() {
            let (of_length, longer) = rest.split_at(rest.partition_point(|range| range.0 == bits));
            let wanted = prefix(address.to_bits(), bits);
            if let Ok(at) = of_length.binary_search_by_key(&wanted, |range| range.1) {
                granted |= of_length[at].2;
            }
            rest = longer;
        }
        granted
    }

    fn of_name(&self, scheme: &str, id: &str) -> i32 {
        let candidates = if self.names.len() <= PLAIN_LEN_MAX {
            &*self.names
        } else {
            let hash = self.hasher.hash_one((scheme, id));
            let from = &self.names[self.names.partition_point(|name| name.0 < hash)..];
            &from[..from.partition_point(|name| name.0 == hash)]
        };
        let entries = candidates.iter().map(|(_, at)| &self.acls[*at as usize]);
        let same = |entry: &&Acl| *entry.id == *id && *entry.scheme == *scheme;
        entries.filter(same).fold(0, |perms, entry| perms | entry.perms)
    }
}

/// Whether ids of this scheme are names, which an ACL has as they are.
pub(super) fn is_named(scheme: &str) -> bool {
    matches!(scheme, "digest" | "sasl" | "x509")
}

fn names(acls: &[Acl], hasher: &DefaultHashBuilder) -> Box<[(u64, u32)]> {
    let named = || (0..).zip(acls).filter(|(_, entry)| is_named(&entry.scheme));
    if named().count() <= PLAIN_LEN_MAX {
        return named().map(|(at, _)| (0, at)).collect();
    }
    let hash = |entry: &Acl| hasher.hash_one((&*entry.scheme, &*entry.id));
    let mut names: Box<[_]> = named().map(|(at, entry)| (hash(entry), at)).collect();
    names.sort_unstable();
    names
}

/// The identities of a requester that has many.
#[derive(Debug, Default)]
pub(super) struct IdSet<'a> {
    names: HashSet<(Cow<'a, str>, Cow<'a, str>)>,
    /// Sorted.
    addresses: Vec<u32>,
}

impl<'a> IdSet<'a> {
    pub(super) fn new(ids: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>) -> Self {
        let mut set = Self::default();
        for (scheme, id) in ids {
            if scheme == "ip" {
                set.addresses.extend(id.parse().map(Ipv4Addr::to_bits));
            } else if is_named(&scheme) {
                set.names.insert((scheme, id));
            }
        }
        set.addresses.sort_unstable();
        set
    }
}

fn ranges(acls: &[Acl]) -> Box<[(u8, u32, i32)]> {
    let of_address = acls.iter().filter(|entry| &*entry.scheme == "ip");
    let mut ranges: Vec<_> = of_address
        .filter_map(|entry| {
            let (address, bits) = parse_range(&entry.id)?;
            Some((bits, prefix(address.to_bits(), bits), entry.perms))
        })
        .collect();
    ranges.sort_unstable();
    ranges.dedup_by(|later, kept| {
        let same = (later.0, later.1) == (kept.0, kept.1);
        if same {
            kept.2 |= later.2;
        }
        same
    });
    ranges.into()
}

/// The first `bits` bits of an address; the others are zero.
fn prefix(address: u32, bits: u8) -> u32 {
    address & u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
}

/// An address, or a range of addresses as `address/bits`.
pub(super) fn parse_range(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, bits.parse().ok().filter(|bits| *bits <= 32)?),
        None => (text, 32),
    };
    Some((address.parse().ok()?, bits))
}

/// What has been found out about ACLs while one request is answered, so that each list is asked
/// once however many operations of the request are about nodes that share it.
///
/// A list is told by its address, so all that were asked about must outlive this.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    last: Option<(usize, i32)>,
    /// Made with the second list: most requests are about one.
    others: Option<HashMap<usize, i32>>,
}

impl Verdicts {
    /// What `rules` grants, from memory or by asking.
    pub(super) fn granted(&mut self, rules: &Arc<Rules>, ask: impl FnOnce() -> i32) -> i32 {
        let list = Arc::as_ptr(rules).addr();
        if let Some((known, granted)) = self.last
            && known == list
        {
            return granted;
        }
        let mut known = None;
        if let Some((other, granted)) = self.last.take() {
            let others = self.others.get_or_insert_default();
            others.insert(other, granted);
            known = others.get(&list).copied();
        }
        let granted = known.unwrap_or_else(ask);
        self.last = Some((list, granted));
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(entries: &[(i32, &str, &str)]) -> Rules {
        let acls = entries.iter().map(|&(perms, scheme, id)| Acl::new(perms, scheme, id));
        Rules::new(&acls.collect::<Vec<_>>())
    }

    #[test]
    fn ranges_cover_their_addresses() {
        let of = |entry, peer| rules(&[(1, "ip", entry)]).of_identity("ip", peer) != 0;
        assert!(of("10.1.2.3", "10.1.2.3"));
        assert!(of("10.1.0.0/16", "10.1.2.3"));
        assert!(of("10.1.77.0/16", "10.1.2.3"), "bits behind the prefix mean nothing");
        assert!(!of("10.1.0.0/16", "10.2.2.3"));
        assert!(of("1.1.1.1/0", "10.2.2.3"));
        assert!(!of("0.0.0.0/0", "::1"));
        for bad in ["1.2.3", "1.2.3.256", "1.2.3.4/33", "1.2.3.4/", "::1", "a"] {
            assert_eq!(parse_range(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_address_has_what_all_its_ranges_grant() {
        let list = rules(&[
            (1, "ip", "10.0.0.0/8"),
            (2, "ip", "10.1.0.0/16"),
            (4, "ip", "10.1.9.9/16"),
            (8, "ip", "10.1.2.3"),
            (16, "ip", "10.1.2.4"),
        ]);
        assert_eq!(list.of_identity("ip", "10.1.2.3"), 15);
        assert_eq!(list.of_identity("ip", "10.9.9.9"), 1);
        assert_eq!(list.of_identity("ip", "11.0.0.1"), 0);
        assert_eq!(list.of_everybody(), 0);
    }

    /// Every answer is that of a walk over the entries, for short lists and for long ones.
    #[test]
    fn a_long_list_answers_as_a_walk_does() {
        for len in [1, PLAIN_LEN_MAX, PLAIN_LEN_MAX + 1, 5000] {
            let schemes = ["digest", "sasl", "x509", "ip", "world", "other"];
            let acls: Vec<Acl> = (0..len)
                .map(|n| {
                    let id = match schemes[n % 6] {
                        "ip" => format!("10.{}.{}.0/{}", n % 7, n % 256, 8 + n % 25),
                        _ => format!("u{}:h", n % 1000),
                    };
                    Acl::new(1 << (n % 5), schemes[n % 6], &id)
                })
                .collect();
            let list = Rules::new(&acls);
            for n in (0..1100).step_by(7) {
                for scheme in ["digest", "sasl", "x509", "other"] {
                    let id = format!("u{n}:h");
                    let same = |e: &&Acl| scheme != "other" && *e.scheme == *scheme && *e.id == *id;
                    let walked = acls.iter().filter(same).fold(0, |p, e| p | e.perms);
                    assert_eq!(list.of_identity(scheme, &id), walked, "{len} {scheme}:{id}");
                }
                let peer = Ipv4Addr::new(
                    10,
                    u8::try_from(n % 9).unwrap(),
                    u8::try_from(n % 256).unwrap(),
                    1,
                );
                let within = |e: &&Acl| {
                    &*e.scheme == "ip"
                        && parse_range(&e.id).is_some_and(|(address, bits)| {
                            let differing = peer.to_bits() ^ address.to_bits();
                            differing.checked_shr(32 - u32::from(bits)).unwrap_or(0) == 0
                        })
                };
                let walked = acls.iter().filter(within).fold(0, |p, e| p | e.perms);
                assert_eq!(list.of_identity("ip", &peer.to_string()), walked, "{len} {peer}");
            }
            // Many identities at once, more than the list has entries and fewer.
            for count in [1, 7, 20_000] {
                let ids: Vec<_> = (0..count)
                    .flat_map(|n| {
                        let ip = format!("10.{}.{}.7", n % 5, n / 5 % 256);
                        [
                            ("digest", format!("u{}:h", n * 3)),
                            ("ip", ip),
                            ("world", "anyone".into()),
                        ]
                    })
                    .collect();
                let one_by_one =
                    ids.iter().fold(0, |p, (scheme, id)| p | list.of_identity(scheme, id));
                let pairs = ids.iter().map(|(scheme, id)| (Cow::Borrowed(*scheme), id.into()));
                assert_eq!(list.of_set(&IdSet::new(pairs)), one_by_one, "{len} {count}");
            }
        }
    }

    #[test]
    fn what_is_known_is_not_asked_again() {
        let lists: Vec<_> = (0..3).map(|n| Arc::new(rules(&[(n, "world", "anyone")]))).collect();
        let mut verdicts = Verdicts::default();
        let mut asked = 0;
        for list in lists.iter().chain(&lists).chain(lists.iter().rev()) {
            let granted = verdicts.granted(list, || {
                asked += 1;
                list.of_everybody()
            });
            assert_eq!(granted, list.of_everybody());
        }
        assert_eq!(asked, 3);
    }
}
