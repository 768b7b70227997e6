//! What the audit log tells of a client's writes: their transactions, and what is kept of the requests until these come.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::Write as _;

use hashbrown::HashMap;

use crate::audit::{AuditLog, Lines, Who};
use crate::auth::{Ids, user_name};
use crate::protocol::acl::{AclList, perms};
use crate::protocol::opcode::{Opcode, auth_op, read_op, sync_op};
use crate::protocol::request::{self, Create};
use crate::protocol::txn::{Parts, Txn};
use crate::service::connection::Client;
use crate::service::connection::order::InFlight;

/// The names of all identities, joined by commas, in the order in which Java's set has them; `None`
/// if there is none.
fn users(ids: Ids<'_>) -> Option<String> {
    let mut names: Vec<(u32, String)> = ids
        .iter()
        // ZooKeeper has no provider of the scheme `super` to ask for a name.
        .filter(|(scheme, _)| scheme != "super")
        .map(|(scheme, id)| (java_hash(&scheme, &id), user_name(&scheme, &id).to_owned()))
        .collect();
    let mut slots = 16;
    while names.len() >= slots / 4 * 3 {
        slots *= 2;
    }
    names.sort_by_key(|(hash, _)| *hash as usize & (slots - 1));
    let names = names.into_iter().map(|(_, name)| name).filter(|name| !name.trim().is_empty());
    Some(names.collect::<Vec<_>>().join(",")).filter(|names| !names.is_empty())
}

/// Where an identity stands in a `ConcurrentHashMap`, whose order is that of these numbers, modulo
/// its size.
fn java_hash(scheme: &str, id: &str) -> u32 {
    let text = |text: &str| {
        text.encode_utf16().fold(0_u32, |hash, c| hash.wrapping_mul(31).wrapping_add(c.into()))
    };
    let hash = [text(scheme), text(id)]
        .into_iter()
        .fold(17_u32, |hash, field| hash.wrapping_mul(37).wrapping_add(field));
    (hash ^ (hash >> 16)) & 0x7fff_ffff
}

/// What the line of a write needs of its request, kept until its transaction has come.
#[derive(Debug)]
enum Note {
    /// There will be none: the end of a session, or what cannot be read.
    Nothing,
    /// One line.
    Single {
        operation: &'static str,
        path: Option<Box<str>>,
        znode_type: Option<&'static str>,
        acl: Option<Box<str>>,
    },
    /// The types of the nodes that a multi creates.
    Multi(Box<HashMap<Box<str>, &'static str>>),
}

impl Note {
    /// Of a request as it was sent.
    fn read(op: Opcode, record: &[u8]) -> Self {
        request::Write::decode(op, record).ok().and_then(Self::of).unwrap_or(Self::Nothing)
    }

    fn of(write: request::Write<'_>) -> Option<Self> {
        let single = |operation, path: Option<Cow<'_, str>>| Self::Single {
            operation,
            path: path.map(|path| Box::from(&*path)),
            znode_type: None,
            acl: None,
        };
        Some(match write {
            request::Write::Create(create) => Self::Single {
                operation: "create",
                znode_type: Some(znode_type(&create)?),
                path: Some(Box::from(&*create.path)),
                acl: None,
            },
            request::Write::Delete { path, .. } => single("delete", Some(path)),
            request::Write::SetData { path, .. } => single("setData", path),
            request::Write::SetAcl { path, acl, .. } => Self::Single {
                operation: "setAcl",
                path: path.map(|path| Box::from(&*path)),
                znode_type: None,
                acl: Some(acl_text(acl)?.into()),
            },
            request::Write::Multi(multi) => {
                let types = multi.iter().filter_map(|part| part_of_multi(&part));
                Self::Multi(Box::new(types.collect()))
            }
            request::Write::Reconfig(_) => single("reconfig", None),
            request::Write::Check { .. } | request::Write::CloseSession => return None,
        })
    }

    fn len_bytes(&self) -> usize {
        let text = |text: &Option<Box<str>>| text.as_deref().map_or(0, str::len);
        size_of::<Self>()
            + match self {
                Self::Nothing => 0,
                Self::Single { path, acl, .. } => text(path) + text(acl),
                Self::Multi(types) => {
                    let entry = size_of::<(Box<str>, &str)>();
                    types.keys().map(|path| 2 * entry + path.len()).sum()
                }
            }
    }
}

/// The type of a node that a multi creates. Of TTL nodes it is not told.
fn part_of_multi(part: &request::Write<'_>) -> Option<(Box<str>, &'static str)> {
    let request::Write::Create(create) = part else { return None };
    let is_told = create.op != Opcode::CreateTtl;
    let znode_type = znode_type(create).filter(|_| is_told)?;
    Some((Box::from(&*create.path), znode_type))
}

/// `CreateMode`, in small letters; `None` if the flags are none.
fn znode_type(create: &Create<'_>) -> Option<&'static str> {
    Some(match create.flags {
        0 => "persistent",
        1 => "ephemeral",
        2 => "persistent_sequential",
        3 => "ephemeral_sequential",
        4 => "container",
        5 => "persistent_with_ttl",
        6 => "persistent_sequential_with_ttl",
        _ => return None,
    })
}

/// `ZKUtil.aclToString`: the entries one after the other; `None` for a list that is null.
fn acl_text(acl: AclList<'_>) -> Option<String> {
    const LETTERS: [(i32, char); 5] = [
        (perms::CREATE, 'c'),
        (perms::DELETE, 'd'),
        (perms::READ, 'r'),
        (perms::WRITE, 'w'),
        (perms::ADMIN, 'a'),
    ];
    let mut text = String::new();
    for entry in acl.iter() {
        let (scheme, id) = (entry.scheme.as_deref(), entry.id.as_deref());
        let _ = write!(text, "{}:{}:", scheme.unwrap_or("null"), id.unwrap_or("null"));
        text.extend(LETTERS.iter().filter(|(bit, _)| entry.perms & bit != 0).map(|(_, c)| c));
    }
    Some(text).filter(|_| !acl.is_null())
}

/// What the audit log calls an operation; `None`: it does not tell of it.
fn operation(op: Opcode) -> Option<&'static str> {
    match op {
        Opcode::Create | Opcode::Create2 | Opcode::CreateContainer | Opcode::CreateTtl => {
            Some("create")
        }
        Opcode::Delete | Opcode::DeleteContainer => Some("delete"),
        Opcode::SetData => Some("setData"),
        Opcode::SetAcl
        | Opcode::Multi
        | Opcode::Reconfig
        | Opcode::CloseSession
        | Opcode::CreateSession
        | Opcode::Check
        | Opcode::Error
        | read_op!()
        | sync_op!()
        | auth_op!() => None,
    }
}

/// The notes of the writes in a connection's queue, in their order.
#[derive(Debug, Default)]
pub(super) struct Notes {
    notes: VecDeque<Note>,
    len_bytes: usize,
}

impl Notes {
    fn push(&mut self, note: Note) {
        self.len_bytes += note.len_bytes();
        self.notes.push_back(note);
    }

    fn pop(&mut self) -> Option<Note> {
        let note = self.notes.pop_front()?;
        self.len_bytes -= note.len_bytes();
        Some(note)
    }

    pub(super) fn len_bytes(&self) -> usize {
        self.len_bytes
    }
}

impl Client {
    /// A write is on its way: what its line will need is kept.
    pub(in crate::service) fn note_for_audit(&mut self, op: Opcode, record: &[u8]) {
        self.notes.get_or_insert_default().push(Note::read(op, record));
    }

    /// The transaction of its oldest write has come, and is applied.
    pub(in crate::service) fn audit_write(
        &mut self,
        audit: &AuditLog,
        request: &InFlight,
        txn: &Txn<'_>,
        is_ok: bool,
    ) {
        let Some(note) = self.notes.as_mut().and_then(|notes| notes.pop()) else { return };
        let users = users(Ids::new(&self.ids[..request.ids_len]));
        let who = Who::new(self.session, users, self.remote.ip());
        let mut lines = audit.lines();
        match (note, txn) {
            (Note::Nothing, _) => {}
            (Note::Single { operation, path, znode_type, acl }, _) => {
                let is_refused = matches!(txn, Txn::Error(_));
                let znode = if is_refused { path.as_deref() } else { txn.path() };
                let is_done = !is_refused && is_ok;
                lines.write(&who, (operation, is_done), znode, (znode_type, acl.as_deref()));
            }
            (Note::Multi(types), Txn::Multi(operations)) => {
                audit_multi(&mut lines, &who, &types, *operations);
            }
            (Note::Multi(_), _) => refused_multi(&mut lines, &who),
        }
        lines.finish();
    }
}

/// One line for each part that changes a node; one for all of a multi that was refused.
fn audit_multi(
    lines: &mut Lines<'_>,
    who: &Who,
    types: &HashMap<Box<str>, &'static str>,
    operations: Parts<'_>,
) {
    if operations.is_failed() {
        return refused_multi(lines, who);
    }
    for part in operations.iter() {
        let Some(operation) = operation(part.kind()) else { continue };
        let znode_type = part.path().and_then(|path| types.get(path)).copied();
        let znode_type = znode_type.filter(|_| operation == "create");
        lines.write(who, (operation, true), part.path(), (znode_type, None));
    }
}

fn refused_multi(lines: &mut Lines<'_>, who: &Who) {
    lines.write(who, ("multiOperation", false), None, (None, None));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::add_id;

    /// The order is that of a server of 3.8.0 (`interop/audit.py`).
    #[test]
    fn users_stand_in_the_order_of_javas_set() {
        let mut ids = Vec::new();
        add_id(&mut ids, "ip", "127.0.0.1");
        assert_eq!(users(Ids::new(&ids)).as_deref(), Some("127.0.0.1"));
        add_id(&mut ids, "digest", "bob:fyVmFCwVbTJYrznoSu1koqYEYF0=");
        add_id(&mut ids, "digest", "eve:vcGMCUlWFMiXiG/KAGnEJMiG2ww=");
        add_id(&mut ids, "super", "");
        add_id(&mut ids, "x509", " ");
        assert_eq!(users(Ids::new(&ids)).as_deref(), Some("bob,eve,127.0.0.1"));
        assert_eq!(users(Ids::new(&[])), None);
    }

    /// A queue may be a thousand requests long; what is kept for it is counted.
    #[test]
    fn notes_are_counted() {
        let mut notes = Notes::default();
        let mut record = Vec::new();
        record.extend([0, 0, 0, 3]);
        record.extend(b"/abc".iter().take(3));
        record.extend([0; 4]);
        for _ in 0..2000 {
            notes.push(Note::read(Opcode::Delete, &record));
            notes.push(Note::read(Opcode::Delete, &record[..4]));
        }
        assert_eq!(notes.len_bytes(), 4000 * size_of::<Note>() + 2000 * 3);
        assert!(matches!(notes.pop(), Some(Note::Single { operation: "delete", .. })));
        assert!(matches!(notes.pop(), Some(Note::Nothing)));
        while notes.pop().is_some() {}
        assert_eq!(notes.len_bytes(), 0);
    }
}
