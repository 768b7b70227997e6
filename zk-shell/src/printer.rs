//! The one place that writes to the terminal, so that events and answers do not mix.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use zk_client::blocking::Client;
use zk_client::{Code, Event, EventKind};

/// A line that is being edited: what is printed meanwhile goes above it. (The library has a printer for that, with
/// which it waits for more although it has read a key already: whatever is typed fast, or by a program.)
struct Edited {
    prompt: String,
    line: String,
    /// Bytes of the line in front of the cursor.
    at: usize,
}

impl Edited {
    /// `text` in the place of the line, and the line again below it.
    fn below(&self, text: &str) -> String {
        let Self { prompt, line, .. } = self;
        let behind = line.get(self.at..).map_or(0, |rest| rest.chars().count());
        let back = if behind > 0 { format!("\x1b[{behind}D") } else { String::new() };
        format!("\r\x1b[K{text}{prompt}{line}{back}")
    }
}

#[derive(Default)]
pub(crate) struct Printer {
    /// Whether events are shown (`printwatches`).
    pub(crate) watches: AtomicBool,
    /// Everything as JSON, one object a line.
    pub(crate) json: AtomicBool,
    edited: Mutex<Option<Edited>>,
}

impl Printer {
    fn lock(&self) -> MutexGuard<'_, Option<Edited>> {
        self.edited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on a line is edited behind this prompt; without one, no longer.
    pub(crate) fn edit(&self, prompt: Option<&str>) {
        let edited =
            |prompt: &str| Edited { prompt: prompt.to_owned(), line: String::new(), at: 0 };
        *self.lock() = prompt.map(edited);
    }

    /// What has become of the line that is edited.
    pub(crate) fn edited(&self, line: &str, at: usize) {
        if let Some(edited) = &mut *self.lock() {
            line.clone_into(&mut edited.line);
            edited.at = at;
        }
    }

    /// Writes to stdout. Whoever does not listen any longer misses nothing.
    pub(crate) fn out(&self, text: &str) {
        let _guard = self.lock();
        write_out(text);
    }

    /// Writes to stderr.
    pub(crate) fn err(&self, text: &str) {
        let _guard = self.lock();
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    /// Shows the events that are here, in order.
    pub(crate) fn events(&self, client: &Client) {
        let edited = self.lock();
        while let Some(event) = client.event(Duration::ZERO) {
            if !self.watches.load(Ordering::Relaxed) {
                continue;
            }
            let text = match self.json.load(Ordering::Relaxed) {
                true => event_json(&event),
                false => event_text(&event),
            };
            write_out(&edited.as_ref().map_or_else(|| text.clone(), |line| line.below(&text)));
        }
    }

    /// Shows events as they come, until the session has ended.
    pub(crate) fn follow(self: &Arc<Self>, client: &Arc<Client>) {
        let (printer, client) = (Arc::clone(self), Arc::downgrade(client));
        std::thread::spawn(move || {
            while let Some(client) = client.upgrade() {
                if client.wait_event(Duration::from_millis(200)) {
                    printer.events(&client);
                } else if client.closed().is_some() {
                    return;
                }
            }
        });
    }
}

fn write_out(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn names(event: &Event) -> (&'static str, &'static str, String) {
    let state = match event {
        Event::Connected { read_only: true, .. } => "ConnectedReadOnly",
        Event::LoggedIn => "SaslAuthenticated",
        Event::Disconnected => "Disconnected",
        Event::Closed(Code::SessionExpired) => "Expired",
        Event::Closed(Code::AuthFailed) => "AuthFailed",
        Event::Closed(_) => "Closed",
        _ => "SyncConnected",
    };
    match event {
        Event::Watch(watch) => (state, kind_name(watch.kind), watch.path.clone()),
        _ => (state, "None", "null".to_owned()),
    }
}

pub(crate) fn kind_name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::NodeCreated => "NodeCreated",
        EventKind::NodeDeleted => "NodeDeleted",
        EventKind::NodeDataChanged => "NodeDataChanged",
        EventKind::NodeChildrenChanged => "NodeChildrenChanged",
        EventKind::DataWatchRemoved => "DataWatchRemoved",
        EventKind::ChildWatchRemoved => "ChildWatchRemoved",
        EventKind::PersistentWatchRemoved => "PersistentWatchRemoved",
        _ => "Unknown",
    }
}

fn event_text(event: &Event) -> String {
    if let Event::Missed(count) = event {
        return format!("\nWATCHER::\n\n{count} events were missed\n");
    }
    let (state, kind, path) = names(event);
    format!("\nWATCHER::\n\nWatchedEvent state:{state} type:{kind} path:{path}\n")
}

fn event_json(event: &Event) -> String {
    let (state, kind, path) = names(event);
    let value = match event {
        Event::Missed(count) => json!({"event": "Missed", "count": count}),
        Event::Watch(_) => json!({"event": kind, "path": path}),
        _ => json!({"event": state}),
    };
    format!("{value}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_go_above_the_line() {
        let printer = Printer::default();
        printer.edited("lost", 1);
        printer.edit(Some("> "));
        printer.edited("gét /a", "gé".len());
        let text = printer.lock().as_ref().unwrap().below("event\n");
        assert_eq!(text, "\r\x1b[Kevent\n> gét /a\x1b[4D");
        printer.edited("get", 3);
        assert_eq!(printer.lock().as_ref().unwrap().below("event\n"), "\r\x1b[Kevent\n> get");
        printer.edit(None);
        assert!(printer.lock().is_none());
    }
}
