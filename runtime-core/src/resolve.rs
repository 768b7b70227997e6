//! From `host:port|host:port` to socket addresses, without waiting for anybody (rule R13).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// One address of a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// A literal address.
    Literal(SocketAddr),
    /// A name, to be looked up at each dial: names move.
    Name {
        /// The name.
        host: String,
        /// The port that goes with it.
        port: u16,
    },
}

/// Splits `host:port`, several joined by `|`. Hosts may be in brackets. Unusable parts are left
/// out: a dial without a target fails.
#[must_use]
pub fn targets(addresses: &str) -> Vec<Target> {
    addresses.split('|').filter_map(target).collect()
}

fn target(address: &str) -> Option<Target> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    match host.parse::<IpAddr>() {
        Ok(ip) => Some(Target::Literal(SocketAddr::new(ip, port))),
        Err(_) if host.is_empty() => None,
        Err(_) => Some(Target::Name { host: host.to_owned(), port }),
    }
}

/// Looks names up on threads of its own, one per name at a time: a name server that does not
/// answer for one member holds up nobody else.
///
/// A look-up cannot be cut short, so its thread may outlive the resolver; it then ends by itself
/// and its result goes nowhere.
pub struct Resolver<K> {
    waiting: HashMap<String, Vec<(K, u16)>>,
    results: Receiver<(String, io::Result<Vec<IpAddr>>)>,
    sender: Sender<(String, io::Result<Vec<IpAddr>>)>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl<K> std::fmt::Debug for Resolver<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("names", &self.waiting.len()).finish_non_exhaustive()
    }
}

impl<K> Resolver<K> {
    /// A resolver that calls `wake`, from another thread, whenever there is something to
    /// [`poll`](Self::poll).
    #[must_use]
    pub fn new(wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        let (sender, results) = channel();
        Self { waiting: HashMap::new(), results, sender, wake }
    }

    /// Begins to look `host` up on behalf of `key`.
    pub fn look_up(&mut self, key: K, host: String, port: u16) {
        if let Some(waiting) = self.waiting.get_mut(&host) {
            waiting.push((key, port));
            return;
        }
        let (sender, wake, name) = (self.sender.clone(), Arc::clone(&self.wake), host.clone());
        let thread = thread::Builder::new().name("resolver".into()).stack_size(256 * 1024);
        let started = thread.spawn(move || {
            let result = (name.as_str(), 0).to_socket_addrs();
            let result = result.map(|addresses| addresses.map(|addr| addr.ip()).collect());
            // An error means that nobody waits any more.
            if sender.send((name, result)).is_ok() {
                wake();
            }
        });
        if let Err(error) = started {
            // Reported like a failed look-up, at the next poll.
            let _ = self.sender.send((host.clone(), Err(error)));
            (self.wake)();
        }
        self.waiting.insert(host, vec![(key, port)]);
    }

    /// A finished look-up and everybody who asked for it; no addresses if it failed.
    pub fn poll(&mut self) -> Option<Vec<(K, Vec<SocketAddr>)>> {
        let (host, result) = self.results.try_recv().ok()?;
        let ips = result.unwrap_or_else(|error| {
            log::warn!("Cannot resolve {host}: {error}");
            Vec::new()
        });
        let waiting = self.waiting.remove(&host).unwrap_or_default();
        let with_port = |port| ips.iter().map(move |ip| SocketAddr::new(*ip, port)).collect();
        Some(waiting.into_iter().map(|(key, port)| (key, with_port(port))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_addresses_need_no_look_up() {
        let parsed = targets("10.0.0.1:2888|[2001:db8::1]:2888|::1:3888|zk1.example:3888");
        let literal = |text: &str| Target::Literal(text.parse().unwrap());
        assert_eq!(parsed[0], literal("10.0.0.1:2888"));
        assert_eq!(parsed[1], literal("[2001:db8::1]:2888"));
        assert_eq!(parsed[2], literal("[::1]:3888"));
        assert_eq!(parsed[3], Target::Name { host: "zk1.example".into(), port: 3888 });
        assert_eq!(targets("nonsense|:1|x:99999"), []);
    }

    #[test]
    fn one_look_up_answers_all_who_asked() {
        let (woken, wait) = channel();
        let mut resolver = Resolver::new(Arc::new(move || woken.send(()).unwrap()));
        resolver.look_up(1, "localhost".into(), 5);
        resolver.look_up(2, "localhost".into(), 6);
        wait.recv().unwrap();
        let mut answers = resolver.poll().unwrap();
        while answers.len() < 2 {
            wait.recv().unwrap();
            answers.extend(resolver.poll().unwrap());
        }
        for ((key, addresses), port) in answers.into_iter().zip([5, 6]) {
            assert_eq!(key + 4, i32::from(port));
            assert!(addresses.iter().all(|a| a.port() == port && a.ip().is_loopback()));
            assert!(!addresses.is_empty());
        }
    }
}
