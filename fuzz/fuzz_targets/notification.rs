//! Frames on an election connection, and the notifications in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zab_fuzz::{encoded, parse_in_pieces};
use zab_proto::Membership;
use zab_proto::wire::Parsed;
use zab_proto::wire::notification::{FRAME_HEAD_LEN, Notification, parse_frame};

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    while let Parsed::Complete { value, len } = parse_in_pieces(rest, parse_frame) {
        notification(value);
        rest = &rest[len..];
    }
    // The payload without a frame, too: its length is hard to guess right.
    notification(data);
});

fn notification(payload: &[u8]) {
    let Ok(first) = Notification::parse(payload) else { return };
    let frame = encoded(|out| first.write_frame(out));
    assert_eq!(Notification::parse(&frame[FRAME_HEAD_LEN..]), Ok(first));
    let _ = first.server_state();
    if let Some(config) = first.config {
        let _ = Membership::parse_text(config);
    }
}
