//! What never changes after the start.

use crate::auth::Access;
use crate::options::ServiceOptions;

/// The options, and access control as they configure it.
#[derive(Debug)]
pub(in crate::service) struct Env {
    pub(in crate::service) options: ServiceOptions,
    pub(in crate::service) access: Access,
}

impl Env {
    pub(in crate::service) fn new(options: ServiceOptions) -> Self {
        Self { access: Access::new(&options), options }
    }
}
