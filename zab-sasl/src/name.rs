//! Names of principals, and the identities that come of them (`KerberosName`).

use std::fmt;

/// `service[/host]@REALM`, or a plain name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PrincipalName<'a> {
    /// What stands before `/` and `@`.
    pub service: &'a str,
    /// What stands between them.
    pub host: Option<&'a str>,
    /// What stands after `@`.
    pub realm: Option<&'a str>,
}

impl<'a> PrincipalName<'a> {
    /// Splits a name; `None` if it has an `@` and is not of that form. A name without `@` is a
    /// service, whatever is in it.
    #[must_use]
    pub fn parse(name: &'a str) -> Option<Self> {
        let Some((first, realm)) = name.split_once('@') else {
            return Some(Self { service: name, host: None, realm: None });
        };
        let (service, host) = match first.split_once('/') {
            Some((service, host)) => (service, Some(host)),
            None => (first, None),
        };
        let is_clean = |part: &str| !part.contains(['/', '@']);
        let clean = is_clean(realm) && host.is_none_or(is_clean);
        clean.then_some(Self { service, host, realm: Some(realm) })
    }
}

/// How a name becomes an identity. The rules of `zookeeper.security.auth_to_local` are not known
/// here; this is what `DEFAULT` says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NameRules {
    /// `zookeeper.kerberos.removeHostFromPrincipal`.
    pub remove_host: bool,
    /// `zookeeper.kerberos.removeRealmFromPrincipal`.
    pub remove_realm: bool,
    /// `zookeeper.server.realm`: who comes from there needs no realm.
    pub realm: Option<String>,
}

/// A name with an `@` that is no `service[/host]@REALM`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MalformedName;

impl fmt::Display for MalformedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name is no service[/host]@REALM")
    }
}

impl std::error::Error for MalformedName {}

impl NameRules {
    /// The identity of whoever has logged in as `user`, having asked to act as `wanted`.
    ///
    /// # Errors
    /// [`MalformedName`].
    pub fn identity(&self, user: &str, wanted: Option<&str>) -> Result<String, MalformedName> {
        let name = PrincipalName::parse(user).ok_or(MalformedName)?;
        let at_home = name.realm.is_some() && name.realm == self.realm.as_deref();
        let is_plain = name.host.is_none() && name.realm.is_none();
        if !is_plain && !at_home {
            // No rule says what such a one is called here, so that the text is taken as it is.
            return Ok(wanted.unwrap_or(user).to_owned());
        }
        let mut identity = name.service.to_owned();
        if let Some(host) = name.host.filter(|_| !self.remove_host) {
            identity.push('/');
            identity.push_str(host);
        }
        if let Some(realm) = name.realm.filter(|_| !self.remove_realm) {
            identity.push('@');
            identity.push_str(realm);
        }
        Ok(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, expected) in [
            ("bob", Some(("bob", None, None))),
            ("a/b", Some(("a/b", None, None))),
            ("zk/h@R", Some(("zk", Some("h"), Some("R")))),
            ("bob@R", Some(("bob", None, Some("R")))),
            ("", Some(("", None, None))),
            ("a/b/c@R", None),
            ("a@b@c", None),
            ("a@b/c", None),
        ] {
            let parsed = PrincipalName::parse(name).map(|n| (n.service, n.host, n.realm));
            assert_eq!(parsed, expected, "{name}");
        }
    }

    #[test]
    fn identities() {
        let home = NameRules { realm: Some("R".into()), ..NameRules::default() };
        let short = NameRules { remove_host: true, remove_realm: true, ..home.clone() };
        for (rules, user, wanted, expected) in [
            (&home, "bob", Some("eve"), "bob"),
            (&home, "zk/h@R", None, "zk/h@R"),
            (&short, "zk/h@R", None, "zk"),
            (&short, "zk/h@ELSEWHERE", None, "zk/h@ELSEWHERE"),
            (&short, "zk/h@ELSEWHERE", Some("zk"), "zk"),
        ] {
            assert_eq!(rules.identity(user, wanted).as_deref(), Ok(expected), "{user}");
        }
        assert_eq!(home.identity("a@b@c", None), Err(MalformedName));
    }
}
