//! Which parts of a connection's multis are answered with the stat of the node they made.

use std::collections::VecDeque;

/// Of each multi in flight that has a create2, in order, the places of those parts.
///
/// In the transaction such a part is a create, as servers of 3.8.0 and 3.8.1 know no other: what the client is to be
/// told has to be remembered where it asked.
#[derive(Debug, Default)]
pub(super) struct StatParts {
    places: VecDeque<Box<[u32]>>,
    len_bytes: usize,
}

impl StatParts {
    pub(super) fn push(&mut self, places: Box<[u32]>) {
        self.len_bytes += len_bytes(&places);
        self.places.push_back(places);
    }

    /// Forgets the oldest one.
    pub(super) fn pop(&mut self) {
        let places = self.places.pop_front().unwrap_or_default();
        self.len_bytes -= len_bytes(&places);
    }

    /// Those of the oldest one.
    pub(super) fn first(&self) -> &[u32] {
        self.places.front().map(|places| &**places).unwrap_or_default()
    }

    pub(super) fn len_bytes(&self) -> usize {
        self.len_bytes
    }
}

fn len_bytes(places: &[u32]) -> usize {
    if places.is_empty() { 0 } else { size_of::<Box<[u32]>>() + size_of_val(places) }
}
