//! A running ensemble.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use runtime_any::{Runtime, Server};
use runtime_core::{Handle, HeldPort, Listeners, ServerOptions};
use zab_proto::{Application, Config, Phase, Role, ServerState, Sid};

use crate::Error;
#[cfg(feature = "zookeeper")]
use crate::builder::Builder;
use crate::links::Links;
use crate::place::TempDir;
use crate::relay::Link;

/// Several servers in this process, which are one ensemble. Dropping it stops them and removes
/// their directories.
///
/// Methods that take a `Sid` panic if the ensemble has no such member.
pub struct Ensemble<A> {
    // Servers end before their directories go.
    seats: Vec<Seat<A>>,
    recipe: Recipe<A>,
    links: Option<Links>,
    dir: TempDir,
}

/// Changes the options of a member that starts.
pub(crate) type Configure = Box<dyn Fn(Sid, &mut ServerOptions) + Send>;
/// Makes the application of a member that starts.
pub(crate) type MakeApp<A> = Box<dyn FnMut(&Config) -> A + Send>;

/// How members are made, and how long they may take.
pub(crate) struct Recipe<A> {
    pub(crate) config: Config,
    pub(crate) configure: Configure,
    pub(crate) app: MakeApp<A>,
    pub(crate) patience: Duration,
}

/// A member's place, taken or not.
pub(crate) struct Seat<A> {
    pub(crate) sid: Sid,
    pub(crate) role: Role,
    pub(crate) runtime: Runtime,
    pub(crate) election: HeldPort,
    pub(crate) quorum: HeldPort,
    pub(crate) client: HeldPort,
    pub(crate) running: Option<Server<A>>,
}

impl<A> fmt::Debug for Ensemble<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seats = self.seats.iter().map(|seat| (seat.sid, &seat.running));
        f.debug_map().entries(seats).finish()
    }
}

#[cfg(feature = "zookeeper")]
impl Ensemble<zk_service::Service> {
    /// Starts `voters` members with the ZooKeeper service, and waits until all serve.
    ///
    /// # Errors
    /// As [`Builder::start_with`].
    pub fn start(voters: usize) -> Result<Self, Error> {
        Self::builder().voters(voters).start()
    }

    /// An ensemble that is still to be described.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl<A: Application + Send + 'static> Ensemble<A> {
    pub(crate) fn new(
        seats: Vec<Seat<A>>,
        recipe: Recipe<A>,
        links: Option<Links>,
        dir: TempDir,
    ) -> Self {
        Self { seats, recipe, links, dir }
    }

    /// All are bound before the first one starts, so that no dial is refused.
    pub(crate) fn start_all(&mut self) -> Result<(), Error> {
        let bind = |seat: &Seat<A>| Listeners::bind(&seat.listen());
        let bound = self.seats.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        for (i, listeners) in bound.into_iter().enumerate() {
            self.start_on(i, listeners)?;
        }
        self.wait().map(|_| ())
    }

    fn start_on(&mut self, i: usize, listeners: Listeners) -> Result<(), Error> {
        let seat = &mut self.seats[i];
        let mut config = self.recipe.config.clone();
        config.sid = seat.sid;
        config.seed = seat.sid.0.unsigned_abs();
        let app = (self.recipe.app)(&config);
        if let Some(links) = &self.links {
            links.redirect(seat.sid, &mut config.ensemble);
        }
        let dir = self.dir.path().join(seat.sid.to_string());
        let mut options = ServerOptions::new(config, seat.listen(), dir);
        options.storage.prealloc_bytes = 64 << 10;
        options.storage.force_sync = false;
        (self.recipe.configure)(seat.sid, &mut options);
        seat.running = Some(seat.runtime.start_on(listeners, options, app)?);
        Ok(())
    }

    /// Starts a member that was stopped, on its old ports and files. Returns when its loop runs;
    /// [`wait`](Self::wait) until it serves.
    ///
    /// # Errors
    /// [`Error::Server`].
    ///
    /// # Panics
    /// If it runs.
    pub fn restart(&mut self, sid: Sid) -> Result<(), Error> {
        let i = self.index(sid);
        assert!(self.seats[i].running.is_none(), "server {sid} runs");
        let listeners = Listeners::bind(&self.seats[i].listen())?;
        self.start_on(i, listeners)
    }
}

impl<A: Application> Ensemble<A> {
    /// Stops a member at once: its sockets are closed and its threads ended when this returns.
    pub fn stop(&mut self, sid: Sid) {
        let i = self.index(sid);
        self.seats[i].running = None;
    }

    /// The members, running or not.
    pub fn members(&self) -> impl Iterator<Item = Sid> + '_ {
        self.seats.iter().map(|seat| seat.sid)
    }

    /// Whether a member runs.
    #[must_use]
    pub fn is_running(&self, sid: Sid) -> bool {
        self.seats[self.index(sid)].running.is_some()
    }

    /// A running member's handle.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn handle(&self, sid: Sid) -> &Handle<A> {
        let running = self.seats[self.index(sid)].running.as_ref();
        running.unwrap_or_else(|| panic!("server {sid} does not run")).handle()
    }

    /// Where clients reach a member. The address stays its own while it is down.
    #[must_use]
    pub fn client_address(&self, sid: Sid) -> SocketAddr {
        self.seats[self.index(sid)].client.addr()
    }

    /// Where other members reach a member: its election and its quorum port. With
    /// [`links`](Builder::links) these lie behind the relay.
    #[must_use]
    pub fn peer_addresses(&self, sid: Sid) -> [SocketAddr; 2] {
        let seat = &self.seats[self.index(sid)];
        [seat.election.addr(), seat.quorum.addr()]
    }

    /// All client addresses, as ZooKeeper's clients take them: `127.0.0.1:2181,127.0.0.1:2182`.
    #[must_use]
    pub fn connect_string(&self) -> String {
        let addresses = self.seats.iter().map(|seat| seat.client.addr().to_string());
        addresses.collect::<Vec<_>>().join(",")
    }

    /// A member's directory. It exists until the ensemble is dropped.
    #[must_use]
    pub fn data_dir(&self, sid: Sid) -> PathBuf {
        self.dir.path().join(self.seats[self.index(sid)].sid.to_string())
    }

    /// Asks a running member's application, between two events of its loop.
    ///
    /// # Panics
    /// If the member ends meanwhile.
    pub fn ask<T: Send + 'static>(
        &self,
        sid: Sid,
        question: impl FnOnce(&A) -> T + Send + 'static,
    ) -> T {
        let (sender, answer) = channel();
        self.handle(sid).call(move |_, node| {
            // Who has asked waits, unless it has given up.
            let _ = sender.send(question(node.app()));
        });
        answer
            .recv_timeout(self.recipe.patience)
            .unwrap_or_else(|_| panic!("server {sid} has ended"))
    }

    /// The running member that leads and serves, as far as it knows.
    #[must_use]
    pub fn leader(&self) -> Option<Sid> {
        self.leader_beside(None)
    }

    /// Waits until all running members serve and one of them leads; which one.
    ///
    /// # Errors
    /// [`Error::NotServing`] or [`Error::NoLeader`] after the [patience](Builder::patience).
    pub fn wait(&self) -> Result<Sid, Error> {
        self.wait_for(None)
    }

    /// The same without a member that is cut off from the rest.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_beside(&self, cut_off: Sid) -> Result<Sid, Error> {
        self.wait_for(Some(cut_off))
    }

    fn wait_for(&self, beside: Option<Sid>) -> Result<Sid, Error> {
        let until = Instant::now() + self.recipe.patience;
        loop {
            for seat in self.seats.iter().filter(|seat| Some(seat.sid) != beside) {
                let Some(running) = &seat.running else { continue };
                let left = until.saturating_duration_since(Instant::now());
                if !running.handle().wait_serving(left) {
                    return Err(Error::NotServing(seat.sid, self.recipe.patience));
                }
            }
            // A member whose leader has just gone may still believe that it serves.
            let leader = self.leader_beside(beside);
            if let Some(leader) = leader.filter(|leader| self.all_follow(*leader, beside)) {
                return Ok(leader);
            }
            if Instant::now() > until {
                return Err(Error::NoLeader(self.recipe.patience));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn all_follow(&self, leader: Sid, beside: Option<Sid>) -> bool {
        let follows = |running: &Server<A>| {
            running.handle().status().get().is_some_and(|s| s.leader == Some(leader))
        };
        let counted = self.seats.iter().filter(|seat| Some(seat.sid) != beside);
        counted.filter_map(|seat| seat.running.as_ref()).all(follows)
    }

    fn leader_beside(&self, beside: Option<Sid>) -> Option<Sid> {
        let leads = |seat: &&Seat<A>| {
            let status = seat.running.as_ref().and_then(|running| running.handle().status().get());
            Some(seat.sid) != beside
                && status.is_some_and(|status| {
                    status.state == ServerState::Leading && status.phase == Phase::Broadcast
                })
        };
        self.seats.iter().find(leads).map(|seat| seat.sid)
    }

    /// Changes the link between two members, in both directions.
    ///
    /// # Panics
    /// If the ensemble was started without [`links`](Builder::links).
    pub fn set_link(&self, a: Sid, b: Sid, link: Link) {
        let _ = (self.index(a), self.index(b));
        let links = self.links.as_ref().expect("an ensemble built with links()");
        links.set(a, b, link);
    }

    /// Changes the links between a member and all others.
    ///
    /// # Panics
    /// As [`set_link`](Self::set_link).
    pub fn isolate(&self, sid: Sid, link: Link) {
        for other in self.members().filter(|other| *other != sid) {
            self.set_link(sid, other, link);
        }
    }

    /// Opens all links.
    ///
    /// # Panics
    /// As [`set_link`](Self::set_link).
    pub fn heal(&self) {
        for sid in self.members() {
            self.isolate(sid, Link::Open);
        }
    }

    fn index(&self, sid: Sid) -> usize {
        let at = self.seats.iter().position(|seat| seat.sid == sid);
        at.unwrap_or_else(|| panic!("there is no server {sid}"))
    }
}
