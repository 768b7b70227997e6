//! What lasts from one command to the next.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use zk_client::blocking::{Client, Dial};
use zk_client::{Answer, Code, Error, Options, Request};

use crate::args::{Parsed, words};
use crate::commands::{self, Command};
use crate::printer::Printer;
use crate::start::Start;
use crate::text::{Failure, Said, check_path};

pub(crate) struct Shell {
    start: Start,
    client: Arc<Client>,
    /// As it was given: for the prompt.
    pub(crate) server: String,
    /// Where relative paths begin, once `cd` was used; `/` means that there are none.
    pub(crate) directory: String,
    pub(crate) history: Vec<String>,
    pub(crate) printer: Arc<Printer>,
    exit_code: u8,
    ended: bool,
}

impl Shell {
    pub(crate) fn new(start: Start, printer: Arc<Printer>) -> Result<Self, Failure> {
        printer.watches.store(true, Ordering::Relaxed);
        printer.json.store(start.json, Ordering::Relaxed);
        if !start.json {
            printer.out(&format!("Connecting to {}\n", start.server));
        }
        let server = start.server.clone();
        let client = connect(&start, &server, &printer)?;
        Ok(Self {
            start,
            client,
            server,
            directory: "/".to_owned(),
            history: Vec::new(),
            printer,
            exit_code: 0,
            ended: false,
        })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn shared_client(&self) -> Arc<Client> {
        Arc::clone(&self.client)
    }

    pub(crate) fn exit_code(&self) -> u8 {
        self.exit_code
    }

    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn is_json(&self) -> bool {
        self.start.json
    }

    /// Whether connections are encrypted.
    pub(crate) fn is_secure(&self) -> bool {
        self.start.properties.is_secure()
    }

    /// For connections that are no client's.
    pub(crate) fn dial(&self) -> Result<Box<dyn Dial>, Failure> {
        let mut options = Options::parse(&self.server).map_err(Failure::new)?;
        self.start.properties.apply(&mut options).map_err(Failure::new)
    }

    /// To another ensemble, or to the same one with a new session.
    pub(crate) fn connect(&mut self, server: &str) -> Result<(), Failure> {
        self.close();
        self.client = connect(&self.start, server, &self.printer)?;
        server.clone_into(&mut self.server);
        Ok(())
    }

    /// A client of another ensemble, for one command.
    pub(crate) fn other(&self, server: &str) -> Result<Client, Failure> {
        open(&self.start, server)
    }

    pub(crate) fn close(&self) {
        self.client.close();
        self.printer.events(&self.client);
    }

    pub(crate) fn end(&mut self) {
        self.close();
        self.ended = true;
    }

    /// Asks the server. Events that came before the answer are shown before it.
    pub(crate) fn call(&self, request: &Request) -> Result<Answer, Failure> {
        Ok(self.ask(request)?)
    }

    /// The same, with the error as it is.
    pub(crate) fn ask(&self, request: &Request) -> Result<Answer, Error> {
        let answer = self.client.call(request);
        self.printer.events(&self.client);
        if let Err(Error { code: Code::ConnectionLoss | Code::AuthFailed, .. }) = &answer {
            self.explain();
        }
        answer
    }

    /// Says why there is no connection. `zkCli.sh` has its log for that; of plain connections without a
    /// login there is nothing to say but that nobody is there.
    fn explain(&self) {
        let properties = &self.start.properties;
        if let Some(reason) = self.client.failure()
            && (properties.is_secure() || self.client.closed() == Some(Code::AuthFailed))
        {
            self.printer.err(&format!("{reason}\n"));
        }
    }

    /// The path that a word means.
    pub(crate) fn path(&self, word: &str) -> Result<String, Failure> {
        let path = self.resolve(word);
        check_path(&path)?;
        Ok(path)
    }

    pub(crate) fn resolve(&self, word: &str) -> String {
        if word.starts_with('/') || self.directory == "/" {
            return word.to_owned();
        }
        let mut parts: Vec<&str> = self.directory.split('/').filter(|p| !p.is_empty()).collect();
        for part in word.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        format!("/{}", parts.join("/"))
    }

    /// A line that was typed.
    pub(crate) fn run_line(&mut self, line: &str) {
        let mut words = words(line);
        if words.is_empty() {
            return;
        }
        let json = words.iter().position(|word| word == "--json");
        if let Some(at) = json {
            words.remove(at);
        }
        let before = self.start.json;
        self.start.json |= json.is_some();
        self.printer.json.store(self.start.json, Ordering::Relaxed);
        self.history.push(line.to_owned());
        self.run(&words);
        self.start.json = before;
        self.printer.json.store(before, Ordering::Relaxed);
    }

    /// A command, as words.
    pub(crate) fn run(&mut self, words: &[String]) {
        let result = self.execute(words);
        self.printer.events(&self.client);
        match result {
            // The exit code is that of the last command before `quit`.
            Ok(_) if self.ended => {}
            Ok(said) => {
                self.exit_code = 0;
                self.say(&said);
            }
            Err(failure) => {
                self.exit_code = failure.exit;
                self.printer.err(&format!("{}\n", failure.text));
                if self.is_json() {
                    self.printer.out(&format!("{}\n", json!({"error": failure.text})));
                }
            }
        }
    }

    fn say(&self, said: &Said) {
        self.printer.err(&said.err);
        if !self.is_json() {
            self.printer.out(&said.out);
        } else if !said.json.is_null() {
            self.printer.out(&format!("{}\n", said.json));
        }
    }

    fn execute(&mut self, words: &[String]) -> Result<Said, Failure> {
        let Some(command) = words.first().and_then(|name| commands::find(name)) else {
            self.printer.err(&commands::usage());
            let name = words.first().map_or("", String::as_str);
            let text = format!("Command not found: Command not found {name}");
            return Err(Failure { text, exit: COMMAND_NOT_FOUND });
        };
        if command.needs_session && self.client.closed().is_some() {
            return Ok(Said::out(NOT_CONNECTED.to_owned(), json!({"error": "Not connected"})));
        }
        let mut said = self.execute_known(command, words)?;
        // As `zkCli.sh` has it, after what these commands say.
        if !command.needs_session && self.client.closed().is_some() && !self.ended {
            said.out.push_str(NOT_CONNECTED);
        }
        Ok(said)
    }

    fn execute_known(&mut self, command: &Command, words: &[String]) -> Result<Said, Failure> {
        let parsed = Parsed::new(words, command.options).map_err(Failure::new)?;
        if parsed.words.len() <= command.words_min {
            return Err(Failure::new(command.usage()));
        }
        (command.run)(self, words, &parsed)
    }
}

const NOT_CONNECTED: &str = "Not connected\n";
/// As a shell has it.
const COMMAND_NOT_FOUND: u8 = 127;

fn open(start: &Start, server: &str) -> Result<Client, Failure> {
    let mut options = Options::parse(server).map_err(Failure::new)?;
    options.session_timeout = start.timeout;
    options.read_only = start.read_only;
    // As ZooKeeper's client: nobody sits in front of a terminal waiting for a server to come back.
    options.patience = Duration::ZERO;
    let dial = start.properties.apply(&mut options).map_err(Failure::new)?;
    Client::start(options, dial).map_err(|error| Failure::new(error.to_string()))
}

fn connect(start: &Start, server: &str, printer: &Arc<Printer>) -> Result<Arc<Client>, Failure> {
    let client = Arc::new(open(start, server)?);
    if start.wait && !client.wait_connected(start.timeout) {
        return Err(Failure::new("KeeperErrorCode = ConnectionLoss"));
    }
    printer.follow(&client);
    Ok(client)
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}
