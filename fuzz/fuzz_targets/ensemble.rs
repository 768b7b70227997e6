//! Configuration text, as it comes with notifications and NEWLEADER or from a file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zab_proto::{Membership, Member, Sid};

fuzz_target!(|data: &[u8]| {
    if let Ok(line) = std::str::from_utf8(data)
        && let Ok(member) = Member::parse(Sid(1), line)
    {
        let text = member.to_string();
        assert_eq!(Member::parse(Sid(1), &text).expect("our own line").to_string(), text);
    }
    let Ok(first) = Membership::parse_text(data) else { return };
    assert!(!first.is_quorum(|_| false));
    assert_eq!(first.is_quorum(|sid| first.is_voter(sid)), first.is_quorum(|_| true));
    if first.version < 0 {
        return; // Rendered without a sign, as ZooKeeper does, which it does not read either.
    }
    let text = first.text();
    let mut second = Membership::parse_text(text.as_bytes()).expect("our own text");
    assert_eq!(second.text(), text);
    second.version = -1;
    assert!(second.has_same_members(&first) && first.has_same_members(&second));
});
