//! The mechanism DIGEST-MD5 (RFC 2831), as far as ZooKeeper uses it: authentication alone, one exchange
//! for each connection.
//!
//! MD5 is no hash to build anything new on; this is what unchanged clients and servers speak. It does
//! not show the password to who listens; for everything else there is TLS.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

use crate::directives::{self, Directive, push_quoted};

/// What an exchange is for: both sides hash it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Purpose {
    /// What is spoken after the login.
    pub protocol: &'static str,
    /// The realm.
    pub realm: &'static str,
}

/// Clients of a server.
pub const CLIENTS: Purpose = Purpose { protocol: "zookeeper", realm: "zk-sasl-md5" };
/// Members of an ensemble.
pub const MEMBERS: Purpose = Purpose { protocol: "zookeeper-quorum", realm: "zk-quorum-sasl-md5" };

/// Why somebody was not let in, or is not who he should be.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Failure {
    /// The message is none of this mechanism.
    Malformed,
    /// The message lacks this directive.
    Missing(&'static str),
    /// This directive is there twice.
    Twice(String),
    /// This directive has a value that it must not have.
    Wrong(&'static str),
    /// Nobody is known by that name.
    UnknownUser(String),
    /// The password is not that of the user.
    WrongPassword(String),
    /// The exchange is over.
    Over,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("malformed message"),
            Self::Missing(what) => write!(f, "no {what} in it"),
            Self::Twice(what) => write!(f, "{what} is in it twice"),
            Self::Wrong(what) => write!(f, "its {what} is not the one expected"),
            Self::UnknownUser(user) => write!(f, "no user {user:?} is known"),
            Self::WrongPassword(user) => write!(f, "the password is not that of {user:?}"),
            Self::Over => f.write_str("the exchange is over"),
        }
    }
}

impl std::error::Error for Failure {}

/// What a message leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// To be sent; the exchange goes on.
    Challenge(Vec<u8>),
    /// To be sent; it is known who the other side is.
    Done(Vec<u8>, Login),
}

/// Who has logged in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Login {
    /// The user whose password it was.
    pub user: String,
    /// As whom it wants to act, if it has said so.
    pub authzid: Option<String>,
}

/// Random bytes that a nonce is made of.
pub const NONCE_LEN: usize = 30;

/// The side that is logged in to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Acceptor {
    purpose: Purpose,
    nonce: String,
    stage: ExchangeState,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ExchangeState {
    New,
    Challenged,
    Over,
}

impl Acceptor {
    /// A new exchange. Of `random` depends that nobody can log in by repeating what he has heard.
    #[must_use]
    pub fn new(purpose: Purpose, random: [u8; NONCE_LEN]) -> Self {
        Self { purpose, nonce: STANDARD.encode(random), stage: ExchangeState::New }
    }

    /// Whether nothing has been said yet.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.stage == ExchangeState::New
    }

    /// Takes a message. The first is only a beginning, whatever is in it; `password` knows the users.
    ///
    /// # Errors
    /// The exchange has failed; every further message does.
    pub fn evaluate<'p>(
        &mut self,
        message: &[u8],
        password: impl FnOnce(&str) -> Option<&'p str>,
    ) -> Result<Step, Failure> {
        match std::mem::replace(&mut self.stage, ExchangeState::Over) {
            ExchangeState::New => {
                self.stage = ExchangeState::Challenged;
                Ok(Step::Challenge(self.challenge()))
            }
            ExchangeState::Challenged => self.check(message, password),
            ExchangeState::Over => Err(Failure::Over),
        }
    }

    fn challenge(&self) -> Vec<u8> {
        let mut out = Vec::new();
        push_quoted(&mut out, "realm", self.purpose.realm.as_bytes());
        out.push(b',');
        push_quoted(&mut out, "nonce", self.nonce.as_bytes());
        out.extend(b",charset=utf-8,algorithm=md5-sess");
        out
    }

    /// The order of the checks is that of Java's provider.
    fn check<'p>(
        &self,
        message: &[u8],
        password: impl FnOnce(&str) -> Option<&'p str>,
    ) -> Result<Step, Failure> {
        let response = Directives::parse(message, &RESPONSE_ONCE)?;
        let is_utf8 = response.is_utf8()?;
        let text = |bytes: &[u8]| decode(bytes, is_utf8).ok_or(Failure::Malformed);
        let user = text(response.wanted("username")?)?;
        if response.get("realm").unwrap_or_default() != self.purpose.realm.as_bytes() {
            return Err(Failure::Wrong("realm"));
        }
        if response.wanted("nonce")? != self.nonce.as_bytes() {
            return Err(Failure::Wrong("nonce"));
        }
        let cnonce = response.wanted("cnonce")?;
        if let Some(count) = response.get("nc") {
            let count = std::str::from_utf8(count).ok();
            if count.and_then(|count| u32::from_str_radix(count, 16).ok()) != Some(1) {
                return Err(Failure::Wrong("nc"));
            }
        }
        if response.get("qop").is_some_and(|qop| qop != b"auth") {
            return Err(Failure::Wrong("qop"));
        }
        let uri = response.wanted("digest-uri")?;
        if !uri.eq_ignore_ascii_case(self.purpose.uri().as_bytes()) {
            return Err(Failure::Wrong("digest-uri"));
        }
        let shown = response.wanted("response")?;
        let authzid = response.get("authzid");
        let Some(password) = password(&user) else { return Err(Failure::UnknownUser(user)) };
        let realm = self.purpose.realm;
        let nonce = &self.nonce;
        let hashes = Hashes { user: &user, realm, password, nonce, cnonce, authzid, uri };
        if !bool::from(hashes.response().as_bytes().ct_eq(shown)) {
            return Err(Failure::WrongPassword(user));
        }
        let authzid = authzid.map(text).transpose()?;
        let answer = format!("rspauth={}", hashes.rspauth());
        Ok(Step::Done(answer.into_bytes(), Login { user, authzid }))
    }
}

/// The side that logs in.
#[derive(Clone, PartialEq, Eq)]
pub struct Initiator {
    purpose: Purpose,
    user: String,
    password: String,
    cnonce: String,
    /// What the other side has to answer, once it has been told who this is.
    expected: Option<String>,
    over: bool,
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initiator").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Initiator {
    /// A new exchange, which begins with an empty message.
    #[must_use]
    pub fn new(purpose: Purpose, user: &str, password: &str, random: [u8; NONCE_LEN]) -> Self {
        let (user, password) = (user.to_owned(), password.to_owned());
        let cnonce = STANDARD.encode(random);
        Self { purpose, user, password, cnonce, expected: None, over: false }
    }

    /// Whether the other side has shown that it knows the password, too.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.over
    }

    /// Takes a message; returns what must be said, nothing if the exchange has ended well.
    ///
    /// # Errors
    /// The other side is not to be trusted.
    pub fn evaluate(&mut self, message: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        if self.over {
            return Err(Failure::Over);
        }
        if let Some(expected) = &self.expected {
            let answer = Directives::parse(message, &["rspauth"])?;
            if !bool::from(expected.as_bytes().ct_eq(answer.wanted("rspauth")?)) {
                return Err(Failure::Wrong("rspauth"));
            }
            self.over = true;
            return Ok(None);
        }
        let challenge = Directives::parse(message, &CHALLENGE_ONCE)?;
        if challenge.wanted("algorithm")? != b"md5-sess" {
            return Err(Failure::Wrong("algorithm"));
        }
        let offers_auth = |offer: &[u8]| offer.split(|byte| *byte == b',').any(|o| o == b"auth");
        if challenge.get("qop").is_some_and(|qop| !offers_auth(qop)) {
            return Err(Failure::Wrong("qop"));
        }
        let nonce = std::str::from_utf8(challenge.wanted("nonce")?);
        let nonce = nonce.map_err(|_| Failure::Wrong("nonce"))?;
        let mut realms = challenge.all("realm");
        if !realms.any(|realm| realm == self.purpose.realm.as_bytes()) {
            return Err(Failure::Wrong("realm"));
        }
        let (uri, cnonce) = (self.purpose.uri(), self.cnonce.as_bytes());
        let hashes = Hashes {
            user: &self.user,
            realm: self.purpose.realm,
            password: &self.password,
            nonce,
            cnonce,
            authzid: Some(self.user.as_bytes()),
            uri: uri.as_bytes(),
        };
        let response = hashes.response();
        self.expected = Some(hashes.rspauth());
        // In the order in which Java writes them.
        let mut out = Vec::new();
        if challenge.is_utf8()? {
            out.extend(b"charset=utf-8,");
        }
        push_quoted(&mut out, "username", self.user.as_bytes());
        for (key, value) in [("realm", self.purpose.realm.as_bytes()), ("nonce", nonce.as_bytes())]
        {
            out.push(b',');
            push_quoted(&mut out, key, value);
        }
        out.extend(b",nc=00000001,");
        push_quoted(&mut out, "cnonce", cnonce);
        out.push(b',');
        push_quoted(&mut out, "digest-uri", uri.as_bytes());
        out.extend(format!(",maxbuf=65536,response={response},qop=auth,").bytes());
        push_quoted(&mut out, "authzid", self.user.as_bytes());
        Ok(Some(out))
    }
}

impl Purpose {
    fn uri(&self) -> String {
        format!("{}/{}", self.protocol, self.realm)
    }
}

/// What both sides know once they know each other.
struct Hashes<'a> {
    user: &'a str,
    realm: &'a str,
    password: &'a str,
    nonce: &'a str,
    cnonce: &'a [u8],
    authzid: Option<&'a [u8]>,
    uri: &'a [u8],
}

impl Hashes<'_> {
    fn response(&self) -> String {
        self.of(b"AUTHENTICATE:")
    }

    fn rspauth(&self) -> String {
        self.of(b":")
    }

    fn of(&self, method: &[u8]) -> String {
        let colon: &[u8] = b":";
        let secret =
            [&encode(self.user), colon, &encode(self.realm), colon, &encode(self.password)];
        let mut a1 = Md5::digest(secret.concat()).to_vec();
        for part in [self.nonce.as_bytes(), self.cnonce].into_iter().chain(self.authzid) {
            a1.push(b':');
            a1.extend(part);
        }
        let a2 = [method, self.uri].concat();
        let (a1, a2) = (hex(&Md5::digest(a1)), hex(&Md5::digest(a2)));
        let nonce = [self.nonce.as_bytes(), b":00000001:", self.cnonce, b":auth:"].concat();
        let all = [a1.as_bytes(), colon, &nonce, a2.as_bytes()].concat();
        hex(&Md5::digest(all))
    }
}

/// The directives of one message.
struct Directives<'a>(Vec<Directive<'a>>);

impl<'a> Directives<'a> {
    fn parse(message: &'a [u8], once: &[&'static str]) -> Result<Self, Failure> {
        if message.len() > MESSAGE_LEN_MAX {
            return Err(Failure::Malformed);
        }
        let directives = directives::parse(message).ok_or(Failure::Malformed)?;
        for key in once {
            if directives.iter().filter(|(known, _)| known == key).count() > 1 {
                return Err(Failure::Twice((*key).into()));
            }
        }
        Ok(Self(directives))
    }

    fn all<'s>(&'s self, key: &'s str) -> impl Iterator<Item = &'s [u8]> {
        self.0.iter().filter(move |(known, _)| known == key).map(|(_, value)| &**value)
    }

    fn get<'s>(&'s self, key: &'s str) -> Option<&'s [u8]> {
        self.all(key).next()
    }

    fn wanted(&self, key: &'static str) -> Result<&[u8], Failure> {
        self.get(key).ok_or(Failure::Missing(key))
    }

    fn is_utf8(&self) -> Result<bool, Failure> {
        match self.get("charset") {
            None => Ok(false),
            Some(b"utf-8") => Ok(true),
            Some(_) => Err(Failure::Wrong("charset")),
        }
    }
}

fn decode(bytes: &[u8], is_utf8: bool) -> Option<String> {
    if is_utf8 {
        String::from_utf8(bytes.to_vec()).ok()
    } else {
        Some(bytes.iter().map(|byte| char::from(*byte)).collect())
    }
}

/// In ISO-8859-1 if that has all characters, else in UTF-8.
fn encode(text: &str) -> Cow<'_, [u8]> {
    let latin: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
    latin.map_or(Cow::Borrowed(text.as_bytes()), Cow::Owned)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const RESPONSE_ONCE: [&str; 13] = [
    "charset",
    "username",
    "realm",
    "nonce",
    "cnonce",
    "nc",
    "qop",
    "digest-uri",
    "response",
    "authzid",
    "maxbuf",
    "cipher",
    "auth-param",
];
const CHALLENGE_ONCE: [&str; 6] = ["charset", "nonce", "algorithm", "qop", "maxbuf", "stale"];

/// The longest response that is read (RFC 2831, 2.1.2).
const MESSAGE_LEN_MAX: usize = 4096;

#[cfg(test)]
mod tests;
