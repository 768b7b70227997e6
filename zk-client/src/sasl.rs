//! Logging in with SASL: at the beginning of each connection, before anything else is asked for.

use std::fmt;

use crate::hosts::Host;

/// A way to log in ([`Options::sasl`](crate::Options::sasl)).
pub trait Mechanism: Send + Sync + fmt::Debug {
    /// A new exchange, with this server. There is one for each connection.
    fn start(&self, host: &Host) -> Box<dyn Exchange>;
}

/// One exchange of messages, of which the client sends the first.
pub trait Exchange: Send + fmt::Debug {
    /// The first message, which may be empty.
    fn first(&mut self) -> Vec<u8>;

    /// Takes a message of the server: `None` is a null, which servers send that know of no login.
    ///
    /// # Errors
    /// Why this ends without a login; the session ends with it.
    fn take(&mut self, message: Option<&[u8]>) -> Result<Step, String>;
}

/// What a message leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// This must be sent.
    Send(Vec<u8>),
    /// Each side knows the other.
    Done,
}

#[cfg(feature = "sasl")]
mod digest_md5 {
    use std::collections::hash_map::RandomState;
    use std::fmt;
    use std::hash::BuildHasher;

    use zab_sasl::digest_md5::{CLIENTS, Initiator, NONCE_LEN};

    use super::{Exchange, Mechanism, Step};
    use crate::hosts::Host;

    /// The mechanism DIGEST-MD5 with a name and a password, which is what `DigestLoginModule` stands for in a
    /// JAAS file.
    #[derive(Clone)]
    pub struct DigestMd5 {
        user: String,
        password: String,
    }

    impl fmt::Debug for DigestMd5 {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("DigestMd5").field("user", &self.user).finish_non_exhaustive()
        }
    }

    impl DigestMd5 {
        /// For this user.
        pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
            Self { user: user.into(), password: password.into() }
        }
    }

    impl Mechanism for DigestMd5 {
        fn start(&self, _: &Host) -> Box<dyn Exchange> {
            Box::new(Initiator::new(CLIENTS, &self.user, &self.password, random()))
        }
    }

    impl Exchange for Initiator {
        fn first(&mut self) -> Vec<u8> {
            Vec::new()
        }

        fn take(&mut self, message: Option<&[u8]>) -> Result<Step, String> {
            let message =
                message.ok_or("the server lets nobody log in (it has no JAAS section)")?;
            let said = self.evaluate(message).map_err(|failure| failure.to_string())?;
            Ok(said.map_or(Step::Done, Step::Send))
        }
    }

    /// The keys of the standard library's hash maps come from the operating system.
    fn random() -> [u8; NONCE_LEN] {
        let mut bytes = [0; NONCE_LEN];
        for (at, piece) in bytes.chunks_mut(8).enumerate() {
            let word = RandomState::new().hash_one(at).to_le_bytes();
            piece.copy_from_slice(&word[..piece.len()]);
        }
        bytes
    }
}

#[cfg(feature = "sasl")]
pub use digest_md5::DigestMd5;
