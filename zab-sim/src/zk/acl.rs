//! Access control as it ought to be: who a client is, and what a list lets it do.

use std::rc::Rc;

use bytes::BufMut;
use zab_proto::DecodeError;
use zab_proto::wire::jute::{BufMutExt, Reader};

use crate::rng::Rng;

/// Permission bits.
pub(crate) mod perms {
    pub(crate) const READ: i32 = 1;
    pub(crate) const WRITE: i32 = 2;
    pub(crate) const CREATE: i32 = 4;
    pub(crate) const DELETE: i32 = 8;
    pub(crate) const ADMIN: i32 = 16;
    pub(crate) const ALL: i32 = 31;
}

/// Who a client says it is, on each of its connections, before anything else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum User {
    Nobody,
    Al,
    Bob,
}

impl User {
    pub(crate) fn numbered(n: u64) -> Self {
        [Self::Nobody, Self::Al, Self::Bob][usize::from(n.to_le_bytes()[0] % 3)]
    }

    /// What addauth says.
    pub(crate) fn credentials(self) -> Option<&'static str> {
        match self {
            Self::Nobody => None,
            Self::Al => Some("al:pw"),
            Self::Bob => Some("bob:pw"),
        }
    }

    /// The identity of the scheme `digest` that it is known by then.
    pub(crate) fn id(self) -> Option<&'static str> {
        match self {
            Self::Nobody => None,
            Self::Al => Some("al:E2WgW72KiEUG4R7vIVBkt6SPXyA="),
            Self::Bob => Some("bob:ikIaKsbtGweaHnb/jKn7OHqbunM="),
        }
    }
}

/// An entry of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) perms: i32,
    pub(crate) scheme: String,
    pub(crate) id: String,
}

/// A node's list.
pub(crate) type Acl = Rc<[Entry]>;

fn entry(perms: i32, scheme: &str, id: &str) -> Entry {
    Entry { perms, scheme: scheme.to_owned(), id: id.to_owned() }
}

/// Everybody may do that much.
pub(crate) fn world(perms: i32) -> Vec<Entry> {
    vec![entry(perms, "world", "anyone")]
}

/// Whether one of the permissions `wanted` is granted.
pub(crate) fn permits(acl: &[Entry], wanted: i32, user: User) -> bool {
    acl.iter().filter(|entry| entry.perms & wanted != 0).any(|entry| match entry.scheme.as_str() {
        "world" => true,
        "digest" => user.id() == Some(&entry.id),
        _ => false,
    })
}

/// The list that a client's list stands for; `None`: it is refused.
pub(crate) fn meant(asked: &[Entry], user: User) -> Option<Acl> {
    let mut list: Vec<Entry> = Vec::new();
    for (at, entry) in asked.iter().enumerate() {
        if asked[..at].contains(entry) {
            continue;
        }
        list.push(match entry.scheme.as_str() {
            "world" if entry.id == "anyone" => entry.clone(),
            "digest" => entry.clone(),
            "auth" => self::entry(entry.perms, "digest", user.id()?),
            _ => return None,
        });
    }
    (!list.is_empty()).then(|| list.into())
}

/// What getACL shows: who may not change the list does not see what passwords become.
pub(crate) fn shown(acl: &[Entry], user: User) -> Vec<Entry> {
    let hide = !permits(acl, perms::ADMIN, user);
    let show = |entry: &Entry| match entry.id.split_once(':') {
        Some((name, _)) if hide && entry.scheme == "digest" => {
            Entry { id: format!("{name}:x"), ..entry.clone() }
        }
        _ => entry.clone(),
    };
    acl.iter().map(show).collect()
}

/// A list for a node that has children, which everybody may open again.
pub(crate) fn for_parents(rng: &mut Rng) -> Vec<Entry> {
    match rng.below(3) {
        0 => world(perms::ADMIN | i32::from(rng.below(32).to_le_bytes()[0])),
        _ => world(perms::ALL),
    }
}

/// A list of any kind; some are refused.
pub(crate) fn any(rng: &mut Rng) -> Vec<Entry> {
    let of = |user: User, perms| entry(perms, "digest", user.id().unwrap_or("nobody:x"));
    let some = i32::from(rng.below(32).to_le_bytes()[0]);
    match rng.below(10) {
        0 => Vec::new(),
        1 => vec![entry(some, "world", "someone")],
        2 => [world(some), world(some)].concat(),
        3 => vec![entry(perms::ALL, "auth", "")],
        4 => vec![entry(some, "auth", ""), entry(perms::READ, "world", "anyone")],
        5 => vec![of(User::Al, perms::ALL), of(User::Bob, some)],
        6 => vec![entry(perms::READ, "world", "anyone"), of(User::Bob, perms::ALL)],
        7 => vec![of(User::Nobody, perms::ALL), of(User::Al, some)],
        8 => world(some),
        _ => world(perms::ALL),
    }
}

/// Appends a `vector<ACL>`.
pub(crate) fn write(acl: &[Entry], out: &mut Vec<u8>) {
    out.put_len(acl.len());
    for entry in acl {
        out.put_i32(entry.perms);
        out.put_ustring(Some(&entry.scheme));
        out.put_ustring(Some(&entry.id));
    }
}

/// Reads a `vector<ACL>`.
pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Vec<Entry>, DecodeError> {
    let count = reader.vector()?.unwrap_or(0);
    (0..count).map(|_| read_entry(reader)).collect()
}

fn read_entry(reader: &mut Reader<'_>) -> Result<Entry, DecodeError> {
    let perms = reader.i32()?;
    let mut text = || reader.string()?.ok_or(DecodeError::BadLength(-1));
    Ok(Entry { perms, scheme: text()?.into_owned(), id: text()?.into_owned() })
}
