//! Keys that ZooKeeper does not know: there they become properties that nobody reads.

use super::Fate::{Checked, Guards, Used};
use super::Reader::{Bool, GetLong, Text};
use super::{Key, Place, Section};

pub(super) const OWN: Section = Section {
    title: "This server's own",
    place: Place::Plain,
    keys: keys! {
        "zab.tls.acceptExpired", Bool, "false", Checked("a certificate that stands in a trust store itself is trusted even when it has expired, as by Java");
        "zab.tls.crlFile", Text, "", Checked("lists of revoked certificates, in PEM, or one in DER; for ssl.crl and ssl.quorum.crl");
        "zab.tls.reloadIntervalMs", GetLong(0), "250", Checked("milliseconds between looks at the files with certificates, 0 for never");
        "zab.log.level", Text, "", Checked("what is logged, as in RUST_LOG, which it replaces: info, or info,zab_proto=debug; SIGHUP reads it again");
        "zab.log.format", Text, "text", Checked("text, or json for one object a line; SIGHUP reads it again");
        "zab.allowUnlistedServers", Bool, "false", Used("servers that the configuration does not list may learn and be told of the leader, as with ZooKeeper: unlisted observers, joiners before their reconfig");
        "zab.checkPeerAddresses", Bool, "true", Guards("servers are refused that come from another address than the configuration gives their id, a name counting once its member has come from an address of it");
        "zab.client.maxRequests", GetLong(1), "1000", Guards("requests of one client under way, from which on further ones wait");
        "zab.client.maxReplyBytes", GetLong(1), "1048576", Guards("bytes of answers that one client does not read, from which on its requests wait");
        "zab.client.maxEventBytes", GetLong(1), "4194304", Guards("bytes of events that one client does not read; at the bound it is disconnected");
        "zab.client.maxWatchBytes", GetLong(1), "134217728", Guards("bytes of one client's watches; at the bound it is disconnected");
        "zab.client.maxIdentityBytes", GetLong(1), "131072", Guards("bytes of identities that one client may collect; at the bound it is disconnected");
        "zab.clients.maxBytes", GetLong(1), "2147483648", Guards("bytes that all clients together make the server keep; at the bound those that take the most are disconnected");
        "zab.holdClientsMs", GetLong(0), "", Used("milliseconds for which clients are held when the leader is lost, to go on with the next one, but never longer than a third of a session's time-out; two ticks if it is not given; 0: their connections are closed at once, as by ZooKeeper");
        "zab.hold.maxBytes", GetLong(0), "268435456", Guards("bytes of clients' writes in flight that are kept for that; one client may have zab.client.maxReplyBytes of them, and who has more is disconnected when the leader is lost");
        "zab.reply.maxBytes", GetLong(1), "67108864", Guards("bytes of the longest reply, never less than two of jute.maxbuffer; a longer one is an error");
    "zab.work.perTurn", GetLong(1), "4000000", Guards("work for clients before peers and timers are heard again, in units of about a nanosecond");
    "zab.work.perRequest", GetLong(1), "10000000", Guards("work of the parts of one multiRead; those behind it are answered by an error");
    "zab.clients.turnBytes", GetLong(1), "4194304", Guards("bytes read from clients, and written to them, before peers are heard again");
    "zab.descriptors.peers", GetLong(0), "256", Guards("file descriptors that clients cannot take from connections with servers, a quarter of all at most");
    "zab.descriptors.files", GetLong(0), "64", Guards("file descriptors that connections cannot take from files, a quarter of all at most");
    "zab.maxConnections", GetLong(1), "100000", Guards("connections of clients and servers together; further ones are closed");
        "zab.window.maxBytes", GetLong(1), "67108864", Guards("bytes of transactions not yet committed and sent; at the bound a leader takes no writes");
        "zab.retained.maxBytes", GetLong(0), "1048576", Guards("bytes of the transactions that commitLogCount counts");
        "zab.heartbeatMs", GetLong(0), "50", Checked("milliseconds between heartbeats of members that have them, half a tick at most; 0 for none");
        "zab.suspectMinMs", GetLong(1), "250", Checked("milliseconds after which a silent leader is suspected at the earliest, syncLimit ticks at most");
        "zab.diskStallMaxMs", GetLong(0), "2000", Checked("milliseconds after which a leader whose disk completes nothing makes way, 0 for never");
        "zab.learner.maxRequestBytes", GetLong(1), "16777216", Guards("bytes of requests that a learner has under way to its leader, and a leader takes of each while it has no room; alike on all members");
    },
};
