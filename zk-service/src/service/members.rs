//! `/zookeeper/config` and `conf`: which configuration of the ensemble is in force.

use zab_proto::{Core, Member, Role, Zxid};

use crate::service::apply::notifying;
use crate::service::connection::table::Clients;
use crate::service::parts::Parts;

/// Writes the configuration in force into its node, as each server does by itself when it begins to serve.
pub(super) fn write(clients: &mut Clients, parts: &mut Parts<'_>, core: &Core<'_>) {
    if parts.env.options.membership.is_none() {
        return;
    }
    let ensemble = &core.peer().config().ensemble;
    let (text, version) = (ensemble.text(), Zxid::from_raw(ensemble.version));
    let now_ms = parts.env.options.wall_clock.now_ms();
    notifying(clients, parts, parts.state.last_zxid(), |state, sink| {
        state.set_config(text.as_bytes(), version, now_ms, sink);
    });
    parts.env.options.membership = Some(text);
}

/// Another configuration is in force. Usually a transaction has put it into the node and told the
/// watchers; a server that has heard of it in another way does both now.
pub(super) fn changed(clients: &mut Clients, parts: &mut Parts<'_>, core: &Core<'_>) {
    let ensemble = &core.peer().config().ensemble;
    let (text, version) = (ensemble.text(), Zxid::from_raw(ensemble.version));
    log::info!("The ensemble's configuration of version {:x} is in force", ensemble.version);
    parts.env.options.on_reconfigured.call(ensemble);
    if let Some(member) = ensemble.members.get(&core.sid()) {
        show(&mut parts.env.options.conf, member);
    }
    if parts.state.has_config(text.as_bytes(), version) {
        parts.env.options.membership = Some(text);
    } else {
        write(clients, parts, core);
    }
}

/// `conf` has the ports and the role that this server has now. (One that is no member any more keeps them.)
fn show(conf: &mut [(String, String)], member: &Member) {
    let mut set = |name: &str, value: String| {
        if let Some((_, shown)) = conf.iter_mut().find(|(key, _)| key == name) {
            *shown = value;
        }
    };
    if let Some((_, port)) = &member.client {
        set("clientPort", port.to_string());
    }
    if let Some(address) = member.addresses.first() {
        set("electionPort", address.election_port.to_string());
        set("quorumPort", address.quorum_port.to_string());
    }
    set("peerType", u8::from(member.role == Role::Observer).to_string());
}
