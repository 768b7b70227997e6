//! Java's properties syntax, in which configuration files are written.

/// One key with its value, both trimmed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
    /// The line on which it begins, from 1.
    pub line: usize,
}

/// Splits a file into entries, in its order. Of a repeated key only the last is kept.
///
/// # Errors
/// The line of a malformed `\u` escape, the only thing that can be wrong.
pub fn parse(bytes: &[u8]) -> Result<Vec<Entry>, usize> {
    // Not UTF-8: Java reads properties as ISO-8859-1, in which every byte is a character.
    let text: String = bytes.iter().map(|&byte| char::from(byte)).collect();
    let mut entries: Vec<Entry> = Vec::new();
    let mut lines = natural_lines(&text).enumerate().map(|(at, line)| (at + 1, line));
    while let Some((line, text)) = lines.next() {
        let text = text.trim_start_matches(is_blank);
        if text.is_empty() || text.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = text.to_owned();
        while ends_in_lone_backslash(&logical) {
            logical.pop();
            match lines.next() {
                Some((_, more)) => logical.push_str(more.trim_start_matches(is_blank)),
                None => break,
            }
        }
        let (key, value) = split(&logical);
        let key = unescape(key).ok_or(line)?.trim().to_owned();
        let value = unescape(value).ok_or(line)?.trim().to_owned();
        entries.retain(|entry| entry.key != key);
        entries.push(Entry { key, value, line });
    }
    Ok(entries)
}

/// Lines as Java ends them: at `\n`, `\r` or both.
fn natural_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\x0c')
}

fn ends_in_lone_backslash(text: &str) -> bool {
    text.bytes().rev().take_while(|&byte| byte == b'\\').count() % 2 == 1
}

/// At the first unescaped `=`, `:` or blank.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let is_end = |c: char| {
        let end = !escaped && (is_blank(c) || c == '=' || c == ':');
        escaped = c == '\\' && !escaped;
        end
    };
    let Some(end) = line.find(is_end) else { return (line, "") };
    let rest = line[end..].trim_start_matches(is_blank);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (&line[..end], rest.trim_start_matches(is_blank))
}

fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let mut buf = [0; 2];
        if c != '\\' {
            out.extend_from_slice(c.encode_utf16(&mut buf));
            continue;
        }
        let c = match chars.next() {
            None => break,
            Some('t') => '\t',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('f') => '\x0c',
            Some('u') => {
                // UTF-16: a character may take two escapes.
                let digits = chars.as_str().get(..4)?;
                if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return None;
                }
                out.push(u16::from_str_radix(digits, 16).ok()?);
                chars = chars.as_str()[4..].chars();
                continue;
            }
            Some(other) => other,
        };
        out.extend_from_slice(c.encode_utf16(&mut buf));
    }
    Some(String::from_utf16_lossy(&out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> (String, String) {
        let entries = parse(line.as_bytes()).unwrap();
        assert_eq!(entries.len(), 1, "{line:?}");
        let Entry { key, value, .. } = entries.into_iter().next().unwrap();
        (key, value)
    }

    #[test]
    fn separators_and_escapes() {
        for (line, key, value) in [
            ("tickTime=2000", "tickTime", "2000"),
            ("  tickTime = 2000  ", "tickTime", "2000"),
            ("tickTime:2000", "tickTime", "2000"),
            ("tickTime\t2000", "tickTime", "2000"),
            ("tickTime 2000 3000", "tickTime", "2000 3000"),
            ("server.1=a:2888:3888;2181", "server.1", "a:2888:3888;2181"),
            ("a==b", "a", "=b"),
            ("a\\=b=c", "a=b", "c"),
            ("a\\:b\\ c=d", "a:b c", "d"),
            ("dir=C:\\\\zk\\\\data", "dir", "C:\\zk\\data"),
            ("dir=C:\\zk", "dir", "C:zk"),
            ("k=\\u0041\\u00e9\\ud83d\\ude00", "k", "Aé😀"),
            ("k=a\\\n   b", "k", "ab"),
            ("k=a\\\r\n\tb\\", "k", "ab"),
            ("k=a\\\\", "k", "a\\"),
            ("k=#no comment", "k", "#no comment"),
            ("key", "key", ""),
            ("=v", "", "v"),
            ("k=\\", "k", ""),
        ] {
            assert_eq!(one(line), (key.to_owned(), value.to_owned()), "{line:?}");
        }
    }

    #[test]
    fn comments_lines_and_repetitions() {
        let text = "# c\n  ! c \\\nA=1\r\n\r\nB=2\\\n3\rC=4\nA=5";
        let got: Vec<_> = parse(text.as_bytes()).unwrap();
        let got: Vec<_> = got.iter().map(|e| (&*e.key, &*e.value, e.line)).collect();
        assert_eq!(got, [("B", "23", 5), ("C", "4", 7), ("A", "5", 8)]);
    }

    #[test]
    fn a_broken_escape_names_its_line() {
        assert_eq!(parse(b"a=1\nb=\\u12x4"), Err(2));
        assert_eq!(parse(b"b=\\u12"), Err(1));
        assert_eq!(parse(b"b=\\u+123"), Err(1));
    }

    #[test]
    fn latin_1() {
        assert_eq!(one_bytes(b"a=\xe9"), "é");
    }

    fn one_bytes(line: &[u8]) -> String {
        parse(line).unwrap().remove(0).value
    }
}
