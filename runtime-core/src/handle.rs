//! What other threads may do with a server.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use zab_proto::{Instant, Node, Phase};

use crate::{Listeners, Port, StatusBoard};

type Call<A> = Box<dyn FnOnce(Instant, &mut Node<A>) + Send>;

/// Which ports a running server is to have from now on.
#[derive(Debug)]
pub enum PortChange {
    /// These, too.
    Open(Listeners),
    /// None of these kinds and numbers any more.
    Close(Vec<(Port, u16)>),
}

/// A server's end that other threads may hold.
pub struct Handle<A> {
    stop: Arc<AtomicBool>,
    status: Arc<StatusBoard>,
    wake: Arc<dyn Fn() + Send + Sync>,
    calls: Sender<Call<A>>,
    ports: Sender<PortChange>,
}

impl<A> Clone for Handle<A> {
    fn clone(&self) -> Self {
        Self {
            stop: Arc::clone(&self.stop),
            status: Arc::clone(&self.status),
            wake: Arc::clone(&self.wake),
            calls: self.calls.clone(),
            ports: self.ports.clone(),
        }
    }
}

impl<A> fmt::Debug for Handle<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("status", &self.status.get()).finish_non_exhaustive()
    }
}

impl<A> Handle<A> {
    /// Asks the server to end. Returns at once.
    pub fn shutdown(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    /// Makes the loop turn.
    pub fn wake(&self) {
        (self.wake)();
    }

    /// Runs `call` on the server's thread, between two events. Not run if the server has ended.
    pub fn call(&self, call: impl FnOnce(Instant, &mut Node<A>) + Send + 'static) {
        if self.calls.send(Box::new(call)).is_ok() {
            self.wake();
        }
    }

    /// Serves more ports: of names that were not known when the server was started, for example.
    /// They are closed if the server has ended.
    pub fn listen(&self, listeners: Listeners) {
        self.change_ports(PortChange::Open(listeners));
    }

    /// Closes all ports of these kinds and numbers. Connections that have come to them stay.
    pub fn unlisten(&self, ports: Vec<(Port, u16)>) {
        self.change_ports(PortChange::Close(ports));
    }

    fn change_ports(&self, change: PortChange) {
        if self.ports.send(change).is_ok() {
            self.wake();
        }
    }

    /// Role, phase and leader, as last reported; and a way to wait for a change.
    #[must_use]
    pub fn status(&self) -> &StatusBoard {
        &self.status
    }

    /// Waits until the server serves clients; false if that took longer than `timeout` or the
    /// server has ended.
    #[must_use]
    pub fn wait_serving(&self, timeout: Duration) -> bool {
        self.status.wait(timeout, |status| status.phase == Phase::Broadcast).is_some()
    }
}

/// A server's own end of its [`Handle`]s.
pub struct Control<A> {
    handle: Handle<A>,
    calls: Receiver<Call<A>>,
    ports: Receiver<PortChange>,
}

impl<A> fmt::Debug for Control<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl<A> Control<A> {
    /// `wake` makes the server's loop turn, from any thread.
    #[must_use]
    pub fn new(wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        let (sender, calls) = channel();
        let (more, ports) = channel();
        let (stop, status) = (Arc::default(), Arc::default());
        Self { handle: Handle { stop, status, wake, calls: sender, ports: more }, calls, ports }
    }

    /// One more handle.
    #[must_use]
    pub fn handle(&self) -> Handle<A> {
        self.handle.clone()
    }

    /// What makes the server's loop turn, from any thread.
    pub(crate) fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        Arc::clone(&self.handle.wake)
    }

    /// The status that the handles show.
    #[must_use]
    pub fn status(&self) -> &Arc<StatusBoard> {
        &self.handle.status
    }

    /// Whether [`Handle::shutdown`] was called.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.handle.stop.load(Ordering::Acquire)
    }

    /// The next thing that [`Handle::listen`] and [`Handle::unlisten`] want.
    #[must_use]
    pub fn ports_changed(&self) -> Option<PortChange> {
        self.ports.try_recv().ok()
    }

    /// Runs what [`Handle::call`] has brought.
    pub fn run_calls(&self, now: Instant, node: &mut Node<A>) {
        while let Ok(call) = self.calls.try_recv() {
            call(now, node);
        }
    }
}

impl<A> Drop for Control<A> {
    fn drop(&mut self) {
        self.handle.status.stop();
    }
}
