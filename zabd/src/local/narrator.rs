//! From the servers' logs to the story of their elections.

/// Follows the role of each server. Times are microseconds since midnight.
#[derive(Debug)]
pub(super) struct Narrator {
    servers: Vec<Followed>,
    leader: Option<usize>,
    /// When the last leader was seen to end, and who it was.
    lost: Option<(usize, u64)>,
    started: u64,
    elections: u32,
}

#[derive(Clone, Debug, Default)]
struct Followed {
    /// When it began to look for a leader, and when each phase since then began.
    looking: Option<u64>,
    discovery: Option<u64>,
    synchronization: Option<u64>,
    /// How it is synchronised, if told.
    sync: String,
}

impl Narrator {
    pub(super) fn new(servers: usize, started: u64) -> Self {
        let servers = vec![Followed::default(); servers];
        Self { servers, leader: None, lost: None, started, elections: 0 }
    }

    /// Whether there is a leader that serves.
    pub(super) fn is_serving(&self) -> bool {
        self.leader.is_some()
    }

    /// A server has ended, as `status` tells.
    pub(super) fn ended(&mut self, i: usize, status: &str, now: u64) -> String {
        self.servers[i] = Followed::default();
        let was = if self.leader == Some(i) { "the leader" } else { "a member" };
        if self.leader == Some(i) {
            self.leader = None;
            self.lost = Some((i, now));
        }
        format!("server {}, {was}, has ended ({status})", i + 1)
    }

    /// Takes a line of the log of server `i`; says what is worth telling.
    pub(super) fn line(&mut self, i: usize, line: &str) -> Option<String> {
        let (time, rest) = line.split_once(' ')?;
        let at = micros_of_day(time)?;
        let (level, text) = rest.trim_start().split_once(' ')?;
        let text = text.trim_start();
        let text = match text.strip_prefix("[myid:") {
            Some(rest) => rest.split_once("] ")?.1,
            None => text,
        };
        if level == "ERROR" {
            return Some(format!("server {}: {text}", i + 1));
        }
        let server = &mut self.servers[i];
        if text == "LOOKING" {
            *server = Followed { looking: Some(at), ..Followed::default() };
            if self.leader == Some(i) {
                self.leader = None;
                self.lost = Some((i, at));
                return Some(format!("server {} leads no longer", i + 1));
            }
            return None;
        }
        let state = text.strip_prefix("Peer state changed: ")?;
        let mut words = state.split(" - ");
        let (role, phase) = (words.next()?, words.next()?);
        match phase {
            "discovery" => server.discovery = Some(at),
            "synchronization" => {
                server.synchronization.get_or_insert(at);
                if let Some(sync) = words.next() {
                    server.sync = sync.to_uppercase();
                }
            }
            "broadcast" if role == "leading" => return Some(self.leads(i, at)),
            "broadcast" => return Some(self.follows(i, role, at)),
            _ => {}
        }
        None
    }

    fn leads(&mut self, i: usize, at: u64) -> String {
        self.leader = Some(i);
        self.elections += 1;
        let server = &self.servers[i];
        let looking = server.looking.unwrap_or(at);
        let discovery = server.discovery.unwrap_or(looking);
        let synchronization = server.synchronization.unwrap_or(discovery);
        let since = match self.lost.take() {
            Some((lost, when)) => format!("{} after server {} was lost", ms(when, at), lost + 1),
            None if self.elections == 1 => format!("{} after the start", ms(self.started, at)),
            None => format!("{} after it began to look", ms(looking, at)),
        };
        format!(
            "election {}: server {} leads, {since} (election {}, discovery {}, synchronization {})",
            self.elections,
            i + 1,
            ms(looking, discovery),
            ms(discovery, synchronization),
            ms(synchronization, at),
        )
    }

    fn follows(&self, i: usize, role: &str, at: u64) -> String {
        let server = &self.servers[i];
        let verb = if role == "observing" { "observes" } else { "follows" };
        let sync = match server.sync.as_str() {
            "" => String::new(),
            sync => format!(", synchronized by {sync}"),
        };
        let since = server.looking.map_or_else(String::new, |looking| {
            format!(", {} after it began to look", ms(looking, at))
        });
        format!("  server {} {verb}{sync}{since}", i + 1)
    }
}

/// The time of day in `2026-11-21T13:57:59.123456Z`.
fn micros_of_day(timestamp: &str) -> Option<u64> {
    let (_, time) = timestamp.strip_suffix('Z')?.split_once('T')?;
    let (clock, micros) = time.split_once('.')?;
    let mut seconds = 0;
    for part in clock.split(':') {
        seconds = seconds * 60 + part.parse::<u64>().ok()?;
    }
    Some(seconds * 1_000_000 + micros.parse::<u64>().ok()?)
}

/// From one time of day to a later one, which may be on the next day.
fn ms(from: u64, to: u64) -> String {
    let micros = (to + DAY_MICROS - from % DAY_MICROS) % DAY_MICROS;
    // A little before, by two clocks or two readers, is no day later.
    let micros = if micros > DAY_MICROS / 2 { 0 } else { micros };
    format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
}

pub(super) const DAY_MICROS: u64 = 86_400_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story() {
        let mut narrator = Narrator::new(3, 10_000_000);
        let mut tell = |i, at: &str, text: &str| {
            narrator.line(i, &format!("2026-11-21T00:00:{at}Z INFO  [myid:{}] {text}", i + 1))
        };
        assert_eq!(tell(0, "10.001000", "Starting quorum peer, myid=1"), None);
        assert_eq!(tell(2, "10.001000", "LOOKING"), None);
        assert_eq!(tell(0, "10.001500", "LOOKING"), None);
        assert_eq!(tell(2, "10.003100", "Peer state changed: leading - discovery"), None);
        assert_eq!(tell(2, "10.004000", "Peer state changed: leading - synchronization"), None);
        let leads = tell(2, "10.006500", "Peer state changed: leading - broadcast").unwrap();
        assert_eq!(
            leads,
            "election 1: server 3 leads, 6.5 ms after the start \
             (election 2.1 ms, discovery 0.9 ms, synchronization 2.5 ms)"
        );
        assert_eq!(tell(0, "10.005000", "Peer state changed: following - discovery"), None);
        let text = "Peer state changed: following - synchronization - diff";
        assert_eq!(tell(0, "10.006000", text), None);
        let follows = tell(0, "10.007000", "Peer state changed: following - broadcast").unwrap();
        assert_eq!(
            follows,
            "  server 1 follows, synchronized by DIFF, 5.5 ms after it began to look"
        );
        assert!(narrator.is_serving());
        let ended = narrator.ended(2, "signal: 9 (SIGKILL)", 20_000_000);
        assert_eq!(ended, "server 3, the leader, has ended (signal: 9 (SIGKILL))");
        assert!(!narrator.is_serving());
        let mut tell = |i, at: &str, text: &str| {
            narrator.line(i, &format!("2026-11-21T00:00:{at}Z INFO  [myid:{}] {text}", i + 1))
        };
        assert_eq!(tell(1, "20.000300", "LOOKING"), None);
        assert_eq!(tell(1, "20.001000", "Peer state changed: leading - discovery"), None);
        let leads = tell(1, "20.004000", "Peer state changed: leading - broadcast").unwrap();
        assert!(leads.starts_with("election 2: server 2 leads, 4.0 ms after server 3 was lost"));
        assert_eq!(narrator.line(1, "thread panicked at nowhere"), None);
        let error = narrator.line(0, "2026-11-21T00:00:30.000000Z ERROR cannot write x");
        assert_eq!(error.unwrap(), "server 1: cannot write x");
    }

    #[test]
    fn midnight() {
        let last = micros_of_day("2026-11-21T23:59:59.999000Z").unwrap();
        let first = micros_of_day("2026-11-22T00:00:00.002000Z").unwrap();
        assert_eq!(ms(last, first), "3.0 ms");
        assert_eq!(ms(first, last), "0.0 ms");
    }
}
