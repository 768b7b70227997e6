//! Commands about the ensemble.

use serde_json::{Value, json};
use zab_proto::{Address, Member, Phase, Role, ServerState};
use zk_service::look::Look;

use super::process::fields;
use super::{Answer, Fields};

/// A figure that is not measured, where its key must be there.
const NOT_MEASURED: i64 = -1;

pub(super) fn leader(look: &Look<'_, '_>) -> Answer {
    let standing = look.standing();
    let leader = standing.status.and_then(|status| status.leader);
    let Some(leader) = leader.filter(|_| !standing.standalone) else {
        return Answer::error("server is not initialized");
    };
    let address = standing.ensemble.members.get(&leader).and_then(|m| m.addresses.first());
    Answer::new(fields(json!({
        "is_leader": leader == standing.sid,
        "leader_id": leader.0,
        "leader_ip": address.map_or("", |address| &address.host),
    })))
}

/// A leader's observers. Of their connections only the ids are known here.
pub(super) fn observers(look: &Look<'_, '_>) -> Answer {
    let standing = look.standing();
    let observers = standing.learners.iter().filter(|learner| learner.observer);
    let synced = observers.clone().filter(|observer| observer.synced).count();
    let all: Vec<Value> = observers
        .map(|observer| {
            let member = standing.ensemble.members.get(&observer.sid);
            let address = member.and_then(|member| member.addresses.first());
            let address = address.map_or_else(String::new, |a| format!("/{}", quorum(a)));
            json!({
                "remote_socket_address": address,
                "sid": observer.sid.0,
                "established": NOT_MEASURED,
                "queued_packets": NOT_MEASURED,
                "queued_packets_size": NOT_MEASURED,
                "packets_received": NOT_MEASURED,
                "packets_sent": NOT_MEASURED,
                "requests": NOT_MEASURED,
                "last_zxid": NOT_MEASURED,
            })
        })
        .collect();
    Answer::new(fields(json!({ "synced_observers": synced, "observers": all })))
}

fn quorum(address: &Address) -> String {
    address.host_port(address.quorum_port)
}

fn election(address: &Address) -> String {
    address.host_port(address.election_port)
}

fn client_address(member: &Member) -> Value {
    match &member.client {
        Some((host, port)) if host.contains(':') => format!("[{host}]:{port}").into(),
        Some((host, port)) => format!("{host}:{port}").into(),
        None => "".into(),
    }
}

pub(super) fn voting_view(look: &Look<'_, '_>) -> Answer {
    let standing = look.standing();
    let members = standing.ensemble.members.iter();
    let voters = members.filter(|(_, member)| member.role == Role::Participant);
    let all: Fields = voters
        .map(|(sid, member)| {
            let addresses = |of: fn(&Address) -> String| -> Vec<String> {
                member.addresses.iter().map(of).collect()
            };
            let value = json!({
                "server_addresses": addresses(quorum),
                "election_addresses": addresses(election),
                "client_address": client_address(member),
                "learner_type": "participant",
            });
            (sid.to_string(), value)
        })
        .collect();
    Answer::new(fields(json!({ "current_config": all })))
}

pub(super) fn zabstate(look: &Look<'_, '_>) -> Answer {
    let standing = look.standing();
    let member = standing.ensemble.members.get(&standing.sid);
    let (Some(status), Some(member), true) = (standing.status, member, standing.serves) else {
        return Answer::new(fields(json!({ "voting": false, "zabstate": "" })));
    };
    let phase = match status.phase {
        Phase::Election => "election",
        Phase::Discovery => "discovery",
        Phase::Synchronization => "synchronization",
        Phase::Broadcast => "broadcast",
    };
    let stats = look.stats();
    Answer::new(fields(json!({
        "myid": standing.sid.0,
        "is_leader": status.state == ServerState::Leading,
        "quorum_address": own_address(member, |address| address.quorum_port),
        "election_address": own_address(member, |address| address.election_port),
        "client_address": client_address(member),
        "voting": member.role == Role::Participant,
        "last_zxid": format!("{:#x}", stats.last_zxid.raw()),
        "zab_epoch": stats.last_zxid.epoch().0,
        "zab_counter": stats.last_zxid.counter(),
        "zabstate": phase,
    })))
}

/// This server's own addresses, which are reached from here.
fn own_address(member: &Member, port: fn(&Address) -> u16) -> Value {
    let all: Vec<String> = member.addresses.iter().map(|a| a.host_port(port(a))).collect();
    let ports: Vec<u16> = member.addresses.iter().map(port).collect();
    let wildcards: Vec<String> = ports.iter().map(|port| format!("0.0.0.0:{port}")).collect();
    let hosts: Vec<&str> = member.addresses.iter().map(|address| &*address.host).collect();
    let one = all.first().cloned().unwrap_or_default();
    json!({
        "empty": all.is_empty(),
        "all_addresses": all,
        "all_reachable_addresses": all,
        "one": one,
        "reachable_address": one,
        "wildcard_addresses": wildcards,
        "all_ports": ports,
        "all_host_strings": hosts,
        "all_reachable_addresses_or_all": all,
        "reachable_or_one": one,
    })
}
