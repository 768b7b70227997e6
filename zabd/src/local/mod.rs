//! A whole ensemble on this machine, each server a process of its own, so that killing one is
//! real.

mod layout;
mod narrator;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::layout::Layout;
use self::narrator::Narrator;
use crate::exit;

/// What to run.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// Voting servers.
    pub voters: u16,
    /// Servers that only learn.
    pub observers: u16,
    /// Where everything is kept; a temporary directory otherwise.
    pub dir: Option<PathBuf>,
    /// Client port of the first server; 0: free ones.
    pub client_port: u16,
    /// The event loop.
    pub runtime: String,
}

enum Event {
    /// A line of a server's log.
    Line(usize, String),
    /// A server has ended.
    Ended(usize),
    /// Ctrl-C.
    Stop,
}

/// Runs the ensemble until Ctrl-C or until its last server has ended; returns the exit code.
#[must_use]
pub fn run(options: &LocalOptions) -> u8 {
    match Layout::create(options).and_then(|layout| Local::start(layout, options)?.watch()) {
        Ok(()) => exit::OK,
        Err(error) => {
            // A closed stderr leaves nowhere to say so.
            let _ = writeln!(io::stderr(), "zabd: {error}");
            exit::UNEXPECTED
        }
    }
}

struct Local {
    servers: Vec<Option<Child>>,
    events: Receiver<Event>,
    narrator: Narrator,
    out: io::Stdout,
    /// Removes the temporary directory, after the servers have ended.
    layout: Layout,
}

impl Local {
    fn start(layout: Layout, options: &LocalOptions) -> io::Result<Self> {
        let (sender, events) = channel();
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let stop = sender.clone();
        thread::Builder::new().spawn(move || {
            for _ in signals.forever() {
                if stop.send(Event::Stop).is_err() {
                    return;
                }
            }
        })?;
        let narrator = Narrator::new(layout.servers.len(), wall_micros());
        let mut local = Self { servers: Vec::new(), events, narrator, out: io::stdout(), layout };
        local.introduce()?;
        let program = std::env::current_exe()?;
        for (i, server) in local.layout.servers.iter().enumerate() {
            let mut child = Command::new(&program)
                .args(["--with-parent", "--runtime", &options.runtime])
                .arg(&server.config)
                .env_remove("RUST_LOG")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()?;
            let stderr = child.stderr.take().ok_or_else(|| io::Error::other("no stderr"))?;
            let log = File::options().create(true).append(true).open(&server.log);
            let log = layout::at(&server.log, log)?;
            let sender = sender.clone();
            thread::Builder::new()
                .spawn(move || follow(i, BufReader::new(stderr), log, &sender))?;
            writeln!(
                local.out,
                "server {}  pid {:<7} client port {:<5} {}",
                i + 1,
                child.id(),
                server.client_port,
                if server.is_observer { "observer" } else { "" },
            )?;
            local.servers.push(Some(child));
        }
        Ok(local)
    }

    fn introduce(&mut self) -> io::Result<()> {
        let dir = self.layout.dir.display();
        writeln!(self.out, "Configuration, data and log of server N: {dir}/server-N")
    }

    fn watch(mut self) -> io::Result<()> {
        let mut told = false;
        while let Ok(event) = self.events.recv() {
            match event {
                Event::Stop => break,
                Event::Line(i, line) => self.tell_line(i, &line)?,
                Event::Ended(i) => {
                    let status =
                        self.servers[i].take().map(|mut child| child.wait()).transpose()?;
                    let text = status.map_or_else(String::new, |status| status.to_string());
                    let text = self.narrator.ended(i, &text, wall_micros());
                    let config = self.layout.servers[i].config.display();
                    writeln!(self.out, "{text}; to restart it: zabd {config}")?;
                    if self.servers.iter().all(Option::is_none) {
                        return Err(io::Error::other("all servers have ended"));
                    }
                }
            }
            if self.narrator.is_serving() && !told {
                told = true;
                writeln!(self.out, "Connect to {}", self.layout.connect_string())?;
                writeln!(self.out, "Ctrl-C stops all; kill -9 of one shows how the others go on")?;
            }
            self.out.flush()?;
        }
        self.stop()
    }

    fn tell_line(&mut self, i: usize, line: &str) -> io::Result<()> {
        match self.narrator.line(i, line) {
            Some(text) => writeln!(self.out, "{text}"),
            None => Ok(()),
        }
    }

    /// Ends the servers: gently, then not.
    fn stop(&mut self) -> io::Result<()> {
        writeln!(self.out, "Stopping")?;
        for child in self.servers.iter_mut().flatten() {
            drop(child.stdin.take());
        }
        let until = Instant::now() + STOP_PATIENCE;
        while self.servers.iter().any(Option::is_some) {
            match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Event::Ended(i)) => {
                    if let Some(mut child) = self.servers[i].take() {
                        child.wait()?;
                    }
                }
                Ok(Event::Line(..)) => {}
                // A second Ctrl-C is out of patience, too.
                Ok(Event::Stop) | Err(_) => break,
            }
        }
        Ok(())
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        for child in self.servers.iter_mut().flatten() {
            // It may have ended by itself just now.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Copies a server's log to its file and to the narrator, until the server ends.
fn follow(i: usize, mut lines: impl BufRead, mut log: File, sender: &Sender<Event>) {
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        // A full disk must not keep the server from going on.
        let _ = log.write_all(&line);
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if sender.send(Event::Line(i, text)).is_err() {
            return;
        }
        line.clear();
    }
    // If nobody listens, nobody needs to know.
    let _ = sender.send(Event::Ended(i));
}

/// Microseconds since midnight (UTC), as in the log.
fn wall_micros() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let micros = since.unwrap_or_default().as_micros() % u128::from(narrator::DAY_MICROS);
    u64::try_from(micros).unwrap_or(0)
}

/// How long servers may take to end after Ctrl-C.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
