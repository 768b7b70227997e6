//! Mutations that put words into the mouths of servers: what the core hears on a connection though nobody has
//! sent it, and the observer has not heard it there.

use zab_proto::wire::notification::Notification;
use zab_proto::wire::packet::{Packet, PacketType};
use zab_proto::{Channel, ConnId, Zxid};

use crate::members::sid_of;
use crate::net::{EndState, Side};
use crate::queue::HostIx;
use crate::subject::Subject;
use crate::world::World;

impl<A: Subject> World<A> {
    /// The ends of a server's open connections of a kind over which nothing has come in part: their names,
    /// and who is at the other end.
    fn calm(&self, server: HostIx, channel: Channel) -> Vec<(ConnId, u32, HostIx)> {
        let names = self.servers[server].names.iter();
        let mut calm: Vec<_> = names
            .filter_map(|(name, conn)| {
                let (_, side) = self.lookup(server, *name)?;
                let c = self.net.conn(*conn);
                let open = c.end(side).state == EndState::Open && c.channel == channel;
                let whole = self.net.readable(*conn, side).0.is_empty()
                    && self.taps.get(*conn as usize).is_some_and(|tap| tap.is_whole(side));
                (open && whole).then(|| (*name, *conn, c.end(side.other()).host))
            })
            .collect();
        calm.sort_unstable_by_key(|(_, conn, _)| *conn);
        calm
    }

    fn utter(&mut self, server: HostIx, name: ConnId, bytes: &[u8]) {
        let s = &mut self.servers[server];
        let now = s.clock(self.now);
        if let Some(node) = &mut s.node {
            node.handle_bytes(now, name, bytes, &mut self.disks[server]);
        }
    }

    /// All learners of a leader answer it, whether they are there or not.
    pub(crate) fn feign_answers(&mut self, server: HostIx) {
        let mut answer = Vec::new();
        Packet::new(PacketType::PING, Zxid::ZERO, Some(b"")).write(&mut answer);
        for (name, conn, _) in self.calm(server, Channel::Quorum) {
            if self.taps[conn as usize].is_up_to_date() {
                self.utter(server, name, &answer);
            }
        }
    }

    /// What a server that has no vote has said last comes from voters, too.
    pub(crate) fn lend_voice(&mut self, conn: u32, at: Side) {
        let c = self.net.conn(conn);
        let (server, from) = (c.end(at).host, c.end(at.other()).host);
        if c.channel != Channel::Election || from >= self.servers.len() {
            return;
        }
        let checker = self.checker.borrow();
        let members = checker.committed_members();
        let removed = checker.configs.iter().any(|config| config.is_voter(sid_of(from)));
        let heard = checker.last_heard(server, from).filter(|_| removed);
        let Some(vote) = heard.filter(|_| !members.is_voter(sid_of(from))) else { return };
        let voters: Vec<_> = members.voters().collect();
        drop(checker);
        let mut bytes = Vec::new();
        let text = String::new();
        Notification { config: Some(text.as_bytes()), ..vote }.write_frame(&mut bytes);
        for (name, _, other) in self.calm(server, Channel::Election) {
            if other != from && voters.contains(&sid_of(other)) {
                self.utter(server, name, &bytes);
            }
        }
    }
}
