//! What things cost, in units of work: about nanoseconds of a release build.
//! `service/connection/schedule.rs` says what is done with them.

/// To take a request and to answer it.
pub(crate) const REQUEST: u64 = 500;
/// To prepare and later to apply one operation of a write, which its client is charged for.
pub(crate) const WRITE: u64 = 1500;
/// To decode a part of a multi, or to look at a record of what is pending.
pub(crate) const PART: u64 = 40;
/// To apply one operation of a transaction, by whomever.
pub(crate) const APPLY: u64 = 1000;
/// To read one node, beside the bytes.
pub(crate) const NODE: u64 = 150;
/// To set one watch.
pub(crate) const WATCH: u64 = 600;
/// To list one more child of a node.
pub(crate) const CHILD: u64 = 25;
/// How many children so much work lists; `None`: any number.
pub(crate) fn children(work: u64) -> Option<u32> {
    u32::try_from(work / CHILD).ok().map(|count| count.max(1))
}

/// To take a byte of a record apart that may hold many small things.
const PARSED_BYTE: u64 = 4;

/// To take a record of so many bytes apart.
pub(crate) fn parsed(len: usize) -> u64 {
    len as u64 * PARSED_BYTE
}

/// To copy so many bytes of a list out that is made already.
pub(crate) fn listed(len: usize) -> u64 {
    len as u64 / 4
}

/// To copy so many bytes into a reply and out of it.
pub(crate) fn bytes(len: usize) -> u64 {
    len as u64 / 2
}
