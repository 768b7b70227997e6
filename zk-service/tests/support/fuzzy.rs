//! Snapshots as ZooKeeper writes them: sessions and ACLs first, then the nodes one by one, each as it is by then.

use std::collections::BTreeMap;

use bytes::BufMut;
use zab_proto::wire::jute::BufMutExt;
use zk_service::Database;
use zk_service::acl::write_acls;

/// The beginning: sessions and ACLs as they are now.
pub(crate) fn begin(database: &Database) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_len(database.sessions.len());
    for (session, timeout_ms) in database.sessions.iter() {
        out.put_i64(session);
        out.put_i32(timeout_ms);
    }
    let mut acls = BTreeMap::new();
    for node in database.tree.node("/").unwrap().subtree() {
        acls.insert(node.acl_key(), node.acl().to_vec());
    }
    acls.remove(&-1);
    out.put_len(acls.len());
    for (key, acl) in acls {
        out.put_i64(key);
        write_acls(&acl, &mut out);
    }
    out
}

/// A node as it is now, if it is there; parents come first.
pub(crate) fn put_node(database: &Database, path: &str, out: &mut Vec<u8>) -> bool {
    let Some(node) = database.tree.node(path) else { return false };
    out.put_ustring(Some(path.trim_end_matches('/')));
    out.put_buffer(node.data());
    out.put_i64(node.acl_key());
    node.persisted().write(out);
    true
}

/// The end.
pub(crate) fn end(out: &mut Vec<u8>) {
    out.put_ustring(Some("/"));
}
