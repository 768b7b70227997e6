//! How a server is asked to end, or to make way for another leader.

use std::io;
use std::mem;
use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::exit;

/// SIGTERM, SIGINT, or the end of the parent. The first ends the server cleanly, if it serves
/// already; a second one ends the process. SIGUSR1 ends nothing: a leader makes way for another one.
#[derive(Clone)]
pub(crate) struct Ending(Arc<Mutex<State>>);

enum State {
    /// Data is being loaded, which may take long and loses nothing by being cut short.
    Starting,
    Serving(Serves),
    Ending,
}

/// What can be asked of a server that serves.
struct Serves {
    /// It ends.
    end: Box<dyn Fn() + Send>,
    /// It makes way, if it leads.
    resign: Box<dyn Fn() + Send>,
}

impl Ending {
    /// From now on signals count.
    pub(crate) fn on_signals() -> io::Result<Self> {
        let ending = Self(Arc::new(Mutex::new(State::Starting)));
        // A file that reaches the limit of this process (ulimit -f) is an error of the write then, and
        // no longer the end of the process.
        signal_hook::flag::register(SIGXFSZ, Arc::default())?;
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGUSR1])?;
        let asked = ending.clone();
        thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                match signal {
                    SIGUSR1 => asked.resign(),
                    signal => asked.ask(&format!("signal {signal}"), exit::OK),
                }
            }
        })?;
        Ok(ending)
    }

    /// From now on the end of stdin counts, too. Nothing is ever written to it: a parent holds
    /// its other end, and it ends with the parent, however that ends.
    pub(crate) fn on_end_of_stdin(self) -> io::Result<()> {
        let thread = thread::Builder::new().name("stdin".into());
        let waits = thread.spawn(move || {
            // An error is an end, too.
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            self.ask("the parent has ended", exit::OK);
        });
        waits.map(drop)
    }

    /// The server serves: how it ends, and how it makes way for another leader.
    pub(crate) fn serving(
        &self,
        end: impl Fn() + Send + 'static,
        resign: impl Fn() + Send + 'static,
    ) {
        let serves = Serves { end: Box::new(end), resign: Box::new(resign) };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State::Serving(serves);
    }

    fn resign(&self) {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Serving(serves) => (serves.resign)(),
            State::Starting | State::Ending => {
                log::warn!("SIGUSR1 (resign) has no effect: this server is not serving");
            }
        }
    }

    /// The server has stopped serving and may begin again; false if it has been asked to end.
    pub(crate) fn pausing(&self) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Ending) {
            return false;
        }
        *state = State::Starting;
        true
    }

    /// Asks for the end; `code` is that of a process that does not serve yet.
    pub(crate) fn ask(&self, why: &str, code: u8) {
        log::info!("Shutting down: {why}");
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match mem::replace(&mut *state, State::Ending) {
            State::Serving(serves) => (serves.end)(),
            State::Starting => process::exit(code.into()),
            State::Ending => process::exit(exit::UNEXPECTED.into()),
        }
    }
}
