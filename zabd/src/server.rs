//! One server, from its configuration to its end.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use runtime_any::Runtime;
use runtime_core::{Error, Expects, Handle, raise_descriptor_limit};
use zab_proto::{Channel, Membership};
use zab_storage::{FsyncSummary, FsyncTimes, StartTimes};
use zab_tls::{Ports, Tls};
use zk_service::{OnOutdated, OnReconfigured, Probe, Service, ServiceOptions, Summary};

use crate::admin::{Admin, Unserved};
use crate::audit::Audit;
use crate::config::{Invalid, LoadError, LogConfig, ServerConfig, SystemProperties};
use crate::dynamic::DynamicFiles;
use crate::ending::Ending;
use crate::mending::Mending;
use crate::notify::Notify;
use crate::pauses::Pauses;
use crate::purge::Purge;
use crate::restore::Restoring;
use crate::running::Running;
use crate::{dynamic, exit, logging, options, ports, rebind, reload, sasl, tls};

/// Where the configuration comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// A file.
    File(std::path::PathBuf),
    /// `<clientPort> <dataDir> [tickTime] [maxClientCnxns]`.
    Arguments(Vec<String>),
}

impl Source {
    fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Arguments(_) => None,
        }
    }
}

/// Runs a server until a signal, the end of stdin (if `with_parent`) or an error; returns the exit
/// code.
#[must_use]
pub fn run(
    source: &Source,
    properties: SystemProperties,
    runtime: Runtime,
    with_parent: bool,
) -> u8 {
    // Those of the command line count from the first line on; what is wrong with them is said below.
    logging::apply(&LogConfig::read(&properties).unwrap_or_default());
    let spare = properties.clone();
    let mut config = match source {
        Source::File(path) => {
            log::info!("Reading configuration from: {}", path.display());
            ServerConfig::load(path, properties)
        }
        Source::Arguments(arguments) => ServerConfig::from_arguments(arguments, properties),
    };
    let audit = match &config {
        Ok(config) => Audit::open(config.audit.as_ref()),
        Err(_) => Audit::open(ServerConfig::audit_of(source.file(), spare.clone()).as_ref()),
    };
    let audit = Arc::new(audit.unwrap_or_else(|error| {
        config = Err(Invalid::new(error.to_string()).into());
        Audit::default()
    }));
    let code = match config {
        Ok(mut config) => {
            logging::apply(&config.log);
            dynamic::adopt_stored(&mut config);
            let around =
                tls::open(&config).map(|tls| Surroundings::new(&config, tls, Arc::clone(&audit)));
            match around.map(|around| serve(&config, &around, spare, runtime, with_parent)) {
                Err(error) => {
                    log::error!("Invalid config, exiting abnormally: {error}");
                    exit::INVALID
                }
                Ok(Ok(code)) => code,
                Ok(Err(Failure::Serving(error))) => exit::code(&error),
                Ok(Err(Failure::Admin(Unserved::Admin(error)))) => {
                    log::error!("Unable to start AdminServer, exiting abnormally: {error}");
                    exit::ADMIN_SERVER
                }
                Ok(Err(Failure::Admin(Unserved::Metrics(error)))) => {
                    log::error!("Unable to serve metrics, exiting abnormally: {error}");
                    exit::UNEXPECTED
                }
                Ok(Err(Failure::Starting(error))) => {
                    let code = exit::code(&error);
                    if code == exit::DATA_DIR {
                        log::error!("Unable to access datadir, exiting abnormally: {error}");
                    } else {
                        log::error!("{error}");
                    }
                    code
                }
            }
        }
        Err(LoadError::Invalid(error)) => {
            log::error!("Invalid config, exiting abnormally: {error}");
            exit::INVALID
        }
        Err(error) => {
            log::error!("Unexpected exception, exiting abnormally: {error}");
            exit::UNEXPECTED
        }
    };
    audit.ends(code != exit::OK);
    log::info!("Exiting with code {code}");
    code
}

/// What a server ended with.
enum Failure {
    /// Nobody has logged it yet.
    Starting(Error),
    /// What ends a loop is logged where it happens.
    Serving(Error),
    /// A port for administrators cannot be had.
    Admin(Unserved),
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Starting(error.into())
    }
}

/// What there is of a process but once, however often its server begins again.
struct Surroundings {
    tls: Option<Arc<Tls>>,
    audit: Arc<Audit>,
    running: Running,
    notify: Notify,
    outdated: Arc<AtomicBool>,
    restoring: Restoring,
}

impl Surroundings {
    fn new(config: &ServerConfig, tls: Option<Arc<Tls>>, audit: Arc<Audit>) -> Self {
        let (running, notify) = (Running::default(), Notify::from_env());
        let restoring = Restoring::new(config, running.clone());
        Self { tls, audit, running, notify, outdated: Arc::default(), restoring }
    }
}

fn serve(
    config: &ServerConfig,
    around: &Surroundings,
    properties: SystemProperties,
    runtime: Runtime,
    with_parent: bool,
) -> Result<u8, Failure> {
    log_start(config);
    if let Some(files) = DynamicFiles::of(config) {
        files.back_up(config);
    }
    if let Some(tls) = &around.tls {
        tls::watch(config, tls)?;
    }
    reload::on_signal(config, properties, around.tls.as_ref(), around.running.clone())?;
    around.notify.keep_alive(around.running.clone())?;
    match raise_descriptor_limit() {
        Ok(limit) => log::info!("This process may have {limit} open files and connections"),
        Err(error) => log::warn!("Cannot raise the limit of open files (ulimit -n): {error}"),
    }
    let ending = Ending::on_signals()?;
    if with_parent {
        ending.clone().on_end_of_stdin()?;
    }
    let mut mending = None::<Mending>;
    let https = tls::https(config, around.tls.as_ref());
    let admin = Admin::start(config, https, around.restoring.command()).map_err(Failure::Admin)?;
    loop {
        let ended = incarnation(config, around, runtime, &ending, &admin);
        around.running.set(None);
        let failure = match ended {
            Ok(()) if around.outdated.load(Ordering::Relaxed) => return Ok(exit::OUTDATED),
            Ok(()) if !ending.pausing() => {
                around.restoring.give_up();
                return Ok(exit::OK);
            }
            Ok(()) if around.restoring.place() => continue,
            Ok(()) => return Ok(exit::OK),
            Err(failure) => failure,
        };
        // A first start that fails is for whoever started it to see.
        let (Failure::Starting(error) | Failure::Serving(error)) = &failure else {
            return Err(failure);
        };
        if around.restoring.failed(&error.to_string()) && ending.pausing() {
            continue;
        }
        let again = mending.is_some() || matches!(failure, Failure::Serving(_));
        if !again || !Mending::may_help(error) || !ending.pausing() {
            return Err(failure);
        }
        mending.get_or_insert_with(|| Mending::new(options::server(config).storage)).wait();
    }
}

/// Ends a server once its clients have what they were to be answered, which takes a tick at most; see
/// [`Service::leave`].
pub(crate) fn leave(handle: Handle<Service>, tick: Duration) {
    let ends = handle.clone();
    let leaving = move || {
        handle.call(|now, node| node.app_mut().leave(now));
        let until = Instant::now() + tick;
        loop {
            let (told, heard) = mpsc::channel();
            handle.call(move |_, node| {
                let _ = told.send(node.app().has_left());
            });
            let left = heard.recv_timeout(until.saturating_duration_since(Instant::now()));
            if left != Ok(false) {
                break;
            }
            thread::sleep(LOOK_EVERY);
        }
        handle.shutdown();
    };
    // This is called where the next signal is waited for, which ends the process at once.
    if thread::Builder::new().name("leaving".into()).spawn(leaving).is_err() {
        ends.shutdown();
    }
}

/// Lets a leader make way for another one; see [`Peer::resign`](zab_proto::Peer::resign). Its clients, and
/// those of the others, keep their connections.
fn resign(handle: &Handle<Service>) {
    handle.call(|now, node| match node.resign(now) {
        Ok(()) => log::info!(
            "Asked to resign (SIGUSR1): what is proposed is committed, then another server leads"
        ),
        Err(error) => log::warn!("Asked to resign (SIGUSR1): {error}. Nothing changes"),
    });
}

/// How often it is asked whether all clients are gone.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A server from the reading of its directories to its end.
fn incarnation(
    config: &ServerConfig,
    around: &Surroundings,
    runtime: Runtime,
    ending: &Ending,
    admin: &Admin,
) -> Result<(), Failure> {
    let Surroundings { tls, audit, outdated, .. } = around;
    let mut options = options::server(config);
    options.storage.fsync_times = admin.fsync_times.clone();
    options.storage.snapshot_times = admin.snapshot_times.clone();
    options.storage.start_times = admin.start_times.clone();
    options.storage.snapshot_request = admin.snapshot_request.clone();
    let (mut listeners, missing) = ports::bind(config)?;
    if let Some(tls) = tls.as_ref().filter(|_| config.tls.is_for_ports()) {
        listeners.secure(Arc::<Tls>::clone(tls));
    }
    if let Some(logins) = sasl::logins(config) {
        listeners.log_in(logins);
    }
    for addr in listeners.addresses(Channel::Client) {
        log::info!("binding to port {addr}");
    }
    let mut service_options = options::service(config);
    service_options.on_outdated = on_outdated(ending, outdated);
    let (on_reconfigured, changes) = members_in_force();
    service_options.on_reconfigured = on_reconfigured;
    show_process(&mut service_options, &options.storage, admin);
    service_options.audit = audit.log();
    if let Some(tls) = tls {
        service_options.figures.extend(tls::figures(tls));
        service_options.gauges = tls::gauges(tls);
    }
    let service = Service::new(service_options);
    let server = runtime.start_on(listeners, options, service)?;
    let handle = server.handle().clone();
    // Not before: the directories have been read now, and what the purge removes is not missed.
    let purge = Purge::start(config);
    missing.serve_on(handle.clone())?;
    if config.changes_members() {
        rebind::follow(config, changes, handle.clone())?;
    }
    around.restoring.loaded();
    admin.ask(Some(handle.clone()));
    if let Some(pauses) = &admin.pauses {
        pauses.watch(handle.clone())?;
    }
    audit.started();
    around.running.set(Some(handle.clone()));
    around.notify.ready();
    let (tick, audit, notify) = (config.tick_time, Arc::clone(audit), around.notify.clone());
    let leads = handle.clone();
    let end = move || {
        notify.stopping();
        audit.ends(false);
        leave(handle.clone(), tick);
    };
    ending.serving(end, move || resign(&leads));
    let result = server.join();
    admin.ask(None);
    drop(purge);
    result.map_err(|error| match error {
        Error::Panicked => Failure::Starting(error),
        error => Failure::Serving(error),
    })
}

/// What `mntr` shows of the disk and of the process.
fn show_process(options: &mut ServiceOptions, storage: &zab_storage::Options, admin: &Admin) {
    options.fsync_times = Some(summary_of(&storage.fsync_times));
    let snapshots = summary_of(&storage.snapshot_times);
    options.summaries = vec![("snapshottime", snapshots)];
    let StartTimes { database, snapshot, log, txns } = &storage.start_times;
    options.summaries.extend([
        ("dbinittime", summary_of(database)),
        ("startup_snap_load_time", summary_of(snapshot)),
        ("startup_txns_load_time", summary_of(log)),
        ("startup_txns_loaded", summary_of(txns)),
    ]);
    options.summaries.push(("restore_time", admin.restore_time()));
    options.figures = admin.figures();
    options.dir_sizes = Some(admin.dir_sizes.probe());
    options.summaries.extend(admin.pauses.as_ref().map(Pauses::metric));
    options.descriptors = Some(Probe::new(|_| runtime_core::count_descriptors()));
}

/// Brings the members in force from the server's thread to whoever follows them.
fn members_in_force() -> (OnReconfigured, mpsc::Receiver<Membership>) {
    let (changed, changes) = mpsc::channel();
    // An error means that nobody follows any more, as the server ends.
    let tell = move |ensemble: &Membership| drop(changed.send(ensemble.clone()));
    (OnReconfigured::new(tell), changes)
}

/// Times of the disk, as `mntr` asks for them.
fn summary_of(times: &FsyncTimes) -> Probe<Summary> {
    let times = times.clone();
    Probe::new(move |reset| {
        let FsyncSummary { count, sum_ms, min_ms, max_ms, .. } = times.summary();
        if reset {
            times.reset();
        }
        Summary { count, sum: sum_ms, min: min_ms, max: max_ms }
    })
}

/// What to do when `reconfig` has given the ensemble other members than this server knows of.
fn on_outdated(ending: &Ending, outdated: &Arc<AtomicBool>) -> OnOutdated {
    let (ending, outdated) = (ending.clone(), Arc::clone(outdated));
    OnOutdated::new(move || {
        if outdated.swap(true, Ordering::Relaxed) {
            return;
        }
        log::error!(
            "the members of the ensemble have changed (reconfig) to others than in this server's \
             configuration, which is read at the start only. It stops, because quorums of the old \
             members are no longer valid. Start it again with the new list of members: \
             /zookeeper/config and the other servers' dynamicConfigFile have it"
        );
        // Does not wait: this thread is the one that has to end.
        ending.ask("the ensemble's members have changed", exit::OUTDATED);
    })
}

fn log_start(config: &ServerConfig) {
    match &config.client {
        Some((host, port)) => log::info!("clientPortAddress is {host}:{port}"),
        None => log::info!("clientPort is not set"),
    }
    match &config.tls.secure_client {
        Some((host, port)) => log::info!("secureClientPortAddress is {host}:{port}"),
        None => log::info!("secureClientPort is not set"),
    }
    log::info!("metricsProvider.className is {}", config.metrics_provider);
    log::info!("autopurge.snapRetainCount set to {}", config.snap_retain_count);
    let hours = config.purge_interval.map_or(0, |interval| interval.as_secs() / 3600);
    log::info!("autopurge.purgeInterval set to {hours}");
    if config.standalone {
        log::info!("Either no config or no quorum defined in config, running in standalone mode");
    } else {
        logging::set_myid(config.sid.0);
        log::info!("Starting quorum peer, myid={}", config.sid);
        let Ports { peers, dial_peers, .. } = config.tls.ports;
        let how = if dial_peers { "TLS encrypted" } else { "insecure (non-TLS)" };
        log::info!("Using {how} quorum communication");
        let unified = if peers == Expects::Either { "enabled" } else { "disabled" };
        log::info!("Port unification {unified}");
    }
    log::info!("tickTime set to {} ms", config.tick_time.as_millis());
    log::info!("minSessionTimeout set to {} ms", config.min_session_timeout.as_millis());
    log::info!("maxSessionTimeout set to {} ms", config.max_session_timeout.as_millis());
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;
    use runtime_core::{Listen, Listeners, ServerOptions};
    use zab_proto::{Config, Sid};

    fn later_port(handle: &Handle<Service>) -> std::net::SocketAddr {
        let mut later = Listeners::default();
        let at = later.add(Channel::Client, ([127, 0, 0, 1], 0).into(), None).unwrap();
        handle.listen(later);
        at
    }

    /// A port whose name became known after the start is served like the others, and one that is closed
    /// refuses further clients but not those that have come.
    #[test]
    fn every_runtime_takes_further_ports_and_gives_up_some_while_it_runs() {
        for runtime in Runtime::ALL {
            let name = runtime.name();
            let dir = std::env::temp_dir().join(format!("zabd-late-{}-{name}", std::process::id()));
            let options =
                ServerOptions::new(Config::standalone(Sid(1)), Listen::default(), dir.clone());
            let service = Service::new(ServiceOptions::default());
            let server = runtime.start_on(Listeners::default(), options, service).unwrap();
            let handle = server.handle();
            assert!(handle.wait_serving(Duration::from_secs(30)));
            let at = later_port(handle);
            let mut stream = TcpStream::connect(at).unwrap();
            let mut behind = TcpStream::connect(at).unwrap();
            behind.write_all(b"srvr").unwrap();
            behind.read_exact(&mut [0; 4]).expect("both have been accepted");
            let other = later_port(handle);
            handle.unlisten(vec![(Channel::Client.into(), at.port())]);
            let closed = (0..3000).any(|_| {
                thread::sleep(Duration::from_millis(10));
                TcpStream::connect(at).is_err()
            });
            assert!(closed, "{name}");
            TcpStream::connect(other).expect("not this one");
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            stream.write_all(b"srvr").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.contains("Mode: standalone"), "{name}: {answer}");
            handle.shutdown();
            server.join().unwrap();
            std::fs::remove_dir_all(dir).unwrap();
        }
    }
}
