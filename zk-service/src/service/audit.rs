//! When a line of the audit log is written: with the transaction, on the server that answers it.

use hashbrown::{HashMap, HashSet};
use zab_proto::wire::txn::TxnHeader;

use crate::audit::{AuditLog, Lines, Who};
use crate::auth::Ids;
use crate::connection::entry::Entry;
use crate::connection::note::{Note, operation, users};
use crate::connection::order::InFlight;
use crate::protocol::opcode::Opcode;
use crate::protocol::txn::{Parts as TxnParts, Txn};
use crate::service::parts::Parts;
use crate::state::State;
use crate::state::apply::Applied;

/// A write is on its way: what its line will need is kept.
pub(super) fn note_for_audit(at: &mut Entry<'_>, parts: &Parts<'_>, op: Opcode, record: &[u8]) {
    if parts.env.options.audit.is_some() {
        at.client.notes.get_or_insert_default().push(Note::read(op, record));
    }
}

/// The transaction of a client's write has come, and is applied.
pub(super) fn audit_write(
    at: &mut Entry<'_>,
    parts: &Parts<'_>,
    request: &InFlight,
    txn: &Txn<'_>,
    applied: &Applied,
) {
    let Some(audit) = &parts.env.options.audit else { return };
    let client = &mut *at.client;
    let Some(note) = client.notes.as_mut().and_then(|notes| notes.pop()) else { return };
    let users = users(Ids::new(&client.ids[..request.ids_len]));
    let who = Who::new(client.session, users, client.remote.ip());
    let mut lines = audit.lines();
    match (note, txn) {
        (Note::Nothing, _) => {}
        (Note::Single { operation, path, znode_type, acl }, _) => {
            let is_refused = matches!(txn, Txn::Error(_));
            let is_done = !is_refused && applied.outcome.code.is_ok();
            let znode = if is_refused { path.as_deref() } else { txn.path() };
            lines.write(&who, (operation, is_done), znode, (znode_type, acl.as_deref()));
        }
        (Note::Multi(types), Txn::Multi(operations)) => {
            audit_multi(&mut lines, &who, &types, *operations, applied);
        }
        (Note::Multi(_), _) => refused_multi(&mut lines, &who),
    }
    lines.finish();
}

/// One line for each part that changes a node; one for all of a multi that was refused.
fn audit_multi(
    lines: &mut Lines<'_>,
    who: &Who,
    types: &HashMap<Box<str>, &'static str>,
    operations: TxnParts<'_>,
    applied: &Applied,
) {
    for (part, outcome) in operations.iter().zip(&applied.parts) {
        let Some(operation) = operation(outcome.kind) else { continue };
        let znode_type = part.path().and_then(|path| types.get(path)).copied();
        let znode_type = znode_type.filter(|_| operation == "create");
        lines.write(who, (operation, true), part.path(), (znode_type, None));
    }
    if applied.parts.iter().any(|outcome| outcome.kind == Opcode::Error) {
        refused_multi(lines, who);
    }
}

fn refused_multi(lines: &mut Lines<'_>, who: &Who) {
    lines.write(who, ("multiOperation", false), None, (None, None));
}

/// The nodes that the end of a session will delete; to be called before it is applied. Each member has
/// these lines, and has them again when it reads its log after a restart.
pub(super) fn audit_close(audit: &AuditLog, state: &State, header: &TxnHeader, txn: &Txn<'_>) {
    let Txn::CloseSession(paths) = txn else { return };
    let (session, tree) = (header.client_id, state.tree());
    let mut lines = audit.lines();
    let mut listed = HashSet::new();
    for path in paths.iter().flat_map(|paths| paths.iter()) {
        lines.ephemeral(session, &path, tree.find(&path).is_some());
        listed.insert(path);
    }
    for node in tree.ephemerals_of(session) {
        if !listed.contains(node.path()) {
            lines.ephemeral(session, node.path(), true);
        }
    }
    lines.finish();
}
