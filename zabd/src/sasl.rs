//! Logins of members by SASL, as the runtimes' layer wants them.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;

use runtime_core::{CipherError, Exchange, Logins};
use zab_proto::Channel;
use zab_sasl::Users;
use zab_sasl::digest_md5::{Acceptor, Initiator, MEMBERS, NONCE_LEN};
use zab_sasl::members::{FIRST_BYTE, MemberAcceptor, MemberDialler, MemberFailure};

use crate::config::{MemberLogins, ServerConfig};

/// Logins by DIGEST-MD5.
#[derive(Debug)]
struct Sasl(MemberLogins);

/// How members log in, if any of them may.
pub(crate) fn logins(config: &ServerConfig) -> Option<Arc<dyn Logins>> {
    let Some(members) = &config.sasl.members else {
        if !config.standalone {
            log::info!("QuorumPeer communication is not secured! (SASL auth disabled)");
        }
        return None;
    };
    if members.login.is_none() {
        log::info!("Skipping SASL authentication as quorum.auth.learnerRequireSasl=false");
    }
    if !members.required {
        log::info!("Members need not log in: quorum.auth.serverRequireSasl=false");
    }
    Some(Arc::new(Sasl(members.clone())))
}

impl Logins for Sasl {
    fn dial(&self, _: Channel, remote: Option<SocketAddr>) -> Option<Box<dyn Exchange>> {
        let (user, password) = self.0.login.as_ref()?;
        let mut first = Vec::new();
        let initiator = Initiator::new(MEMBERS, user, password, random());
        let dialler = MemberDialler::new(initiator, &mut first);
        Some(Box::new(Dialling { dialler, first, remote }))
    }

    fn accept(&self, _: Channel, remote: SocketAddr) -> Box<dyn Exchange> {
        let acceptor = MemberAcceptor::new(Acceptor::new(MEMBERS, random()));
        Box::new(Accepting { acceptor, users: Arc::clone(&self.0.users), remote })
    }

    fn dials(&self) -> bool {
        self.0.login.is_some()
    }

    fn is_required(&self) -> bool {
        self.0.required
    }

    fn first_byte(&self) -> u8 {
        FIRST_BYTE
    }
}

#[derive(Debug)]
struct Dialling {
    dialler: MemberDialler,
    first: Vec<u8>,
    remote: Option<SocketAddr>,
}

impl Exchange for Dialling {
    fn begin(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.first);
    }

    fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(usize, bool), CipherError> {
        let (len, done) = self.dialler.receive(bytes, out).map_err(|failure| match failure {
            MemberFailure::Refused => Failed::Refused.into(),
            other => CipherError::from(other),
        })?;
        if done {
            let remote = self.remote.map_or_else(|| "?".into(), |remote| remote.to_string());
            log::info!(
                "Successfully completed the authentication using SASL. server addr: {remote}, \
                 status: SUCCESS"
            );
        }
        Ok((len, done))
    }
}

#[derive(Debug)]
struct Accepting {
    acceptor: MemberAcceptor,
    users: Arc<Users>,
    remote: SocketAddr,
}

impl Exchange for Accepting {
    fn begin(&mut self, _: &mut Vec<u8>) {}

    fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(usize, bool), CipherError> {
        let Self { acceptor, users, remote } = self;
        let (len, login) = acceptor.receive(bytes, out, |user| users.password(user))?;
        if let Some(login) = &login {
            log::info!(
                "Successfully authenticated learner: authenticationID={}. learner addr: {remote}",
                login.user
            );
        }
        Ok((len, login.is_some()))
    }
}

/// Why this server was not let in, with what may be the cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Failed {
    Refused,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "Failed to authenticate using SASL: the other side refuses the name or password of this \
             server's section QuorumLearner",
        )
    }
}

impl std::error::Error for Failed {}

/// The keys of the standard library's hash maps come from the operating system.
fn random() -> [u8; NONCE_LEN] {
    let mut bytes = [0; NONCE_LEN];
    for (at, piece) in bytes.chunks_mut(8).enumerate() {
        let word = RandomState::new().hash_one(at).to_le_bytes();
        piece.copy_from_slice(&word[..piece.len()]);
    }
    bytes
}
