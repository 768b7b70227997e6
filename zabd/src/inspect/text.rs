//! How ZooKeeper writes values as text.

use std::fmt::Write as _;

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

/// Milliseconds since 1970 as a date in UTC: `2024-02-29T12:34:56.789Z`.
pub(super) fn date(ms: i64) -> String {
    let (days, of_day) = (ms.div_euclid(DAY_MS), ms.rem_euclid(DAY_MS));
    let (year, month, day) = civil(days);
    let (h, m, s) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:03}Z", of_day % 1000)
}

const DAY_MS: i64 = 86_400_000;

/// Year, month and day of a number of days since 1970. Years begin in March here, so that the day
/// which may be missing is the last one.
fn civil(days: i64) -> (i64, i64, i64) {
    // 400 years always have as many days.
    const ERA_DAYS: i64 = 146_097;
    let days = days + 719_468; // since 0000-03-01
    let (era, of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
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
