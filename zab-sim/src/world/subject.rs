//! What is put into the simulator: an application and the clients that use it.

use zab_proto::{Application, ConnId, Instant};

use crate::check::{Checker, Failure};
use crate::coverage::Coverage;
use crate::options::Options;
use crate::queue::HostIx;
use crate::rng::Rng;
use crate::trace::Trace;

/// What takes more than a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InHand {
    /// A transaction is being applied.
    Transaction,
    /// A request is being prepared.
    Request,
}

impl InHand {
    /// What is counted when the role changes, or the server dies.
    pub(crate) fn situation(self, dies: bool) -> &'static str {
        match (self, dies) {
            (Self::Transaction, false) => "pieces: the role changes while a transaction is applied",
            (Self::Transaction, true) => "pieces: a server dies while a transaction is applied",
            (Self::Request, false) => "pieces: the role changes while a request is prepared",
            (Self::Request, true) => "pieces: a server dies while a request is prepared",
        }
    }
}

/// An application that can be simulated.
pub trait Subject: Application + Sized {
    /// Its clients.
    type Client: Client;

    /// Whether [`Checker::history`] is to hold the transactions themselves.
    const RECORDS: bool = false;

    /// Its longest transaction or request, in bytes, that has to be possible.
    const LEN_MAX: usize = 0;

    /// How long a recovered ensemble is watched in peace, in ticks.
    const QUIET_TICKS: u32 = 0;

    /// The application of a starting server, with the empty state.
    fn start(server: HostIx, incarnation: u32, seed: u64, options: &Options) -> Self;

    /// A digest of its replicated state.
    fn digest(&self) -> u64;

    /// What the application itself holds to be wrong; asked after each transaction and snapshot.
    fn complaint(&self) -> Option<Failure> {
        None
    }

    /// What it has in hand that takes more than a turn, if there is something.
    fn in_hand(&self) -> Option<InHand> {
        None
    }

    /// What is wrong with it that this connection is closed, on which its client still is.
    fn closes(&self, now: Instant, conn: ConnId) -> Option<Failure> {
        let _ = (now, conn);
        None
    }

    /// The bounds that were met since it was last asked.
    fn take_met(&mut self) -> Vec<&'static str> {
        Vec::new()
    }

    /// Judges what the clients have seen, at the end of a run; `servers` are those that are up. What
    /// was reached may be counted in `coverage`.
    ///
    /// # Errors
    /// The broken promise.
    fn judge(
        clients: &[Self::Client],
        servers: &[&Self],
        checker: &Checker,
        coverage: &mut Coverage,
    ) -> Result<(), Failure>;
}

/// A client: a state machine that is told what happens and says what it wants in a [`Wish`].
pub trait Client: Sized {
    /// A client at its start.
    fn new(index: usize, options: &Options) -> Self;

    /// Time has come for the next thing.
    fn wake(&mut self, wish: &mut Wish<'_>);

    /// The dial succeeded.
    fn opened(&mut self, wish: &mut Wish<'_>);

    /// Bytes have arrived; returns how many are consumed.
    fn received(&mut self, bytes: &[u8], wish: &mut Wish<'_>) -> usize;

    /// The dial failed, or the connection is gone.
    fn closed(&mut self, wish: &mut Wish<'_>);

    /// Operations completed so far.
    fn completed(&self) -> u64;

    /// Until when it may wait in vain, in ns: a request longer than a field is refused by design.
    fn in_vain_until(&self) -> u64 {
        0
    }

    /// The chaos is over: go on without end, and without haste.
    fn persevere(&mut self) {}

    /// A server that may be its own is in trouble from now on, until the next [`persevere`].
    ///
    /// [`persevere`]: Self::persevere
    fn trouble(&mut self) {}
}

/// What a client wants.
#[derive(Debug)]
pub struct Wish<'a> {
    /// Virtual time in ns.
    pub now: u64,
    /// Chance.
    pub rng: &'a mut Rng,
    /// The log of the run.
    pub trace: &'a mut Trace,
    /// Servers there are.
    pub servers: usize,
    /// Dial this server (a present connection is closed first).
    pub connect: Option<HostIx>,
    /// Close the connection.
    pub disconnect: bool,
    /// Send these bytes.
    pub send: Vec<u8>,
    /// Wake at this time.
    pub wake_at: Option<u64>,
}
