//! JAAS files: sections of login modules with options (`javax.security.auth.login.Configuration`).

use std::collections::BTreeMap;
use std::fmt;

/// The sections of a JAAS file, by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Jaas {
    sections: BTreeMap<String, Vec<LoginModule>>,
}

/// One entry of a section.
#[derive(Clone, PartialEq, Eq)]
pub struct LoginModule {
    /// The Java class.
    pub class: String,
    /// Its options.
    pub options: BTreeMap<String, String>,
}

impl fmt::Debug for LoginModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Options are passwords.
        f.debug_struct("LoginModule").field("class", &self.class).finish_non_exhaustive()
    }
}

/// Names and passwords: the options `user_NAME` of a `DigestLoginModule`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Users(BTreeMap<String, String>);

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} users", self.0.len())
    }
}

impl Users {
    /// The password of a user.
    #[must_use]
    pub fn password(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Gives a user that there is another password.
    pub fn replace(&mut self, name: &str, password: &str) {
        if let Some(known) = self.0.get_mut(name) {
            password.clone_into(known);
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<N: Into<String>, P: Into<String>> FromIterator<(N, P)> for Users {
    fn from_iter<T: IntoIterator<Item = (N, P)>>(users: T) -> Self {
        Self(users.into_iter().map(|(name, password)| (name.into(), password.into())).collect())
    }
}

impl LoginModule {
    /// The module with names and passwords.
    pub const DIGEST: &str = "org.apache.zookeeper.server.auth.DigestLoginModule";

    /// Names and passwords in it, as a server has them.
    #[must_use]
    pub fn users(&self) -> Users {
        let named = |(key, password): (&String, &String)| {
            Some((key.strip_prefix("user_")?.to_owned(), password.clone()))
        };
        self.options.iter().filter_map(named).collect()
    }

    /// Name and password in it, as somebody has them who logs in.
    #[must_use]
    pub fn login(&self) -> Option<(&str, &str)> {
        Some((self.options.get("username")?, self.options.get("password")?))
    }
}

/// What is wrong with a JAAS file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JaasError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub reason: String,
}

impl fmt::Display for JaasError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for JaasError {}

impl Jaas {
    /// Reads a file. `${NAME}` in a value stands for what `property` knows by that name, `${/}` for a
    /// slash. Unlike Java this accepts numbers as values.
    ///
    /// # Errors
    /// The first line that is none.
    pub fn parse(text: &str, property: impl Fn(&str) -> Option<String>) -> Result<Self, JaasError> {
        let mut tokens = Tokens { rest: text, line: 1 };
        let mut sections = BTreeMap::new();
        while let Some(token) = tokens.next()? {
            let name = token.word(&tokens, "the name of a section")?;
            tokens.expect('{')?;
            let mut modules = Vec::new();
            loop {
                match tokens.next()? {
                    Some(Token::Mark('}')) => break,
                    Some(Token::Word(class)) => {
                        modules.push(module(class, &mut tokens, &property)?);
                    }
                    other => return Err(tokens.wanted("a login module or }", other.as_ref())),
                }
            }
            tokens.expect(';')?;
            if modules.is_empty() {
                return Err(tokens.error(format!("section {name} has no login module")));
            }
            if sections.insert(name.clone(), modules).is_some() {
                return Err(tokens.error(format!("section {name} is there twice")));
            }
        }
        Ok(Self { sections })
    }

    /// The login module that counts of a section: the first.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&LoginModule> {
        self.sections.get(name)?.first()
    }

    /// The names of all sections.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sections.keys().map(String::as_str)
    }
}

fn module(
    class: String,
    tokens: &mut Tokens<'_>,
    property: &impl Fn(&str) -> Option<String>,
) -> Result<LoginModule, JaasError> {
    const FLAGS: [&str; 4] = ["required", "requisite", "sufficient", "optional"];
    match tokens.next()? {
        Some(Token::Word(flag)) if FLAGS.contains(&flag.to_ascii_lowercase().as_str()) => {}
        other => {
            return Err(
                tokens.wanted("required, requisite, sufficient or optional", other.as_ref())
            );
        }
    }
    let mut options = BTreeMap::new();
    loop {
        match tokens.next()? {
            Some(Token::Mark(';')) => return Ok(LoginModule { class, options }),
            Some(Token::Word(key)) => {
                tokens.expect('=')?;
                let value = match tokens.next()? {
                    Some(Token::Word(value) | Token::Text(value)) => value,
                    other => return Err(tokens.wanted("a value", other.as_ref())),
                };
                let value = expand(&value, property).map_err(|reason| tokens.error(reason))?;
                options.insert(key, value);
            }
            other => return Err(tokens.wanted("an option or ;", other.as_ref())),
        }
    }
}

fn expand(value: &str, property: &impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let (mut out, mut rest) = (String::new(), value);
    while let Some((before, from)) = rest.split_once("${") {
        let Some((name, behind)) = from.split_once('}') else { break };
        out.push_str(before);
        if name == "/" {
            out.push('/');
        } else {
            out.push_str(&property(name).ok_or_else(|| format!("nobody has set {name}"))?);
        }
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Token {
    Word(String),
    /// In quotes.
    Text(String),
    Mark(char),
}

impl Token {
    fn word(self, tokens: &Tokens<'_>, what: &str) -> Result<String, JaasError> {
        match self {
            Self::Word(word) | Self::Text(word) => Ok(word),
            Self::Mark(_) => Err(tokens.wanted(what, Some(&self))),
        }
    }
}

struct Tokens<'a> {
    rest: &'a str,
    line: usize,
}

impl Tokens<'_> {
    fn error(&self, reason: impl Into<String>) -> JaasError {
        JaasError { line: self.line, reason: reason.into() }
    }

    /// What has come instead is not shown if it may be a password.
    fn wanted(&self, what: &str, instead: Option<&Token>) -> JaasError {
        let instead = match instead {
            None => "the end of the file".into(),
            Some(Token::Mark(mark)) => mark.to_string(),
            Some(Token::Word(_)) => "a word".into(),
            Some(Token::Text(_)) => "a text in quotes".into(),
        };
        self.error(format!("{what} was expected, not {instead}"))
    }

    fn expect(&mut self, mark: char) -> Result<(), JaasError> {
        match self.next()? {
            Some(Token::Mark(found)) if found == mark => Ok(()),
            other => Err(self.wanted(&mark.to_string(), other.as_ref())),
        }
    }

    fn pass(&mut self, len: usize) {
        let (passed, rest) = self.rest.split_at(len);
        self.line += passed.matches('\n').count();
        self.rest = rest;
    }

    /// White space and comments.
    fn skip(&mut self) -> Result<(), JaasError> {
        loop {
            self.pass(self.rest.len() - self.rest.trim_start().len());
            if self.rest.starts_with("//") {
                self.pass(self.rest.find('\n').unwrap_or(self.rest.len()));
            } else if self.rest.starts_with("/*") {
                let end = self.rest.find("*/");
                self.pass(end.ok_or_else(|| self.error("a comment has no end"))? + 2);
            } else {
                return Ok(());
            }
        }
    }

    fn next(&mut self) -> Result<Option<Token>, JaasError> {
        self.skip()?;
        let Some(first) = self.rest.chars().next() else { return Ok(None) };
        if matches!(first, '{' | '}' | ';' | '=') {
            self.pass(1);
            return Ok(Some(Token::Mark(first)));
        }
        if matches!(first, '"' | '\'') {
            return self.quoted(first).map(Some);
        }
        let is_end = |c: char| !(c.is_alphanumeric() || "._-$*/:@".contains(c));
        let len = self.rest.find(is_end).unwrap_or(self.rest.len());
        if len == 0 {
            return Err(self.error(format!("{first:?} has no meaning here")));
        }
        let word = self.rest[..len].to_owned();
        self.pass(len);
        Ok(Some(Token::Word(word)))
    }

    /// A text in quotes, with the escapes of C.
    fn quoted(&mut self, quote: char) -> Result<Token, JaasError> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            match c {
                '\n' | '\r' => break,
                c if c == quote => {
                    self.pass(at + c.len_utf8());
                    return Ok(Token::Text(text));
                }
                '\\' => {
                    let Some((_, escaped)) = chars.next() else { break };
                    if let Some(digit) = escaped.to_digit(8) {
                        let (mut code, mut more) = (digit, if digit < 4 { 2 } else { 1 });
                        while let Some(digit) = chars.peek().and_then(|(_, c)| c.to_digit(8))
                            && more > 0
                        {
                            (code, more) = (code * 8 + digit, more - 1);
                            chars.next();
                        }
                        text.extend(char::from_u32(code));
                    } else {
                        text.push(match escaped {
                            'a' => '\x07',
                            'b' => '\x08',
                            'f' => '\x0c',
                            'n' => '\n',
                            'r' => '\r',
                            't' => '\t',
                            'v' => '\x0b',
                            other => other,
                        });
                    }
                }
                c => text.push(c),
            }
        }
        Err(self.error("a text in quotes has no end on its line"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Jaas, JaasError> {
        let property = |name: &str| (name == "home").then(|| "/srv".to_owned());
        Jaas::parse(text, property)
    }

    #[test]
    fn a_file_as_people_write_it() {
        let jaas = parse(
            r#"
            // The clients' names.
            Server {
                org.apache.zookeeper.server.auth.DigestLoginModule REQUIRED
                    user_super="s\"uper"   /* of
                                              two lines */
                    user_bob='bob secret'
                    user_42=4242;
                com.example.Other optional;
            };
            QuorumLearner { org.apache.zookeeper.server.auth.DigestLoginModule required
                username="learner" password="a\tb\101${/}${home}"; };
            "#,
        )
        .unwrap();
        assert_eq!(jaas.names().collect::<Vec<_>>(), ["QuorumLearner", "Server"]);
        let server = jaas.section("Server").unwrap();
        assert_eq!(server.class, LoginModule::DIGEST);
        let users = server.users();
        for (name, password) in [("super", "s\"uper"), ("bob", "bob secret"), ("42", "4242")] {
            assert_eq!(users.password(name), Some(password));
        }
        assert_eq!((users.len(), users.password("eve")), (3, None));
        let learner = jaas.section("QuorumLearner").unwrap();
        assert_eq!(learner.login(), Some(("learner", "a\tbA//srv")));
        assert_eq!(jaas.section("QuorumServer"), None);
        // Passwords do not get into logs.
        assert!(!format!("{jaas:?} {users:?}").contains("secret"));
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, line, reason) in [
            ("Server", 1, "{ was expected, not the end of the file"),
            ("Server {\n};", 2, "section Server has no login module"),
            ("A { x required; };\nA { x required; };", 2, "section A is there twice"),
            ("Server {\n x\n needed;\n};", 3, "required, requisite, sufficient or optional was"),
            ("Server {\n x required a b;\n};", 2, "= was expected, not a word"),
            ("Server {\n x required a=\"b\n;\n};", 2, "a text in quotes has no end on its line"),
            ("Server { x required a=\"b\"; }", 1, "; was expected, not the end of the file"),
            ("Server { x required a=;};", 1, "a value was expected, not ;"),
            ("/* never", 1, "a comment has no end"),
            ("Server { x required a=\"${nothing}\"; };", 1, "nobody has set nothing"),
            ("{", 1, "the name of a section was expected, not {"),
            ("Server { x required a=#; };", 1, "'#' has no meaning here"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.line, line, "{text}: {error}");
            assert!(error.reason.starts_with(reason), "{text}: {error}");
        }
        assert_eq!(parse("").unwrap(), Jaas::default());
    }
}
