//! What an administrator asks of the service, beside the four-letter words.

use zab_proto::Core;

use crate::observe::four_letter::Reset;
use crate::observe::look::Look;
use crate::service::Service;

impl Service {
    /// A look at the server. Where the core comes from: `Node::with`.
    #[must_use]
    pub fn look<'a, 'c>(&'a self, core: &'a Core<'c>) -> Look<'a, 'c> {
        Look::new(self.view(core), self.serves_clients())
    }

    /// Sets counters and summaries back, as `srst` does.
    pub fn reset_stats(&mut self) {
        self.reset(Some(Reset::Server));
    }

    /// Sets the figures of all connections back, as `crst` does.
    pub fn reset_connection_stats(&mut self) {
        self.reset(Some(Reset::Connections));
    }
}
