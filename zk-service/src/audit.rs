//! The audit log: one line for each write that a client of this server has asked for, done or refused,
//! and for each ephemeral node that goes with its session.
//!
//! The lines are those of ZooKeeper 3.8 and 3.9, field by field and in their order, with what looks
//! like an accident in them: parts of a multi have the type of their node only if the request named
//! that very path, a multi that was refused names no path, a request that cannot be read has no line.
//! They differ in one thing: a control character in a value is escaped, so that nobody can forge a
//! line or a field with the path of a request that is refused.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Where the audit log goes (`zookeeper.audit.enable`).
#[derive(Clone)]
pub struct AuditLog {
    user: Arc<str>,
    write: Arc<Write>,
}

/// Takes lines that belong together.
type Write = dyn Fn(&[AuditLine]) + Send + Sync;

/// A line of the audit log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditLine {
    /// What it ends with.
    pub result: AuditResult,
    /// The line, without its end.
    pub text: String,
}

/// How what a line tells of has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuditResult {
    /// It is done.
    Success,
    /// It was refused.
    Failure,
    /// It was asked for.
    Invoked,
}

impl AuditResult {
    fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Invoked => "invoked",
        }
    }

    fn of(is_done: bool) -> Self {
        if is_done { Self::Success } else { Self::Failure }
    }
}

impl AuditLog {
    /// A log of a process that `user` runs. `write` is given the lines of one transaction, or a part
    /// of very many, on the server's thread.
    pub fn new(user: &str, write: impl Fn(&[AuditLine]) + Send + Sync + 'static) -> Self {
        Self { user: user.into(), write: Arc::new(write) }
    }

    /// The server has started, or has failed to (`serverStart`), or ends (`serverStop`).
    pub fn server(&self, operation: &str, result: AuditResult) {
        let mut lines = self.lines();
        lines.push(&Event { user: Some(&self.user), ..Event::new(operation, result) });
        lines.finish();
    }

    /// Begins the lines of a transaction.
    pub(crate) fn lines(&self) -> Lines<'_> {
        Lines { log: self, lines: Vec::new() }
    }
}

/// Whose request a line tells of.
pub(crate) struct Who {
    session: i64,
    users: Option<String>,
    ip: IpAddr,
}

impl Who {
    pub(crate) fn new(session: i64, users: Option<String>, ip: IpAddr) -> Self {
        Self { session, users, ip }
    }
}

/// Lines that are written together.
pub(crate) struct Lines<'a> {
    log: &'a AuditLog,
    lines: Vec<AuditLine>,
}

impl Lines<'_> {
    fn push(&mut self, event: &Event<'_>) {
        self.lines.push(AuditLine { result: event.result, text: event.to_string() });
        if self.lines.len() == LINES_AT_ONCE {
            (self.log.write)(&self.lines);
            self.lines.clear();
        }
    }

    /// What became of a client's write.
    pub(crate) fn write(
        &mut self,
        who: &Who,
        (operation, is_done): (&str, bool),
        znode: Option<&str>,
        (znode_type, acl): (Option<&str>, Option<&str>),
    ) {
        self.push(&Event {
            session: Some(who.session),
            user: who.users.as_deref(),
            ip: Some(who.ip),
            znode,
            znode_type,
            acl,
            ..Event::new(operation, AuditResult::of(is_done))
        });
    }

    /// An ephemeral node of a session that is closed or expires.
    pub(crate) fn ephemeral(&mut self, session: i64, path: &str, is_done: bool) {
        let operation = "ephemeralZNodeDeletionOnSessionCloseOrExpire";
        self.push(&Event {
            session: Some(session),
            user: Some(&self.log.user),
            znode: Some(path),
            ..Event::new(operation, AuditResult::of(is_done))
        });
    }

    pub(crate) fn finish(self) {
        if !self.lines.is_empty() {
            (self.log.write)(&self.lines);
        }
    }
}

/// A session may have a million ephemeral nodes, whose lines are not all held in memory.
const LINES_AT_ONCE: usize = 1000;

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditLog")
    }
}

/// The fields of a line, in their order. Absent ones are left out.
#[derive(Clone, Copy, Debug)]
struct Event<'a> {
    session: Option<i64>,
    user: Option<&'a str>,
    ip: Option<IpAddr>,
    operation: &'a str,
    znode: Option<&'a str>,
    znode_type: Option<&'a str>,
    acl: Option<&'a str>,
    result: AuditResult,
}

impl<'a> Event<'a> {
    fn new(operation: &'a str, result: AuditResult) -> Self {
        let (user, znode, znode_type, acl) = (None, None, None, None);
        Self { session: None, user, ip: None, operation, znode, znode_type, acl, result }
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(session) = self.session {
            write!(f, "session=0x{session:x}\t")?;
        }
        let text = |f: &mut fmt::Formatter<'_>, key: &str, value: Option<&str>| match value {
            Some(value) => write!(f, "{key}={}\t", escaped(value)),
            None => Ok(()),
        };
        text(f, "user", self.user)?;
        if let Some(ip) = self.ip {
            write!(f, "ip={}\t", HostAddress(ip))?;
        }
        write!(f, "operation={}\t", self.operation)?;
        text(f, "znode", self.znode)?;
        text(f, "znode_type", self.znode_type)?;
        text(f, "acl", self.acl)?;
        write!(f, "result={}", self.result.name())
    }
}

/// A value without characters that could end it or its line.
fn escaped(value: &str) -> Cow<'_, str> {
    let ends = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    if !value.contains(ends) {
        return Cow::Borrowed(value);
    }
    let mut text = String::with_capacity(value.len() + 8);
    for c in value.chars() {
        if ends(c) { text.extend(c.escape_default()) } else { text.push(c) }
    }
    Cow::Owned(text)
}

/// An address as Java writes it (`InetAddress.getHostAddress`): all eight groups of one of version 6.
pub(crate) struct HostAddress(pub(crate) IpAddr);

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.to_canonical() {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(address) => {
                let [first, rest @ ..] = address.segments();
                write!(f, "{first:x}")?;
                rest.iter().try_for_each(|group| write!(f, ":{group:x}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_do_not_leave_their_field() {
        let event = Event {
            session: Some(0x1_0000_0000_0001),
            user: Some("a\tresult=success"),
            znode: Some("/x\nuser=root\u{2028}ü"),
            ..Event::new("create", AuditResult::Failure)
        };
        assert_eq!(
            event.to_string(),
            "session=0x1000000000001\tuser=a\\tresult=success\toperation=create\t\
             znode=/x\\nuser=root\\u{2028}ü\tresult=failure"
        );
    }

    #[test]
    fn addresses_are_written_as_by_java() {
        let text = |address: &str| HostAddress(address.parse().unwrap()).to_string();
        assert_eq!(text("::1"), "0:0:0:0:0:0:0:1");
        assert_eq!(text("2001:db8::a:0:7"), "2001:db8:0:0:0:a:0:7");
        assert_eq!(text("::ffff:10.0.0.7"), "10.0.0.7");
    }
}
