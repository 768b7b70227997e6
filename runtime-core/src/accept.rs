//! What to do when `accept` fails, or brings more than there is room for: nothing for one connection,
//! a pause when descriptors or memory have run out, and a line in the log that does not repeat itself
//! ten times a second.

use std::io::{Error, ErrorKind};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use zab_proto::Channel;

use crate::Descriptors;

/// How one listener has fared.
#[derive(Debug)]
pub struct Accepting {
    channel: Channel,
    descriptors: Descriptors,
    /// Whether to find out, before the next `accept`, if there is room for what it brings.
    crowded: bool,
    /// Since when nothing could be accepted.
    failing: Option<Instant>,
    /// When that was logged last, and whether its end must be logged too.
    logged: Option<Instant>,
    announced: bool,
    /// Connections closed for want of descriptors.
    refused: u64,
}

impl Accepting {
    /// For a listener of `channel`, whose connections get the descriptors that are theirs.
    #[must_use]
    pub fn new(channel: Channel, descriptors: Descriptors) -> Self {
        Self {
            channel,
            descriptors,
            crowded: false,
            failing: None,
            logged: None,
            announced: false,
            refused: 0,
        }
    }

    /// How long to wait before `accept` is called; `None`: it may be called now.
    pub fn before(&mut self, listener: &impl AsFd) -> Option<Duration> {
        if self.crowded && !self.descriptors.has_room(self.channel, listener) {
            return Some(PAUSE);
        }
        self.crowded = false;
        None
    }

    /// `accept` has brought a connection. `None`: serve it; else there is no descriptor left for it:
    /// close it, and wait so long before `accept` is called again.
    pub fn accepted(&mut self, socket: &impl AsFd) -> Option<Duration> {
        if self.descriptors.admits(self.channel, socket) {
            self.succeeded();
            return None;
        }
        self.crowded = true;
        self.refused += 1;
        let (bound, limit) = (self.descriptors.bound(self.channel), self.descriptors.limit());
        let (channel, refused) = (self.channel, self.refused);
        self.report(|| {
            format!(
                "{bound} of {limit} file descriptors are in use, the others are kept for members \
                 and files; closed for want of one on the {channel:?} port: {refused}; further \
                 connections wait"
            )
        });
        Some(PAUSE)
    }

    /// `accept` has failed. How long to wait before it is called again; `None`: the error was that of
    /// one connection.
    pub fn failed(&mut self, error: &Error) -> Option<Duration> {
        if matches!(
            error.kind(),
            ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
        ) {
            return None;
        }
        self.report(|| format!("{error}; trying every {PAUSE:?}"));
        Some(PAUSE)
    }

    fn report(&mut self, what: impl FnOnce() -> String) {
        let now = Instant::now();
        let since = *self.failing.get_or_insert(now);
        if self.logged.is_none_or(|at| now - at >= REPORT) {
            self.logged = Some(now);
            self.announced = true;
            let what = what();
            match now - since {
                Duration::ZERO => log::warn!("Cannot accept connections: {what}"),
                took => log::warn!("Cannot accept connections for {took:?}: {what}"),
            }
        }
    }

    fn succeeded(&mut self) {
        if let Some(since) = self.failing.take()
            && std::mem::take(&mut self.announced)
        {
            log::info!("Accepting connections again after {:?}", since.elapsed());
        }
    }
}

const PAUSE: Duration = Duration::from_millis(100);
const REPORT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NetOptions;

    fn accepting(options: &NetOptions) -> Accepting {
        Accepting::new(Channel::Client, Descriptors::divided(options))
    }

    #[test]
    fn only_errors_of_the_system_make_it_wait() {
        let mut accepting = accepting(&NetOptions::default());
        assert_eq!(accepting.failed(&ErrorKind::ConnectionAborted.into()), None);
        assert!(accepting.failing.is_none());
        assert_eq!(accepting.failed(&Error::from_raw_os_error(24)), Some(PAUSE));
        let first = (accepting.failing, accepting.logged);
        assert!(first.1.is_some());
        assert_eq!(accepting.failed(&Error::from_raw_os_error(24)), Some(PAUSE));
        assert_eq!((accepting.failing, accepting.logged), first, "told once a minute");
        accepting.succeeded();
        assert!(accepting.failing.is_none());
        // What begins again within the minute is not told again, nor that it is over.
        assert_eq!(accepting.failed(&Error::from_raw_os_error(24)), Some(PAUSE));
        assert_eq!((accepting.logged, accepting.announced), (first.1, false));
    }

    #[test]
    fn a_client_leaves_the_reserve_alone() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // Tests have few descriptors open, but no limit is as low as that.
        let mut crowded = accepting(&NetOptions::default());
        crowded.descriptors = Descriptors::none();
        assert_eq!(crowded.before(&socket), None, "nothing is known yet");
        assert_eq!(crowded.accepted(&socket), Some(PAUSE));
        assert_eq!((crowded.before(&socket), crowded.refused), (Some(PAUSE), 1));
        crowded.descriptors = Descriptors::divided(&NetOptions::default());
        assert_eq!((crowded.before(&socket), crowded.accepted(&socket)), (None, None));
        assert!(crowded.failing.is_none());
    }
}
