//! Changes of the members as an operation among the faults: growing, shrinking, other roles, other
//! addresses, the leader removed, everybody replaced.

use zab_proto::wire::txn::TxnHeader;
use zab_proto::{Address, Member, Membership, Role, Sid, Zxid};
use zk_service::Opcode;

use crate::mutation::Mutation;
use crate::options::Options;
use crate::queue::HostIx;
use crate::rng::Rng;
use crate::subject::Subject;
use crate::world::World;

/// The type of the transaction that changes the members.
pub(crate) const RECONFIG: i32 = Opcode::Reconfig.wire();

/// The id of a server.
pub(crate) fn sid_of(server: HostIx) -> Sid {
    Sid(i64::try_from(server + 1).unwrap_or(i64::MAX))
}

/// The server of an id.
pub(crate) fn server_of(sid: Sid) -> HostIx {
    usize::try_from(sid.0).map_or(usize::MAX, |sid| sid.wrapping_sub(1))
}

/// A server at its first address.
pub(crate) fn member(server: HostIx, role: Role) -> Member {
    let host = format!("s{}", server + 1);
    let address = Address { host, quorum_port: 2888, election_port: 3888 };
    Member { role, addresses: vec![address], client: None }
}

/// The members with which the ensemble begins.
pub(crate) fn first(options: &Options) -> Membership {
    let members = (0..options.voters + options.observers).map(|server| {
        let votes = server < options.voters;
        let role = if votes { Role::Participant } else { Role::Observer };
        (sid_of(server), member(server, role))
    });
    Membership { members: members.collect(), ..Membership::default() }
}

/// The configuration that a transaction makes.
pub(crate) fn configuration(txn: &[u8]) -> Option<Membership> {
    let is_change = |header: &TxnHeader| [RECONFIG, DISGUISED].contains(&header.kind);
    let header = TxnHeader::parse(txn).ok().filter(is_change)?;
    let text = txn.get(TxnHeader::LEN + PATH.len() + 4..txn.len() - 4)?;
    Membership::parse_text(text).ok().filter(|ensemble| ensemble.version == header.zxid.raw())
}

/// The path in front of the text, with its length.
const PATH: &[u8] = b"\0\0\0\x11/zookeeper/config";

/// A change in which no server sees one: a mutation.
const DISGUISED: i32 = RECONFIG + 1000;

fn transaction(ensemble: &Membership, zxid: Zxid, kind: i32) -> Vec<u8> {
    let mut txn = Vec::new();
    TxnHeader { client_id: 1, cxid: 1, zxid, time: 0, kind }.write(&mut txn);
    let text = ensemble.text();
    txn.extend_from_slice(PATH);
    txn.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_be_bytes());
    txn.extend_from_slice(text.as_bytes());
    txn.extend_from_slice(&(-1_i32).to_be_bytes());
    txn
}

/// Other members than those of `now`, and what the change is called.
fn draw(
    rng: &mut Rng,
    now: &Membership,
    leader: HostIx,
    servers: usize,
) -> (Membership, &'static str) {
    let mut next = now.clone();
    let sids: Vec<Sid> = now.members.keys().copied().collect();
    let absent: Vec<HostIx> =
        (0..servers).filter(|server| !now.members.contains_key(&sid_of(*server))).collect();
    let mut set_role = |sid: Sid, role| {
        if let Some(member) = next.members.get_mut(&sid) {
            member.role = role;
        }
    };
    let what = match rng.below(9) {
        0..=2 if !absent.is_empty() => {
            let server = rng.pick(&absent);
            let role = rng.pick(&[Role::Participant, Role::Participant, Role::Observer]);
            next.members.insert(sid_of(server), member(server, role));
            "members: one more"
        }
        3 => {
            next.members.remove(&rng.pick(&sids));
            "members: one less"
        }
        4 => {
            next.members.remove(&sid_of(leader));
            "members: without the leader"
        }
        5 => {
            set_role(rng.pick(&sids), Role::Observer);
            "members: a voter observes"
        }
        6 => {
            set_role(rng.pick(&sids), Role::Participant);
            "members: an observer votes"
        }
        7 => {
            let sid = if rng.chance(500) { sid_of(leader) } else { rng.pick(&sids) };
            if let Some(member) = next.members.get_mut(&sid) {
                member.addresses[0].quorum_port += 2;
            }
            "members: another address"
        }
        _ => {
            for server in 0..servers {
                if rng.chance(500) {
                    next.members.remove(&sid_of(server));
                } else {
                    let known = next.members.get(&sid_of(server)).cloned();
                    let fresh = member(server, Role::Participant);
                    next.members.insert(sid_of(server), known.unwrap_or(fresh));
                }
            }
            "members: many others"
        }
    };
    (next, what)
}

impl<A: Subject> World<A> {
    /// An operator changes the members, if the leader takes it.
    pub(crate) fn reconfigure(&mut self, choice: u64) {
        let runs = |leader: &HostIx| self.is_up(*leader) && !self.servers[*leader].paused;
        let Some(leader) = self.leader().filter(runs) else { return };
        let mut rng = Rng::new(choice, 0x0e3b);
        let servers = self.servers.len();
        let s = &mut self.servers[leader];
        let now = s.clock(self.now);
        let Some(node) = &mut s.node else { return };
        let second = self.options.mutation == Some(Mutation::SecondChange);
        let proposed = node.with(now, |_, core| {
            let peer = core.peer();
            let (mut next, what) = draw(&mut rng, &peer.config().ensemble, leader, servers);
            let voters = next.voters().count();
            let second = second && peer.is_reconfiguring();
            let free = second || !peer.is_reconfiguring();
            let taken = voters > 0 && free && peer.has_synced_quorum(&next);
            let kind = if second { DISGUISED } else { RECONFIG };
            let zxid = peer.next_zxid().filter(|_| taken)?;
            next.version = zxid.raw();
            core.propose(&transaction(&next, zxid, kind)).ok().map(|zxid| (zxid, next, what))
        });
        let Some((zxid, next, what)) = proposed else { return };
        self.trace.say(|| format!("s{} proposes {zxid}: {}", leader + 1, lines(&next)));
        self.checker.borrow_mut().coverage.count(what);
        self.settle(leader);
        if self.options.mutation == Some(Mutation::NewVotersUnasked) {
            self.forge_acks(leader, zxid, &next);
        }
    }

    /// The leader of now is asked for these members.
    pub(crate) fn propose_members(&mut self, leader: HostIx, mut next: Membership) -> Option<Zxid> {
        let s = &mut self.servers[leader];
        let now = s.clock(self.now);
        let proposed = s.node.as_mut()?.with(now, |_, core| {
            let zxid = core.peer().next_zxid()?;
            next.version = zxid.raw();
            core.propose(&transaction(&next, zxid, RECONFIG)).ok()
        });
        self.settle(leader);
        proposed
    }

    /// A mutation: a change is committed by the old members alone, as if the new ones had agreed.
    fn forge_acks(&mut self, leader: HostIx, zxid: Zxid, next: &Membership) {
        use zab_proto::wire::packet::{PacketType, bare};
        let ack = bare(PacketType::ACK, zxid);
        let old = self.checker.borrow().committed_members().clone();
        for sid in next.voters().filter(|sid| !old.is_voter(*sid)) {
            self.inject_bytes(server_of(sid), leader, zab_proto::Channel::Quorum, &ack);
        }
    }

    /// A server goes by another configuration from now on.
    pub(crate) fn note_members(&mut self, server: HostIx) {
        let Some(node) = &self.servers[server].node else { return };
        let ensemble = &node.peer().config().ensemble;
        self.trace.say(|| format!("s{} goes by {}", server + 1, lines(ensemble)));
        self.checker.borrow_mut().on_activated(self.now, server, ensemble);
    }
}

fn lines(ensemble: &Membership) -> String {
    ensemble.text().replace('\n', " ")
}
