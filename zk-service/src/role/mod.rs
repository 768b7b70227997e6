//! What depends on who leads.

pub(crate) mod leader;
pub(crate) mod prep;
pub(crate) mod tracker;
