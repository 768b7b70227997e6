//! The text of `mntr`.

use std::fmt::Write;

use crate::service::observe::{View, rows};

/// What `mntr` says. Each line begins with `zk_`, those of this server's own metrics, too: monitors
/// give the whole answer up at a line that does not.
pub(super) fn text(view: &View<'_, '_>) -> String {
    let mut text = String::new();
    for metric in rows::all(view) {
        for (name, value) in metric.entries() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "zk_{name}\t{value}");
        }
    }
    text
}
