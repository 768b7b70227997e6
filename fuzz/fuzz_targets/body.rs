//! What quorum packets carry, and the jute primitives beneath.
#![no_main]

use bytes::BufMut;
use libfuzzer_sys::fuzz_target;
use zab_fuzz::encoded;
use zab_proto::DecodeError;
use zab_proto::wire::body::{
    LearnerInfo, Request, Revalidated, Session, parse_activate, parse_i32,
};
use zab_proto::wire::jute::{self, BufMutExt, Reader};
use zab_proto::wire::txn::TxnHeader;

fuzz_target!(|data: &[u8]| {
    bodies(data);
    let text = jute::text(data);
    assert_eq!(text.as_bytes() == data, std::str::from_utf8(data).is_ok());
    assert_eq!(jute::text(text.as_bytes()), text, "decoded text is plain UTF-8");
    let _ = fields(data);
});

fn bodies(data: &[u8]) {
    let info = LearnerInfo::parse(Some(data));
    if let (Some(sid), true) = (info.sid, data.len() == LearnerInfo::LEN) {
        let again = LearnerInfo::parse(Some(&LearnerInfo::encode(sid, info.config_version)));
        assert_eq!((again.sid, again.config_version), (info.sid, info.config_version));
    }
    if let Ok(value) = Request::parse(data) {
        assert_eq!(encoded(|out| value.write(out)), data);
    }
    if let Ok(value) = TxnHeader::parse(data) {
        assert_eq!(encoded(|out| value.write(out)), data[..TxnHeader::LEN]);
    }
    if let Ok(value) = Revalidated::parse(data) {
        assert_eq!(Revalidated::parse(&encoded(|out| value.write(out))), Ok(value));
    }
    match Session::parse_all(data) {
        Ok(sessions) => {
            assert_eq!(encoded(|out| sessions.for_each(|session| session.write(out))), data);
        }
        Err(_) => assert_ne!(data.len() % Session::LEN, 0),
    }
    assert_eq!(parse_activate(data).is_ok(), data.len() >= 8);
    assert_eq!(parse_i32(Some(data)).is_ok(), data.len() >= 4);
}

/// Reads the fields that the input itself names, writes them again, and compares.
fn fields(data: &[u8]) -> Result<(), DecodeError> {
    let mut reader = Reader::with_field_len_max(data, 1000);
    loop {
        let start = reader.position();
        let kind = reader.bytes(1)?[0];
        let mut out = vec![kind];
        match kind % 6 {
            0 => out.put_i32(reader.i32()?),
            1 => out.put_i64(reader.i64()?),
            2 => out.put_buffer(reader.buffer()?),
            3 => out.put_buffer(reader.ustring()?),
            4 => {
                let count = reader.vector()?;
                out.put_i32(count.map_or(-1, |n| i32::try_from(n).expect("from an int")));
                if count == Some(0) {
                    continue; // Negative counts are read as 0.
                }
            }
            _ => {
                let _ = reader.bool()?;
                continue;
            }
        }
        assert_eq!(out, data[start..reader.position()]);
        assert_eq!(reader.position() + reader.remaining(), data.len());
    }
}
