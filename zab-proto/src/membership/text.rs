//! The configuration as text: lines of a configuration file, the configuration that servers tell
//! each other, and the content of `/zookeeper/config`.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Write};

use super::{Address, Group, Member, Membership, Role};
use crate::wire::jute;
use crate::{ConfigError, Sid};

impl Membership {
    /// Takes one key and its value: `server.N`, `group.N` or `weight.N`. Returns whether the key
    /// is one of these. [`complete`](Self::complete) must follow the last one.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] and [`ConfigError::NotANumber`] with ZooKeeper's text.
    pub fn set(&mut self, key: &str, value: &str) -> Result<bool, ConfigError> {
        let number = || parse_number(key.split_once('.').map_or(key, |(_, number)| number));
        if key.starts_with("server.") {
            let sid = Sid(number()?);
            self.members.insert(sid, Member::parse(sid, value)?);
        } else if key.starts_with("group") {
            let sids = split(value, ':').into_iter().map(|sid| parse_number(sid).map(Sid));
            let group = Group { id: number()?, sids: sids.collect::<Result<_, _>>()? };
            if group.sids.is_empty() {
                return Err(not_a_number(value));
            }
            self.groups.push(group);
        } else if key.starts_with("weight") {
            let (sid, weight) = (Sid(number()?), parse_number(value)?);
            if weight < 0 {
                return Err(ConfigError::Invalid(format!("Negative weight of server {sid}")));
            }
            self.weights.insert(sid, weight);
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Reads the text that servers exchange. Empty text is a configuration without members.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] and [`ConfigError::NotANumber`] with ZooKeeper's text.
    pub fn parse_text(text: &[u8]) -> Result<Self, ConfigError> {
        let mut ensemble = Self::default();
        for line in jute::text(text).lines().map(str::trim_ascii) {
            if line.is_empty() || line.starts_with(['#', '!']) {
                continue;
            }
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            let (key, value) = (key.trim_ascii_end(), value.trim_ascii_start());
            if key == "version" {
                ensemble.version =
                    i64::from_str_radix(value, 16).map_err(|_| not_a_number(value))?;
            } else if !ensemble.set(key, value)? {
                return Err(ConfigError::Invalid(format!("Unrecognised parameter: {key}")));
            }
        }
        ensemble.complete()?;
        Ok(ensemble)
    }

    /// The text that servers exchange: members, groups and weights, ascending, then the version.
    #[must_use]
    pub fn text(&self) -> String {
        self.to_string()
    }
}

/// The text that servers exchange, see [`Membership::text`].
impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (sid, member) in &self.members {
            writeln!(f, "server.{sid}={member}")?;
        }
        for group in &self.groups {
            write!(f, "group.{}=", group.id)?;
            for (at, sid) in group.sids.iter().enumerate() {
                let separator = if at == 0 { "" } else { ":" };
                write!(f, "{separator}{sid}")?;
            }
            f.write_char('\n')?;
        }
        for (sid, weight) in &self.weights {
            writeln!(f, "weight.{sid}={weight}")?;
        }
        write!(f, "version={:x}", self.version)
    }
}

impl Member {
    /// Reads the value of `server.<sid>`:
    /// `host:quorumPort:electionPort[:role][|...][;[clientHost:]clientPort]`.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] and [`ConfigError::NotANumber`] with ZooKeeper's text.
    pub fn parse(sid: Sid, value: &str) -> Result<Self, ConfigError> {
        let (servers, client) = match split(value, ';')[..] {
            [servers] => (servers, None),
            [servers, client] => (servers, Some(client)),
            _ => return Err(bad_form(value)),
        };
        let client = client.map(|client| parse_client(value, client)).transpose()?;
        // One address may name the role for all of them, as the text that servers write does.
        let mut named = None;
        let mut addresses = Vec::new();
        for part in split(servers, '|') {
            let (address, role) = parse_address(sid, value, part)?;
            if let Some(role) = role
                && *named.get_or_insert(role) != role
            {
                // ZooKeeper names the role that a server has without any of this.
                return Err(ConfigError::Invalid(format!(
                    "Multiple addresses should have similar roles: PARTICIPANT vs {}",
                    role_name(role).to_ascii_uppercase(),
                )));
            }
            addresses.push(address);
        }
        if addresses.is_empty() {
            return Err(bad_form(value));
        }
        Ok(Self { role: named.unwrap_or(Role::Participant), addresses, client })
    }
}

/// The value of the member's server line; addresses sorted by host, the role always written.
impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut addresses: Vec<&Address> = self.addresses.iter().collect();
        addresses.sort_by_key(|address| &address.host);
        for (at, address) in addresses.into_iter().enumerate() {
            if at > 0 {
                f.write_char('|')?;
            }
            write_host(f, &address.host)?;
            write!(f, ":{}:{}", address.quorum_port, address.election_port)?;
        }
        write!(f, ":{}", role_name(self.role))?;
        if let Some((host, port)) = &self.client {
            f.write_char(';')?;
            write_host(f, host)?;
            write!(f, ":{port}")?;
        }
        Ok(())
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Participant => "participant",
        Role::Observer => "observer",
    }
}

fn write_host(f: &mut fmt::Formatter<'_>, host: &str) -> fmt::Result {
    if host.contains(':') { write!(f, "[{host}]") } else { f.write_str(host) }
}

/// One of the `|` separated addresses, with its role if it has one.
fn parse_address(
    sid: Sid,
    value: &str,
    part: &str,
) -> Result<(Address, Option<Role>), ConfigError> {
    let (host, ports) = split_host(part)?;
    let (quorum, election, role) = match ports[..] {
        [quorum, election] => (quorum, election, None),
        [quorum, election, role] => (quorum, election, Some(parse_role(role)?)),
        _ => return Err(bad_form(value)),
    };
    if !is_host(host) {
        return Err(bad_form(value));
    }
    let address = Address {
        host: host.into(),
        quorum_port: parse_port(host, quorum)?,
        election_port: parse_port(host, election)?,
    };
    if address.quorum_port == address.election_port {
        return Err(ConfigError::Invalid(format!(
            "Client and election port must be different! Please update the configuration file on \
             server.{sid}"
        )));
    }
    Ok((address, role))
}

fn parse_role(role: &str) -> Result<Role, ConfigError> {
    let name = role.trim_ascii();
    if name.eq_ignore_ascii_case("participant") {
        Ok(Role::Participant)
    } else if name.eq_ignore_ascii_case("observer") {
        Ok(Role::Observer)
    } else {
        Err(ConfigError::Invalid(format!("Unrecognised peertype: {role}")))
    }
}

fn parse_client(value: &str, client: &str) -> Result<(String, u16), ConfigError> {
    let (host, ports) = split_host(client)?;
    match ports[..] {
        [] => Ok(("0.0.0.0".into(), parse_port("0.0.0.0", host)?)),
        [port] if is_host(host) => Ok((host.into(), parse_port(host, port)?)),
        _ => Err(bad_form(value)),
    }
}

/// The host in front of the first colon, or in brackets, and the parts after it.
fn split_host(text: &str) -> Result<(&str, Vec<&str>), ConfigError> {
    let Some(rest) = text.strip_prefix('[') else {
        let mut parts = split(text, ':');
        let host = if parts.is_empty() { "" } else { parts.remove(0) };
        return Ok((host, parts));
    };
    match rest.split_once("]:") {
        Some((_, "")) => {
            Err(ConfigError::Invalid(format!("{text} doesn't have a port after colon")))
        }
        Some((host, rest)) => Ok((host, split(rest, ':'))),
        None => {
            Err(ConfigError::Invalid(format!("{text} starts with '[' but has no matching ']:'")))
        }
    }
}

/// Whether the text can be a host without making the rendered line mean something else. ZooKeeper
/// takes anything here, and may then send text that its own peers do not read.
fn is_host(text: &str) -> bool {
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || "[]|;\\".contains(c);
    !text.is_empty() && !text.contains(is_odd)
}

/// Splits as Java does: empty parts at the end do not count, unless there is nothing else.
fn split(text: &str, separator: char) -> Vec<&str> {
    if text.is_empty() {
        return Vec::from([text]);
    }
    let mut parts: Vec<&str> = text.split(separator).collect();
    while parts.last().is_some_and(|part| part.is_empty()) {
        parts.pop();
    }
    parts
}

fn parse_port(host: &str, port: &str) -> Result<u16, ConfigError> {
    port.parse().map_err(|_| ConfigError::Invalid(format!("Address unresolved: {host}:{port}")))
}

fn parse_number(text: &str) -> Result<i64, ConfigError> {
    text.parse().map_err(|_| not_a_number(text))
}

fn not_a_number(text: &str) -> ConfigError {
    ConfigError::NotANumber(text.into())
}

fn bad_form(value: &str) -> ConfigError {
    ConfigError::Invalid(format!(
        "{value} does not have the form server_config or server_config;client_config where \
         server_config is the pipe separated list of host:port:port or host:port:port:type and \
         client_config is port or host:port"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &str) -> Result<String, String> {
        Member::parse(Sid(7), value).map(|m| m.to_string()).map_err(|e| e.to_string())
    }

    #[test]
    fn server_lines() {
        for (value, rendered) in [
            ("h:1:2", "h:1:2:participant"),
            ("h:1:2:OBSERVER;9", "h:1:2:observer;0.0.0.0:9"),
            ("h:1:2;c:9", "h:1:2:participant;c:9"),
            ("[2001:db8::1]:1:2;[::1]:9", "[2001:db8::1]:1:2:participant;[::1]:9"),
            ("z:1:2|a:3:4:participant", "a:3:4|z:1:2:participant"),
            ("z:1:2:observer|a:3:4", "a:3:4|z:1:2:observer"),
            ("z:1:2|a:3:4:observer;9", "a:3:4|z:1:2:observer;0.0.0.0:9"),
            ("h:1:2:;", "h:1:2:participant"),
        ] {
            assert_eq!(parse(value).as_deref(), Ok(rendered), "{value}");
            assert_eq!(parse(rendered).as_deref(), Ok(rendered), "{rendered}");
        }
    }

    #[test]
    fn errors_are_those_of_zookeeper() {
        for (value, error) in [
            (
                "h:1:1",
                "Client and election port must be different! Please update the configuration \
              file on server.7",
            ),
            ("h:1:2:foo", "Unrecognised peertype: foo"),
            ("h:x:2", "Address unresolved: h:x"),
            ("h:1:2;c:y", "Address unresolved: c:y"),
            ("h:1:65536", "Address unresolved: h:65536"),
            ("[::1:1:2", "[::1:1:2 starts with '[' but has no matching ']:'"),
            ("[::1]:", "[::1]: doesn't have a port after colon"),
            (
                "h:1:2:participant|i:1:2:observer",
                "Multiple addresses should have similar roles: PARTICIPANT vs OBSERVER",
            ),
        ] {
            assert_eq!(parse(value), Err(error.into()), "{value}");
        }
        for value in
            ["", ";", "|", "h", "h:1", ":1:2", "h:1:2:observer:5", "h:1:2;3;4", "h:1:2;a:b:c"]
        {
            let error = parse(value).expect_err(value);
            assert!(
                error.starts_with(value) && error.contains("does not have the form"),
                "{error}"
            );
        }
    }

    #[test]
    fn text_round_trips() {
        for text in [
            "version=0",
            "server.1=127.0.0.1:1:2:participant;127.0.0.1:3\nserver.2=h:1:2:observer\n\
             version=1000000ab",
            "server.-1=a:1:2:participant\ngroup.1=-1\nweight.-1=1\nversion=0",
        ] {
            let ensemble = Membership::parse_text(text.as_bytes()).expect(text);
            assert_eq!(ensemble.text(), text);
        }
        let empty = Membership::parse_text(b"").expect("no members");
        assert_eq!(empty, Membership::default());
        let messy = b"# comment\r\n\n server.1 = a:1:2 \nserver.1=b:1:2\nversion=1f";
        let ensemble = Membership::parse_text(messy).expect("odd, but allowed");
        assert_eq!(ensemble.text(), "server.1=b:1:2:participant\nversion=1f");
    }

    #[test]
    fn bad_text() {
        for (text, error) in [
            ("server.a=h:1:2", "For input string: \"a\""),
            ("group=1", "For input string: \"group\""),
            ("group.1=", "For input string: \"\""),
            ("group.1=:", "For input string: \":\""),
            ("group.1=1:1", "Server 1is in multiple groups"),
            ("weight.1=x", "For input string: \"x\""),
            ("weight.1=-1", "Negative weight of server 1"),
            ("version=xyz", "For input string: \"xyz\""),
            ("clientPort=1", "Unrecognised parameter: clientPort"),
            ("nonsense", "Unrecognised parameter: nonsense"),
        ] {
            let got = Membership::parse_text(text.as_bytes()).map_err(|e| e.to_string());
            assert_eq!(got, Err(error.into()), "{text}");
        }
    }
}
