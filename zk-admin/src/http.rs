//! Connections: accepted, bounded, and spoken to in HTTP/1.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use smol::future::or;
use smol::{Async, LocalExecutor, Timer};
use smol_hyper::rt::{FuturesIo, SmolTimer};

use crate::counts::Counts;
use crate::guard::{Gate, Motion, Watched};
use crate::options::AdminOptions;
use crate::route::{Caller, Door, Site};
use crate::secure::{self, Stream};

/// How long a request's head may take, from the first byte on or from when it is waited for.
const HEAD_TIMEOUT: Duration = Duration::from_secs(8);
/// Bytes of a request's head. A longer one is answered by 431.
const HEAD_LEN_MAX_BYTES: usize = 16 << 10;
/// Lines of a request's head.
const HEAD_LINES_MAX: usize = 64;
/// How long is waited after `accept` has failed, which it does when there are no descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The listening ports.
#[derive(Debug)]
pub(crate) struct Ports(Vec<(Door, Async<TcpListener>)>);

impl Ports {
    pub(crate) fn new(options: &AdminOptions) -> io::Result<Self> {
        let doors = [(Door::Admin, &options.admin), (Door::Metrics, &options.metrics)];
        let ports =
            doors.into_iter().filter_map(|(door, listener)| Some((door, listener.as_ref()?)));
        let ports = ports.map(|(door, port)| Ok((door, Async::new(port.try_clone()?)?)));
        Ok(Self(ports.collect::<io::Result<_>>()?))
    }
}

/// Begins to serve the ports.
pub(crate) fn serve(executor: &Rc<LocalExecutor<'static>>, site: &Rc<Site>, ports: Ports) {
    let gate = Rc::new(Gate::default());
    for (door, port) in ports.0 {
        let (spawner, site, gate) = (Rc::clone(executor), Rc::clone(site), Rc::clone(&gate));
        executor.spawn(accept(spawner, site, gate, door, port)).detach();
    }
    let site = Rc::clone(site);
    executor.spawn(async move { site.live().run(site.source()).await }).detach();
}

async fn accept(
    executor: Rc<LocalExecutor<'static>>,
    site: Rc<Site>,
    gate: Rc<Gate>,
    door: Door,
    port: Async<TcpListener>,
) {
    loop {
        let (stream, remote) = match port.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                log::debug!("AdminServer: a connection was not accepted: {error}");
                Timer::after(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = gate.enter(remote.ip().to_canonical()) else { continue };
        let (spawner, site) = (Rc::clone(&executor), Rc::clone(&site));
        let talk = async move {
            begin(spawner, site, door, stream, remote).await;
            drop(place);
        };
        executor.spawn(talk).detach();
    }
}

/// One connection from its beginning to its end: the handshake, if there is to be one, and then HTTP.
async fn begin(
    executor: Rc<LocalExecutor<'static>>,
    site: Rc<Site>,
    door: Door,
    stream: Async<TcpStream>,
    remote: SocketAddr,
) {
    let https = site.options().https.as_ref().filter(|_| door == Door::Admin);
    let stream = match https {
        None => Stream::plain(stream),
        Some(https) => match secure::begin(https, stream, remote).await {
            Ok(stream) => {
                if !stream.is_secure() {
                    Counts::count(&site.options().counts.insecure);
                }
                stream
            }
            Err(error) => {
                log::info!("AdminServer: the connection from {remote} is closed: {error}");
                return;
            }
        },
    };
    let caller = Caller {
        address: remote.ip().to_canonical(),
        is_secure: stream.is_secure(),
        subject: stream.subject(),
    };
    talk(executor, site, door, stream, Rc::new(caller)).await;
}

/// Requests and answers, until either side has had enough.
async fn talk(
    executor: Rc<LocalExecutor<'static>>,
    site: Rc<Site>,
    door: Door,
    stream: Stream<Async<TcpStream>>,
    caller: Rc<Caller>,
) {
    let address = caller.address;
    let motion = Motion::new();
    let limit = site.options().idle_timeout;
    let io = FuturesIo::new(Watched::new(stream, motion.clone()));
    let answering = motion.clone();
    let service = service_fn(move |request| {
        let (executor, site, motion) = (Rc::clone(&executor), Rc::clone(&site), answering.clone());
        let caller = Rc::clone(&caller);
        async move {
            motion.works(true);
            let response = site.answer(&executor, door, &caller, request).await;
            motion.works(false);
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(SmolTimer::new())
        .header_read_timeout(HEAD_TIMEOUT.min(limit))
        .max_buf_size(HEAD_LEN_MAX_BYTES)
        .max_headers(HEAD_LINES_MAX)
        .serve_connection(io, service);
    let talking = async {
        if let Err(error) = connection.await {
            log::debug!("AdminServer: the connection from {address} has ended: {error}");
        }
    };
    let standing = async {
        motion.stopped(limit).await;
        log::debug!("AdminServer: the connection from {address} is closed, as nothing moves on it");
    };
    or(talking, standing).await;
}
