//! Frames of the clients' protocol.

/// A request frame.
pub(crate) fn request(xid: i32, op: i32, record: &[u8]) -> Vec<u8> {
    let len = i32::try_from(8 + record.len()).expect("short");
    let mut out = Vec::new();
    for number in [len, xid, op] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(record);
    out
}

pub(crate) fn string(text: &str) -> Vec<u8> {
    let mut out = i32::try_from(text.len()).expect("short").to_be_bytes().to_vec();
    out.extend_from_slice(text.as_bytes());
    out
}

/// A ConnectRequest.
pub(crate) fn connect_request(timeout_ms: i32, session: i64, password: [u8; 16]) -> Vec<u8> {
    let mut out = vec![0, 0, 0, 45];
    out.extend_from_slice(&[0; 12]);
    out.extend_from_slice(&timeout_ms.to_be_bytes());
    out.extend_from_slice(&session.to_be_bytes());
    out.extend_from_slice(&16_i32.to_be_bytes());
    out.extend_from_slice(&password);
    out.push(0);
    out
}

/// A record of create with the open ACL.
pub(crate) fn create(path: &str, data: &[u8], flags: i32) -> Vec<u8> {
    let mut out = string(path);
    out.extend_from_slice(&i32::try_from(data.len()).expect("short").to_be_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 31]);
    out.extend(string("world"));
    out.extend(string("anyone"));
    out.extend_from_slice(&flags.to_be_bytes());
    out
}

/// xid, zxid, error code and body of a reply.
pub(crate) fn reply(frame: &[u8]) -> (i32, i64, i32, &[u8]) {
    let number = |at: usize| i32::from_be_bytes(frame[at..at + 4].try_into().expect("four"));
    let zxid = i64::from_be_bytes(frame[4..12].try_into().expect("eight"));
    (number(0), zxid, number(12), &frame[16..])
}
