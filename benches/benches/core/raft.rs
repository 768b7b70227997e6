//! Three replicas of the crate `raft` (TiKV's), as its examples drive it, on its `MemStorage`.

use raft::prelude::{Config, Entry, Message};
use raft::storage::MemStorage;
use raft::{RawNode, StateRole, Storage};

use crate::{PAYLOAD_LEN, Replicas};

/// Applied entries that stay in the log at least.
const KEPT: u64 = 1024;

pub(crate) struct Cluster {
    nodes: Vec<RawNode<MemStorage>>,
    committed: [u64; 3],
    leader: usize,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = |id| {
            let config = Config {
                id,
                election_tick: 10,
                heartbeat_tick: 3,
                // TiKV's.
                max_size_per_msg: 1 << 20,
                max_inflight_msgs: 256,
                ..Config::default()
            };
            let storage = MemStorage::new_with_conf_state((vec![1, 2, 3], vec![]));
            RawNode::new(&config, storage, &logger).expect("a good configuration")
        };
        let mut cluster = Self { nodes: (1..=3).map(node).collect(), committed: [0; 3], leader: 0 };
        cluster.nodes[0].campaign().expect("it may");
        cluster.settle();
        assert_eq!(cluster.nodes[0].raft.state, StateRole::Leader);
        cluster
    }

    fn settle(&mut self) {
        let mut active = true;
        while active {
            active = false;
            for i in 0..3 {
                if self.nodes[i].has_ready() {
                    active = true;
                    self.turn(i);
                }
            }
        }
        // Rarely, as moving what is kept is dear.
        for node in &mut self.nodes {
            let store = node.store().clone();
            let first = store.first_index().expect("it has one");
            let applied = node.raft.raft_log.applied;
            if applied >= first + 8 * KEPT {
                store.wl().compact(applied - KEPT).expect("it is there");
            }
        }
    }

    fn turn(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        let store = node.store().clone();
        let mut ready = node.ready();
        let mut messages = ready.take_messages();
        self.committed[i] += count(&ready.take_committed_entries());
        if !ready.entries().is_empty() {
            store.wl().append(ready.entries()).expect("in order");
        }
        if let Some(state) = ready.hs() {
            store.wl().set_hardstate(state.clone());
        }
        messages.extend(ready.take_persisted_messages());
        let mut light = node.advance(ready);
        if let Some(commit) = light.commit_index() {
            store.wl().mut_hard_state().set_commit(commit);
        }
        messages.extend(light.take_messages());
        self.committed[i] += count(&light.take_committed_entries());
        node.advance_apply();
        self.deliver(messages);
    }

    fn deliver(&mut self, messages: Vec<Message>) {
        for message in messages {
            let to = usize::try_from(message.to).expect("an id from 1 to 3") - 1;
            self.nodes[to].step(message).expect("a good message");
        }
    }
}

fn count(entries: &[Entry]) -> u64 {
    entries.iter().filter(|entry| !entry.data.is_empty()).map(|_| 1).sum()
}

impl Replicas for Cluster {
    fn name(&self) -> &'static str {
        "raft 0.7"
    }

    fn round(&mut self, n: usize) {
        for _ in 0..n {
            let node = &mut self.nodes[self.leader];
            node.propose(Vec::new(), vec![7; PAYLOAD_LEN]).expect("it leads");
        }
        self.settle();
    }

    fn committed(&self) -> u64 {
        self.committed.into_iter().min().expect("three replicas")
    }
}
