//! How an ensemble is made.

use std::fmt;
use std::time::Duration;

use runtime_core::{HeldPort, Listen, ServerOptions};
use zab_proto::{Application, Config, Member, Role, Sid};
#[cfg(feature = "zookeeper")]
use zk_service::{Service, ServiceOptions};

use crate::ensemble::{Configure, Recipe, Seat};
use crate::links::Links;
use crate::place::TempDir;
use crate::{Ensemble, Error, Runtime};

/// How an ensemble is made; see [`Ensemble::builder`].
pub struct Builder {
    voters: usize,
    observers: usize,
    runtimes: Vec<Runtime>,
    tick_time: Duration,
    links: bool,
    patience: Duration,
    configure: Configure,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("voters", &self.voters)
            .field("observers", &self.observers)
            .field("runtimes", &self.runtimes)
            .finish_non_exhaustive()
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            voters: 3,
            observers: 0,
            runtimes: Runtime::ALL.iter().copied().take(1).collect(),
            tick_time: Duration::from_millis(500),
            links: false,
            patience: Duration::from_secs(60),
            configure: Box::new(|_, _| {}),
        }
    }
}

impl Builder {
    /// How many members vote; three unless told. Their ids begin with 1.
    #[must_use]
    pub fn voters(mut self, voters: usize) -> Self {
        self.voters = voters;
        self
    }

    /// How many members only learn; none unless told. Their ids follow the voters'.
    #[must_use]
    pub fn observers(mut self, observers: usize) -> Self {
        self.observers = observers;
        self
    }

    /// The runtime of all members.
    #[must_use]
    pub fn runtime(self, runtime: Runtime) -> Self {
        self.runtimes([runtime])
    }

    /// The runtimes of the members in order, over and over.
    ///
    /// # Panics
    /// If there are none.
    #[must_use]
    pub fn runtimes(mut self, runtimes: impl IntoIterator<Item = Runtime>) -> Self {
        self.runtimes = runtimes.into_iter().collect();
        assert!(!self.runtimes.is_empty(), "a member needs a runtime");
        self
    }

    /// ZooKeeper's `tickTime`, half a second unless told: sessions last two ticks and more, and a
    /// silent member is given up after five.
    #[must_use]
    pub fn tick_time(mut self, tick_time: Duration) -> Self {
        self.tick_time = tick_time;
        self
    }

    /// Puts a relay between any two members, so that [`Ensemble::set_link`] can cut and freeze the
    /// link. It costs a hop per message.
    #[must_use]
    pub fn links(mut self) -> Self {
        self.links = true;
        self
    }

    /// How long [`Ensemble::wait`] and its like wait before they fail; a minute unless told.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Changes a member's options, at each of its starts.
    #[must_use]
    pub fn configure(
        mut self,
        configure: impl Fn(Sid, &mut ServerOptions) + Send + 'static,
    ) -> Self {
        self.configure = Box::new(configure);
        self
    }

    /// Starts an ensemble of the ZooKeeper service.
    ///
    /// # Errors
    /// As [`start_with`](Self::start_with).
    #[cfg(feature = "zookeeper")]
    pub fn start(self) -> Result<Ensemble<Service>, Error> {
        self.start_zookeeper(|_, _| {})
    }

    /// The same with other options of the service, which `change` makes at each start of a member.
    ///
    /// # Errors
    /// As [`start_with`](Self::start_with).
    #[cfg(feature = "zookeeper")]
    pub fn start_zookeeper(
        self,
        change: impl Fn(Sid, &mut ServiceOptions) + Send + 'static,
    ) -> Result<Ensemble<Service>, Error> {
        let tick_time = self.tick_time;
        self.start_with(move |config| {
            let mut options = ServiceOptions::default().with(|options| {
                options.session_server_id = config.sid.0;
                options.tick_time = tick_time;
                options.max_session_timeout = Some(Duration::from_secs(60));
                options.max_client_cnxns = 0;
                options.four_letter_whitelist = vec!["*".to_owned()];
                options.membership = Some(config.ensemble.text());
            });
            change(config.sid, &mut options);
            Service::new(options)
        })
    }

    /// Starts an ensemble of any application. `app` is called at each start of a member, whose id is
    /// in the configuration it is given; the application then gets the member's saved state.
    ///
    /// Returns when all members serve.
    ///
    /// # Errors
    /// [`Error::Io`] if ports or directories cannot be had, [`Error::Server`] if a member does not
    /// start, [`Error::NotServing`] if it does not serve in time.
    pub fn start_with<A: Application + Send + 'static>(
        self,
        app: impl FnMut(&Config) -> A + Send + 'static,
    ) -> Result<Ensemble<A>, Error> {
        let mut config = Config::new(Sid(0), zab_proto::Membership::default());
        config.tick_time = self.tick_time;
        // All begin empty, and none is wiped behind the others' back.
        config.trust_empty = true;
        let mut seats = Vec::new();
        let sids = (1..).map(Sid).take(self.voters + self.observers);
        for (i, sid) in sids.enumerate() {
            let role = if i < self.voters { Role::Participant } else { Role::Observer };
            let seat = Seat::take(sid, role, self.runtimes[i % self.runtimes.len()])?;
            config.ensemble.members.insert(sid, seat.member());
            seats.push(seat);
        }
        let links = if self.links { Some(Links::start(&config.ensemble)?) } else { None };
        let dir = TempDir::create()?;
        let Self { configure, patience, .. } = self;
        let recipe = Recipe { config, configure, app: Box::new(app), patience };
        let mut ensemble = Ensemble::new(seats, recipe, links, dir);
        ensemble.start_all()?;
        Ok(ensemble)
    }
}

impl<A> Seat<A> {
    fn take(sid: Sid, role: Role, runtime: Runtime) -> Result<Self, Error> {
        let (election, quorum, client) = (HeldPort::any()?, HeldPort::any()?, HeldPort::any()?);
        Ok(Self { sid, role, runtime, election, quorum, client, running: None })
    }

    fn member(&self) -> Member {
        let role = if self.role == Role::Observer { "observer" } else { "participant" };
        let (quorum, election) = (self.quorum.port(), self.election.port());
        let line = format!("127.0.0.1:{quorum}:{election}:{role}");
        Member::parse(self.sid, &line).expect("a well-formed line")
    }

    /// The ports a member listens on.
    pub(crate) fn listen(&self) -> Listen {
        let quorum = (self.role == Role::Participant).then_some(self.quorum.addr());
        Listen {
            election: vec![self.election.addr()],
            quorum: quorum.into_iter().collect(),
            clients: vec![self.client.addr()],
            client_backlog: None,
        }
    }
}
