//! The server's own ports, whose names may not be known yet.
//!
//! Under an orchestrator a server often starts before its own name is in the name service, and one of
//! several addresses may belong to a network that comes up later. So names are asked for again and
//! again, each on a thread of its own that ends with the last of its ports: the server starts when
//! it has at least one port of each kind, and gets the others when their names are known.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use runtime_core::{Error, Handle, Listeners, Port, all_addresses, local_address};
use zab_proto::{Channel, Role};

use crate::config::ServerConfig;

/// One port that the server has to have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wanted {
    kind: Port,
    /// A name or an address; `None`: all addresses of the machine.
    host: Option<String>,
    port: u16,
    backlog: Option<u32>,
}

impl Wanted {
    /// Kind and number, whatever the address.
    pub(crate) fn place(&self) -> (Port, u16) {
        (self.kind, self.port)
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.as_deref().unwrap_or("all addresses");
        write!(f, "{} port {} of {host}", kind(self.kind), self.port)
    }
}

/// Ports, for the log.
pub(crate) fn names(ports: &[(Port, u16)]) -> String {
    let names = ports.iter().map(|(port, number)| format!("{} port {number}", kind(*port)));
    names.collect::<Vec<_>>().join(", ")
}

/// Ports of names that are still asked for.
pub(crate) struct Missing {
    found: Receiver<Found>,
}

/// A port that has been bound, or that cannot be.
type Found = Result<Listeners, Error>;

impl Missing {
    /// Serves the ports as they come.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn serve_on<A: Send + 'static>(self, handle: Handle<A>) -> io::Result<()> {
        let thread = thread::Builder::new().name("own names".into());
        let waits = thread.spawn(move || {
            for found in self.found {
                match found {
                    Ok(listeners) => handle.listen(listeners),
                    Err(error) => log::error!("{error}, trying again"),
                }
            }
        });
        waits.map(drop)
    }
}

/// Binds the ports, and waits until there is one of each kind. The previous owner of a port between
/// servers may need a moment to end: `electionPortBindRetry` further attempts, 0 for any number.
///
/// # Errors
/// [`Error::Bind`]: a port whose address is known cannot be bound.
pub(crate) fn bind(config: &ServerConfig) -> Result<(Listeners, Missing), Error> {
    bind_by(config, &(Arc::new(local_address) as LookUp))
}

/// The address of a name, with a port.
type LookUp = Arc<dyn Fn(&str, u16) -> io::Result<SocketAddr> + Send + Sync>;

fn bind_by(config: &ServerConfig, look_up: &LookUp) -> Result<(Listeners, Missing), Error> {
    let wanted = wanted(config);
    let retries = config.properties.number("electionPortBindRetry", 3);
    let (mut bound, missing) = begin(&wanted, Some(retries), look_up)?;
    wait(&wanted, &mut bound, &missing.found)?;
    Ok((bound, missing))
}

/// Binds one more port of a running server, now or when its name is known. Tries once.
///
/// # Errors
/// [`Error::Bind`].
pub(crate) fn open<A: Send + 'static>(port: &Wanted, handle: &Handle<A>) -> Result<(), Error> {
    let look_up = Arc::new(local_address) as LookUp;
    let (bound, missing) = begin(std::slice::from_ref(port), None, &look_up)?;
    handle.listen(bound);
    Ok(missing.serve_on(handle.clone())?)
}

/// Binds the ports whose addresses are known, trying again so often (0: always; `None`: never), and begins
/// to ask for the others.
fn begin(
    wanted: &[Wanted],
    retries: Option<u32>,
    look_up: &LookUp,
) -> Result<(Listeners, Missing), Error> {
    let (report, found) = channel();
    let mut bound = Listeners::default();
    let mut names: BTreeMap<String, Vec<Wanted>> = BTreeMap::new();
    for port in wanted {
        let addr = match port.host.as_ref().map(|host| (host, host.parse::<IpAddr>())) {
            Some((host, Err(_))) => {
                names.entry(host.clone()).or_default().push(port.clone());
                continue;
            }
            Some((_, Ok(ip))) if !ip.is_unspecified() => SocketAddr::new(ip, port.port),
            _ => all_addresses(port.port),
        };
        bound.append(bind_patiently(port, addr, retries.unwrap_or(1), |_| retries.is_some())?);
    }
    for (host, ports) in names {
        let report = report.clone();
        let look_up = Arc::clone(look_up);
        let retries = retries.unwrap_or(1);
        let name = Name { host, ports, look_up, retries, report, pause: PAUSE_MIN };
        thread::Builder::new().name("own names".into()).spawn(move || name.ask())?;
    }
    // The last of the threads hangs up.
    drop(report);
    Ok((bound, Missing { found }))
}

/// The ports that `config` asks for, each once.
pub(crate) fn wanted(config: &ServerConfig) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut want = |port: Wanted| {
        // Several addresses of a server may differ in nothing but the network.
        if !wanted.contains(&port) {
            wanted.push(port);
        }
    };
    let member = config.own.as_ref().filter(|_| !config.standalone);
    for address in member.iter().flat_map(|member| &member.addresses) {
        let host = (!config.listen_on_all_ips).then(|| address.host.clone());
        let peer = |channel: Channel, port| Wanted {
            kind: channel.into(),
            host: host.clone(),
            port,
            backlog: None,
        };
        want(peer(Channel::Election, address.election_port));
        // Observers lead nobody.
        if member.is_some_and(|member| member.role == Role::Participant) {
            want(peer(Channel::Quorum, address.quorum_port));
            // Learners of another kind, who speak the same.
            if let Some(port) = config.observer_master_port {
                want(peer(Channel::Quorum, port));
            }
        }
    }
    if let Some((host, port)) = &config.client {
        let (host, backlog) = (Some(host.clone()), config.client_backlog);
        want(Wanted { kind: Channel::Client.into(), host, port: *port, backlog });
    }
    if let Some((host, port)) = &config.tls.secure_client {
        let (host, backlog) = (Some(host.clone()), config.client_backlog);
        let kind = Port { channel: Channel::Client, secure: true };
        want(Wanted { kind, host, port: *port, backlog });
    }
    wanted
}

/// Waits until `bound` has a port of each kind in `wanted`, and a moment for the others.
fn wait(wanted: &[Wanted], bound: &mut Listeners, found: &Receiver<Found>) -> Result<(), Error> {
    let moment = Instant::now() + MOMENT;
    loop {
        let has = |channel| bound.addresses(channel).next().is_some();
        let timeout = if wanted.iter().all(|port| has(port.kind.channel)) {
            moment.saturating_duration_since(Instant::now())
        } else {
            Duration::MAX
        };
        match found.recv_timeout(timeout) {
            Ok(listeners) => bound.append(listeners?),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// A name of this server's that is asked for until all ports that go with it are bound.
struct Name {
    host: String,
    ports: Vec<Wanted>,
    look_up: LookUp,
    retries: u32,
    report: Sender<Found>,
    pause: Duration,
}

impl Name {
    fn ask(mut self) {
        let (mut attempts, mut told) = (0_u64, None::<Instant>);
        loop {
            attempts += 1;
            match self.attempt() {
                Ok(()) if self.ports.is_empty() => return,
                Ok(()) => {}
                Err(error) if told.is_none_or(|at| at.elapsed() >= REPORT) => {
                    told = Some(Instant::now());
                    let host = &self.host;
                    let what = self.what();
                    log::warn!(
                        "Cannot listen on {what}: {host:?}, a name of this server, cannot be used yet: \
                         {error}. It is looked up again until it is known (attempts so far: {attempts})"
                    );
                }
                Err(_) => {}
            }
            thread::sleep(self.pause);
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
    }

    fn what(&self) -> String {
        let ports =
            self.ports.iter().map(|wanted| format!("{} port {}", kind(wanted.kind), wanted.port));
        ports.collect::<Vec<_>>().join(", ")
    }

    /// Looks the name up and binds its ports. Those that are bound, or cannot be, are reported.
    ///
    /// # Errors
    /// The name is not known, or stands for an address that this machine does not have (yet).
    fn attempt(&mut self) -> io::Result<()> {
        let mut not_yet = None;
        for wanted in std::mem::take(&mut self.ports) {
            let found = (self.look_up)(&self.host, wanted.port)
                .and_then(|addr| bind_unless_foreign(&wanted, addr, self.retries));
            match found {
                Ok(found) => {
                    if found.is_err() {
                        self.ports.push(wanted);
                    }
                    // Nobody listens any more when the server has ended.
                    let _ = self.report.send(found);
                }
                Err(error) => {
                    not_yet = Some(error);
                    self.ports.push(wanted);
                }
            }
        }
        not_yet.map_or(Ok(()), Err)
    }
}

/// Binds a port to what its name stands for.
///
/// # Errors
/// This machine does not have the address: the name service may still have an old one.
fn bind_unless_foreign(wanted: &Wanted, addr: SocketAddr, retries: u32) -> io::Result<Found> {
    match bind_patiently(wanted, addr, retries, |kind| kind != ErrorKind::AddrNotAvailable) {
        Err(Error::Bind { source, .. }) if source.kind() == ErrorKind::AddrNotAvailable => {
            Err(io::Error::new(source.kind(), format!("{addr}: {source}")))
        }
        found => Ok(found),
    }
}

fn bind_patiently(
    wanted: &Wanted,
    addr: SocketAddr,
    retries: u32,
    worth_it: impl Fn(ErrorKind) -> bool,
) -> Found {
    let mut attempt = 0;
    loop {
        let mut listeners = Listeners::default();
        match listeners.add(wanted.kind, addr, wanted.backlog) {
            Ok(_) => return Ok(listeners),
            Err(error) => {
                let again =
                    wanted.kind.channel != Channel::Client && (retries == 0 || attempt < retries);
                if !(again
                    && matches!(&error, Error::Bind { source, .. } if worth_it(source.kind())))
                {
                    return Err(error);
                }
                log::warn!("{error}, trying again");
                attempt += 1;
                thread::sleep(Duration::from_secs(1));
            }
        }
    }
}

fn kind(port: Port) -> &'static str {
    match port.channel {
        Channel::Election => "election",
        Channel::Quorum => "quorum",
        Channel::Client if port.secure => "secure client",
        Channel::Client => "client",
    }
}

/// How long a server that could start waits for names that are about to be known.
const MOMENT: Duration = Duration::from_secs(1);
/// The first pause between two questions for a name; doubles up to the second.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often it is said that a name is not known.
const REPORT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::config::SystemProperties;

    /// The configuration of server 1 of three, with these addresses.
    fn config(own: &str, client: &str) -> ServerConfig {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("zabd-ports-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("myid"), "1").unwrap();
        let text = format!(
            "dataDir={}\ninitLimit=9\nsyncLimit=9\nmultiAddress.enabled=true\n{client}\nserver.1={own}\n\
             server.2=127.0.0.1:1:2\nserver.3=127.0.0.1:3:4",
            dir.display()
        );
        let config =
            ServerConfig::parse(text.as_bytes(), SystemProperties::default(), None).unwrap();
        std::fs::remove_dir_all(dir).unwrap();
        config
    }

    /// A name service that knows every name after it was asked this often.
    fn knows_after(questions: u32) -> (LookUp, Arc<AtomicU32>) {
        let asked = Arc::<AtomicU32>::default();
        let count = Arc::clone(&asked);
        let look_up = move |_: &str, port| {
            if count.fetch_add(1, Ordering::Relaxed) < questions {
                return Err(io::Error::new(ErrorKind::NotFound, "nobody knows"));
            }
            Ok(SocketAddr::from(([127, 0, 0, 1], port)))
        };
        (Arc::new(look_up), asked)
    }

    #[test]
    fn a_server_with_one_known_address_does_not_wait_for_the_others() {
        let config = config("127.0.0.1:27001:27002|later:27003:27004", "");
        let (look_up, asked) = knows_after(12);
        let (bound, missing) = bind_by(&config, &look_up).unwrap();
        let ports = |listeners: &Listeners| -> Vec<u16> {
            listeners.ports().map(|(_, addr)| addr.port()).collect()
        };
        assert_eq!(ports(&bound), [27002, 27001]);
        assert!(asked.load(Ordering::Relaxed) >= 2, "asked for again");
        let mut later = Listeners::default();
        for found in missing.found {
            later.append(found.unwrap());
        }
        assert_eq!(ports(&later), [27004, 27003]);
    }

    #[test]
    fn a_server_whose_only_name_is_not_known_waits_for_it() {
        let config = config("later:27011:27012", "clientPort=27013\nclientPortAddress=later");
        let (look_up, asked) = knows_after(7);
        let (bound, missing) = bind_by(&config, &look_up).unwrap();
        assert_eq!(bound.ports().count(), 3);
        // Two rounds of three ports, one of which the last two are known in, and one for the first.
        assert_eq!(asked.load(Ordering::Relaxed), 10);
        assert!(missing.found.recv().is_err(), "nothing is asked for any more");
    }

    #[test]
    fn an_old_address_of_a_name_is_none() {
        let config = config("moved:27021:27022", "");
        let asked = AtomicU32::default();
        let look_up = move |_: &str, port| {
            // TEST-NET-1: no machine has it.
            let old = asked.fetch_add(1, Ordering::Relaxed) < 4;
            Ok(SocketAddr::from((if old { [192, 0, 2, 1] } else { [127, 0, 0, 1] }, port)))
        };
        let (bound, _) = bind_by(&config, &(Arc::new(look_up) as LookUp)).unwrap();
        assert!(bound.ports().all(|(_, addr)| addr.ip().is_loopback()));
    }

    #[test]
    fn a_port_in_use_is_an_error_whether_by_name_or_by_address() {
        let taken = std::net::TcpListener::bind("127.0.0.1:27032").unwrap();
        for host in ["127.0.0.1", "name"] {
            let mut config = config(&format!("{host}:27031:27032"), "");
            config.properties.set(
                crate::config::Origin::CommandLine,
                "zookeeper.electionPortBindRetry",
                "1",
            );
            let Err(error) = bind_by(&config, &knows_after(0).0) else { panic!("{host}") };
            assert_eq!(crate::exit::code(&error), crate::exit::ELECTION_PORT, "{error}");
        }
        drop(taken);
    }
}
