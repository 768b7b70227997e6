//! Three replicas of the crate `omnipaxos`, on its `MemoryStorage`.

use omnipaxos::messages::Message;
use omnipaxos::storage::{Entry, NoSnapshot};
use omnipaxos::{ClusterConfig, OmniPaxos, OmniPaxosConfig, ServerConfig};
use omnipaxos_storage::memory_storage::MemoryStorage;

use crate::{PAYLOAD_LEN, Replicas};

/// Decided entries that stay in the log at least.
const KEPT: usize = 1024;

#[derive(Clone, Debug)]
struct Payload {
    #[expect(dead_code, reason = "carried, not read")]
    bytes: Vec<u8>,
}

impl Entry for Payload {
    type Snapshot = NoSnapshot;
}

pub(crate) struct Cluster {
    nodes: Vec<OmniPaxos<Payload, MemoryStorage<Payload>>>,
    messages: Vec<Message<Payload>>,
    leader: usize,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let nodes = vec![1, 2, 3];
        let node = |pid| {
            let cluster_config =
                ClusterConfig { configuration_id: 1, nodes: nodes.clone(), ..Default::default() };
            let server_config = ServerConfig { pid, ..Default::default() };
            let config = OmniPaxosConfig { cluster_config, server_config };
            config.build(MemoryStorage::default()).expect("a good configuration")
        };
        let mut cluster = Self {
            nodes: nodes.iter().copied().map(node).collect(),
            messages: Vec::new(),
            leader: 0,
        };
        let established = |cluster: &Self| {
            cluster.nodes[0].get_current_leader().is_some_and(|(_, accepts)| accepts)
        };
        while !established(&cluster) {
            cluster.nodes.iter_mut().for_each(OmniPaxos::tick);
            cluster.settle();
        }
        let (leader, _) = cluster.nodes[0].get_current_leader().expect("established");
        cluster.leader = usize::try_from(leader).expect("an id from 1 to 3") - 1;
        cluster
    }

    fn settle(&mut self) {
        loop {
            for node in &mut self.nodes {
                node.take_outgoing_messages(&mut self.messages);
            }
            if self.messages.is_empty() {
                return;
            }
            for message in self.messages.drain(..) {
                let to = usize::try_from(message.get_receiver()).expect("an id from 1 to 3") - 1;
                self.nodes[to].handle_incoming(message);
            }
        }
    }
}

impl Replicas for Cluster {
    fn name(&self) -> &'static str {
        "omnipaxos 0.2"
    }

    fn round(&mut self, n: usize) {
        for _ in 0..n {
            let payload = Payload { bytes: vec![7; PAYLOAD_LEN] };
            self.nodes[self.leader].append(payload).expect("it leads");
        }
        self.settle();
        let decided = self.nodes[self.leader].get_decided_idx();
        // Rarely, as moving what is kept is dear.
        if decided - self.nodes[self.leader].get_compacted_idx() >= 8 * KEPT {
            self.nodes[self.leader].trim(Some(decided - KEPT)).expect("everybody has it");
            self.settle();
        }
    }

    fn committed(&self) -> u64 {
        let decided = self.nodes.iter().map(OmniPaxos::get_decided_idx).min();
        decided.map_or(0, |index| index as u64)
    }
}
