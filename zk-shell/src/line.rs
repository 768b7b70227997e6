//! Lines: from a terminal with editing, history and completion, or from anything else.

use std::fs::OpenOptions;
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::{History, MemHistory, SearchDirection};
use rustyline::validate::Validator;
use rustyline::{Config, Context, Editor, Helper};
use zk_client::blocking::Client;

use crate::commands;
use crate::printer::Printer;
use crate::shell::Shell;

/// Reads and runs lines until they end.
pub(crate) fn read(shell: &mut Shell) {
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if !shell.is_json() {
        let support = if terminal { "enabled" } else { "disabled" };
        shell.printer.out(&format!("Welcome to ZooKeeper!\nJLine support is {support}\n"));
    }
    run_file(shell);
    if terminal && let Ok(()) = read_terminal(shell) {
        return;
    }
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        shell.run_line(&line);
        if shell.ended() {
            return;
        }
    }
}

fn in_home(name: &str) -> Option<PathBuf> {
    std::env::var_os("HOME").map(|home| PathBuf::from(home).join(name))
}

/// The commands that somebody wants to be run first.
fn run_file(shell: &mut Shell) {
    let Some(text) = in_home(".zkclirc").and_then(|path| std::fs::read_to_string(path).ok()) else {
        return;
    };
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        shell.run_line(line);
    }
    shell.history.clear();
}

const HISTORY: &str = ".zkcli_history";
/// Lines of the file.
const HISTORY_MAX: usize = 1000;

fn read_terminal(shell: &mut Shell) -> Result<(), ReadlineError> {
    let config = Config::builder().max_history_size(HISTORY_MAX)?.auto_add_history(true).build();
    let history = MemHistory::with_config(&config);
    let mut editor: Editor<Nodes, MemHistory> = Editor::with_history(config, history)?;
    let past = in_home(HISTORY).and_then(|path| std::fs::read_to_string(path).ok());
    for line in past.iter().flat_map(|text| text.lines()) {
        editor.add_history_entry(line)?;
    }
    loop {
        let client = shell.shared_client();
        let (directory, printer) = (shell.directory.clone(), Arc::clone(&shell.printer));
        editor.set_helper(Some(Nodes { client, directory, printer }));
        let prompt = prompt(shell);
        shell.printer.edit(Some(&prompt));
        let line = editor.readline(&prompt);
        shell.printer.edit(None);
        match line {
            Ok(line) => shell.run_line(&line),
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => break,
            Err(error) => return Err(error),
        }
        if shell.ended() {
            break;
        }
    }
    save_history(editor.history());
    Ok(())
}

fn prompt(shell: &Shell) -> String {
    let client = shell.shared_client();
    let state = match client.closed() {
        Some(_) => "CLOSED",
        None if client.wait_connected(Duration::ZERO) => "CONNECTED",
        None => "CONNECTING",
    };
    let directory = match shell.directory.as_str() {
        "/" => String::new(),
        directory => format!(" {directory}"),
    };
    format!("[zk: {}({state}){directory} {}] ", shell.server, shell.history.len())
}

fn save_history(history: &MemHistory) {
    let Some(path) = in_home(HISTORY) else { return };
    let lines =
        (0..history.len()).filter_map(|at| history.get(at, SearchDirection::Forward).ok()?);
    let text: String = lines.map(|line| format!("{}\n", line.entry)).collect();
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    // Credentials are typed here.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
    if let Err(error) = written {
        eprintln!("{}: {error}", path.display());
    }
}

/// Completes commands, and paths by asking the server.
struct Nodes {
    client: Arc<Client>,
    directory: String,
    /// It has to know the line.
    printer: Arc<Printer>,
}

impl Completer for Nodes {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let line = &line[..at];
        let begin = line.rfind(char::is_whitespace).map_or(0, |at| at + 1);
        let word = &line[begin..];
        if line[..begin].trim().is_empty() {
            return Ok((begin, commands::names().filter(|name| name.starts_with(word)).collect()));
        }
        let (parent, name) = match word.rfind('/') {
            Some(at) => (&word[..at], &word[at + 1..]),
            None => ("", word),
        };
        let full = match (word.starts_with('/'), self.directory.as_str()) {
            (true, _) | (false, "/") => format!("/{}", parent.trim_start_matches('/')),
            (false, directory) => format!("{directory}/{parent}").trim_end_matches('/').to_owned(),
        };
        if !word.starts_with('/') && self.directory == "/" {
            return Ok((begin, Vec::new()));
        }
        // A server that is not there shall not hold up a keystroke.
        if !self.client.wait_connected(Duration::from_millis(100)) {
            return Ok((begin, Vec::new()));
        }
        let children = self.client.children(&full, false).unwrap_or_default();
        let children = children.into_iter().filter(|child| child.starts_with(name));
        Ok((begin + word.len() - name.len(), children.collect()))
    }
}

impl Hinter for Nodes {
    type Hint = String;

    /// Called when something was typed.
    fn hint(&self, line: &str, at: usize, _: &Context<'_>) -> Option<String> {
        self.printer.edited(line, at);
        None
    }
}

impl Highlighter for Nodes {
    /// Called when the cursor was moved.
    fn highlight_char(&self, line: &str, at: usize, _: CmdKind) -> bool {
        self.printer.edited(line, at);
        false
    }
}

impl Validator for Nodes {}
impl Helper for Nodes {}
