//! A minimal embedder: one thread, a replicated counter, `runtime-mio` in its own loop, storage
//! inline.
//!
//! `minimal SID DATA_DIR SID=HOST:QUORUM_PORT:ELECTION_PORT …`; built small with
//! `cargo build --profile small -p runtime-mio --example minimal`.

use std::env;
use std::error::Error;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use mio::{Poll, Token, Waker};
use runtime_mio::{Driver, Listen, Listeners, NetOptions};
use zab_proto::{BadSnapshot, Config, Member, Membership, Replicated, Sid, StateMachine};

/// What is replicated: how many commands there have been.
#[derive(Debug, Default)]
struct Counter(u64);

impl StateMachine for Counter {
    fn apply(&mut self, _: &[u8]) -> Vec<u8> {
        self.0 += 1;
        self.0.to_be_bytes().into()
    }

    fn save(&self, out: &mut Vec<u8>) {
        out.extend(self.0.to_be_bytes());
    }

    fn restore(state: &[u8]) -> Result<Self, BadSnapshot> {
        state.try_into().map(|bytes| Self(u64::from_be_bytes(bytes))).map_err(|_| BadSnapshot)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let usage = "minimal SID DATA_DIR SID=HOST:QUORUM_PORT:ELECTION_PORT …";
    let sid = Sid(args.next().ok_or(usage)?.parse()?);
    let data_dir = args.next().ok_or(usage)?;
    let mut ensemble = Membership::default();
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
    // Unique in the history: no member ever takes another one's command for its own.
    let app = Replicated::new(Counter::default(), RandomState::new().build_hasher().finish());
    // Inline storage is done when it returns, and wakes nobody.
    let loaded = runtime_core::load(app, storage, true, Box::new(|| ()))?;
    let tokens = 1..usize::MAX;
    let mut driver =
        Driver::new(poll.registry(), &waker, tokens, listeners, options, config, loaded)?;
    Ok(driver.run(&mut poll)?)
}
