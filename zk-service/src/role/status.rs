//! What the core has said about this server.

    }

    /// What became of the role.
    pub(crate) fn timeline(&self) -> &Timeline {
        &self.timeline
