//! `key=value` pairs joined by commas, of which challenges and responses consist (RFC 2831, 7.1).

use std::borrow::Cow;

/// One pair; the key is in lower case.
pub(crate) type Directive<'a> = (Cow<'a, str>, Cow<'a, [u8]>);

/// Splits a message into its directives; `None` if it has none of that form.
pub(crate) fn parse(message: &[u8]) -> Option<Vec<Directive<'_>>> {
    let mut directives = Vec::new();
    let mut rest = message;
    loop {
        rest = trim(rest);
        let Some(first) = rest.first() else { return Some(directives) };
        if *first == b',' {
            rest = &rest[1..];
            continue;
        }
        let end = rest.iter().position(|byte| *byte == b'=')?;
        let key = trim_end(&rest[..end]);
        let is_name =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if key.is_empty() || !key.iter().all(is_name) {
            return None;
        }
        let key = std::str::from_utf8(key).ok()?;
        let (value, behind) = value(trim(&rest[end + 1..]))?;
        directives.push((Cow::Owned(key.to_ascii_lowercase()), value));
        rest = trim(behind);
        if !rest.is_empty() && rest[0] != b',' {
            return None;
        }
    }
}

fn value(bytes: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    if bytes.first() != Some(&b'"') {
        let end = bytes.iter().position(|byte| *byte == b',').unwrap_or(bytes.len());
        let token = trim_end(&bytes[..end]);
        return (!token.is_empty()).then_some((Cow::Borrowed(token), &bytes[end..]));
    }
    let mut text = Vec::new();
    let mut rest = bytes[1..].iter();
    loop {
        match rest.next()? {
            b'"' => return Some((Cow::Owned(text), rest.as_slice())),
            b'\\' => text.push(*rest.next()?),
            byte => text.push(*byte),
        }
    }
}

/// Appends `key="value"`.
pub(crate) fn push_quoted(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    out.extend(key.bytes());
    out.extend(b"=\"");
    for byte in value {
        let is_control = byte.is_ascii_control() && !matches!(byte, b'\t' | b'\n' | b'\r');
        if matches!(byte, b'"' | b'\\') || is_control {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn trim(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.iter().take_while(|byte| is_blank(byte)).count()..]
}

fn trim_end(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len() - bytes.iter().rev().take_while(|byte| is_blank(byte)).count()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs() {
        let of = |text: &str| {
            let found = parse(text.as_bytes())?;
            let shown =
                |(key, value): &Directive<'_>| format!("{key}={}", String::from_utf8_lossy(value));
            Some(found.iter().map(shown).collect::<Vec<_>>().join("|"))
        };
        for (text, expected) in [
            ("", Some("")),
            (",, ,", Some("")),
            ("a=b,C=\"d,\\\"e\\\\\"", Some("a=b|c=d,\"e\\")),
            (" a = b , c=\"\" ", Some("a=b|c=")),
            ("a", None),
            ("=b", None),
            ("a=", None),
            ("a=,b=c", None),
            ("a=\"b", None),
            ("a=\"b\"c", None),
            ("a=\"b\\", None),
            ("a,b=c", None),
        ] {
            assert_eq!(of(text).as_deref(), expected, "{text}");
        }
        let mut out = Vec::new();
        push_quoted(&mut out, "n", b"a\"b\\c\x7f\t");
        assert_eq!(out, b"n=\"a\\\"b\\\\c\\\x7f\t\"");
    }
}
