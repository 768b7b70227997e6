//! What systemd is told, where it asks (`Type=notify`): that the server is ready, what it does, and, from the
//! server's own loop, that it is alive.
//!
//! The protocol is that of `sd_notify(3)`: datagrams of `NAME=value` lines to the socket that `NOTIFY_SOCKET`
//! names. It is ready when its ports are bound and its data is loaded, with or without a quorum: three
//! hosts that start together would otherwise wait for each other.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use runtime_core::describe;

use crate::running::Running;

/// The service manager, if there is one that listens.
#[derive(Clone, Default)]
pub(crate) struct Notify(Option<Arc<Manager>>);

struct Manager {
    socket: UnixDatagram,
    to: SocketAddr,
    /// Without a sign of life for so long the manager ends the process.
    watchdog: Option<Duration>,
    /// A socket that is gone is said once.
    told: AtomicBool,
}

impl Notify {
    /// The one that the environment names.
    pub(crate) fn from_env() -> Self {
        let Ok(name) = std::env::var("NOTIFY_SOCKET") else { return Self::default() };
        let manager = address(&name).and_then(|to| {
            let socket = UnixDatagram::unbound()?;
            // A manager that does not read is no reason to stop.
            socket.set_nonblocking(true)?;
            let (told, watchdog) = (AtomicBool::new(false), watchdog());
            Ok(Manager { socket, to, watchdog, told })
        });
        match manager {
            Ok(manager) => Self(Some(Arc::new(manager))),
            Err(error) => {
                log::warn!("Cannot notify the service manager (NOTIFY_SOCKET={name}): {error}");
                Self::default()
            }
        }
    }

    pub(crate) fn send(&self, text: &str) {
        let Some(manager) = &self.0 else { return };
        let sent = manager.socket.send_to_addr(text.as_bytes(), &manager.to);
        if let Err(error) = sent
            && !manager.told.swap(true, Ordering::Relaxed)
        {
            log::warn!("Cannot notify the service manager of {text:?}: {error}");
        }
    }

    pub(crate) fn ready(&self) {
        self.send("READY=1\nSTATUS=The data is loaded");
    }

    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=Stopping");
    }

    /// From now on the manager hears regularly that the server's loop turns, and in which role.
    pub(crate) fn keep_alive(&self, running: Running) -> io::Result<()> {
        let Some(manager) = &self.0 else { return Ok(()) };
        let interval = manager.watchdog.map_or(STATUS_EVERY, |limit| (limit / 3).min(STATUS_EVERY));
        let notify = self.clone();
        let thread = thread::Builder::new().name("watchdog".into());
        let beats = thread.spawn(move || {
            loop {
                match running.get() {
                    // The loop says it itself: when it stands still, nothing is said.
                    Some(handle) => {
                        let notify = notify.clone();
                        handle.call(move |_, node| {
                            let role = describe(&node.peer().status());
                            notify.send(&format!("WATCHDOG=1\nSTATUS={role}"));
                        });
                    }
                    // It loads its data, or waits for a disk; a restart would not help.
                    None => notify.send("WATCHDOG=1"),
                }
                thread::sleep(interval);
            }
        });
        beats.map(drop)
    }
}

/// A path, or an abstract name with `@` in front.
fn address(name: &str) -> io::Result<SocketAddr> {
    match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

/// `WATCHDOG_USEC`, unless it is another process's.
fn watchdog() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|&us| ours && us > 0).map(Duration::from_micros)
}

/// How often the manager hears of the role, if nothing asks for more.
const STATUS_EVERY: Duration = Duration::from_secs(5);
