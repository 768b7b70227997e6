//! How a leader's synchronisation changes the history: cut back, or replaced by a snapshot.

use super::{History, Op, Standing};
use crate::Zxid;
use crate::window::{Index, Window};

impl History {
    /// Takes over what a leader sends after it has said to cut back to `base`: its transactions, `txns`.
    /// Returns the index of the first one.
    ///
    /// What the leader repeats is not cut first. A leader of ZooKeeper's cuts back to what it has
    /// committed itself and sends what is under way again, which this server may have acknowledged: after
    /// a crash between the two it would lack what was committed by its word.
    pub(crate) fn splice(&mut self, base: Zxid, txns: &Window) -> Index {
        let begin = self.window.after(base);
        let own = begin..self.end();
        let repeats = |&(own, sent): &(Index, Index)| {
            self.window.zxid(own) == txns.zxid(sent) && self.window.txn(own) == txns.txn(sent)
        };
        let kept = own.zip(txns.first()..txns.end()).take_while(repeats).count() as Index;
        if begin + kept < self.end() {
            self.truncate(self.window.zxid_before(begin + kept).max(base));
        }
        self.extend(txns, txns.first() + kept);
        begin
    }

    /// Adds the transactions from an index of another window on.
    pub(crate) fn extend(&mut self, txns: &Window, from: Index) {
        for index in from..txns.end() {
            self.push(txns.zxid(index), txns.txn(index));
        }
    }

    /// Cuts the history back to `zxid`; see [`can_truncate`](Self::can_truncate).
    fn truncate(&mut self, zxid: Zxid) {
        let end = self.window.after(zxid);
        assert!(end >= self.committed, "committed transactions are never truncated (R6)");
        self.cut(end);
        self.appended = self.appended.min(end);
        self.durable = self.durable.min(end);
        self.staged_end = self.staged_end.min(end);
        self.enqueue(Op::Truncate(zxid));
    }

    /// Forgets the entries from `end` on.
    pub(super) fn cut(&mut self, end: Index) {
        let tail_end = self.tail_end.min(self.end());
        let cut = end.max(self.delivered);
        self.tail_len -= self.len_bytes_between(cut, tail_end.max(cut));
        self.tail_end = self.tail_end.min(end);
        self.window.truncate(end);
    }

    /// The staged snapshot becomes the whole history, with the transactions that are pushed until
    /// [`seal`](Self::seal).
    pub(crate) fn install(&mut self, zxid: Zxid) {
        self.restart_at(zxid);
        self.standing = Standing::Whole;
        self.snapshot_denied = false;
        self.installs = Some(zxid);
    }

    /// A leader's synchronisation is complete. A snapshot and what follows it are one durable switch
    /// (rule R5): the snapshot alone may hold less than this server has acknowledged.
    pub(crate) fn seal(&mut self) {
        if let Some(zxid) = self.installs.take() {
            self.staged_end = self.end();
            self.enqueue(Op::Install(zxid));
        }
        self.extend_tail();
    }

    /// Whether the history can be cut back to exactly `zxid`: it holds it, and nothing above is
    /// applied or part of the recovered snapshot.
    pub(crate) fn can_truncate(&self, zxid: Zxid) -> bool {
        let end = self.window.after(zxid);
        zxid >= self.floor
            && zxid >= self.window.base()
            && end >= self.committed
            && (zxid.counter() == 0 || self.window.holds(zxid))
    }

    fn restart_at(&mut self, zxid: Zxid) {
        self.window.clear(zxid);
        let end = self.window.end();
        self.appended = end;
        self.durable = end;
        self.staged_end = end;
        self.committed = end;
        self.delivered = end;
        (self.tail_end, self.tail_len) = (end, 0);
        self.delivered_zxid = zxid;
        self.floor = zxid;
        self.gaps.clear();
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::{Epoch, Output, Ticket};

    fn z(counter: u32) -> Zxid {
        Zxid::new(Epoch(3), counter)
    }

    fn window(base: u32, counters: &[(u32, u8)]) -> Window {
        let mut window = Window::new(z(base));
        counters.iter().for_each(|(counter, byte)| window.push(z(*counter), &[*byte; 40]));
        window
    }

    /// Transactions 1 to 5, of which 1 and 2 are applied.
    fn five() -> History {
        let own = window(0, &[(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]);
        History::new(own, z(2), z(2), Epoch(3), Epoch(3), true)
    }

    fn writes(history: &mut History) -> Vec<(&'static str, Zxid)> {
        let mut found = Vec::new();
        while let Some(output) = history.poll_storage() {
            found.push(match output {
                Output::Truncate { after, .. } => ("truncate", after),
                Output::Append { zxid, .. } => ("append", zxid),
                Output::Stage { zxid, .. } => ("stage", zxid),
                Output::Install { zxid, .. } => ("install", zxid),
                other => panic!("{other:?}"),
            });
        }
        found
    }

    #[test]
    fn what_a_leader_repeats_is_not_cut() {
        // All of it, and one more.
        let mut history = five();
        let sent = window(2, &[(3, 3), (4, 4), (5, 5), (6, 6)]);
        assert_eq!(history.splice(z(2), &sent), 2);
        history.seal();
        assert_eq!(writes(&mut history), [("append", z(6))]);
        assert_eq!((history.last(), history.end()), (z(6), 6));

        // Some of it: what follows was never committed.
        let mut history = five();
        history.splice(z(2), &window(2, &[(3, 3)]));
        assert_eq!(writes(&mut history), [("truncate", z(3))]);

        // The same zxid with another content is another transaction.
        let mut history = five();
        history.splice(z(2), &window(2, &[(3, 3), (4, 9)]));
        assert_eq!(writes(&mut history), [("truncate", z(3)), ("append", z(4))]);

        // Nothing of it.
        let mut history = five();
        history.splice(z(2), &window(2, &[]));
        assert_eq!(writes(&mut history), [("truncate", z(2))]);
        assert_eq!((history.last(), history.tail_len_bytes()), (z(2), 0));
    }

    #[test]
    fn a_snapshot_and_what_follows_it_are_one_switch() {
        let mut history = five();
        history.install(z(1));
        history.extend(&window(1, &[(2, 2), (3, 3)]), 0);
        history.seal();
        history.push(z(4), b"behind NEWLEADER");
        let mut staged = 0;
        let mut ticket = None;
        while let Some(output) = history.poll_storage() {
            match output {
                Output::Stage { zxid, .. } => {
                    staged += 1;
                    assert_eq!(zxid, z(1 + staged));
                    history.persisted(Ticket(100));
                    assert_eq!(history.durable(), history.end() - 3, "before it is installed");
                }
                Output::Install { zxid, ticket: installed } => {
                    assert_eq!((zxid, staged), (z(1), 2));
                    history.persisted(installed);
                    assert_eq!(history.durable(), history.end() - 1);
                }
                Output::Append { zxid, ticket: appended, .. } => {
                    assert_eq!(zxid, z(4));
                    ticket = Some(appended);
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(!history.is_settled());
        history.persisted(ticket.expect("an append"));
        assert!(history.is_settled());
    }
}
