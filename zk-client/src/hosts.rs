//! Where the servers are, and in which order they are tried.

use std::fmt;
use std::time::Duration;

/// A server's client port.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Host {
    /// Name or address; an IPv6 address without brackets.
    pub name: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.contains(':') {
            true => write!(f, "[{}]:{}", self.name, self.port),
            false => write!(f, "{}:{}", self.name, self.port),
        }
    }
}

/// The port of a server that is named without one.
pub const DEFAULT_PORT: u16 = 2181;

/// Takes a connect string apart, such as `a:2181,[::1]:2182/root`: the servers, and the root, which
/// is empty if there is none.
///
/// # Errors
/// What is wrong with it.
pub fn parse_connect_string(text: &str) -> Result<(Vec<Host>, &str), String> {
    let (list, root) = text.split_at(text.find('/').unwrap_or(text.len()));
    let root = if root == "/" { "" } else { root };
    let parts = list.split(',').map(str::trim).filter(|part| !part.is_empty());
    let hosts: Vec<Host> = parts.map(parse_host).collect::<Result<_, _>>()?;
    if hosts.is_empty() {
        return Err(format!("no server in {text:?}"));
    }
    Ok((hosts, root))
}

fn parse_host(text: &str) -> Result<Host, String> {
    let port = |port: &str| port.parse().map_err(|_| format!("bad port in {text:?}"));
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (name, port) = match (bracketed, text.rsplit_once(':')) {
        (Some((name, "")), _) => (name, DEFAULT_PORT),
        (Some((name, rest)), _) => {
            (name, port(rest.strip_prefix(':').ok_or_else(|| format!("bad host {text:?}"))?)?)
        }
        // An IPv6 address without brackets cannot be followed by a port.
        (None, Some((name, _))) if name.contains(':') => (text, DEFAULT_PORT),
        (None, Some((name, after))) => (name, port(after)?),
        (None, None) => (text, DEFAULT_PORT),
    };
    match name {
        "" => Err(format!("no host in {text:?}")),
        _ => Ok(Host { name: name.to_owned(), port }),
    }
}

/// The servers in the order in which they are tried, and how long to wait between two attempts.
#[derive(Clone, Debug)]
pub(crate) struct Hosts {
    list: Vec<Host>,
    next: usize,
    /// Attempts since a server served us last.
    failures: u32,
    random: u64,
}

/// The wait after the first pass in vain; it doubles with each pass.
const WAIT_MIN: Duration = Duration::from_millis(50);
/// The longest wait between two attempts.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(1);

impl Hosts {
    /// Clients that start together must not all go to the same server: each shuffles by its own
    /// seed.
    pub(crate) fn new(mut list: Vec<Host>, seed: u64) -> Self {
        let mut random = seed;
        for i in (1..list.len()).rev() {
            list.swap(i, below(&mut random, i as u64 + 1));
        }
        Self { list, next: 0, failures: 0, random }
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// The server to try now.
    pub(crate) fn next(&mut self) -> Host {
        let host = self.list[self.next].clone();
        self.next = (self.next + 1) % self.list.len();
        host
    }

    /// A server has served us for a while.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// An attempt failed, or a connection was lost: how long to wait before the next attempt.
    /// Every server is tried once without delay; then the waits double with each pass, up to a
    /// second, less up to half by chance, so that clients of a server that ends come apart.
    pub(crate) fn failed(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let passes = self.failures / u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        if passes == 0 {
            return Duration::ZERO;
        }
        let wait = WAIT_MIN.saturating_mul(1 << (passes - 1).min(16)).min(WAIT_MAX);
        let half = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX) / 2;
        wait - Duration::from_millis(below(&mut self.random, half + 1) as u64)
    }

    /// Whether each server has been tried in vain since one served us.
    pub(crate) fn exhausted(&self) -> bool {
        self.failures as usize >= self.list.len()
    }
}

/// A number below `bound`, by the generator of Steele, Lea and Flood (`SplitMix64`).
fn below(random: &mut u64, bound: u64) -> usize {
    *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *random;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((z ^ (z >> 31)) % bound).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(text: &str) -> Vec<String> {
        let (hosts, _) = parse_connect_string(text).expect("valid");
        hosts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn connect_strings() {
        assert_eq!(hosts("a"), ["a:2181"]);
        assert_eq!(hosts("a:1, b:2,"), ["a:1", "b:2"]);
        assert_eq!(hosts("[::1]:5,[::2],::3"), ["[::1]:5", "[::2]:2181", "[::3]:2181"]);
        assert_eq!(parse_connect_string("a:1/x/y").expect("valid").1, "/x/y");
        assert_eq!(parse_connect_string("a:1/").expect("valid").1, "");
        for bad in ["", "/x", ",", "a:", "a:x", "a:65536", ":1", "[::1]x", "[]:1"] {
            assert!(parse_connect_string(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_server_is_tried_before_anybody_waits() {
        let (list, _) = parse_connect_string("a,b,c").expect("valid");
        let mut firsts = std::collections::HashSet::new();
        for seed in 0..100 {
            let mut hosts = Hosts::new(list.clone(), seed);
            let mut tried: Vec<Host> = (0..3).map(|_| hosts.next()).collect();
            firsts.insert(tried[0].clone());
            tried.sort_by(|a, b| a.name.cmp(&b.name));
            assert_eq!(tried, list);
            assert_eq!((hosts.failed(), hosts.exhausted()), (Duration::ZERO, false));
            assert_eq!((hosts.failed(), hosts.exhausted()), (Duration::ZERO, false));
            for round in 0..200 {
                let wait = hosts.failed();
                assert!(hosts.exhausted());
                assert!(wait >= WAIT_MIN / 2 && wait <= WAIT_MAX, "{round}: {wait:?}");
                assert!(round < 20 || wait >= WAIT_MAX / 2, "{round}: {wait:?}");
            }
            hosts.succeeded();
            assert_eq!(hosts.failed(), Duration::ZERO);
        }
        assert_eq!(firsts.len(), 3, "shuffled");
    }
}
