//! How ZooKeeper writes values as text.

use std::fmt::Write as _;

use jiff::{SignedDuration, civil};

pub(super) fn put_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
}

/// A string as jute's CSV has it: `'` in front, and as `%XX` what would not stay on the line or in
/// the field.
pub(super) fn put_string(out: &mut String, text: &str) {
    out.push('\'');
    for c in text.chars() {
        match c {
            ',' | '}' | '%' => {
                let _ = write!(out, "%{:02X}", u32::from(c));
            }
            c if c.is_control() => {
                let _ = write!(out, "%{:02X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

/// A buffer as jute's CSV has it: `#` and hexadecimal digits. Null is an empty one there, too.
pub(super) fn put_buffer(out: &mut String, data: Option<&[u8]>) {
    out.push('#');
    put_hex(out, data.unwrap_or_default());
}

/// Milliseconds since 1970 as a date in UTC: `2024-02-29T12:34:56.789Z`; as a number if their year has
/// more than four digits, as in a damaged file.
pub(super) fn date(ms: i64) -> String {
    let epoch = civil::date(1970, 1, 1).at(0, 0, 0, 0);
    match epoch.checked_add(SignedDuration::from_millis(ms)) {
        Ok(date) => format!("{date:.3}Z"),
        Err(_) => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (ms, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_210_096_789, "2024-02-29T12:34:56.789Z"),
            (1_735_689_599_999, "2024-12-31T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (253_402_300_800_000, "253402300800000ms"),
            (i64::MIN, "-9223372036854775808ms"),
        ] {
            assert_eq!(date(ms), expected);
        }
    }

    #[test]
    fn fields() {
        let mut out = String::new();
        put_string(&mut out, "/a,b}%\n\u{1b}ü");
        put_buffer(&mut out, Some(b"\x01\xab"));
        put_buffer(&mut out, None);
        assert_eq!(out, "'/a%2Cb%7D%25%0A%1Bü#01ab#");
    }
}
