//! Logins of clients by SASL (`ZooKeeperSaslServer`, `SASLAuthenticationProvider`).

use zab_sasl::PrincipalName;
use zab_sasl::digest_md5::{Acceptor, CLIENTS, Failure, Login, NONCE_LEN, Step};

use super::{Ids, add_id};
use crate::auth::rules::Rules;
use crate::options::{Entropy, SaslOptions};

/// What a client is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    /// To go on with this token.
    Token(Vec<u8>),
    /// The same, and the login is done.
    LoggedIn(Vec<u8>, String),
    /// To go on without a login: nobody can log in here.
    NobodyCan,
    /// The login has failed.
    Failed(String),
}

impl SaslOptions {
    /// Takes a token of a client. `exchange` is what was said before on its connection, on which there
    /// is one exchange only.
    pub(crate) fn evaluate(
        &self,
        exchange: &mut Option<Box<Acceptor>>,
        token: &[u8],
        entropy: &Entropy,
        ids: &mut Vec<u8>,
    ) -> Said {
        let Some(users) = &self.users else { return Said::NobodyCan };
        let exchange =
            exchange.get_or_insert_with(|| Box::new(Acceptor::new(CLIENTS, random_bytes(entropy))));
        match exchange.evaluate(token, |user| users.password(user)) {
            Ok(Step::Challenge(challenge)) => Said::Token(challenge),
            Ok(Step::Done(answer, login)) => match self.log_in(&login, ids) {
                Some(identity) => Said::LoggedIn(answer, identity),
                None => Said::Failed(format!("{:?} is no name of a principal", login.user)),
            },
            Err(failure) => Said::Failed(shown(&failure)),
        }
    }

    /// The password has proven who it is; what it wanted to act as does not matter here.
    fn log_in(&self, login: &Login, ids: &mut Vec<u8>) -> Option<String> {
        let identity = self.names.identity(&login.user, login.authzid.as_deref()).ok()?;
        add_id(ids, "sasl", &identity);
        if self.super_users.contains(&identity) {
            add_id(ids, "super", "");
        }
        Some(identity)
    }

    /// Whether an ACL may have this id.
    pub(super) fn is_valid(&self, id: &str) -> bool {
        self.in_acls && PrincipalName::parse(id).is_some()
    }

    /// What an ACL grants to whoever has logged in, beside what names him.
    pub(super) fn of_everybody_known(&self, ids: Ids<'_>, acl: &Rules) -> i32 {
        if !self.in_acls {
            return 0;
        }
        let known = ids.iter().filter(|(scheme, _)| scheme == "sasl");
        known.fold(0, |perms, (_, id)| {
            let any = self.any_user.as_deref().map_or(0, |any| acl.of_identity("sasl", any));
            let all = if id == "super" { acl.of_scheme("sasl") } else { 0 };
            perms | any | all
        })
    }
}

/// For the log; the client is not told why.
fn shown(failure: &Failure) -> String {
    format!("SASL: {failure}")
}

fn random_bytes(entropy: &Entropy) -> [u8; NONCE_LEN] {
    let mut bytes = [0; NONCE_LEN];
    for piece in bytes.chunks_mut(8) {
        piece.copy_from_slice(&entropy.next().to_le_bytes()[..piece.len()]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::acl::{Acl, perms};

    #[test]
    fn who_has_logged_in_is_somebody() {
        let sasl = SaslOptions {
            in_acls: true,
            super_users: vec!["root".into()],
            any_user: Some("anyone".into()),
            ..SaslOptions::default()
        };
        let of = |user: &str| {
            let mut ids = Vec::new();
            let login = Login { user: user.into(), authzid: Some("somebody".into()) };
            sasl.log_in(&login, &mut ids).map(|_| {
                let pairs = Ids::new(&ids).iter().map(|(scheme, id)| format!("{scheme}:{id}"));
                (pairs.collect::<Vec<_>>().join(","), ids.clone())
            })
        };
        assert_eq!(of("bob").unwrap().0, "sasl:bob");
        assert_eq!(of("root").unwrap().0, "sasl:root,super:");
        assert_eq!(of("a@b@c"), None);
        let acl = Rules::new(&[
            Acl::new(perms::READ, "sasl", "anyone"),
            Acl::new(perms::WRITE, "sasl", "bob"),
        ]);
        let granted = |user: &str| sasl.of_everybody_known(Ids::new(&of(user).unwrap().1), &acl);
        assert_eq!(granted("bob"), perms::READ);
        assert_eq!(granted("super"), perms::READ | perms::WRITE);
        assert_eq!(sasl.of_everybody_known(Ids::default(), &acl), 0);
        let off = SaslOptions { in_acls: false, ..sasl.clone() };
        assert_eq!(off.of_everybody_known(Ids::new(&of("super").unwrap().1), &acl), 0);
        assert!(sasl.is_valid("bob@R") && !sasl.is_valid("a@b@c") && !off.is_valid("bob"));
    }
}
