//! `reconfig`: a change of the members, checked as `PrepRequestProcessor` does and in its order.

use std::net::IpAddr;

use zab_proto::{ConfigError, Member, Membership, Peer, Sid};

use super::{Content, Judge, Prep, Requester, View, encode, permit, shown};
use crate::protocol::acl::perms;
use crate::protocol::code::Code;
use crate::protocol::request::Reconfig;
use crate::protocol::txn::Txn;
use crate::state::tree::CONFIG_PATH;

/// The members of now, and which others there may be.
#[derive(Clone, Copy, Debug)]
pub(in crate::service::role) struct Members<'a> {
    /// Knows what is in force, and who follows.
    pub(in crate::service::role) peer: &'a Peer,
    /// An ensemble keeps two voters, as one alone is another kind of server (`standaloneEnabled`).
    pub(in crate::service::role) standalone_enabled: bool,
}

impl Members<'_> {
    /// What the configuration in force becomes. Java's texts are for the log: a client hears a code.
    fn changed(&self, change: &Reconfig<'_>) -> Result<Membership, Refusal> {
        let config = self.peer.config();
        if config.standalone {
            return Err(Refusal(Code::UNIMPLEMENTED, "this is no ensemble".into()));
        }
        if self.peer.is_reconfiguring() {
            let text = "another change is under way".into();
            return Err(Refusal(Code::RECONFIG_IN_PROGRESS, text));
        }
        let (base, now) = (change.version, config.ensemble.version);
        if base != -1 && base != now {
            let text =
                format!("Reconfiguration from version {base} failed -- last seen version is {now}");
            return Err(Refusal(Code::BAD_VERSION, text));
        }
        let next = match &change.members {
            Some(all) => whole(all, self.standalone_enabled)?,
            None => {
                let (joining, leaving) = (change.joining.as_deref(), change.leaving.as_deref());
                step(&config.ensemble, joining.unwrap_or_default(), leaving.unwrap_or_default())?
            }
        };
        if !config.multi_address {
            next.check_single_addresses()?;
        }
        let wanted = 1 + usize::from(self.standalone_enabled);
        if next.voters().count() < wanted {
            return Err(Refusal::arguments(format!(
                "new configuration must include at least {wanted} followers"
            )));
        }
        if !self.peer.has_synced_quorum(&next) {
            let text = "there must be a connected and synced quorum in new configuration".into();
            return Err(Refusal(Code::NEW_CONFIG_NO_QUORUM, text));
        }
        Ok(next)
    }
}

/// Why a change is refused.
#[derive(Debug)]
struct Refusal(Code, String);

impl Refusal {
    fn arguments(text: impl Into<String>) -> Self {
        Self(Code::BAD_ARGUMENTS, text.into())
    }
}

impl From<ConfigError> for Refusal {
    fn from(error: ConfigError) -> Self {
        // Java expects only some of its exceptions. The others are to it requests that do not decode.
        let is_unexpected = matches!(error, ConfigError::NotANumber(_));
        let code = if is_unexpected { Code::MARSHALLING_ERROR } else { Code::BAD_ARGUMENTS };
        Self(code, error.to_string())
    }
}

impl Prep {
    /// A change of the members becomes the data of `/zookeeper/config`, and its own zxid their version.
    pub(super) fn reconfig(
        &mut self,
        view: View<'_>,
        from: &Requester<'_>,
        judge: &mut Judge<'_>,
        change: &Reconfig<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Code> {
        let members = view.members.ok_or(Code::RECONFIG_DISABLED)?;
        from.valid?;
        let mut next = members.changed(change).map_err(|Refusal(code, text)| {
            log::warn!("Reconfig of session {:#x} failed ({code}): {text}", from.session);
            code
        })?;
        let mut node = self.lookup(view.tree, CONFIG_PATH).ok_or(Code::NO_NODE)?;
        permit(view, CONFIG_PATH, &node, perms::WRITE, judge)?;
        next.version = from.zxid.raw();
        let text = next.text();
        let data = Some(text.as_bytes());
        node.stat.version = -1;
        node.stat.mtime = from.time;
        node.stat.mzxid = from.zxid;
        node.data_len = text.len();
        self.put(view, from.zxid, CONFIG_PATH, node, Content::Data(data));
        let path = shown(CONFIG_PATH);
        encode(&Txn::SetData { path, data, version: -1, reconfig: true }, from, out);
        Ok(())
    }
}

/// All members anew, each in a line or behind a comma.
fn whole(members: &str, standalone_enabled: bool) -> Result<Membership, Refusal> {
    let next = Membership::parse_text(members.replace(',', "\n").as_bytes())?;
    next.check_participants(standalone_enabled)
        .map_err(|error| Refusal(Code::MARSHALLING_ERROR, error.to_string()))?;
    Ok(next)
}

/// The members of now without those that leave and with those that join. Who joins and is there
/// already has its role and addresses changed. Nobody at all makes a new version of the same.
fn step(now: &Membership, joining: &str, leaving: &str) -> Result<Membership, Refusal> {
    if now.is_hierarchical() {
        return Err(Refusal::arguments(
            "Incremental reconfiguration requested but last configuration seen has a non-majority \
             quorum system",
        ));
    }
    let mut next = now.clone();
    for id in parts(leaving, ',') {
        next.members.remove(&number(id)?);
    }
    for line in parts(joining, ',') {
        let [key, value] = parts(line, '=').collect::<Vec<_>>()[..] else {
            return Err(Refusal::arguments("Wrong format of server string"));
        };
        let sid = number(key.rsplit('.').next().unwrap_or_default())?;
        let member = Member::parse(sid, value)?;
        if member.client.is_none() {
            return Err(Refusal::arguments(
                "Wrong format of server string - each server should have at least 3 ports specified",
            ));
        }
        let mut others = next.members.iter().filter(|(other, _)| **other != sid);
        if let Some((other, _)) = others.find(|(_, other)| have_one_address(&member, other)) {
            return Err(Refusal::arguments(format!(
                "an address of server.{sid} conflicts with one of server.{other}"
            )));
        }
        next.members.insert(sid, member);
    }
    Ok(next)
}

/// What stands between separators, without blanks; nothing, where nothing does.
fn parts(text: &str, separator: char) -> impl Iterator<Item = &str> {
    text.split(separator).map(str::trim_ascii).filter(|part| !part.is_empty())
}

fn number(text: &str) -> Result<Sid, Refusal> {
    text.parse().map(Sid).map_err(|_| ConfigError::NotANumber(text.into()).into())
}

/// Whether two members are to listen at one place, of any kind. As with ZooKeeper, addresses that each
/// machine has of its own do not count. Names are compared as they are written: looking one up could
/// take long.
fn have_one_address(one: &Member, other: &Member) -> bool {
    let theirs: Vec<_> = addresses(other).collect();
    addresses(one).any(|address| theirs.contains(&address))
}

fn addresses(member: &Member) -> impl Iterator<Item = (&str, u16)> {
    let peers = member.addresses.iter().flat_map(|address| {
        [(&*address.host, address.quorum_port), (&*address.host, address.election_port)]
    });
    let client = member.client.iter().map(|(host, port)| (&**host, *port));
    peers.chain(client).filter(|(host, _)| {
        let local = |ip: IpAddr| ip.is_unspecified() || ip.is_loopback();
        *host != "localhost" && !host.parse().is_ok_and(local)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "server.1=a:1:2:participant;a:3\nserver.2=b:1:2:participant;b:3\n\
                       server.3=c:1:2:observer;0.0.0.0:3\nversion=100000000";

    fn now() -> Membership {
        Membership::parse_text(NOW.as_bytes()).expect("good")
    }

    fn stepped(joining: &str, leaving: &str) -> Result<String, Code> {
        let next = step(&now(), joining, leaving);
        next.map(|next| next.text()).map_err(|Refusal(code, _)| code)
    }

    #[test]
    fn steps() {
        assert_eq!(stepped("", "").as_deref(), Ok(NOW), "nobody at all");
        assert_eq!(stepped(" , ", ",,").as_deref(), Ok(NOW));
        assert_eq!(stepped("", "7").as_deref(), Ok(NOW), "who is not there");
        let lines = |text: Result<String, Code>| -> Vec<String> {
            text.expect("taken").lines().map(str::to_owned).collect()
        };
        assert_eq!(
            lines(stepped("server.4 = d:1:2;d:3 , server.3=c:1:2;3", " 2 ,9")),
            [
                "server.1=a:1:2:participant;a:3",
                "server.3=c:1:2:participant;0.0.0.0:3",
                "server.4=d:1:2:participant;d:3",
                "version=100000000"
            ]
        );
        // Who leaves and joins has moved; only the number behind the last dot counts.
        assert_eq!(
            lines(stepped("x.y.2=n:1:2:observer;4", "2"))[1],
            "server.2=n:1:2:observer;0.0.0.0:4"
        );
    }

    #[test]
    fn what_no_step_is() {
        for (joining, leaving, code) in [
            ("", "x", Code::MARSHALLING_ERROR),
            ("server.9=d:1:2;3", "x", Code::MARSHALLING_ERROR),
            ("server.x=d:1:2;3", "", Code::MARSHALLING_ERROR),
            ("garbage", "", Code::BAD_ARGUMENTS),
            ("server.4=d:1:2;3=4", "", Code::BAD_ARGUMENTS),
            ("server.4=d:1", "", Code::BAD_ARGUMENTS),
            ("server.4=d:1:2", "", Code::BAD_ARGUMENTS),
            ("server.4=d:1:2:voter;3", "", Code::BAD_ARGUMENTS),
            // Somebody else's address, whatever it is there for.
            ("server.4=a:1:9;d:3", "", Code::BAD_ARGUMENTS),
            ("server.4=d:1:2;b:2", "", Code::BAD_ARGUMENTS),
            ("server.4=d:1:2;d:3,server.5=d:2:4;e:3", "", Code::BAD_ARGUMENTS),
        ] {
            assert_eq!(stepped(joining, leaving), Err(code), "{joining:?} {leaving:?}");
        }
        assert!(stepped("server.4=a:1:9;d:3", "1").is_ok(), "of one that leaves");
        let own = "server.5=127.0.0.1:1:2;3,server.6=127.0.0.1:1:2;3,server.7=localhost:1:2;3";
        assert!(stepped(own, "").is_ok(), "each machine has that");
        let groups = [NOW, "\ngroup.1=1:2"].concat();
        let hierarchy = Membership::parse_text(groups.as_bytes()).expect("good");
        assert_eq!(step(&hierarchy, "", "").expect_err("no majorities").0, Code::BAD_ARGUMENTS);
    }

    #[test]
    fn all_anew() {
        let anew = |text: &str, standalone_enabled| {
            let next = whole(text, standalone_enabled).map_err(|Refusal(code, _)| code)?;
            Ok(next.text())
        };
        let two = "server.1=a:1:2:participant\nserver.2=b:1:2:participant;b:3\nversion=0";
        assert_eq!(anew("server.2=b:1:2;b:3,server.1=a:1:2", true).as_deref(), Ok(two));
        assert_eq!(anew("server.2=b:1:2;b:3\n\nserver.1=a:1:2\n", true).as_deref(), Ok(two));
        let groups = "server.1=a:1:2,server.2=b:1:2,group.1=1,group.2=2,weight.1=3";
        assert!(anew(groups, true).expect("a hierarchy").contains("weight.1=3\nweight.2=1\n"));
        for (text, standalone_enabled, code) in [
            // With standaloneEnabled an empty list is one of too few voters, which is said later.
            ("", false, Code::MARSHALLING_ERROR),
            ("server.1=a:1:2:observer", true, Code::MARSHALLING_ERROR),
            ("server.1=a:1:2:observer,server.2=b:1:2", true, Code::MARSHALLING_ERROR),
            ("server.x=a:1:2", true, Code::MARSHALLING_ERROR),
            ("version=xyz", true, Code::MARSHALLING_ERROR),
            ("server.1=a:1", true, Code::BAD_ARGUMENTS),
            ("clientPort=7", true, Code::BAD_ARGUMENTS),
            ("server.1=a:1:2,server.2=b:1:2,group.1=1", true, Code::BAD_ARGUMENTS),
        ] {
            assert_eq!(anew(text, standalone_enabled), Err(code), "{text:?}");
        }
        assert_eq!(anew("", true).as_deref(), Ok("version=0"));
        assert!(anew("server.1=a:1:2:observer,server.2=b:1:2", false).is_ok());
    }
}
