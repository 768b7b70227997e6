//! How much is done for clients before peers and timers are heard again, and who of the clients is
//! next.
//!
//! A server has one loop for everything. Whatever clients ask, it has to come round every few
//! milliseconds, or votes, heartbeats and commits wait for them. So each piece of work is counted,
//! and when what a turn may do is used up, clients wait for the next turn; the runtime begins it at
//! once, after it has looked at all that has come meanwhile.
//!
//! Among clients the order is that of weighted fair queueing (Demers, Keshav and Shenker, 1989), with
//! equal weights. There is a clock that goes as fast as each of those who want something would be
//! served if all were served in parallel. Each account carries the time on that clock at which its
//! work so far would have ended, and next is who would end first with its next request, going by an
//! estimate of what that will cost. A client which asks little thus comes before those which ask
//! much, however many they are; and those get their share all the same, since the clock goes on.
//!
//! Work is an estimate, not a measurement: a service without a clock does the same in every run,
//! and a test can count. One unit is about a nanosecond of a release build; see [`crate::cost`].

use std::collections::BTreeMap;

use zab_proto::ConnId;

use crate::cost;

/// What one client has used.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::service) struct Account {
    /// When the client's work so far would have ended.
    end: u64,
    /// What its next request is expected to cost: as much as the last one, unless more is known.
    expected: u64,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Place {
    /// Nothing is known to be left to do.
    #[default]
    Outside,
    Waiting,
    /// It is its turn.
    First,
}

impl Account {
    /// Whether the client waits for its turn.
    pub(in crate::service) fn waits(self) -> bool {
        self.place == Place::Waiting
    }

    /// The client's next request is known.
    pub(in crate::service) fn expect(&mut self, work: u64) {
        self.expected = work;
    }

    /// It is the client's turn.
    pub(in crate::service) fn call(&mut self) {
        self.place = Place::First;
    }
}

/// The work of the present turn, and those who wait for the next.
#[derive(Debug)]
pub(in crate::service) struct Schedule {
    per_turn: u64,
    left: u64,
    /// The clock. Nobody falls behind it by being idle.
    time: u64,
    /// By when their next request would end, then in the order of arrival.
    waiting: BTreeMap<(u64, u64), ConnId>,
    arrivals: u64,
    /// Most work done in one turn before this one.
    peak: u64,
    done: u64,
    /// Of that, what was done for clients.
    for_clients: u64,
    /// What was done to apply transactions, which have as much of each turn as all else: whatever is
    /// prepared in a turn can be applied in another one.
    applied: u64,
    /// Of that, what was answered because of them, which was done for clients.
    answered: u64,
    /// Most of the rest in one turn before this one, but for what could not wait.
    applied_peak: u64,
    /// What was done to apply transactions that could not wait for another turn.
    forced: u64,
    is_forced: bool,
    /// Nothing more is applied in this turn.
    ends_applying: bool,
    /// Work that is done and not yet charged.
    unbilled: u64,
    /// Requests of one client that it is the work of.
    requests: u64,
}

impl Schedule {
    pub(in crate::service) fn new(per_turn: u64) -> Self {
        // With nothing to do in a turn nobody would ever be served.
        let per_turn = per_turn.max(1);
        Self {
            per_turn,
            left: per_turn,
            time: 0,
            waiting: BTreeMap::new(),
            arrivals: 0,
            peak: 0,
            done: 0,
            for_clients: 0,
            applied: 0,
            answered: 0,
            applied_peak: 0,
            forced: 0,
            is_forced: false,
            ends_applying: false,
            unbilled: 0,
            requests: 0,
        }
    }

    /// A part of a turn's work that may be exceeded.
    pub(in crate::service) fn part(&self) -> u64 {
        self.per_turn / 4
    }

    /// Work done in this turn so far, but to apply transactions.
    pub(in crate::service) fn done(&self) -> u64 {
        self.done
    }

    /// How many removed nodes are cleared away in a turn, beside everything else.
    pub(in crate::service) fn nodes_to_sweep(&self) -> usize {
        usize::try_from(self.part() / cost::NODE).map_or(usize::MAX, |count| count.max(1))
    }

    /// Counts work that was done to apply a transaction.
    pub(in crate::service) fn apply(&mut self, work: u64) {
        let sum = if self.is_forced { &mut self.forced } else { &mut self.applied };
        *sum = sum.saturating_add(work);
    }

    /// Counts work that was done to answer clients because of a transaction: it is part of what may be done to
    /// apply, too.
    pub(in crate::service) fn answer(&mut self, work: u64) {
        self.apply(work);
        if !self.is_forced {
            self.answered = self.answered.saturating_add(work);
        }
    }

    /// Whether what is applied from now on cannot wait for another turn. Returns whether it was so.
    pub(in crate::service) fn force(&mut self, is_forced: bool) -> bool {
        std::mem::replace(&mut self.is_forced, is_forced)
    }

    /// Whether another transaction may be applied in this turn.
    pub(in crate::service) fn may_apply(&self) -> bool {
        self.applied < self.per_turn && !self.ends_applying
    }

    /// Work that may still be done in this turn to apply transactions.
    pub(in crate::service) fn left_to_apply(&self) -> u64 {
        self.per_turn.saturating_sub(self.applied)
    }

    /// Nothing more is applied in this turn.
    pub(in crate::service) fn end_applying(&mut self) {
        self.ends_applying = true;
    }

    /// A turn begins: everybody else has been heard. Returns the work that was done for clients in
    /// the one before.
    pub(in crate::service) fn begin_turn(&mut self) -> u64 {
        self.left = self.per_turn;
        self.peak = self.peak();
        self.applied_peak = self.applied_peak();
        self.done = 0;
        self.applied = 0;
        self.answered = 0;
        self.ends_applying = false;
        std::mem::take(&mut self.for_clients)
    }

    /// Whether it matters who is next.
    pub(in crate::service) fn is_contended(&self) -> bool {
        self.is_spent() || self.has_waiting()
    }

    /// Whether the turn's work is used up.
    pub(in crate::service) fn is_spent(&self) -> bool {
        self.left <= self.unbilled
    }

    /// What of a turn's work is left to others than clients of this server: half of it if clients
    /// wait, else all.
    pub(in crate::service) fn share_beside_waiting(&self) -> u64 {
        if self.has_waiting() { (self.per_turn / 2).max(1) } else { u64::MAX }
    }

    /// Work that may still be done in this turn, beyond what is done and not yet charged.
    pub(in crate::service) fn left_unbilled(&self) -> u64 {
        self.left.saturating_sub(self.unbilled)
    }

    /// Work was done; the next [`charge`](Self::charge) or [`settle`](Self::settle) counts it.
    pub(in crate::service) fn bill(&mut self, work: u64) {
        self.unbilled += work;
    }

    /// Like [`bill`](Self::bill), for a whole request. While nobody waits for a turn, requests that come
    /// together are charged together.
    pub(in crate::service) fn bill_request(&mut self, work: u64) {
        self.bill(work);
        self.requests += 1;
    }

    /// Whether work is done and not yet charged.
    pub(in crate::service) fn has_unbilled(&self) -> bool {
        self.unbilled > 0
    }

    /// Counts what is not charged yet, for nobody.
    pub(in crate::service) fn settle(&mut self) {
        self.requests = 0;
        let work = std::mem::take(&mut self.unbilled);
        self.work(work);
    }

    /// Whether somebody waits for a turn.
    pub(in crate::service) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The most work that has been done in one turn.
    pub(in crate::service) fn peak(&self) -> u64 {
        self.peak.max(self.done)
    }

    /// The most work that was done in one turn to apply transactions, but for what could not wait: what
    /// had to be applied before the role changed.
    pub(in crate::service) fn applied_peak(&self) -> u64 {
        self.applied_peak.max(self.applied.saturating_sub(self.answered))
    }

    /// Counts work that nobody is charged for.
    pub(in crate::service) fn work(&mut self, work: u64) {
        // This is done for every request, and a division takes as long as all the rest of it.
        let served = match self.waiting.len() as u64 {
            0 => work,
            others => work / (others + 1),
        };
        self.time = self.time.saturating_add(served);
        self.left = self.left.saturating_sub(work);
        self.done = self.done.saturating_add(work);
    }

    /// Counts work that was done for a client, with what is not charged yet: one request, or several that
    /// came together while nobody waited for a turn.
    pub(in crate::service) fn charge(&mut self, account: &mut Account, work: u64) {
        let work = work + std::mem::take(&mut self.unbilled);
        account.end = account.end.max(self.time).saturating_add(work);
        account.expected = match std::mem::take(&mut self.requests) {
            0 | 1 => work,
            requests => work / requests,
        };
        self.for_clients = self.for_clients.saturating_add(work);
        if account.place == Place::First {
            account.place = Place::Outside;
        }
        self.work(work);
    }

    /// Whether a client may be served now: there is work left in this turn, and nobody waits who
    /// comes before it.
    pub(in crate::service) fn admits(&self, account: Account) -> bool {
        let is_next = || self.first().is_none_or(|first| self.next_end(account) <= first);
        !self.is_spent() && (account.place == Place::First || is_next())
    }

    /// Whether a client that is being served has to let others go first.
    pub(in crate::service) fn ends(&self, account: Account) -> bool {
        let slice = self.per_turn / SLICES_PER_TURN;
        let behind = |first: u64| self.next_end(account) > first.saturating_add(slice);
        self.is_spent() || (account.place != Place::First && self.first().is_some_and(behind))
    }

    /// Puts a client into the queue, unless it is there.
    pub(in crate::service) fn wait(&mut self, conn: ConnId, account: &mut Account) {
        if !account.waits() {
            self.waiting.insert((self.next_end(*account), self.arrivals), conn);
            self.arrivals += 1;
            account.place = Place::Waiting;
        }
    }

    /// A client does not wait any more. Its account is to be [called](Account::call).
    pub(in crate::service) fn leave(&mut self, conn: ConnId) {
        self.waiting.retain(|_, waiting| *waiting != conn);
    }

    /// Whose turn it is, while there is work left. Its account is to be [called](Account::call).
    pub(in crate::service) fn next(&mut self) -> Option<ConnId> {
        if self.is_spent() { None } else { self.waiting.pop_first().map(|(_, conn)| conn) }
    }

    fn next_end(&self, account: Account) -> u64 {
        account.end.max(self.time).saturating_add(account.expected)
    }

    fn first(&self) -> Option<u64> {
        self.waiting.keys().next().map(|(end, _)| *end)
    }
}

/// A client that has used this part of a turn's work more than another one lets it go first.
const SLICES_PER_TURN: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(slot: u32) -> ConnId {
        ConnId::client(slot, 0)
    }

    /// Accounts with always more to do, each of whose requests costs the same.
    struct Greedy {
        schedule: Schedule,
        accounts: Vec<(Account, u64)>,
    }

    impl Greedy {
        fn new(costs: &[u64]) -> Self {
            let mut schedule = Schedule::new(1000);
            let mut accounts: Vec<_> =
                costs.iter().map(|cost| (Account::default(), *cost)).collect();
            for (slot, (account, _)) in (0..).zip(&mut accounts) {
                schedule.wait(conn(slot), account);
            }
            Self { schedule, accounts }
        }

        /// Who was served in a turn, once for each request.
        fn turn(&mut self) -> Vec<u32> {
            let Self { schedule, accounts } = self;
            schedule.begin_turn();
            let mut served = Vec::new();
            while let Some(next) = schedule.next() {
                let (account, cost) = &mut accounts[next.slot() as usize];
                account.call();
                assert!(schedule.admits(*account), "whose turn it is may go");
                while !schedule.ends(*account) {
                    served.push(next.slot());
                    schedule.charge(account, *cost);
                }
                schedule.wait(next, account);
            }
            served
        }
    }

    #[test]
    fn work_is_shared_and_not_requests() {
        let costs = [100, 300, 50];
        let mut greedy = Greedy::new(&costs);
        let served: Vec<u32> = (0..90).flat_map(|_| greedy.turn()).collect();
        for (slot, cost) in (0..).zip(costs) {
            let work = served.iter().filter(|s| **s == slot).count() as u64 * cost;
            assert!((25_000..=35_000).contains(&work), "client {slot} had {work} of 90000");
        }
    }

    #[test]
    fn one_request_above_the_turn_ends_it_and_everybody_has_a_turn() {
        let mut greedy = Greedy::new(&[5000; 20]);
        let served: Vec<Vec<u32>> = (0..20).map(|_| greedy.turn()).collect();
        assert!(served.iter().all(|turn| turn.len() == 1), "{served:?}");
        let mut all = served.concat();
        all.sort_unstable();
        assert_eq!(all, (0..20).collect::<Vec<_>>());
        assert_eq!(greedy.schedule.peak(), 5000);
    }

    #[test]
    fn who_asks_little_does_not_wait_for_those_who_ask_much() {
        let mut greedy = Greedy::new(&[5000; 200]);
        (0..200).for_each(|_| drop(greedy.turn()));
        let mut light = Account::default();
        for _ in 0..50 {
            greedy.turn();
            let schedule = &mut greedy.schedule;
            // It comes when the turn is used up, and is the first in the next.
            assert!(!schedule.admits(light));
            schedule.wait(conn(1000), &mut light);
            schedule.begin_turn();
            assert_eq!(schedule.next(), Some(conn(1000)));
            light.call();
            schedule.charge(&mut light, 10);
        }
    }

    /// Work comes without end from clients that are new each time.
    #[test]
    fn who_asks_much_is_served_in_the_end() {
        let mut greedy = Greedy::new(&[5000; 10]);
        (0..20).for_each(|_| drop(greedy.turn()));
        let served = (0..2000).filter(|_| {
            for _ in 0..8 {
                let mut newcomer = Account::default();
                if greedy.schedule.admits(newcomer) {
                    greedy.schedule.charge(&mut newcomer, 100);
                }
            }
            !greedy.turn().is_empty()
        });
        assert!(served.count() > 100);
    }

    #[test]
    fn nobody_saves_up_by_being_idle() {
        let mut schedule = Schedule::new(1000);
        let (mut busy, mut idle) = (Account::default(), Account::default());
        for _ in 0..100 {
            schedule.begin_turn();
            schedule.charge(&mut busy, 1000);
        }
        schedule.begin_turn();
        schedule.charge(&mut idle, 1000);
        schedule.wait(conn(2), &mut idle);
        schedule.wait(conn(1), &mut busy);
        schedule.begin_turn();
        assert_eq!(schedule.next(), Some(conn(2)), "they are even, and it came first");
        assert_eq!(schedule.next(), Some(conn(1)));
    }
}
