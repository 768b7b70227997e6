//! Commands about the server: each from one look at it.

use serde_json::{Value, json};
use zk_service::look::{Connection, Entry, Look, ServerStats, Sizes};

use super::process::fields;
use super::{Answer, Fields, ensemble};
use crate::options::AdminOptions;
use crate::source::Source;

/// What answers a command.
type OfLook = fn(&Look<'_, '_>) -> Answer;

/// What answers this command.
pub(super) fn of_look(name: &str) -> Option<OfLook> {
    let answer: OfLook = match name {
        "configuration" => configuration,
        "connections" => connections,
        "dump" => dump,
        "hash" => digests,
        "is_read_only" => |_| Answer::new(fields(json!({ "read_only": false }))),
        "leader" => ensemble::leader,
        "monitor" => |look| Answer::new(monitor(look)),
        "observers" => ensemble::observers,
        "ruok" => |_| Answer::new(Fields::new()),
        "voting_view" => ensemble::voting_view,
        "watch_summary" => watch_summary,
        "watches" => watches,
        "watches_by_path" => watches_by_path,
        "zabstate" => ensemble::zabstate,
        _ => return None,
    };
    Some(answer)
}

fn number_or_text(text: &str) -> Value {
    text.parse::<i64>().map_or_else(|_| text.into(), Value::from)
}

/// The lines of `conf` under the names that they have here.
fn configuration(look: &Look<'_, '_>) -> Answer {
    let conf = look.conf();
    let mut all = Fields::new();
    for (key, name) in [
        ("clientPort", "client_port"),
        ("dataDir", "data_dir"),
        ("dataLogDir", "data_log_dir"),
        ("tickTime", "tick_time"),
        ("maxClientCnxns", "max_client_cnxns"),
        ("minSessionTimeout", "min_session_timeout"),
        ("maxSessionTimeout", "max_session_timeout"),
        ("serverId", "server_id"),
        ("clientPortListenBacklog", "client_port_listen_backlog"),
    ] {
        let value = conf.iter().find(|(known, _)| known == key);
        all.insert(name.into(), value.map_or(Value::Null, |(_, value)| number_or_text(value)));
    }
    Answer::new(all)
}

/// A connection; `in_full` with all its figures.
fn connection(connection: &Connection, in_full: bool) -> Value {
    let mut all = fields(json!({
        "remote_socket_address": connection.remote.to_string(),
        "interest_ops": 1,
        "outstanding_requests": connection.outstanding,
        "packets_received": connection.received,
        "packets_sent": connection.sent,
    }));
    if in_full && connection.session != 0 {
        all.extend(fields(json!({
            "session_id": connection.session,
            "last_operation": connection.last_op,
            "established": connection.established_ms,
            "session_timeout": connection.timeout_ms,
            "last_cxid": connection.last_cxid.map_or(-1, i64::from),
            "last_zxid": connection.last_zxid,
            "last_response_time": connection.last_response.as_nanos() / 1_000_000,
            "last_latency": connection.last_latency_ms,
            "min_latency": connection.min_latency_ms,
            "avg_latency": connection.avg_latency_ms,
            "max_latency": connection.max_latency_ms,
        })));
    }
    Value::Object(all)
}

fn connections_of(look: &Look<'_, '_>, in_full: bool) -> Fields {
    let (secure, plain): (Vec<_>, Vec<_>) =
        look.connections().into_iter().partition(|one| one.is_secure);
    let shown = |all: &[Connection]| -> Vec<Value> {
        all.iter().map(|one| connection(one, in_full)).collect()
    };
    fields(json!({ "connections": shown(&plain), "secure_connections": shown(&secure) }))
}

fn connections(look: &Look<'_, '_>) -> Answer {
    Answer::new(connections_of(look, true))
}

fn dump(look: &Look<'_, '_>) -> Answer {
    let dump = look.dump();
    let expiring = dump.expiring.into_iter();
    let expiring = expiring.map(|(at, ids)| ((at.as_nanos() / 1_000_000).to_string(), ids.into()));
    let ephemerals = dump.ephemerals.into_iter().map(|(id, paths)| (id.to_string(), paths.into()));
    let mut all = Fields::new();
    all.insert("expiry_time_to_session_ids".into(), Value::Object(expiring.collect()));
    all.insert("session_id_to_ephemeral_paths".into(), Value::Object(ephemerals.collect()));
    Answer::new(all)
}

fn digests(look: &Look<'_, '_>) -> Answer {
    let digest = |(zxid, digest): (zab_proto::Zxid, u64)| json!({ "zxid": zxid.raw(), "digest": digest, "digest_version": DIGEST_VERSION });
    let all: Vec<Value> = look.digests().into_iter().map(digest).collect();
    Answer::new(fields(json!({ "digests": all })))
}

/// Of the digests of the tree, since ZooKeeper 3.6.
const DIGEST_VERSION: u32 = 2;

/// The lines of `mntr`.
pub(crate) fn monitor(look: &Look<'_, '_>) -> Fields {
    let mut all = Fields::new();
    for (name, value) in look.metrics().iter().flat_map(zk_service::look::Metric::entries) {
        all.insert(name, json_of(&value));
    }
    all
}

fn json_of(entry: &Entry) -> Value {
    match entry {
        Entry::Text(text) => text.as_str().into(),
        Entry::Number(number) => match (i64::try_from(*number), u64::try_from(*number)) {
            (Ok(number), _) => number.into(),
            (_, Ok(number)) => number.into(),
            _ => i64::MAX.into(),
        },
        Entry::Fraction(_) => entry.to_string().parse::<f64>().unwrap_or_default().into(),
    }
}

fn watch_summary(look: &Look<'_, '_>) -> Answer {
    let summary = look.watch_summary();
    Answer::new(fields(json!({
        "num_connections": summary.connections,
        "num_paths": summary.paths,
        "num_total_watches": summary.watches,
    })))
}

/// Lists by the first of each pair.
fn grouped(pairs: impl Iterator<Item = (String, Value)>) -> Value {
    let mut all = Fields::new();
    for (key, value) in pairs {
        let list = all.entry(key).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(list) = list {
            list.push(value);
        }
    }
    Value::Object(all)
}

fn watches(look: &Look<'_, '_>) -> Answer {
    let pairs = look.watches().into_iter().map(|(id, path)| (id.to_string(), path.into()));
    Answer::new(fields(json!({ "session_id_to_watched_paths": grouped(pairs) })))
}

fn watches_by_path(look: &Look<'_, '_>) -> Answer {
    let pairs = look.watches().into_iter().map(|(id, path)| (path, id.into()));
    Answer::new(fields(json!({ "path_to_session_ids": grouped(pairs) })))
}

fn sizes(sizes: Sizes) -> Value {
    let Sizes { last, min, max } = sizes;
    json!({ "last_buffer_size": last, "min_buffer_size": min, "max_buffer_size": max })
}

/// `server_stats`; with the connections it is `stats`.
pub(super) async fn stats(
    with_connections: bool,
    source: &Source,
    options: &AdminOptions,
) -> Option<Answer> {
    let look = move |look: &Look<'_, '_>| {
        let connections = with_connections.then(|| connections_of(look, false));
        let failed = look.metrics().into_iter().find(|one| one.name == "unsuccessful_handshake");
        let failed = failed.map_or(0, |metric| match metric.value {
            zk_service::look::MetricValue::Counter(count) => count,
            _ => 0,
        });
        (look.stats(), connections, failed)
    };
    let (stats, connections, auth_failed) = source.ask(look).await?;
    let mut all = server_stats(&stats, auth_failed, options);
    all.extend(connections.unwrap_or_default());
    Some(Answer::new(all))
}

fn server_stats(stats: &ServerStats, auth_failed: u64, options: &AdminOptions) -> Fields {
    let (data_dir, log_dir) = (options.facts.dir_sizes)();
    let average = Entry::Fraction(stats.latency_avg.into());
    let mut all = fields(json!({
        "version": stats.version,
        "read_only": false,
        "server_stats": {
            "packets_sent": stats.sent,
            "packets_received": stats.received,
            "fsync_threshold_exceed_count": (options.facts.slow_fsyncs)(),
            "client_response_stats": sizes(stats.responses),
            "provider_null": false,
            "server_state": stats.mode,
            "outstanding_requests": stats.outstanding,
            "min_latency": stats.latency_min_ms,
            "avg_latency": json_of(&average),
            "max_latency": stats.latency_max_ms,
            "data_dir_size": data_dir,
            "log_dir_size": log_dir,
            "last_processed_zxid": stats.last_zxid.raw(),
            "num_alive_client_connections": stats.connections,
            "uptime": stats.uptime_ms,
            "auth_failed_count": auth_failed,
            // ZooKeeper counts these with its Netty factory alone; with the default one they are 0.
            "non_mtlsremote_conn_count": 0,
            "non_mtlslocal_conn_count": 0,
        },
        "client_response": sizes(stats.responses),
    }));
    if let Some(proposals) = stats.proposals {
        all.insert("proposal_stats".into(), sizes(proposals));
    }
    all.insert("node_count".into(), stats.node_count.into());
    all
}
