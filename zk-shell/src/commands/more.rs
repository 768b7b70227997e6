//! Commands that concern the shell.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use serde_json::json;

use crate::args::Parsed;
use crate::shell::Shell;
use crate::text::{Failure, Said};

pub(super) fn close(shell: &mut Shell, _: &[String], _: &Parsed) -> Result<Said, Failure> {
    shell.close();
    Ok(Said::nothing())
}

pub(super) fn quit(shell: &mut Shell, _: &[String], _: &Parsed) -> Result<Said, Failure> {
    shell.end();
    Ok(Said::default())
}

pub(super) fn connect(shell: &mut Shell, _: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let server = parsed.words.get(1).cloned().unwrap_or_else(|| shell.server.clone());
    shell.connect(&server)?;
    Ok(Said::nothing())
}

pub(super) fn help(_: &mut Shell, _: &[String], _: &Parsed) -> Result<Said, Failure> {
    Ok(Said::out(super::usage(), json!(super::names().collect::<Vec<_>>())))
}

/// The last ten, and this one.
pub(super) fn history(shell: &mut Shell, _: &[String], _: &Parsed) -> Result<Said, Failure> {
    let last = shell.history.len().saturating_sub(1);
    let mut text = String::new();
    for i in last.saturating_sub(10)..=last {
        let line = shell.history.get(i).map_or("null", String::as_str);
        let _ = writeln!(text, "{i} - {line}");
    }
    Ok(Said::out(text, json!(shell.history)))
}

pub(super) fn redo(shell: &mut Shell, _: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let Some(word) = parsed.words.get(1) else { return Ok(Said::nothing()) };
    let number: Option<usize> = word.parse().ok();
    let now = shell.history.len().saturating_sub(1);
    let line = number.filter(|number| *number < now).and_then(|number| shell.history.get(number));
    let Some(line) = line.cloned() else {
        return Err(Failure::new("Command index out of range"));
    };
    let words = crate::args::words(&line);
    if words.first().is_some_and(|name| name == "redo") {
        return Err(Failure::new("No redoing redos"));
    }
    if let Some(entry) = shell.history.last_mut() {
        *entry = line;
    }
    shell.run(&words);
    Ok(Said::default())
}

pub(super) fn print_watches(
    shell: &mut Shell,
    _: &[String],
    parsed: &Parsed,
) -> Result<Said, Failure> {
    let watches = &shell.printer.watches;
    match parsed.words.get(1) {
        Some(word) => {
            watches.store(word == "on", Ordering::Relaxed);
            Ok(Said::nothing())
        }
        None => {
            let on = watches.load(Ordering::Relaxed);
            let text = format!("printwatches is {}\n", if on { "on" } else { "off" });
            Ok(Said::out(text, json!({"printwatches": on})))
        }
    }
}

pub(super) fn version(_: &mut Shell, _: &[String], _: &Parsed) -> Result<Said, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    Ok(Said::out(
        format!("ZooKeeper CLI version: zk-shell {version}\n"),
        json!({"version": version}),
    ))
}
