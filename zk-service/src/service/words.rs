//! Four-letter words, at the beginning of a connection.

use zab_proto::{ConnId, Core};

use crate::metrics::Metrics;
use crate::service::connection::Life;
use crate::service::connection::entry::Entry;
use crate::service::connection::table::Clients;
use crate::service::observe::four_letter::{self, Opening, Reset, word_cost};
use crate::service::parts::Parts;

/// Executes a word, if a connection begins with one. Returns how many of its bytes are used up, or
/// `None` if these must be taken as frames.
pub(super) fn take_word(
    clients: &mut Clients,
    parts: &mut Parts<'_>,
    core: &Core<'_>,
    conn: ConnId,
    bytes: &[u8],
) -> Option<usize> {
    clients.get(conn).filter(|client| client.state == Life::Greeting)?;
    let Some(head) = bytes.first_chunk::<4>() else { return Some(0) };
    if parts.admission.schedule.is_contended() {
        // What is no word costs little.
        let expected = word_cost(&parts.view(core, clients), *head);
        let mut at = clients.enter(conn)?;
        if let Some(wait) = parts.admission.turn(at.client, expected, true) {
            parts.admission.wait(&mut at, wait);
            return Some(0);
        }
    }
    let word = match Opening::read(*head)? {
        Opening::TelnetClose => {
            parts.close(&mut clients.enter(conn)?, false);
            return Some(bytes.len());
        }
        Opening::Word(word) => word,
    };
    let cost = word_cost(&parts.view(core, clients), *head);
    let mut at = clients.enter(conn)?;
    log::debug!("Processing {word} command from {}", at.client.remote);
    parts.charge(&mut at, cost);
    parts.metrics.stats.received += 1;
    at.client.count_received();
    let text = if parts.env.options.allows_word(word) {
        let serves = parts.takes_clients();
        reset(clients, parts, four_letter::resets(word).filter(|_| serves));
        four_letter::answer(&parts.view(core, clients), serves, conn, (word, &bytes[4..]))
    } else {
        format!("{word} is not executed because it is not in the whitelist.\n")
    };
    answer(&mut clients.enter(conn)?, parts, &text);
    Some(bytes.len())
}

fn answer(at: &mut Entry<'_>, parts: &mut Parts<'_>, text: &str) {
    let sent = four_letter::pieces(text.len());
    parts.metrics.stats.sent += sent;
    let unsent = at.client.unsent();
    at.client.out.buffer().extend_from_slice(text.as_bytes());
    at.client.count_sent(sent);
    at.wrote(unsent);
    parts.close(at, true);
}

/// Sets figures back.
pub(super) fn reset(clients: &mut Clients, parts: &mut Parts<'_>, what: Option<Reset>) {
    match what {
        None => {}
        Some(Reset::Connections) => clients.iter_mut().for_each(|client| client.reset_stats()),
        Some(Reset::Server) => {
            *parts.metrics = Metrics::default();
            parts.env.options.figures.iter().for_each(|(_, figure)| figure.reset());
            parts.env.options.summaries.iter().for_each(|(_, summary)| summary.reset());
            if let Some(fsyncs) = &parts.env.options.fsync_times {
                fsyncs.reset();
            }
        }
    }
}
