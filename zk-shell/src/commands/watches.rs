//! Commands for watches that stay.

use zk_client::{AddWatchMode, Request, WatcherType};

use crate::args::Parsed;
use crate::shell::Shell;
use crate::text::{Failure, Said};

pub(super) fn add_watch(shell: &mut Shell, _: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let usage = || Failure::new(super::find("addWatch").map_or_else(String::new, |c| c.usage()));
    if parsed.words.len() != 2 {
        return Err(usage());
    }
    let mode = match parsed.value("m").map(str::to_uppercase).as_deref() {
        None | Some("PERSISTENT_RECURSIVE") => AddWatchMode::PersistentRecursive,
        Some("PERSISTENT") => AddWatchMode::Persistent,
        Some(_) => return Err(usage()),
    };
    let path = shell.path(&parsed.words[1])?;
    shell.call(&Request::AddWatch { path, mode })?;
    Ok(Said::nothing())
}

pub(super) fn remove(shell: &mut Shell, _: &[String], parsed: &Parsed) -> Result<Said, Failure> {
    let kind = match (parsed.has("c"), parsed.has("d")) {
        (true, _) => WatcherType::Children,
        (false, true) => WatcherType::Data,
        (false, false) => WatcherType::Any,
    };
    let path = shell.path(&parsed.words[1])?;
    shell.call(&Request::RemoveWatches { path, kind })?;
    Ok(Said::nothing())
}
