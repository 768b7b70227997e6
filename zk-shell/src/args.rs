//! Words of a line, and the options among them.

use std::collections::BTreeMap;

/// Takes a line apart as `zkCli.sh` does: at blanks, except within a word that begins with a quote,
/// which ends at the next one. There are no escapes. A quote that does not end is left out.
pub(crate) fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        if let '"' | '\'' = first {
            rest = &rest[1..];
            if let Some(end) = rest.find(first) {
                words.push(rest[..end].to_owned());
                rest = &rest[end + 1..];
            }
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            words.push(rest[..end].to_owned());
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    words
}

/// A command's words: options, and what is left.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parsed {
    options: BTreeMap<String, String>,
    /// The command is the first.
    pub(crate) words: Vec<String>,
}

impl Parsed {
    /// Options may stand anywhere, and may be combined (`-sw`) if they have no value. `known` has
    /// a colon after those that have one, and blanks between them: `s w v:`. The errors are
    /// those of the library that `zkCli.sh` uses, down to the names of its classes.
    pub(crate) fn new(words: &[String], known: &str) -> Result<Self, String> {
        let mut parsed = Self::default();
        let find = |name: &str| {
            let mut all = known.split(' ').map(|known| (known.trim_end_matches(':'), known));
            all.find(|(known, _)| !known.is_empty() && *known == name)
                .map(|(_, known)| known.ends_with(':'))
        };
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            let Some(name) = word.strip_prefix('-').filter(|name| !name.is_empty()) else {
                parsed.words.push(word.clone());
                continue;
            };
            if name == "-" {
                parsed.words.extend(rest.by_ref().cloned());
                break;
            }
            let name = name.strip_prefix('-').unwrap_or(name);
            let (name, mut value) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, None),
            };
            match find(name) {
                Some(false) => parsed.set(name, ""),
                Some(true) => {
                    if value.is_none() {
                        value = rest.clone().next().filter(|next| is_value(next)).cloned();
                        if value.is_some() {
                            rest.next();
                        }
                    }
                    let value = value.ok_or_else(|| {
                        format!(
                            "org.apache.commons.cli.MissingArgumentException: Missing argument \
                             for option: {name}"
                        )
                    })?;
                    parsed.set(name, &value);
                }
                None => parsed.combined(word, name, find)?,
            }
        }
        Ok(parsed)
    }

    /// `-sw`, or `-v3`.
    fn combined(
        &mut self,
        word: &str,
        name: &str,
        find: impl Fn(&str) -> Option<bool>,
    ) -> Result<(), String> {
        let unknown = || {
            format!(
                "org.apache.commons.cli.UnrecognizedOptionException: Unrecognized option: {word}"
            )
        };
        for (at, letter) in name.char_indices() {
            let letter_name = letter.to_string();
            match find(&letter_name) {
                Some(false) => self.set(&letter_name, ""),
                Some(true) if at + 1 < name.len() => {
                    self.set(&letter_name, &name[at + letter.len_utf8()..]);
                    return Ok(());
                }
                _ => return Err(unknown()),
            }
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str) {
        // Of an option that is given twice the first value counts, as with `zkCli.sh`.
        self.options.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }

    pub(crate) fn has(&self, option: &str) -> bool {
        self.options.contains_key(option)
    }

    pub(crate) fn value(&self, option: &str) -> Option<&str> {
        self.options.get(option).map(String::as_str)
    }
}

/// A value may be a negative number, but no option.
fn is_value(word: &str) -> bool {
    !word.starts_with('-') || word == "-" || word.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_lines() {
        let check = |line: &str, expected: &[&str]| assert_eq!(words(line), expected, "{line:?}");
        check("", &[]);
        check("  get   /a ", &["get", "/a"]);
        check(r#"create "/sp ace" 'a "b" c'"#, &["create", "/sp ace", r#"a "b" c"#]);
        check(r#"set /a b"c d"#, &["set", "/a", r#"b"c"#, "d"]);
        check(r#"set /a "open end"#, &["set", "/a", "open", "end"]);
        check(r#"set /a """#, &["set", "/a", ""]);
        check(r#"a"b""c""#, &[r#"a"b""c""#]);
    }

    type Pairs = Vec<(String, String)>;

    fn parsed(line: &str, known: &str) -> Result<(Vec<String>, Pairs), String> {
        Parsed::new(&words(line), known)
            .map(|parsed| (parsed.words, parsed.options.into_iter().collect()))
    }

    #[test]
    fn options_stand_anywhere() {
        let known = "s w v: add:";
        for line in ["set /a x -v 3 -s", "set -s -v 3 /a x", "set -sv3 /a x", "set -v=3 -s /a x"] {
            let (words, options) = parsed(line, known).expect("valid");
            assert_eq!(words, ["set", "/a", "x"], "{line}");
            let expected = [("s", ""), ("v", "3")].map(|(a, b)| (a.to_owned(), b.to_owned()));
            assert_eq!(options, expected, "{line}");
        }
        let (_, options) = parsed("set -v 5 -v 6 /a x", known).expect("valid");
        assert_eq!(options[0].1, "5");
        let (_, options) = parsed("set -v -1 /a x", known).expect("valid");
        assert_eq!(options[0].1, "-1");
        let (words, _) = parsed("set -- -x -", known).expect("valid");
        assert_eq!(words, ["set", "-x", "-"]);
        assert!(parsed("set -x /a", known).expect_err("unknown").ends_with("option: -x"));
        assert!(parsed("set -sx /a", known).expect_err("unknown").ends_with("option: -sx"));
        assert!(parsed("set /a -v", known).expect_err("no value").ends_with("option: v"));
        assert!(parsed("set -v -s /a", known).is_err());
    }
}
