//! Passes bytes between members, as long as their link is open: one thread for a whole ensemble.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use zab_proto::Sid;

/// What a link does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Link {
    /// Passes everything on.
    #[default]
    Open,
    /// Its connections break, and new ones end at once.
    Cut,
    /// Nothing arrives and nothing breaks: the other side is silent. What was sent meanwhile
    /// arrives when the link is open again.
    Frozen,
}

type Pair = (Sid, Sid);

/// A port that stands for another one.
#[derive(Debug)]
pub(crate) struct Route {
    listener: TcpListener,
    link: Pair,
    target: SocketAddr,
}

impl Route {
    pub(crate) fn bind(link: Pair, target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        Ok(Self { listener, link, target })
    }

    pub(crate) fn port(&self) -> io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }
}

/// A link's new state, and who waits until it holds.
type Change = (Pair, Link, Sender<()>);

#[derive(Debug)]
pub(crate) struct Relay {
    /// `None` tells the thread to end.
    changes: Option<Sender<Change>>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    pub(crate) fn start(mut routes: Vec<Route>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        for (i, route) in routes.iter_mut().enumerate() {
            poll.registry().register(&mut route.listener, Token(1 + i), Interest::READABLE)?;
        }
        let (changes, changed) = channel();
        let registry = poll.registry().try_clone()?;
        let first = 1 + routes.len();
        let mut state = State { registry, routes, links: HashMap::new(), tubes: Vec::new(), first };
        let thread = std::thread::Builder::new()
            .name("zab-relay".to_owned())
            .spawn(move || state.run(poll, &changed))?;
        Ok(Self { changes: Some(changes), waker, thread: Some(thread) })
    }

    /// Returns when the link is in its new state.
    pub(crate) fn set(&self, link: Pair, state: Link) {
        let (done, holds) = channel();
        let changes = self.changes.as_ref().expect("there until the drop");
        changes.send((link, state, done)).expect("the relay runs");
        self.waker.wake().expect("the relay can be woken");
        holds.recv().expect("the relay runs");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.changes = None;
        if let (Ok(()), Some(thread)) = (self.waker.wake(), self.thread.take()) {
            // A panic of the relay has been printed.
            let _ = thread.join();
        }
    }
}

/// The relay's thread.
struct State {
    registry: Registry,
    routes: Vec<Route>,
    links: HashMap<Pair, Link>,
    /// Each has two tokens from `first` on.
    tubes: Vec<Option<Tube>>,
    first: usize,
}

/// Two connections that are one.
struct Tube {
    link: Pair,
    sides: [TcpStream; 2],
    /// What the side of that index has sent and the other one has not been given.
    waiting: [Vec<u8>; 2],
    ended: [bool; 2],
}

impl State {
    fn run(&mut self, mut poll: Poll, changed: &Receiver<Change>) {
        let mut events = Events::with_capacity(256);
        loop {
            match poll.poll(&mut events, None) {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    log::error!("relay: {error}");
                    return;
                }
                _ => {}
            }
            for event in &events {
                match event.token() {
                    WAKER => {}
                    Token(token) if token < self.first => self.accept(token - 1),
                    Token(token) => self.pass((token - self.first) / 2),
                }
            }
            loop {
                match changed.try_recv() {
                    Ok((link, state, done)) => {
                        self.change(link, state);
                        // Who has changed it waits.
                        let _ = done.send(());
                    }
                    Err(std::sync::mpsc::TryRecvError::Empty) => break,
                    Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                }
            }
        }
    }

    fn change(&mut self, link: Pair, state: Link) {
        self.links.insert(link, state);
        for tube in 0..self.tubes.len() {
            if self.tubes[tube].as_ref().is_some_and(|tube| tube.link == link) {
                self.pass(tube);
            }
        }
        for route in 0..self.routes.len() {
            if self.routes[route].link == link {
                self.accept(route);
            }
        }
    }

    fn state(&self, link: Pair) -> Link {
        self.links.get(&link).copied().unwrap_or_default()
    }

    fn accept(&mut self, route: usize) {
        let (link, target) = (self.routes[route].link, self.routes[route].target);
        let state = self.state(link);
        if state == Link::Frozen {
            return;
        }
        while let Ok((stream, _)) = self.routes[route].listener.accept() {
            if state == Link::Cut {
                continue;
            }
            // A connection that cannot be made ends at once.
            if let Ok(tube) = TcpStream::connect(target).and_then(|t| self.join(link, stream, t)) {
                self.pass(tube);
            }
        }
    }

    fn join(&mut self, link: Pair, from: TcpStream, to: TcpStream) -> io::Result<usize> {
        let free = self.tubes.iter().position(Option::is_none);
        let at = free.unwrap_or(self.tubes.len());
        let mut sides = [from, to];
        for (i, side) in sides.iter_mut().enumerate() {
            let token = Token(self.first + 2 * at + i);
            self.registry.register(side, token, Interest::READABLE | Interest::WRITABLE)?;
        }
        if free.is_none() {
            self.tubes.push(None);
        }
        self.tubes[at] = Some(Tube { link, sides, waiting: Default::default(), ended: [false; 2] });
        Ok(at)
    }

    /// Passes on what can be, or ends the connection.
    fn pass(&mut self, at: usize) {
        let Some(Some(tube)) = self.tubes.get_mut(at) else { return };
        let state = self.links.get(&tube.link).copied().unwrap_or_default();
        let goes_on = match state {
            Link::Open => tube.pass(0) && tube.pass(1) && tube.ended != [true; 2],
            Link::Cut => false,
            Link::Frozen => true,
        };
        if !goes_on {
            self.tubes[at] = None;
        }
    }
}

impl Tube {
    /// Passes on what one side has sent. False if the connection is broken.
    fn pass(&mut self, from: usize) -> bool {
        let Self { sides, waiting, ended, .. } = self;
        let (waiting, ended) = (&mut waiting[from], &mut ended[from]);
        let [a, b] = sides;
        let (from, to) = if from == 0 { (a, b) } else { (b, a) };
        let mut buf = [0; 16 << 10];
        loop {
            while !waiting.is_empty() {
                match to.write(waiting) {
                    Ok(n) => drop(waiting.drain(..n)),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return is_patient(&error),
                }
            }
            if *ended {
                return true;
            }
            match from.read(&mut buf) {
                Ok(0) => {
                    *ended = true;
                    // It may be gone already.
                    let _ = to.shutdown(Shutdown::Write);
                }
                Ok(n) => waiting.extend_from_slice(&buf[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return is_patient(&error),
            }
        }
    }
}

/// Whether a socket only wants to be asked later: it is empty, full or not yet connected.
fn is_patient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
}

const WAKER: Token = Token(0);
