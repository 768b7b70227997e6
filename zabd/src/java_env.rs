//! The options of the Java virtual machine of existing installations.
//!
//! ZooKeeper's scripts source `conf/zookeeper-env.sh` and `conf/java.env`, Debian's package
//! `conf/environment`. What these files assign is read here without a shell: plain assignments, with or
//! without `export`, with quotes, backslashes and the values of variables that were assigned before
//! or are in the environment. Whatever else a line does is skipped with a warning that names it.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use crate::config::{Origin, SystemProperties};

/// The variables whose `-D` options count, the later the stronger: ZooKeeper's `zkServer.sh` puts
/// `JVMFLAGS` last, and of two equal options Java takes the last. `JAVA_OPTS` is Debian's.
const FLAGS: [&str; 3] = ["JAVA_OPTS", "SERVER_JVMFLAGS", "JVMFLAGS"];

/// Assignments of files on top of the environment.
#[derive(Debug)]
pub struct JavaEnv {
    environment: fn(&str) -> Option<String>,
    assigned: BTreeMap<String, (String, Origin)>,
}

impl Default for JavaEnv {
    fn default() -> Self {
        Self { environment: |name| std::env::var(name).ok(), assigned: BTreeMap::new() }
    }
}

impl JavaEnv {
    /// Reads the assignments of a file; the values of earlier ones may be used.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&mut self, path: &Path) -> io::Result<()> {
        let text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
        self.take(&text, path);
        Ok(())
    }

    /// The properties that the virtual machine would have been given.
    #[must_use]
    pub fn properties(&self) -> SystemProperties {
        let mut properties = SystemProperties::default();
        // `zkServer.sh` makes a property of it, in front of the flags.
        const NO_AUTOCREATE: &str = "ZOO_DATADIR_AUTOCREATE_DISABLE";
        if let Some((_, origin)) = self.variable(NO_AUTOCREATE).filter(|(set, _)| !set.is_empty()) {
            properties.set(origin, "zookeeper.datadir.autocreate", "false");
        }
        for name in FLAGS {
            // Not out of the environment: many programs put theirs there.
            let files_only = name == "JAVA_OPTS" && !self.assigned.contains_key(name);
            if let Some((flags, origin)) = self.variable(name).filter(|_| !files_only) {
                properties.set_jvm_flags(&origin, &flags);
            }
        }
        properties
    }

    fn variable(&self, name: &'static str) -> Option<(String, Origin)> {
        let assigned = self.assigned.get(name).cloned();
        assigned.or_else(|| Some(((self.environment)(name)?, Origin::Variable(name))))
    }

    fn value(&self, name: &str) -> String {
        let assigned = self.assigned.get(name).map(|(value, _)| value.clone());
        assigned.or_else(|| (self.environment)(name)).unwrap_or_default()
    }

    fn take(&mut self, text: &str, path: &Path) {
        let mut inside = 0;
        for (line, text) in logical_lines(text) {
            let origin = Origin::Assigned(path.to_path_buf(), line);
            let was_inside = inside > 0;
            inside = depth_after(inside, &text);
            if was_inside {
                continue;
            }
            if let Err(what) = self.take_line(&text, &origin) {
                let more = if inside > 0 { ", with all up to its end" } else { "" };
                log::warn!("{origin}: {what} is not a plain assignment and is skipped{more}");
            }
        }
        if inside > 0 {
            log::warn!("{}: a condition or loop does not end", path.display());
        }
    }

    /// # Errors
    /// What is not understood; assignments in front of it in the same command are its own.
    fn take_line(&mut self, text: &str, origin: &Origin) -> Result<(), String> {
        let mut rest = text.trim();
        while !rest.is_empty() && !rest.starts_with('#') {
            let before = self.assigned.clone();
            match self.take_command(rest, origin) {
                Ok(behind) => rest = behind.trim_start(),
                Err(what) => {
                    self.assigned = before;
                    return Err(what);
                }
            }
        }
        Ok(())
    }

    /// Takes one command of a line, up to a semicolon, and returns what is after.
    fn take_command<'t>(&mut self, text: &'t str, origin: &Origin) -> Result<&'t str, String> {
        let first = |text: &str| text.split_whitespace().next().unwrap_or_default().to_owned();
        let exported = text.strip_prefix("export ");
        let mut rest = exported.unwrap_or(text).trim_start();
        while !rest.is_empty() && !rest.starts_with('#') {
            if let Some(behind) = rest.strip_prefix(';') {
                return Ok(behind);
            }
            let name = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
            let behind = &rest[name.len()..];
            let value = behind.strip_prefix('=').filter(|_| is_name(name));
            rest = match value {
                Some(value) => {
                    let (value, end) = self.word(value).ok_or_else(|| format!("{name}=..."))?;
                    self.assigned.insert(name.to_owned(), (value, origin.clone()));
                    end
                }
                // `export A` exports what there is.
                None if exported.is_some() && is_name(name) => behind,
                None => return Err(first(rest)),
            }
            .trim_start();
        }
        Ok("")
    }

    /// One word of the shell at the front of `text`, and what is after it; `None` if it is more than
    /// quotes and variables.
    fn word<'t>(&self, text: &'t str) -> Option<(String, &'t str)> {
        let mut word = String::new();
        let mut rest = text;
        let mut quoted = false;
        loop {
            let Some(c) = rest.chars().next() else {
                return (!quoted).then_some((word, rest));
            };
            rest = &rest[c.len_utf8()..];
            match c {
                '"' => quoted = !quoted,
                '\'' if !quoted => {
                    let (literal, behind) = rest.split_once('\'')?;
                    word += literal;
                    rest = behind;
                }
                '\\' => {
                    let next = rest.chars().next()?;
                    rest = &rest[next.len_utf8()..];
                    if next == '\n' {
                        continue;
                    }
                    if quoted && !matches!(next, '"' | '\\' | '$' | '`') {
                        word.push('\\');
                    }
                    word.push(next);
                }
                '$' => {
                    let (name, behind) = variable(rest)?;
                    word += &self.value(name);
                    rest = behind;
                }
                '`' => return None,
                ';' if !quoted => return Some((word, &text[text.len() - rest.len() - 1..])),
                '&' | '|' | '<' | '>' | '(' | ')' | '*' | '?' | '[' | '~' if !quoted => {
                    return None;
                }
                c if c.is_whitespace() && !quoted => return Some((word, rest)),
                c => word.push(c),
            }
        }
    }
}

/// The name of a variable after a `$`, plain or in braces, and what is after it.
fn variable(text: &str) -> Option<(&str, &str)> {
    if let Some(text) = text.strip_prefix('{') {
        let (name, behind) = text.split_once('}')?;
        return is_name(name).then_some((name, behind));
    }
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    is_name(&text[..end]).then_some((&text[..end], &text[end..]))
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_word) && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// Lines with the number of their first, from 1: a backslash at the end and an open quote go on.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (at, line) in text.lines().enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        match lines.last_mut() {
            Some((_, last)) if open => *last += line,
            _ => lines.push((at + 1, line.to_owned())),
        }
        let (_, last) = lines.last_mut().expect("pushed above");
        open = match open_quote(last) {
            Some(_) => {
                last.push('\n');
                true
            }
            None if last.ends_with('\\') && !last.trim_start().starts_with('#') => {
                last.pop();
                true
            }
            None => false,
        };
    }
    lines
}

/// The quote that `text` does not close.
fn open_quote(text: &str) -> Option<char> {
    let mut quote = None;
    let mut chars = text.chars();
    let mut before = ' ';
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('#', None) if before.is_whitespace() => return None,
            ('\\', None | Some('"')) => drop(chars.next()),
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(q)) if c == q => quote = None,
            _ => {}
        }
        before = c;
    }
    quote
}

/// How many conditions, loops and functions are open after a line.
fn depth_after(depth: u32, text: &str) -> u32 {
    let mut depth = depth;
    let mut command = true;
    for word in text.split_inclusive([' ', '\t', ';']) {
        let ends = word.ends_with(';');
        let word = word.trim_end_matches([';', ' ', '\t']);
        if word.starts_with('#') {
            break;
        }
        match word {
            "" => {}
            "if" | "case" | "for" | "while" | "until" | "{" if command => depth += 1,
            "fi" | "esac" | "done" | "}" if command => depth = depth.saturating_sub(1),
            // A function: its body begins with a brace.
            _ if command && word.ends_with("()") => continue,
            _ => command = matches!(word, "then" | "do" | "else" | "elif"),
        }
        command |= ends;
    }
    depth
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> JavaEnv {
        let environment = |name: &str| match name {
            "HOME" => Some("/home/zk".into()),
            "SERVER_JVMFLAGS" => Some("-Dzookeeper.snapCount=5 -Da=env".into()),
            "JAVA_OPTS" => Some("-Dnot=taken".into()),
            _ => None,
        };
        JavaEnv { environment, assigned: BTreeMap::new() }
    }

    fn value(text: &str, name: &str) -> Option<String> {
        let mut env = env();
        env.take(text, Path::new("java.env"));
        env.assigned.get(name).map(|(value, _)| value.clone())
    }

    #[test]
    fn plain_assignments() {
        for (text, want) in [
            ("A=1", Some("1")),
            ("export A=1", Some("1")),
            ("  export A=\"1 2\"  # why", Some("1 2")),
            ("A='$HOME \"x\"'", Some("$HOME \"x\"")),
            ("A=\"$HOME/${HOME}x\"", Some("/home/zk//home/zkx")),
            ("B=b\nA=\"$A $B\"", Some(" b")),
            ("A=1\nA=\"$A 2\"", Some("1 2")),
            ("A=\"a\\\"b\\\\c\\d\\$HOME\"", Some("a\"b\\c\\d$HOME")),
            ("A=a\\ b", Some("a b")),
            ("A=a'b'\"c\"d", Some("abcd")),
            ("A=", Some("")),
            ("A=1; B=2", Some("1")),
            ("export B=2 A=1", Some("1")),
            ("A=1\nexport A", Some("1")),
            ("A=1 \\\n  B=2", Some("1")),
            ("A=\"-Da=1 \\\n -Db=2\"", Some("-Da=1  -Db=2")),
            ("A='one\ntwo'", Some("one\ntwo")),
            ("# it's a comment\nA=1\r\n", Some("1")),
            ("A=a#b", Some("a#b")),
            ("A=$(hostname)", None),
            ("A=`hostname`", None),
            ("A=${B:-1}", None),
            ("A=(1 2)", None),
            ("A=1 | cat", None),
            ("A=1 java -version", None),
            ("B=2; A=1 java", None),
            ("A=1; . ./other", Some("1")),
            ("A=1;B=2;export A B;", Some("1")),
            ("A=~/x", None),
            ("A=\"open", None),
            ("1A=1", None),
            ("if true; then A=1; fi", None),
            ("if true; then\n A=1\nfi", None),
            ("if a; then\n if b; then\n A=1\n fi\n A=2\nfi", None),
            ("case $x in\n a) A=1;;\nesac\n", None),
            ("f() {\n A=1\n}", None),
            ("[ -n \"$B\" ] && A=1", None),
            ("if x; then\n A=1\nfi\nA=2", Some("2")),
            (". ./other\nA=2", Some("2")),
        ] {
            assert_eq!(value(text, "A").as_deref(), want, "{text}");
        }
    }

    #[test]
    fn flags_of_files_and_environment() {
        let get = |env: &JavaEnv, key: &str| env.properties().text(key).map(str::to_owned);
        let mut env = env();
        assert_eq!(get(&env, "snapCount").as_deref(), Some("5"));
        // The file replaces the variable, or adds to it.
        env.take(
            "export SERVER_JVMFLAGS=\"-Xmx1g $SERVER_JVMFLAGS -Dzookeeper.maxCnxns=7\"\n\
             JVMFLAGS=-Dzookeeper.snapCount=6\n",
            Path::new("java.env"),
        );
        assert_eq!(get(&env, "snapCount").as_deref(), Some("6"), "JVMFLAGS are last");
        assert_eq!(get(&env, "maxCnxns").as_deref(), Some("7"));
        env.take("SERVER_JVMFLAGS=\nJAVA_OPTS=-Djute.maxbuffer=9", Path::new("environment"));
        assert_eq!(get(&env, "maxCnxns"), None);
        assert_eq!(get(&env, "jute.maxbuffer").as_deref(), Some("9"));
        env.take("ZOO_DATADIR_AUTOCREATE_DISABLE=1", Path::new("environment"));
        assert_eq!(get(&env, "datadir.autocreate").as_deref(), Some("false"));
    }
}
