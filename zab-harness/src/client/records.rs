//! Records of the requests that tests send most. Others are put together of [`string`]s and numbers.

use bytes::BufMut;
use zab_proto::wire::jute::BufMutExt;

/// An ACL's entry that allows everybody everything: permissions, scheme, id.
pub const ANYONE: (i32, &str, &str) = (31, "world", "anyone");

fn record(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out);
    out
}

/// A path or another text by itself: getACL, sync, getEphemerals, getAllChildrenNumber.
pub fn string(text: &str) -> Vec<u8> {
    record(|out| out.put_ustring(Some(text)))
}

/// Appends a create, or a create2, of a node that is open to everybody. The `flags` are ZooKeeper's: 1 is ephemeral, 2
/// sequential, 4 a container, 5 and 6 a node with a time to live, whose record goes on with it.
pub fn put_create(out: &mut Vec<u8>, path: &str, data: &[u8], flags: i32) {
    put_create_with(out, path, data, &[ANYONE], flags);
}

fn put_create_with(
    out: &mut Vec<u8>,
    path: &str,
    data: &[u8],
    acl: &[(i32, &str, &str)],
    flags: i32,
) {
    out.put_ustring(Some(path));
    out.put_buffer(Some(data));
    out.put_len(acl.len());
    for (perms, scheme, id) in acl {
        out.put_i32(*perms);
        out.put_ustring(Some(scheme));
        out.put_ustring(Some(id));
    }
    out.put_i32(flags);
}

/// What [`put_create`] appends.
pub fn create(path: &str, data: &[u8], flags: i32) -> Vec<u8> {
    create_with(path, data, &[ANYONE], flags)
}

/// A create with another ACL.
pub fn create_with(path: &str, data: &[u8], acl: &[(i32, &str, &str)], flags: i32) -> Vec<u8> {
    record(|out| put_create_with(out, path, data, acl, flags))
}

/// Appends a path, and whether a watch is wanted: exists, getData, getChildren, getChildren2.
pub fn put_read(out: &mut Vec<u8>, path: &str, watch: bool) {
    out.put_ustring(Some(path));
    out.put_bool(watch);
}

/// What [`put_read`] appends.
pub fn read(path: &str, watch: bool) -> Vec<u8> {
    record(|out| put_read(out, path, watch))
}

/// A path with any version: delete, check.
pub fn any_version(path: &str) -> Vec<u8> {
    record(|out| {
        out.put_ustring(Some(path));
        out.put_i32(-1);
    })
}

/// Appends a setData of any version.
pub fn put_set_data(out: &mut Vec<u8>, path: &str, data: &[u8]) {
    out.put_ustring(Some(path));
    out.put_buffer(Some(data));
    out.put_i32(-1);
}

/// What [`put_set_data`] appends.
pub fn set_data(path: &str, data: &[u8]) -> Vec<u8> {
    record(|out| put_set_data(out, path, data))
}

/// A multi or a multiRead of these operations and records.
pub fn multi<R: AsRef<[u8]>>(parts: impl IntoIterator<Item = (i32, R)>) -> Vec<u8> {
    record(|out| {
        for (op, record) in parts {
            put_part(out, op, false);
            out.put_slice(record.as_ref());
        }
        put_part(out, -1, true);
    })
}

/// Appends what each part of a multi begins with, or what ends it: an operation, whether that was all, and an
/// error that nobody reads.
pub fn put_part(out: &mut Vec<u8>, op: i32, done: bool) {
    out.put_i32(op);
    out.put_bool(done);
    out.put_i32(-1);
}

/// Appends credentials.
pub fn put_auth(out: &mut Vec<u8>, scheme: &str, credentials: Option<&[u8]>) {
    out.put_i32(0);
    out.put_ustring(Some(scheme));
    out.put_buffer(credentials);
}

/// What [`put_auth`] appends.
pub fn auth(scheme: &str, credentials: &[u8]) -> Vec<u8> {
    record(|out| put_auth(out, scheme, Some(credentials)))
}

/// Appends a setWatches with three lists, a setWatches2 with five: the paths of nodes watched for data, existence and
/// children, and those with persistent and recursive watches.
pub fn put_set_watches<P: AsRef<str>>(out: &mut Vec<u8>, last_zxid: i64, lists: &[&[P]]) {
    out.put_i64(last_zxid);
    for list in lists {
        out.put_len(list.len());
        list.iter().for_each(|path| out.put_ustring(Some(path.as_ref())));
    }
}

/// What [`put_set_watches`] appends.
pub fn set_watches<P: AsRef<str>>(last_zxid: i64, lists: &[&[P]]) -> Vec<u8> {
    record(|out| put_set_watches(out, last_zxid, lists))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records as real clients send them (`zk-service/tests/vectors/client`).
    #[test]
    fn records_are_zookeepers() {
        let path = [0, 0, 0, 2, b'/', b'a'];
        let open = b"\0\0\0\x01\0\0\0\x1f\0\0\0\x05world\0\0\0\x06anyone";
        let create_a = [&path[..], b"\0\0\0\x01x", open, &[0, 0, 0, 3]].concat();
        assert_eq!(create("/a", b"x", 3), create_a);
        assert_eq!(read("/a", true), [&path[..], &[1]].concat());
        assert_eq!(any_version("/a"), [&path[..], &[0xff; 4]].concat());
        assert_eq!(set_data("/a", b""), [&path[..], &[0; 4], &[0xff; 4]].concat());
        assert_eq!(auth("ip", b"me"), b"\0\0\0\0\0\0\0\x02ip\0\0\0\x02me");
        assert_eq!(
            multi([(2, any_version("/a"))]),
            [&[0, 0, 0, 2, 0][..], &[0xff; 4], &path, &[0xff; 8], &[1], &[0xff; 4]].concat()
        );
        assert_eq!(
            set_watches(1, &[&["/a"], &[], &[]]),
            [&[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1][..], &path, &[0; 8]].concat()
        );
    }
}
