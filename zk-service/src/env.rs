//! What never changes after the start.

use crate::auth::Access;
use crate::options::ServiceOptions;

/// The options, and access control as they configure it.
#[derive(Debug)]
pub(crate) struct Env {
    pub(crate) options: ServiceOptions,
    pub(crate) access: Access,
}

impl Env {
    pub(crate) fn new(options: ServiceOptions) -> Self {
        let access = Access {
            skip_acl: options.skip_acl,
            digest_enabled: options.digest_auth,
            digest_algorithm: options.digest_algorithm,
            super_digest: options.super_digest.clone(),
            x509_enabled: options.x509_auth,
            x509_super_user: options.x509_super_user.clone(),
            sasl: options.sasl.clone(),
            ensemble_auth: options.ensemble_auth.clone(),
            acl_len_max: options.jute_max_buffer,
        };
        Self { options, access }
    }
}
