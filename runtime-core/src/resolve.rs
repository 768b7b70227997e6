//! From `host:port|host:port` to socket addresses, without waiting for anybody (rule R13).

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

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

/// Looks names up on a few threads of its own, which are started when they are needed first and kept.
///
/// Each name is looked up once at a time, whoever asks for it. Names that nobody waits for any more
/// leave the queue, and at its bound a look-up fails at once, as it does if no thread can be started:
/// who dials tries again anyway.
///
/// A look-up cannot be cut short, so its thread may outlive the resolver; it then ends by itself and
/// its result goes nowhere.
pub struct Resolver {
    shared: Arc<Shared>,
}

/// Asks the system for the addresses of a name.
type Ask = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;
type Waiter = Box<dyn FnOnce(&[IpAddr]) + Send>;

struct Shared {
    state: Mutex<State>,
    /// There is a name to look up, or no more will come.
    ready: Condvar,
    ask: Box<Ask>,
}

#[derive(Default)]
struct State {
    /// Names that no thread has taken yet, oldest first.
    queue: VecDeque<String>,
    /// Who waits for a name, in the queue or with a thread.
    waiting: HashMap<String, Vec<(u64, Waiter)>>,
    next_waiter: u64,
    threads: usize,
    idle: usize,
    closed: bool,
    /// Look-ups that failed for want of room or threads, and when that was logged last.
    dropped: u64,
    logged: Option<Instant>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("Resolver")
            .field("names", &state.waiting.len())
            .field("threads", &state.threads)
            .finish_non_exhaustive()
    }
}

/// Somebody waits for a name. Dropping it ends the waiting.
pub struct LookUp {
    shared: Arc<Shared>,
    host: String,
    waiter: u64,
}

impl fmt::Debug for LookUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LookUp").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::asking(|host| Ok((host, 0).to_socket_addrs()?.map(|addr| addr.ip()).collect()))
    }
}

impl Resolver {
    fn asking(ask: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        let (state, ready) = (Mutex::default(), Condvar::new());
        Self { shared: Arc::new(Shared { state, ready, ask: Box::new(ask) }) }
    }

    /// Looks `host` up and gives its addresses to `then`, on another thread or, if the look-up fails
    /// at once, on this one; none if it failed.
    #[must_use = "dropping it ends the waiting"]
    pub fn look_up(&self, host: &str, then: impl FnOnce(&[IpAddr]) + Send + 'static) -> LookUp {
        let mut state = self.shared.lock();
        let waiter = state.next_waiter;
        state.next_waiter += 1;
        let look_up = LookUp { shared: Arc::clone(&self.shared), host: host.to_owned(), waiter };
        if let Some(waiting) = state.waiting.get_mut(host) {
            waiting.push((waiter, Box::new(then)));
            return look_up;
        }
        if let Err(why) = self.enqueue(&mut state, host) {
            state.dropped += 1;
            if state.logged.is_none_or(|at| at.elapsed() >= REPORT) {
                state.logged = Some(Instant::now());
                let dropped = state.dropped;
                log::warn!("Not looking up {host:?}: {why} (look-ups dropped so far: {dropped})");
            }
            drop(state);
            then(&[]);
            return look_up;
        }
        state.waiting.insert(host.to_owned(), vec![(waiter, Box::new(then))]);
        drop(state);
        self.shared.ready.notify_one();
        look_up
    }

    fn enqueue(&self, state: &mut State, host: &str) -> Result<(), String> {
        if state.queue.len() >= QUEUE_MAX {
            return Err(format!("{QUEUE_MAX} other names wait for the name server"));
        }
        if state.idle <= state.queue.len() && state.threads < THREADS_MAX {
            let shared = Arc::clone(&self.shared);
            let thread = thread::Builder::new().name("resolver".into()).stack_size(STACK_LEN);
            match thread.spawn(move || shared.work()) {
                Ok(_) => state.threads += 1,
                Err(error) if state.threads == 0 => {
                    return Err(format!("no thread can be started: {error}"));
                }
                // Those that run will come to it.
                Err(_) => {}
            }
        }
        state.queue.push_back(host.to_owned());
        Ok(())
    }
}

impl Shared {
    /// A thread: looks names up as long as there is a resolver.
    fn work(&self) {
        let mut state = self.lock();
        while !state.closed {
            let Some(host) = state.queue.pop_front() else {
                state.idle += 1;
                state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
                continue;
            };
            drop(state);
            let result = (self.ask)(&host);
            state = self.lock();
            let waiting = state.waiting.remove(&host).unwrap_or_default();
            if state.closed || waiting.is_empty() {
                continue;
            }
            drop(state);
            let found = result.unwrap_or_else(|error| {
                log::warn!("Cannot resolve {host:?}: {error}");
                Vec::new()
            });
            for (_, then) in waiting {
                then(&found);
            }
            state = self.lock();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every state is a valid one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        state.queue.clear();
        state.waiting.clear();
        drop(state);
        self.shared.ready.notify_all();
    }
}

impl Drop for LookUp {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let Some(waiting) = state.waiting.get_mut(&self.host) else { return };
        waiting.retain(|(waiter, _)| *waiter != self.waiter);
        if waiting.is_empty()
            && let Some(at) = state.queue.iter().position(|host| *host == self.host)
        {
            state.queue.remove(at);
            state.waiting.remove(&self.host);
        }
    }
}

/// A name server that does not answer for some names must not hold up the others, and no number of
/// names may start any number of threads.
const THREADS_MAX: usize = 4;
const STACK_LEN: usize = 256 * 1024;

/// More than the members of an ensemble have names. Whoever asks for more than that is not a member.
const QUEUE_MAX: usize = 64;

const REPORT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

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
    fn a_name_is_looked_up() {
        let (answer, wait) = channel();
        let resolver = Resolver::default();
        let _waits = resolver.look_up("localhost", move |ips| answer.send(ips.to_vec()).unwrap());
        let found = wait.recv().unwrap();
        assert!(!found.is_empty() && found.iter().all(IpAddr::is_loopback));
    }

    /// A name server that answers when it is told to: the resolver, what it was asked, and how to
    /// make it answer.
    fn slow() -> (Resolver, std::sync::mpsc::Receiver<String>, std::sync::mpsc::Sender<()>) {
        let (asked, questions) = channel();
        let (go, gone) = channel();
        let gone = Mutex::new(gone);
        let resolver = Resolver::asking(move |host| {
            asked.send(host.to_owned()).unwrap();
            // An error is the end of the test.
            let _ = gone.lock().unwrap_or_else(PoisonError::into_inner).recv();
            Ok(vec![IpAddr::from([127, 0, 0, 1])])
        });
        (resolver, questions, go)
    }

    #[test]
    fn one_look_up_answers_all_who_wait() {
        let (resolver, questions, go) = slow();
        let (answers, wait) = channel();
        let ask = |n: u32| {
            let answers = answers.clone();
            resolver.look_up("name", move |ips| answers.send((n, ips.len())).unwrap())
        };
        let (first, second) = (ask(1), ask(2));
        assert_eq!(questions.recv().unwrap(), "name");
        // Dials that are given up while a look-up is under way leave nothing behind.
        for n in 0..10_000 {
            drop(ask(100 + n));
        }
        let third = ask(3);
        drop(second);
        go.send(()).unwrap();
        assert_eq!([wait.recv().unwrap(), wait.recv().unwrap()], [(1, 1), (3, 1)]);
        assert!(questions.try_recv().is_err(), "asked once");
        drop((first, third));
        assert!(wait.try_recv().is_err());
    }

    #[test]
    fn no_number_of_names_starts_more_than_a_few_threads() {
        let (resolver, questions, go) = slow();
        let (answers, wait) = channel();
        let asked = 2 * (THREADS_MAX + QUEUE_MAX);
        let mut waits: Vec<LookUp> = Vec::new();
        let mut ask = |n: usize| {
            let answers = answers.clone();
            waits.push(resolver.look_up(&format!("name{n}"), move |ips| {
                answers.send((n, ips.len())).unwrap();
            }));
        };
        for n in 0..THREADS_MAX {
            ask(n);
            assert_eq!(questions.recv().unwrap(), format!("name{n}"));
        }
        (THREADS_MAX..asked).for_each(&mut ask);
        assert_eq!(resolver.shared.lock().threads, THREADS_MAX);
        assert_eq!(resolver.shared.lock().dropped, (asked / 2) as u64);
        // Those beyond the bound fail at once.
        for n in asked / 2..asked {
            assert_eq!(wait.try_recv().unwrap(), (n, 0));
        }
        // Who gives up makes room.
        waits.truncate(THREADS_MAX + 1);
        assert_eq!(resolver.shared.lock().queue, ["name4"]);
        (0..=THREADS_MAX).for_each(|_| go.send(()).unwrap());
        let mut answered: Vec<_> = (0..=THREADS_MAX).map(|_| wait.recv().unwrap()).collect();
        answered.sort_unstable();
        assert_eq!(answered, (0..=THREADS_MAX).map(|n| (n, 1)).collect::<Vec<_>>());
    }
}
