//! What members of ours tell each other after the bytes that ZooKeeper reads.
//!
//! FOLLOWERINFO, OBSERVERINFO, LEADERINFO, ACKEPOCH and notifications may be longer than ZooKeeper
//! knows them: it reads its fields and throws the rest away. The rest is a mark and a list of fields,
//! each with a tag and a length (u16 both), so that a member can skip what it does not know. Who
//! finds no mark talks to a server that has none of this, and behaves as ZooKeeper does.

use bytes::{Buf, BufMut};

/// What the list begins with, so that nothing else is taken for it.
const MARK: &[u8; 4] = b"zab+";

/// The longest list that is read, in bytes.
const LEN_MAX: usize = 1024;

/// Names of the fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tag(pub u16);

impl Tag {
    /// From a learner: it can join below its promise, as a guest. From a leader: it does. In
    /// ACKEPOCH: the guest's current epoch (i64), which its -1 does not tell.
    pub const GUEST: Self = Self(1);

    /// In FOLLOWERINFO, OBSERVERINFO, LEADERINFO and notifications: which ensemble the sender's data
    /// directory belongs to (an id of 16 bytes, and 1 if it is confirmed). Empty: it has no id yet, and
    /// would take one.
    pub const IDENTITY: Self = Self(2);

    /// In FOLLOWERINFO and OBSERVERINFO: the pause between heartbeats that the learner wants, in
    /// milliseconds (u16). In LEADERINFO: the one that it is granted, from now on. Zero is as good as
    /// no such field: there are none.
    pub const HEARTBEAT: Self = Self(3);

    /// In LEADERINFO to a live follower with heartbeats: whether the ensemble can spare it (u8: 1 if so),
    /// from now on.
    pub const SPARE: Self = Self(4);
    /// In a notification, if the server that it votes for is a voter only of a configuration that is being
    /// introduced: that server's line in it, without the `server.N=`. Who has not heard of the change can
    /// then vote for that server and follow it; its own quorums stay as they are.
    pub const CANDIDATE: Self = Self(5);
    /// In a notification, empty: the receiver is a voter of a configuration that is being introduced, which it
    /// may not have heard of. The epoch may need it, so that it has to learn from the leader itself.
    pub const VOTER: Self = Self(6);
}

/// The fields after the first `known` bytes of a message. Reads nothing that is cut off or has no
/// mark.
pub fn fields(data: Option<&[u8]>, known: usize) -> impl Iterator<Item = (Tag, &[u8])> {
    let list = data.and_then(|data| data.get(known..)).and_then(|rest| rest.strip_prefix(MARK));
    let mut rest = list.filter(|list| list.len() <= LEN_MAX).unwrap_or_default();
    core::iter::from_fn(move || {
        let tag = Tag(rest.try_get_u16().ok()?);
        let len = rest.try_get_u16().ok()?;
        let (value, after) = rest.split_at_checked(usize::from(len))?;
        rest = after;
        Some((tag, value))
    })
}

/// The value of one field.
#[must_use]
pub fn field(data: Option<&[u8]>, known: usize, tag: Tag) -> Option<&[u8]> {
    fields(data, known).find(|(found, _)| *found == tag).map(|(_, value)| value)
}

/// Begins a list.
pub fn begin(out: &mut impl BufMut) {
    out.put_slice(MARK);
}

/// Adds a field to a list that was begun. A value longer than 65,535 bytes is left out.
pub fn put(out: &mut impl BufMut, tag: Tag, value: &[u8]) {
    if let Ok(len) = u16::try_from(value.len()) {
        out.put_u16(tag.0);
        out.put_u16(len);
        out.put_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn fields_are_found_behind_what_is_known() {
        let mut data = b"known".to_vec();
        begin(&mut data);
        put(&mut data, Tag(7), b"");
        put(&mut data, Tag(900), b"value");
        let all: Vec<_> = fields(Some(&data), 5).collect();
        assert_eq!(all, [(Tag(7), &b""[..]), (Tag(900), &b"value"[..])]);
        assert_eq!(field(Some(&data), 5, Tag(900)), Some(&b"value"[..]));
        assert_eq!(field(Some(&data), 5, Tag(8)), None);
    }

    #[test]
    fn anything_else_is_nothing() {
        let none = |data: Option<&[u8]>| assert_eq!(fields(data, 4).count(), 0, "{data:?}");
        none(None);
        for data in [&b""[..], b"abc", b"abcd", b"abcdzab", b"abcdzab+", b"abcdzab-\0\x01\0\0"] {
            none(Some(data));
        }
        // A field that is cut off ends the list.
        let mut data = b"abcd".to_vec();
        begin(&mut data);
        put(&mut data, Tag(1), b"x");
        put(&mut data, Tag(2), b"yz");
        for len in 0..data.len() {
            assert!(fields(Some(&data[..len]), 4).count() <= 1);
        }
        // Twice the bound.
        let mut long = b"abcd".to_vec();
        begin(&mut long);
        put(&mut long, Tag(1), &[0; 2 * LEN_MAX]);
        none(Some(&long));
    }
}
