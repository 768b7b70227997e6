//! The server's own ports follow the ensemble's configuration while it runs.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use runtime_core::{Handle, Port};
use zab_proto::Membership;

use crate::config::ServerConfig;
use crate::ports::{self, Wanted};

/// Closes and opens ports of the server behind `handle`, as each configuration wants it.
///
/// # Errors
/// If no thread can be started.
pub(crate) fn follow<A: Send + 'static>(
    config: &ServerConfig,
    changes: Receiver<Membership>,
    handle: Handle<A>,
) -> io::Result<()> {
    let bound = ports::wanted(config);
    let mut own = OwnPorts { config: config.clone(), bound, failed: Vec::new(), handle };
    let thread = thread::Builder::new().name("own ports".into());
    let follows = thread.spawn(move || {
        loop {
            let change = match own.failed.is_empty() {
                true => changes.recv().map_err(RecvTimeoutError::from),
                false => changes.recv_timeout(RETRY),
            };
            match change {
                Ok(ensemble) => own.change(&ensemble),
                Err(RecvTimeoutError::Timeout) => own.retry(),
                // The server has ended.
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    });
    follows.map(drop)
}

struct OwnPorts<A> {
    config: ServerConfig,
    bound: Vec<Wanted>,
    /// Those that could not be bound.
    failed: Vec<Wanted>,
    handle: Handle<A>,
}

impl<A: Send + 'static> OwnPorts<A> {
    fn change(&mut self, ensemble: &Membership) {
        // A server that is no longer a member keeps the ports it has, as ZooKeeper's do.
        let Some(member) = ensemble.members.get(&self.config.sid) else { return };
        if let Some(client) = &member.client {
            self.config.client = Some(client.clone());
        }
        self.config.own = Some(member.clone());
        let next = ports::wanted(&self.config);
        let gone: Vec<(Port, u16)> =
            self.bound.iter().filter(|port| !next.contains(port)).map(Wanted::place).collect();
        let new = next.iter().filter(|port| !self.bound.contains(port));
        // A port that goes on at another address must be closed before.
        let (moved, new): (Vec<_>, Vec<_>) = next
            .iter()
            .filter(|port| gone.contains(&port.place()) || new.clone().any(|new| new == *port))
            .cloned()
            .partition(|port| gone.contains(&port.place()));
        self.failed.clear();
        self.open(new);
        if !gone.is_empty() {
            log::info!("This server does not listen on {} any more", ports::names(&gone));
            self.handle.unlisten(gone);
        }
        self.open_when_free(moved);
        self.bound = next;
    }

    /// The server's loop closes ports a moment after it is told to.
    fn open_when_free(&mut self, mut wanted: Vec<Wanted>) {
        for _ in 0..CLOSING_STEPS {
            wanted.retain(|port| match ports::open(port, &self.handle) {
                Ok(()) => {
                    log::info!("This server listens on {port}");
                    false
                }
                Err(_) => true,
            });
            if wanted.is_empty() {
                return;
            }
            thread::sleep(CLOSING_STEP);
        }
        self.open(wanted);
    }

    fn open(&mut self, wanted: Vec<Wanted>) {
        for port in wanted {
            match ports::open(&port, &self.handle) {
                Ok(()) => log::info!("This server listens on {port}"),
                Err(error) => {
                    log::error!("{error}. Trying again");
                    self.failed.push(port);
                }
            }
        }
    }

    fn retry(&mut self) {
        let failed = std::mem::take(&mut self.failed);
        for port in failed {
            match ports::open(&port, &self.handle) {
                Ok(()) => log::info!("This server listens on {port}"),
                Err(_) => self.failed.push(port),
            }
        }
    }
}

/// Between two attempts at a port that somebody else has.
const RETRY: Duration = Duration::from_secs(1);
/// How often, and after which pauses, a port is tried that is being closed.
const CLOSING_STEPS: u32 = 100;
const CLOSING_STEP: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use runtime_any::Runtime;
    use runtime_core::{Listen, ServerOptions};
    use zab_proto::{Config, Sid};
    use zk_service::{Service, ServiceOptions};

    use super::*;
    use crate::config::SystemProperties;

    fn answers(host: [u8; 4], port: u16) -> bool {
        TcpStream::connect((std::net::Ipv4Addr::from(host), port)).is_ok()
    }

    fn wait(what: &str, condition: impl Fn() -> bool) {
        let holds = (0..3000).any(|_| {
            thread::sleep(Duration::from_millis(10));
            condition()
        });
        assert!(holds, "{what}");
    }

    /// A port of the same number at another address, one of another number, and one that somebody has.
    #[test]
    fn ports_follow_on_every_runtime() {
        for (at, runtime) in (27_100_u16..).step_by(10).zip(Runtime::ALL) {
            let name = runtime.name();
            let dir =
                std::env::temp_dir().join(format!("zabd-rebind-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("myid"), "1").unwrap();
            let members = |client: &str| {
                let line = format!("127.0.0.1:{}:{};{client}", at + 1, at + 2);
                format!("server.1={line}\nserver.2=127.0.0.1:1:2;3\nserver.3=127.0.0.1:4:5;6")
            };
            let text = format!(
                "dataDir={}\ninitLimit=9\nsyncLimit=9\nreconfigEnabled=true\n{}",
                dir.display(),
                members(&format!("127.0.0.1:{at}"))
            );
            let properties = SystemProperties::default();
            let config = ServerConfig::parse(text.as_bytes(), properties, None).unwrap();
            let options =
                ServerOptions::new(Config::standalone(Sid(1)), Listen::default(), dir.clone());
            let (listeners, _missing) = ports::bind(&config).unwrap();
            let service = Service::new(ServiceOptions::default());
            let server = runtime.start_on(listeners, options, service).unwrap();
            let (change, changes) = std::sync::mpsc::channel();
            follow(&config, changes, server.handle().clone()).unwrap();
            let go = |client: &str| {
                change.send(Membership::parse_text(members(client).as_bytes()).unwrap()).unwrap();
            };
            assert!(answers([127, 0, 0, 1], at), "{name}");
            go(&format!("127.0.0.2:{at}"));
            wait(name, || answers([127, 0, 0, 2], at) && !answers([127, 0, 0, 1], at));
            let taken = std::net::TcpListener::bind(("127.0.0.1", at + 3)).unwrap();
            go(&format!("127.0.0.1:{}", at + 3));
            wait(name, || !answers([127, 0, 0, 2], at));
            assert!(answers([127, 0, 0, 1], at + 1), "{name}: the others stay");
            drop(taken);
            wait(name, || answers([127, 0, 0, 1], at + 3));
            change.send(Membership::parse_text(b"server.2=127.0.0.1:1:2;3").unwrap()).unwrap();
            thread::sleep(Duration::from_millis(50));
            assert!(answers([127, 0, 0, 1], at + 3), "{name}: of a server that is no member");
            server.handle().shutdown();
            server.join().unwrap();
            std::fs::remove_dir_all(dir).unwrap();
        }
    }
}
