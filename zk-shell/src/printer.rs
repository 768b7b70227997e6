//! The one place that writes to the terminal, so that events and answers do not mix.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustyline::ExternalPrinter;
use serde_json::json;
use zk_client::blocking::Client;
use zk_client::{Code, Event, EventKind};

/// Prints above the line that is being edited, if one is.
#[derive(Default)]
struct AtPrompt {
    printer: Option<Box<dyn ExternalPrinter + Send>>,
    editing: bool,
}

#[derive(Default)]
pub(crate) struct Printer {
    /// Whether events are shown (`printwatches`).
    pub(crate) watches: AtomicBool,
    /// Everything as JSON, one object a line.
    pub(crate) json: AtomicBool,
    at_prompt: Mutex<AtPrompt>,
}

impl Printer {
    fn lock(&self) -> MutexGuard<'_, AtPrompt> {
        self.at_prompt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While a line is edited, `printer` is used.
    pub(crate) fn set_prompt(&self, printer: Option<Box<dyn ExternalPrinter + Send>>) {
        self.lock().printer = printer;
    }

    pub(crate) fn set_editing(&self, editing: bool) {
        self.lock().editing = editing;
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
        let mut guard = self.lock();
        while let Some(event) = client.event(Duration::ZERO) {
            if !self.watches.load(Ordering::Relaxed) {
                continue;
            }
            let text = match self.json.load(Ordering::Relaxed) {
                true => event_json(&event),
                false => event_text(&event),
            };
            let editing = guard.editing;
            match guard.printer.as_mut() {
                Some(printer) if editing => drop(printer.print(text)),
                _ => write_out(&text),
            }
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
