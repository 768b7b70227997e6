//! Who may use the process's file descriptors. When they run out, no client may keep a member from
//! being heard, and nobody who connects may keep a file from being written.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use zab_proto::Channel;

use crate::NetOptions;

/// Bounds on the descriptors of sockets.
///
/// The system gives out the lowest number that is free. So the number of a new descriptor tells that
/// all below it are in use, by whomever in the process, and a socket that keeps no number above a
/// bound leaves the numbers above it to others. Nothing needs to be counted.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors {
    limit: u64,
    clients_below: u64,
    peers_below: u64,
}

impl Descriptors {
    /// Divides the descriptors that this process may have at present: the highest
    /// [`file_descriptors`](NetOptions::file_descriptors) for files, those below for peers, and all
    /// others for anybody. Neither part is more than a quarter of all.
    #[must_use]
    pub fn divided(options: &NetOptions) -> Self {
        Self::of_limit(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), options)
    }

    fn of_limit(limit: u64, options: &NetOptions) -> Self {
        let part = |wanted: usize| (limit / 4).min(wanted as u64);
        let peers_below = limit - part(options.file_descriptors);
        let clients_below = peers_below - part(options.peer_descriptors);
        Self { limit, clients_below, peers_below }
    }

    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self { limit: 0, clients_below: 0, peers_below: 0 }
    }

    /// How many descriptors the process may have.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// How many of them there may be when a connection of `channel` is made.
    #[must_use]
    pub fn bound(&self, channel: Channel) -> u64 {
        match channel {
            Channel::Client => self.clients_below,
            Channel::Election | Channel::Quorum => self.peers_below,
        }
    }

    /// Whether a new socket of `channel` may keep its descriptor.
    #[must_use]
    pub fn admits(&self, channel: Channel, socket: &impl AsFd) -> bool {
        u64::try_from(socket.as_fd().as_raw_fd()).is_ok_and(|n| n < self.bound(channel))
    }

    /// Whether the next socket of `channel` would be admitted. Any open socket will do for the trial.
    #[must_use]
    pub fn has_room(&self, channel: Channel, socket: &impl AsFd) -> bool {
        fcntl_dupfd_cloexec(socket, 0).is_ok_and(|next| self.admits(channel, &next))
    }
}

/// How many descriptors this process has open, and how many it may have. On systems without `/proc`
/// the first is 0.
#[must_use]
pub fn count_descriptors() -> (u64, u64) {
    const OPEN: &str = "/proc/self/fd";
    let max = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // Linux gives their number as the size of the directory from 6.2 on; before, they are counted.
    let told = fs::metadata(OPEN).map_or(0, |directory| directory.len());
    let open = match told {
        // One more is open while they are counted.
        0 => fs::read_dir(OPEN).map_or(0, |all| (all.count() as u64).saturating_sub(1)),
        told => told,
    };
    (open, max)
}

/// Lets this process have as many descriptors as the system allows it (the soft limit becomes the
/// hard one), as a JVM does. Returns how many those are. For programs whose only business is the
/// server; a library has no business changing a limit of the whole process, so nothing here calls it.
///
/// # Errors
/// If the system refuses.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(maximum.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_counted() {
        let (before, max) = count_descriptors();
        let files: Vec<_> = (0..20).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let (open, _) = count_descriptors();
        // Other tests of this process open and close some, too.
        assert!(before > 0 && open + 10 > before + files.len() as u64 && open <= max);
    }

    #[test]
    fn files_and_peers_have_their_part() {
        let options =
            NetOptions { peer_descriptors: 256, file_descriptors: 64, ..NetOptions::default() };
        let bounds = |limit| {
            let divided = Descriptors::of_limit(limit, &options);
            (divided.bound(Channel::Client), divided.bound(Channel::Quorum))
        };
        assert_eq!(bounds(20_000), (20_000 - 320, 20_000 - 64));
        assert_eq!(bounds(1024), (1024 - 320, 1024 - 64));
        // A small limit is shared out, half of it to anybody.
        assert_eq!(bounds(64), (32, 48));
        assert_eq!(bounds(0), (0, 0));
        assert_eq!(bounds(u64::MAX), (u64::MAX - 320, u64::MAX - 64));
    }

    #[test]
    fn a_number_tells_how_many_are_in_use() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let number = u64::try_from(socket.as_raw_fd()).unwrap();
        let bounds = Descriptors { limit: 1000, clients_below: number, peers_below: number + 1 };
        assert!(!bounds.admits(Channel::Client, &socket));
        assert!(bounds.admits(Channel::Election, &socket));
        assert!(!Descriptors::none().has_room(Channel::Election, &socket));
        assert!(
            Descriptors::of_limit(u64::MAX, &NetOptions::default())
                .has_room(Channel::Client, &socket)
        );
    }
}
