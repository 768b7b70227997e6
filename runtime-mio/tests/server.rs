//! The suite of all runtimes on `mio`, and what only this one offers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};
use runtime_mio::{Driver, Listen, Listeners, NetOptions, ServerOptions};
use zab_harness::Journal;
use zab_harness::suite::{LOOPBACK, PATIENCE, append, connect, directory};
use zab_proto::{Channel, Config, Sid};

zab_harness::runtime_suite!(runtime_mio::Runtime);

/// One server inside somebody else's loop: no thread of its own, tokens from a given range.
#[test]
fn embedded_in_a_loop() {
    let dir = directory();
    let mut poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), Token(7)).unwrap());
    let mut listeners = Listeners::default();
    let addr = listeners.add(Channel::Client, LOOPBACK, None).unwrap();
    let mut storage =
        ServerOptions::new(Config::standalone(Sid(1)), Listen::default(), &dir).storage;
    storage.prealloc_bytes = 1 << 16;
    let wake = Box::new(|| ());
    let loaded = runtime_core::load(Journal::default(), storage, true, wake).unwrap();
    let options = NetOptions::for_config(&Config::standalone(Sid(1)));
    let tokens = 1000..1010;
    let mut driver = Driver::new(
        poll.registry(),
        &waker,
        tokens,
        listeners,
        options,
        Config::standalone(Sid(1)),
        loaded,
    )
    .unwrap();
    let client = std::thread::spawn(move || append(&mut connect(addr), "inside"));
    let mut events = Events::with_capacity(16);
    // A client that gives up ends the test, too: what became of it is asked below.
    while !client.is_finished() {
        driver.tick().unwrap();
        let timeout = driver.deadline().map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.unwrap_or(PATIENCE).min(Duration::from_millis(50));
        poll.poll(&mut events, Some(timeout)).unwrap();
        for event in &events {
            if driver.owns(event) {
                driver.ready(event);
            }
        }
    }
    client.join().unwrap();
    assert_eq!(driver.node().app().text(), [b"inside"]);
    drop(driver);
    std::fs::remove_dir_all(&dir).unwrap();
}
