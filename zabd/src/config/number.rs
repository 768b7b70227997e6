//! Numbers as Java's readers take them. Which of them reads a key is in the [table](super::keys).

/// `Integer.parseInt` and `Long.parseLong`: decimal digits with an optional sign.
pub(super) fn parse(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// `Integer.getInteger` and `Long.getLong`: an optional sign, then `0x`, `0X` or `#` and hexadecimal
/// digits, or `0` and octal ones, or decimal ones.
pub(super) fn decode(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let hex = ["0x", "0X", "#"].iter().find_map(|prefix| digits.strip_prefix(prefix));
    let (digits, radix) = match (hex, digits.strip_prefix('0')) {
        (Some(hex), _) => (hex, 16),
        (None, Some(octal)) if !octal.is_empty() => (octal, 8),
        _ => (digits, 10),
    };
    // A second sign, which `from_str_radix` would take.
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    // Of the smallest number the positive counterpart does not exist.
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if negative { 0_i64.checked_sub_unsigned(magnitude) } else { magnitude.try_into().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoded_numbers_have_the_radix_of_their_prefix() {
        for (text, want) in [
            ("10485759", Some(10_485_759)),
            ("0x9fffff", Some(0x9f_ffff)),
            ("0X9FFFFF", Some(0x9f_ffff)),
            ("#9fffff", Some(0x9f_ffff)),
            ("047777777", Some(0x9f_ffff)),
            ("-0x10", Some(-16)),
            ("+#10", Some(16)),
            ("-010", Some(-8)),
            ("0", Some(0)),
            ("-0", Some(0)),
            ("00", Some(0)),
            ("0x7fffffffffffffff", Some(i64::MAX)),
            ("-0x8000000000000000", Some(i64::MIN)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("0x8000000000000000", None),
            ("-9223372036854775809", None),
            ("08", None),
            ("0x", None),
            ("#", None),
            ("0x-1", None),
            ("--1", None),
            ("+-1", None),
            ("0+1", None),
            ("", None),
            ("-", None),
            (" 1", None),
            ("1 ", None),
            ("1k", None),
            ("1_000", None),
            ("0b1", None),
            ("1e3", None),
        ] {
            assert_eq!(decode(text), want, "{text:?}");
        }
    }

    #[test]
    fn parsed_numbers_are_decimal() {
        for (text, want) in [
            ("10", Some(10)),
            ("+10", Some(10)),
            ("-10", Some(-10)),
            ("010", Some(10)),
            ("0x10", None),
            ("#10", None),
            ("", None),
            (" 1", None),
        ] {
            assert_eq!(parse(text), want, "{text:?}");
        }
    }
}
