//! Identities, and what an ACL lets them do.

mod names;
pub(crate) mod rules;
pub(crate) mod sasl;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use bytes::BufMut;
use hashbrown::HashSet;
use zab_proto::DecodeError;
use zab_proto::wire::jute::{BufMutExt, Reader};

use crate::auth::rules::{IdSet, Rules, Verdicts, parse_range};
use crate::cost;
use crate::options::{DigestAlgorithm, EnsembleAuth, SaslOptions, ServiceOptions};
use crate::protocol::acl::{Acl, AclEntry, AclList, write_acls};
use crate::protocol::code::Code;

/// The identities of a requester: entries of a `vector<Id>` without their count.
///
/// They stay encoded, as they travel with forwarded requests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ids<'a>(&'a [u8]);

impl<'a> Ids<'a> {
    pub(crate) fn new(entries: &'a [u8]) -> Self {
        Self(entries)
    }

    /// From a `vector<Id>`, null included.
    pub(crate) fn decode(vector: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(vector);
        let count = reader.vector()?.unwrap_or(0);
        let entries = reader.rest();
        for _ in 0..count {
            reader.ustring()?;
            reader.ustring()?;
        }
        Ok(Self(&entries[..entries.len() - reader.remaining()]))
    }

    /// Scheme and id of each.
    pub(crate) fn iter(self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> {
        let mut reader = Reader::new(self.0);
        std::iter::from_fn(move || {
            let scheme = reader.string().ok()?.unwrap_or_default();
            Some((scheme, reader.string().ok()?.unwrap_or_default()))
        })
    }

    pub(crate) fn len_bytes(self) -> usize {
        self.0.len()
    }

    /// A copy of the entries.
    pub(crate) fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// Bytes of the entries.
    pub(crate) fn len(self) -> usize {
        self.0.len()
    }

    /// Writes the `vector<Id>`.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        out.put_len(self.iter().count());
        out.put_slice(self.0);
    }
}

/// Appends an identity unless it is there already.
pub(crate) fn add_id(entries: &mut Vec<u8>, scheme: &str, id: &str) {
    let len = entries.len();
    entries.put_ustring(Some(scheme));
    entries.put_ustring(Some(id));
    let (known, new) = entries.split_at(len);
    let mut reader = Reader::new(known);
    // Encoded: there may be thousands, and each new one is compared with all.
    let is_known = std::iter::from_fn(|| {
        let rest = reader.rest();
        reader.ustring().ok()?;
        reader.ustring().ok()?;
        Some(&rest[..rest.len() - reader.remaining()])
    })
    .any(|known| known == new);
    if is_known {
        entries.truncate(len);
    }
}

/// What `whoAmI` calls an identity.
pub(crate) fn user_name<'a>(scheme: &str, id: &'a str) -> &'a str {
    if scheme == "digest" { id.split(':').next().unwrap_or(id) } else { id }
}

/// What an auth packet leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// The identities were added, or there was none to add.
    Granted,
    /// The client is told, and its connection closed.
    Refused,
    /// The connection is closed without a word, so that the client tries another server. An error
    /// would make it give up.
    Elsewhere,
}

/// Access control as configured.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// `skipACL=yes`.
    skip_acl: bool,
    /// `zookeeper.DigestAuthenticationProvider.enabled`.
    digest_enabled: bool,
    /// `zookeeper.DigestAuthenticationProvider.digestAlg`.
    digest_algorithm: DigestAlgorithm,
    /// `zookeeper.DigestAuthenticationProvider.superDigest`.
    super_digest: Option<String>,
    /// Scheme `x509` is known.
    pub(crate) x509_enabled: bool,
    /// `zookeeper.X509AuthenticationProvider.superUser`.
    x509_super_user: Option<String>,
    /// Logins by SASL.
    pub(crate) sasl: SaslOptions,
    /// Scheme `ensemble`, if it is known.
    pub(crate) ensemble_auth: Option<EnsembleAuth>,
    /// Longest list that a client's ACL may become, in bytes: each `auth` entry stands for all of
    /// the client's identities.
    acl_len_max: usize,
}

impl Access {
    /// As the options say.
    pub(crate) fn new(options: &ServiceOptions) -> Self {
        Self {
            skip_acl: options.skip_acl,
            digest_enabled: options.digest_auth,
            digest_algorithm: options.digest_algorithm,
            super_digest: options.super_digest.clone(),
            x509_enabled: options.x509_auth,
            x509_super_user: options.x509_super_user.clone(),
            sasl: options.sasl.clone(),
            ensemble_auth: options.ensemble_auth.clone(),
            acl_len_max: options.jute_max_buffer,
        }
    }

    /// Whether an identity counts, and is not only carried along.
    fn counts(&self, scheme: &str) -> bool {
        match scheme {
            "digest" => self.digest_enabled,
            "sasl" => self.sasl.in_acls,
            _ => true,
        }
    }

    /// Writes the `vector<ACL>` that a client's list stands for: without duplicates, `auth` entries
    /// replaced by the client's own identities.
    ///
    /// # Errors
    /// [`Code::INVALID_ACL`]; [`Code::MARSHALLING_ERROR`] for a null id of a scheme that needs one.
    pub(crate) fn fix(
        &self,
        list: AclList<'_>,
        ids: Ids<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Code> {
        out.clear();
        out.put_i32(0);
        let mut count = 0;
        let mut seen = HashSet::new();
        for (at, (entry, raw)) in list.iter_raw().enumerate() {
            // Equal entries have equal bytes, since nobody writes malformed text.
            if list.len() > 1 && !seen.insert(raw) {
                continue;
            }
            let same_perms =
                |other: AclEntry<'_>| other.perms == entry.perms && other.scheme.is_some();
            if entry.scheme.is_none() && list.iter().take(at).any(same_perms) {
                // ZooKeeper stumbles over it when it looks for duplicates.
                return Err(Code::MARSHALLING_ERROR);
            }
            count += self.fix_entry(&entry, ids, out)?;
            if out.len() > self.acl_len_max {
                return Err(Code::INVALID_ACL);
            }
        }
        if count == 0 {
            return Err(Code::INVALID_ACL);
        }
        out[..4].copy_from_slice(&i32::to_be_bytes(count));
        Ok(())
    }

    fn fix_entry(
        &self,
        entry: &AclEntry<'_>,
        ids: Ids<'_>,
        out: &mut Vec<u8>,
    ) -> Result<i32, Code> {
        let mut put = |scheme: &str, id: &str| {
            out.put_i32(entry.perms);
            out.put_ustring(Some(scheme));
            out.put_ustring(Some(id));
        };
        let Some(scheme) = entry.scheme.as_deref() else { return Err(Code::INVALID_ACL) };
        let null_name = scheme == "x509" && self.x509_enabled && entry.id.is_none();
        if null_name || entry.has_null_id() && (scheme != "digest" || self.digest_enabled) {
            // ZooKeeper stumbles over it, and says so in this way.
            return Err(Code::MARSHALLING_ERROR);
        }
        // Some clients write an empty text as null.
        let id = entry.id.as_deref().unwrap_or_default();
        if scheme == "auth" {
            let mut count = 0;
            for (scheme, id) in ids.iter() {
                if rules::is_named(&scheme) {
                    put(&scheme, &id);
                    count += 1;
                }
            }
            return if count == 0 { Err(Code::INVALID_ACL) } else { Ok(count) };
        }
        let valid = match scheme {
            "world" => id == "anyone",
            "ip" => parse_range(id).is_some(),
            "digest" => self.digest_enabled && is_digest_id(id),
            "x509" => self.x509_enabled && names::is_distinguished(id),
            "sasl" => self.sasl.is_valid(id),
            _ => false,
        };
        if valid {
            put(scheme, id);
            Ok(1)
        } else {
            Err(Code::INVALID_ACL)
        }
    }

    /// Adds the identities that an auth packet earns.
    pub(crate) fn authenticate(
        &self,
        scheme: Option<&str>,
        data: Option<&[u8]>,
        remote: IpAddr,
        entries: &mut Vec<u8>,
    ) -> Verdict {
        match (scheme, data) {
            (Some("digest"), Some(data)) if self.digest_enabled => {
                let id = digest_id(self.digest_algorithm, &String::from_utf8_lossy(data));
                if self.super_digest.as_ref() == Some(&id) {
                    add_id(entries, "super", "");
                }
                add_id(entries, "digest", &id);
                Verdict::Granted
            }
            (Some("ip"), _) => {
                add_id(entries, "ip", &remote.to_string());
                Verdict::Granted
            }
            // The certificate has said it already; the packet only asks whether there was one.
            (Some("x509"), _) if self.x509_enabled => {
                let known = Ids::new(entries).iter().any(|(scheme, _)| scheme == "x509");
                if known { Verdict::Granted } else { Verdict::Refused }
            }
            (Some("ensemble"), name) => match &self.ensemble_auth {
                None => Verdict::Refused,
                Some(known) if known.accepts(name.unwrap_or_default()) => Verdict::Granted,
                Some(_) => Verdict::Elsewhere,
            },
            _ => Verdict::Refused,
        }
    }

    /// Adds the identities of whoever has shown a certificate for `subject`.
    pub(crate) fn identify(&self, subject: &str, entries: &mut Vec<u8>) {
        if self.x509_super_user.as_deref() == Some(subject) {
            add_id(entries, "super", subject);
        }
        add_id(entries, "x509", subject);
    }

    /// Writes a node's `vector<ACL>` as `getACL` shows it: without ADMIN on the node, digests are
    /// hidden.
    pub(crate) fn show(acl: &[Acl], admin: bool, out: &mut Vec<u8>) {
        if admin {
            write_acls(acl, out);
            return;
        }
        out.put_len(acl.len());
        for entry in acl {
            match entry.id.split_once(':') {
                Some((user, _)) if &*entry.scheme == "digest" => {
                    Acl::new(entry.perms, "digest", &format!("{user}:x")).write(out);
                }
                _ => entry.write(out),
            }
        }
    }
}

/// A requester before the ACLs that its request is about: one for each request.
#[derive(Debug)]
pub(crate) struct Judge<'a> {
    access: &'a Access,
    ids: Ids<'a>,
    /// Made when it is wanted, by who has many identities.
    set: Option<Box<IdSet<'a>>>,
    is_super: Option<bool>,
    verdicts: Verdicts,
    /// What it took to answer.
    work: u64,
}

impl<'a> Judge<'a> {
    /// Identities of more bytes are made a set.
    const SINGLE_LEN_MAX_BYTES: usize = 512;

    pub(crate) fn new(access: &'a Access, ids: Ids<'a>) -> Self {
        Self { access, ids, set: None, is_super: None, verdicts: Verdicts::default(), work: 0 }
    }

    /// The work done since this was asked last.
    pub(crate) fn take_work(&mut self) -> u64 {
        std::mem::take(&mut self.work)
    }

    /// The requester's identities.
    pub(crate) fn ids(&self) -> Ids<'a> {
        self.ids
    }

    /// Whether the requester has one of the permissions `wanted` on a node with this ACL.
    #[inline]
    pub(crate) fn permits(&mut self, acl: &Arc<Rules>, wanted: i32) -> bool {
        // Most nodes are open to everybody, so that most requests end here.
        self.access.skip_acl || acl.of_everybody() & wanted != 0 || self.looks_up(acl, wanted)
    }

    fn looks_up(&mut self, acl: &Arc<Rules>, wanted: i32) -> bool {
        let Self { access, ids, set, is_super, verdicts, work } = self;
        if *is_super.get_or_insert_with(|| ids.iter().any(|(scheme, _)| scheme == "super")) {
            return true;
        }
        let counting = || ids.iter().filter(|(scheme, _)| access.counts(scheme));
        let granted = verdicts.granted(acl, || {
            *work += cost::parsed(ids.0.len() + acl.unread_len());
            let named = if ids.0.len() > Self::SINGLE_LEN_MAX_BYTES {
                acl.of_set(set.get_or_insert_with(|| Box::new(IdSet::new(counting()))))
            } else {
                counting().fold(0, |perms, (scheme, id)| perms | acl.of_identity(&scheme, &id))
            };
            named | access.sasl.of_everybody_known(*ids, acl)
        });
        granted & wanted != 0
    }
}

/// `user:base64(hash(user:password))`.
fn digest_id(algorithm: DigestAlgorithm, user_data: &str) -> String {
    let user = user_data.split(':').next().unwrap_or_default();
    let hash = algorithm.hash(user_data.as_bytes());
    format!("{user}:{}", base64::engine::general_purpose::STANDARD.encode(hash))
}

/// Two non-empty-at-the-end parts around a colon, as Java's `split` counts them.
fn is_digest_id(id: &str) -> bool {
    id.trim_end_matches(':').split(':').count() == 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::acl::perms;

    fn access() -> Access {
        Access {
            skip_acl: false,
            digest_enabled: true,
            digest_algorithm: DigestAlgorithm::Sha1,
            super_digest: Some(digest_id(DigestAlgorithm::Sha1, "super:pw")),
            x509_enabled: true,
            x509_super_user: Some("CN=root".into()),
            sasl: SaslOptions::default(),
            ensemble_auth: None,
            acl_len_max: 1 << 20,
        }
    }

    fn with_list<T>(acls: &[Acl], f: impl FnOnce(AclList<'_>) -> T) -> T {
        let mut bytes = Vec::new();
        write_acls(acls, &mut bytes);
        f(AclList::read(&mut Reader::new(&bytes)).unwrap())
    }

    fn ids(of: &[(&str, &str)]) -> Vec<u8> {
        let mut entries = Vec::new();
        for (scheme, id) in of {
            add_id(&mut entries, scheme, id);
        }
        entries
    }

    #[test]
    fn digests() {
        for (name, digest) in [
            ("SHA1", "ikIaKsbtGweaHnb/jKn7OHqbunM="),
            ("SHA-224", "V2mvd2ffOcs02HpVY83ycSg9kqz4jTlMn1ET9Q=="),
            ("sha-256", "lXdkgIa9O1CDDWAryQ0pe9wUYi2LkG6M7Uocn/Vyn2g="),
            ("SHA-384", "Pd/l06QeLk9MqD36VccOX0Fw1tgKhSdAl0mKINCHnwpI9R17BoWbdxukNC3K47Q1"),
            (
                "SHA-512",
                "jQFpfQMlS0Fkelz3cdxBlcfmOOApGvKAjybCSpc/oHQD7ouOUKaAFXPlHr/2XpjmwJ0yssqB0Mh7gRRVqmyALQ==",
            ),
        ] {
            let algorithm = DigestAlgorithm::from_name(name).unwrap();
            assert_eq!(digest_id(algorithm, "bob:pw"), format!("bob:{digest}"));
        }
        assert_eq!(DigestAlgorithm::from_name("MD5"), None);
        for (id, valid) in [
            ("a:b", true),
            ("a:b:", true),
            (":b", true),
            ("a", false),
            ("a:", false),
            ("a:b:c", false),
            ("", false),
        ] {
            assert_eq!(is_digest_id(id), valid, "{id:?}");
        }
    }

    #[test]
    fn permissions() {
        let access = access();
        let bob = ids(&[("ip", "1.2.3.4"), ("digest", "bob:h")]);
        let none = ids(&[("ip", "9.9.9.9")]);
        let root = ids(&[("super", "")]);
        let rules = |acls: &[Acl]| Arc::new(Rules::new(acls));
        let acls = rules(&[Acl::world(perms::READ), Acl::new(perms::WRITE, "digest", "bob:h")]);
        let permits =
            |wanted, ids: &[u8]| Judge::new(&access, Ids::new(ids)).permits(&acls, wanted);
        assert!(permits(perms::READ, &none));
        assert!(!permits(perms::WRITE, &none));
        assert!(permits(perms::WRITE, &bob));
        assert!(!permits(perms::ADMIN, &bob));
        assert!(permits(perms::ADMIN, &root));
        assert!(Judge::new(&access, Ids::default()).permits(&rules(&[]), perms::ALL));
        let off = Access { digest_enabled: false, ..access.clone() };
        assert!(!Judge::new(&off, Ids::new(&bob)).permits(&acls, perms::WRITE));
        // The same with so many identities that they are made a set.
        for (len, root) in [(100, false), (100, true)] {
            let names: Vec<String> = (0..len).map(|n| format!("user{n}:h")).collect();
            let mut many: Vec<_> = names.iter().map(|name| ("digest", name.as_str())).collect();
            many.push(if root { ("super", "") } else { ("digest", "bob:h") });
            let many = ids(&many);
            assert!(permits(perms::WRITE, &many));
            assert_eq!(permits(perms::ADMIN, &many), root);
            assert_eq!(Judge::new(&off, Ids::new(&many)).permits(&acls, perms::WRITE), root);
        }
    }

    #[test]
    fn certificates_are_identities() {
        let access = access();
        let of = |subject: &str| {
            let mut entries = ids(&[("ip", "1.2.3.4")]);
            access.identify(subject, &mut entries);
            entries
        };
        let (al, root) = (of("CN=al,O=x"), of("CN=root"));
        let acl = Arc::new(Rules::new(&[Acl::new(perms::READ, "x509", "CN=al,O=x")]));
        let permits = |wanted, ids: &[u8]| Judge::new(&access, Ids::new(ids)).permits(&acl, wanted);
        assert!(permits(perms::READ, &al) && !permits(perms::WRITE, &al));
        assert!(permits(perms::ADMIN, &root), "the super user");
        assert!(!permits(perms::READ, &of("CN=al, O=x")), "the exact text");
        // An auth packet adds nothing, and is refused without a certificate.
        let packet = |access: &Access, mut entries: Vec<u8>| {
            let before = entries.len();
            let remote = IpAddr::from([1, 2, 3, 4]);
            let verdict = access.authenticate(Some("x509"), Some(b"any"), remote, &mut entries);
            assert_eq!(entries.len(), before);
            verdict
        };
        assert_eq!(packet(&access, al.clone()), Verdict::Granted);
        assert_eq!(packet(&access, ids(&[("ip", "1.2.3.4")])), Verdict::Refused);
        let off = Access { x509_enabled: false, ..access.clone() };
        assert_eq!(packet(&off, al.clone()), Verdict::Refused);
        // In lists: names only, and `auth` stands for them.
        let fix = |access: &Access, entry: Acl| {
            let mut out = Vec::new();
            with_list(&[entry], |list| access.fix(list, Ids::new(&al), &mut out))?;
            Ok(AclList::read(&mut Reader::new(&out)).unwrap().to_acls().into_vec())
        };
        let named = Acl::new(perms::ALL, "x509", "CN=al,O=x");
        assert_eq!(fix(&access, named.clone()), Ok(vec![named.clone()]));
        assert_eq!(fix(&access, Acl::new(perms::ALL, "auth", "")), Ok(vec![named.clone()]));
        assert_eq!(fix(&access, Acl::new(perms::ALL, "x509", "al")), Err(Code::INVALID_ACL));
        assert_eq!(fix(&off, named), Err(Code::INVALID_ACL));
    }

    #[test]
    fn lists_are_cleaned_and_expanded() {
        let access = access();
        let bob = ids(&[("ip", "1.2.3.4"), ("digest", "bob:h"), ("digest", "al:h")]);
        let fix = |acls: &[Acl], ids: &[u8]| {
            let mut out = Vec::new();
            with_list(acls, |acl| access.fix(acl, Ids::new(ids), &mut out))?;
            Ok(AclList::read(&mut Reader::new(&out)).unwrap().to_acls().into_vec())
        };
        let world = Acl::world(perms::ALL);
        assert_eq!(fix(&[world.clone(), world.clone()], &bob), Ok(vec![world]));
        let auth = Acl::new(perms::ALL, "auth", "ignored");
        assert_eq!(
            fix(std::slice::from_ref(&auth), &bob),
            Ok(vec![Acl::new(31, "digest", "bob:h"), Acl::new(31, "digest", "al:h")])
        );
        assert_eq!(fix(&[auth], &[]), Err(Code::INVALID_ACL));
        assert_eq!(fix(&[], &bob), Err(Code::INVALID_ACL));
        assert_eq!(fix(&[Acl::new(1, "world", "me")], &bob), Err(Code::INVALID_ACL));
        assert_eq!(fix(&[Acl::new(1, "super", "")], &bob), Err(Code::INVALID_ACL));
    }

    #[test]
    fn auth_packets() {
        let access = access();
        let remote = "127.0.0.1".parse().unwrap();
        let mut entries = ids(&[("ip", "127.0.0.1")]);
        let mut verdict = |scheme, data| access.authenticate(scheme, data, remote, &mut entries);
        assert_eq!(verdict(Some("digest"), Some(b"super:pw")), Verdict::Granted);
        assert_eq!(verdict(Some("ip"), None), Verdict::Granted);
        let refused: [(Option<&str>, Option<&[u8]>); 4] = [
            (Some("digest"), None),
            (Some("world"), Some(b"x")),
            (None, Some(b"x")),
            (Some("ensemble"), Some(b"x")),
        ];
        for (scheme, data) in refused {
            assert_eq!(verdict(scheme, data), Verdict::Refused, "{scheme:?}");
        }
        let schemes: Vec<_> = Ids::new(&entries).iter().map(|(s, _)| s.into_owned()).collect();
        assert_eq!(schemes, ["ip", "super", "digest"]);
        let mut vector = Vec::new();
        Ids::new(&entries).write(&mut vector);
        assert_eq!(Ids::decode(&vector).unwrap().iter().count(), 3);
        assert!(Ids::decode(&vector[..vector.len() - 1]).is_err());
    }

    #[test]
    fn digests_are_hidden_without_admin() {
        let acls = [Acl::world(perms::READ), Acl::new(31, "digest", "bob:h")];
        let mut out = Vec::new();
        Access::show(&acls, false, &mut out);
        let shown = AclList::read(&mut Reader::new(&out)).unwrap().to_acls();
        assert_eq!(shown[1], Acl::new(31, "digest", "bob:x"));
    }
}
