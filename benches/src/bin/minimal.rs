//! A minimal embedder: one thread, an application of a few lines, `runtime-mio` in its own loop,
//! storage inline.
//!
//! `minimal SID DATA_DIR SID=HOST:QUORUM_PORT:ELECTION_PORT …`; built small with
//! `cargo build --profile small -p benches --bin minimal`.

use std::env;
use std::error::Error;
use std::sync::Arc;

use benches::flow::{Board, Flow};
use mio::{Poll, Token, Waker};
use runtime_mio::{Driver, Listen, Listeners, NetOptions};
use zab_proto::{Config, Ensemble, Member, Sid};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let usage = "minimal SID DATA_DIR SID=HOST:QUORUM_PORT:ELECTION_PORT …";
    let sid = Sid(args.next().ok_or(usage)?.parse()?);
    let data_dir = args.next().ok_or(usage)?;
    let mut ensemble = Ensemble::default();
    for arg in args {
        let (sid, line) = arg.split_once('=').ok_or(usage)?;
        let sid = Sid(sid.parse()?);
        ensemble.members.insert(sid, Member::parse(sid, line)?);
    }
    let own = ensemble.members.get(&sid).ok_or(usage)?;
    let listeners = Listeners::bind(&Listen::peers(own, false)?)?;
    let mut config = Config::new(sid, ensemble);
    config.trust_empty = true;
    let options = NetOptions::for_config(&config);

    let mut poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), Token(0))?);
    let storage = zab_storage::Options::new(data_dir);
    let app = Flow::new(0, Arc::new(Board::new(1)));
    // Inline storage is done when it returns, and wakes nobody.
    let loaded = runtime_core::load(app, storage, true, Box::new(|| ()))?;
    let tokens = 1..usize::MAX;
    let mut driver =
        Driver::new(poll.registry(), &waker, tokens, listeners, options, config, loaded)?;
    Ok(driver.run(&mut poll)?)
}
