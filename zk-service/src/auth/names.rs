//! Distinguished names, as an ACL of the scheme `x509` may have them.

/// Whether `text` is a distinguished name as Java's `X500Principal` reads them: parts joined by commas or
/// semicolons, each of values joined by `+`, each of a known keyword or an object identifier, and a text
/// after `=`, in which a backslash or quotes take the meaning of the characters between them.
pub(super) fn is_distinguished(text: &str) -> bool {
    text.trim().is_empty()
        || parts(text).is_some_and(|parts| parts.iter().all(|part| is_pair(part)))
}

/// The parts between separators; `None` if a quote or a backslash is left open.
fn parts(text: &str) -> Option<Vec<&str>> {
    let (mut parts, mut from, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ',' | ';' | '+' if !quoted => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    (!quoted && !escaped).then_some(parts)
}

fn is_pair(part: &str) -> bool {
    let Some((kind, _)) = part.split_once('=') else { return false };
    let kind = kind.trim().to_ascii_uppercase();
    let oid = kind.strip_prefix("OID.").unwrap_or(&kind);
    let arcs =
        || oid.split('.').all(|arc| !arc.is_empty() && arc.bytes().all(|b| b.is_ascii_digit()));
    KEYWORDS.contains(&kind.as_str()) || oid.contains('.') && arcs()
}

const KEYWORDS: [&str; 22] = [
    "CN",
    "C",
    "L",
    "S",
    "ST",
    "O",
    "OU",
    "T",
    "IP",
    "STREET",
    "DC",
    "DNQUALIFIER",
    "DNQ",
    "SURNAME",
    "GIVENNAME",
    "INITIALS",
    "GENERATION",
    "EMAIL",
    "EMAILADDRESS",
    "UID",
    "SERIALNUMBER",
    "TITLE",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (text, expected) in [
            ("CN=zk1.example.com,OU=Ops Team,O=Acme\\, Inc,C=DE,1.2.840.113549.1.9.1=#1605", true),
            ("cn=a + uid=b; dc = x", true),
            ("O=\"Acme, Inc\"", true),
            ("OID.2.5.4.3=x", true),
            ("CN=", true),
            ("", true),
            ("bob", false),
            ("CN=a,", false),
            ("CN=a,b", false),
            ("=a", false),
            ("XX=a", false),
            ("1..2=a", false),
            ("O=\"open", false),
            ("CN=a\\", false),
        ] {
            assert_eq!(is_distinguished(text), expected, "{text}");
        }
    }
}
