//! Runs a [`Node`](zab_proto::Node) on one `mio` event loop: on a thread of its own with
//! [`Server`], or inside the user's loop with [`Driver`].
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod driver;
mod net;

use std::sync::Arc;

use mio::{Poll, Token, Waker};
pub use runtime_core::{
    Disk, Error, Handle, Listen, Listeners, Loaded, NetOptions, ServerOptions, StatusBoard, Wake,
};
use zab_proto::{Application, Config};

pub use crate::driver::Driver;

/// A server on a thread of its own. Dropping it stops it, closes its ports and joins the thread.
pub type Server<A> = runtime_core::Server<A, Runtime>;

/// A `mio` loop, as [`Server`] runs it.
#[derive(Debug)]
pub struct Runtime;

impl runtime_core::Runtime for Runtime {
    fn serve<A: Application, D: Disk>(
        listeners: Listeners,
        options: NetOptions,
        config: Config,
        load: impl FnOnce(Wake) -> Result<Loaded<A, D>, Error>,
        started: impl FnOnce(Handle<A>),
    ) -> Result<(), Error> {
        let mut poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let loaded = load(wake(&waker))?;
        let (registry, tokens) = (poll.registry(), WAKER.0 + 1..usize::MAX);
        let mut driver = Driver::new(registry, &waker, tokens, listeners, options, config, loaded)?;
        started(driver.handle());
        driver.run(&mut poll)
    }
}

fn wake(waker: &Arc<Waker>) -> Wake {
    let waker = Arc::clone(waker);
    Arc::new(move || {
        if let Err(error) = waker.wake() {
            log::warn!("Cannot wake the event loop: {error}");
        }
    })
}

/// The loop's own token; sockets come after it.
const WAKER: Token = Token(0);
