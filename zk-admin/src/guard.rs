//! Bounds on connections: how many, and how long one may stand still.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use smol::Timer;
use smol::io::{AsyncRead, AsyncWrite};

/// Connections at a time.
pub(crate) const CONNECTIONS_MAX: usize = 64;
/// Connections of one address at a time.
pub(crate) const CONNECTIONS_OF_ADDRESS_MAX: usize = 32;
/// How often it is looked whether something moves.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A refusal is told so often at most.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Who is connected.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    by_address: RefCell<BTreeMap<IpAddr, usize>>,
    refused: Cell<u64>,
    told: Cell<Option<Instant>>,
}

/// A place that a connection has taken.
#[derive(Debug)]
pub(crate) struct Place {
    gate: Rc<Gate>,
    address: IpAddr,
}

impl Gate {
    /// A place for a connection from `address`, if there is one.
    pub(crate) fn enter(self: &Rc<Self>, address: IpAddr) -> Option<Place> {
        let mut by_address = self.by_address.borrow_mut();
        let all: usize = by_address.values().sum();
        let own = by_address.get(&address).copied().unwrap_or(0);
        if all >= CONNECTIONS_MAX || own >= CONNECTIONS_OF_ADDRESS_MAX {
            drop(by_address);
            self.refuse(address);
            return None;
        }
        by_address.insert(address, own + 1);
        Some(Place { gate: Rc::clone(self), address })
    }

    fn refuse(&self, address: IpAddr) {
        self.refused.set(self.refused.get() + 1);
        if self.told.get().is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told.set(Some(Instant::now()));
            log::warn!(
                "AdminServer: a connection from {address} is closed, as there are {CONNECTIONS_MAX} or \
                 {CONNECTIONS_OF_ADDRESS_MAX} of this address already ({} so far)",
                self.refused.get()
            );
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_address = self.gate.by_address.borrow_mut();
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

/// When something moved last on a connection, and whether it is this server's turn.
#[derive(Clone, Debug)]
pub(crate) struct Motion(Rc<(Cell<Instant>, Cell<bool>)>);

impl Motion {
    pub(crate) fn new() -> Self {
        Self(Rc::new((Cell::new(Instant::now()), Cell::new(false))))
    }

    /// Something moved.
    pub(crate) fn moved(&self) {
        self.0.0.set(Instant::now());
    }

    /// This server works at an answer, or no longer does.
    pub(crate) fn works(&self, works: bool) {
        self.0.1.set(works);
        self.moved();
    }

    /// Returns when nothing has moved for `limit`.
    pub(crate) async fn stopped(&self, limit: Duration) {
        loop {
            let (last, works) = (self.0.0.get(), self.0.1.get());
            if !works && last.elapsed() >= limit {
                return;
            }
            Timer::after(LOOK_EVERY.min(limit)).await;
        }
    }
}

/// A stream whose motion is noted.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    stream: S,
    motion: Motion,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, motion: Motion) -> Self {
        Self { stream, motion }
    }

    fn note(&self, polled: &Poll<io::Result<usize>>) {
        if matches!(polled, Poll::Ready(Ok(_))) {
            self.motion.moved();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.note(&polled);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(&polled);
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_places_and_no_more() {
        let gate = Rc::new(Gate::default());
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        let mut places = Vec::new();
        for n in 0..2 {
            for _ in 0..2 * CONNECTIONS_OF_ADDRESS_MAX {
                places.extend(gate.enter(address(n)));
            }
            assert_eq!(places.len(), (usize::from(n) + 1) * CONNECTIONS_OF_ADDRESS_MAX);
        }
        assert_eq!(places.len(), CONNECTIONS_MAX);
        assert!(gate.enter(address(9)).is_none());
        places.pop();
        assert!(gate.enter(address(9)).is_some());
        places.clear();
        assert!(gate.by_address.borrow().is_empty());
    }
}
