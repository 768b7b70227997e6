//! What the names of the members mean, for the core to judge who comes (rule R23). Looked up again and
//! again, one name at a time and without waiting for anybody (rule R13).

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use zab_proto::{Config, Instant};

use crate::{LookUp, Resolver};

/// What came of a look-up.
type Answer = Arc<Mutex<Option<Vec<IpAddr>>>>;

/// The names of the other members, and the look-up that is under way.
#[derive(Debug)]
pub(crate) struct Names {
    resolver: Resolver,
    hosts: Vec<String>,
    /// The name that is looked up next.
    next: usize,
    at: Instant,
    pending: Option<(usize, LookUp, Answer)>,
}

impl Names {
    /// The names in a configuration; `None` if there is nothing to look up.
    pub(crate) fn new(config: &Config) -> Option<Self> {
        let others = config.ensemble.members.iter().filter(|(sid, _)| **sid != config.sid);
        let addresses = others.flat_map(|(_, member)| &member.addresses);
        let is_name = |host: &&String| host.parse::<IpAddr>().is_err();
        let mut hosts: Vec<String> =
            addresses.map(|address| &address.host).filter(is_name).cloned().collect();
        hosts.sort();
        hosts.dedup();
        let wanted = config.check_addresses && !config.standalone && !hosts.is_empty();
        wanted.then(|| Self {
            resolver: Resolver::default(),
            hosts,
            next: 0,
            at: Instant::ZERO,
            pending: None,
        })
    }

    /// When [`poll`](Self::poll) has something to do.
    pub(crate) fn poll_timeout(&self) -> Instant {
        self.at
    }

    /// Somebody came from another address than a name means: it may mean another one by now.
    pub(crate) fn doubt(&mut self, now: Instant) {
        self.at = self.at.min(now + SOON);
    }

    /// The answer to a look-up, if one has come; and begins the next one, if it is time.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<(&str, Vec<IpAddr>)> {
        let answer = self.pending.as_ref().and_then(|(_, _, answer)| {
            answer.lock().unwrap_or_else(PoisonError::into_inner).take()
        });
        let answered = answer.and_then(|found| {
            let (host, ..) = self.pending.take()?;
            Some((host, found))
        });
        if now >= self.at {
            if self.pending.is_none() {
                self.look_up();
            }
            // While one is under way the answer is looked for, as it does not wake anybody.
            let idle = self.pending.is_none();
            self.at = now + if idle { PERIOD } else { SOON };
        }
        answered.map(|(host, found)| (self.hosts[host].as_str(), found))
    }

    fn look_up(&mut self) {
        let Some(host) = self.hosts.get(self.next) else {
            self.next = 0;
            return;
        };
        let answer = Answer::default();
        let then = Arc::clone(&answer);
        let look_up = self.resolver.look_up(host, move |found| {
            *then.lock().unwrap_or_else(PoisonError::into_inner) = Some(found.to_vec());
        });
        self.pending = Some((self.next, look_up, answer));
        self.next += 1;
    }
}

/// Between two rounds through all names.
const PERIOD: Duration = Duration::from_secs(60);
/// Between two names, and after a doubt.
const SOON: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use zab_proto::{Member, Membership, Sid};

    use super::*;

    fn config(hosts: &[&str]) -> Config {
        let mut ensemble = Membership::default();
        for (sid, host) in (1..).map(Sid).zip(hosts) {
            let member = Member::parse(sid, &format!("{host}:2888:3888")).unwrap();
            ensemble.members.insert(sid, member);
        }
        Config::new(Sid(1), ensemble)
    }

    #[test]
    fn only_names_of_others_are_looked_up() {
        assert!(Names::new(&config(&["localhost", "10.0.0.2", "[::1]"])).is_none());
        let mut off = config(&["10.0.0.1", "localhost"]);
        off.check_addresses = false;
        assert!(Names::new(&off).is_none());
        let names = Names::new(&config(&["a.invalid", "localhost", "localhost"])).unwrap();
        assert_eq!(names.hosts, ["localhost"]);
    }

    #[test]
    fn each_name_is_looked_up_in_turn_and_again_after_a_doubt() {
        let mut names = Names::new(&config(&["10.0.0.1", "localhost", "zk.invalid"])).unwrap();
        let mut now = Instant::ZERO;
        let mut seen = Vec::new();
        let mut round = |names: &mut Names, seen: &mut Vec<(String, bool)>| {
            for _ in 0..3000 {
                if let Some((host, found)) = names.poll(now) {
                    seen.push((host.to_owned(), !found.is_empty()));
                }
                if names.next == 0 && names.pending.is_none() && !seen.is_empty() {
                    return now;
                }
                now = names.poll_timeout().max(now);
                std::thread::sleep(Duration::from_millis(10));
            }
            panic!("the names are not answered for: {seen:?}");
        };
        let first = round(&mut names, &mut seen);
        assert_eq!(seen, [("localhost".to_owned(), true), ("zk.invalid".to_owned(), false)]);
        assert_eq!(names.poll_timeout(), first + PERIOD);
        names.doubt(first);
        assert_eq!(names.poll_timeout(), first + SOON);
        seen.clear();
        round(&mut names, &mut seen);
        assert_eq!(seen.len(), 2);
    }
}
