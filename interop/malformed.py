"""Malformed input on all three ports: it ends its own connection, for a logged reason, and nothing else."""

import socket
import struct

from . import wire
from .ensemble import Ensemble, eventually
from .suite import Suite

CREATE = struct.pack(">ii", 7, wire.CREATE)
HELLO = wire.connect_request(10000)
INFO = struct.pack(">qiq", 2, 0x10000, 0)  # LearnerInfo: sid 2, version 1.0, configuration 0


def packet(kind, zxid=0, data=None, authinfo=b"\xff\xff\xff\xff"):
    return struct.pack(">iq", kind, zxid) + wire.buffer(data) + authinfo


def hello(sid, address=b"127.0.0.1:19999", version=-65536, length=None):
    return struct.pack(">qqi", version, sid, len(address) if length is None else length) + address


CLIENT = {
    "negative length": struct.pack(">i", -1),
    "length beyond jute.maxbuffer": struct.pack(">i", 0x7FFFFFFF),
    "empty handshake": struct.pack(">i", 0),
    "handshake cut off in the password": wire.frame(struct.pack(">iqiqi", 0, 0, 1000, 0, 16) + b"short"),
    "handshake with a password of negative length": wire.frame(struct.pack(">iqiqi", 0, 0, 1000, 0, -7)),
    "handshake from the future": wire.connect_request(10000, last_zxid=1 << 60),
    "frame without a header": HELLO + struct.pack(">i", 0),
    "frame shorter than a header": HELLO + wire.frame(b"\0\0\0"),
    "oversized frame in session": HELLO + struct.pack(">i", 0x70000000),
    "four-letter word in session": HELLO + b"ruok",
    "unknown operation": HELLO + wire.request(1, 99),
    "createSession from a client": HELLO + wire.request(1, -10, b"\0\0\x10\0"),
    "second handshake": HELLO + HELLO,
}
# These are answered with an error; the session goes on.
ERRORS = {
    "create without a record": wire.request(7, wire.CREATE),
    "create with a string beyond the frame": wire.frame(CREATE + struct.pack(">i", 1 << 30) + b"/x"),
    "create with a negative string length": wire.frame(CREATE + struct.pack(">i", -9)),
    "create with a vector of two thousand million ACLs":
        wire.frame(CREATE + wire.string("/x") + wire.buffer(b"") + struct.pack(">i", 0x7FFFFFFF)),
    "multi without an end": wire.request(7, wire.MULTI, struct.pack(">ibi", 1, 0, -1)),
    "multi with an unknown part": wire.request(7, wire.MULTI, struct.pack(">ibi", 77, 0, -1) + b"\0" * 8),
    "read of a null path": wire.request(7, wire.GET_DATA, struct.pack(">ib", -1, 0)),
}
ELECTION = {
    "protocol of another world": hello(1, version=-1),
    "handshake with a negative address length": hello(1, length=-5),
    "handshake with an address of two thousand million bytes": hello(1, length=0x7FFFFFFF),
    "handshake with own id": None,
    "random bytes": bytes(range(64, 164)),
}
# Behind a handshake with a higher id, which takes the place of that server's connection.
NOTIFICATION = {
    "notification of negative length": hello(3) + struct.pack(">i", -1),
    "notification of two thousand million bytes": hello(3) + struct.pack(">i", 0x7FFFFFFF),
}
QUORUM = {
    "first packet is no introduction": packet(5),
    "negative data length": struct.pack(">iqi", 11, 0, -7) + b"\xff" * 4,
    "data of two thousand million bytes": struct.pack(">iqi", 11, 0, 0x7FFFFFFF),
    "two thousand million identities": packet(11, 0, INFO, struct.pack(">i", 0x7FFFFFFF)),
    "unknown type first": packet(99, 0, b"x"),
    "request before synchronisation": packet(11, 0, INFO) + packet(1, 0, b"\0" * 32),
    "random bytes": bytes(range(100, 200)),
}


def ends(address, data, seconds=8.0):
    """Sends `data`; True if the server ends the connection within the time."""
    with socket.create_connection(address, timeout=seconds) as conn:
        try:
            conn.sendall(data)
            while conn.recv(4096):
                pass
        except socket.timeout:
            return False
        except OSError:
            pass
    return True


def log_length(member):
    with open(member.logs[-1][1]) as file:
        return len(file.readlines())


class Watchers:
    """One client per member, and the leader's epoch: none of them may notice anything."""

    def __init__(self, ensemble):
        self.ensemble, self.leader = ensemble, ensemble.settled()
        self.clients = [wire.Client(member.address, 30000) for member in ensemble.members]
        self.clients[0].ensure("/watch")
        self.epoch = self.clients[0].sync() >> 32
        self.count = 0

    def undisturbed(self):
        for client in self.clients:
            self.count += 1
            assert client.sync() >> 32 == self.epoch, "another epoch has begun"
            client.set("/watch", b"%d" % self.count)
        assert all(member.running for member in self.ensemble.members), "a server has ended"


def closes(watchers, member, port, data):
    before = log_length(member)
    assert ends(("127.0.0.1", port), data), "the connection stays open"
    eventually("a line in the log", lambda: log_length(member) > before, 3, 0.02)
    watchers.undisturbed()


def answers(watchers, member, data):
    client = wire.Client(member.address, 10000)
    client.socket.sendall(data)
    reply = client.receive()
    assert reply.xid == 7 and reply.err == -5, f"answer {reply}"
    client.ping()
    client.close()
    watchers.undisturbed()


def fragments(watchers, member):
    """One byte at a time is as good as everything at once."""
    with socket.create_connection(member.address, timeout=10) as conn:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in HELLO + wire.request(1, wire.EXISTS, wire.string("/watch") + b"\0"):
            conn.sendall(bytes([byte]))
        received = b""
        while len(received) < 41 + 4 + 16 + 68:
            piece = conn.recv(4096)
            assert piece, f"closed after {len(received)} bytes"
            received += piece
    watchers.undisturbed()


def main(_options):
    suite = Suite("malformed input")
    with Ensemble(["zabd"] * 3) as ensemble:
        ensemble.start()
        watchers = Watchers(ensemble)
        leader = watchers.leader
        follower = next(member for member in ensemble.members if member is not leader)
        for member in (leader, follower):
            role = "leader" if member is leader else "follower"
            for name, data in CLIENT.items():
                suite.case(f"client port of the {role}: {name}", closes, watchers, member, member.client_port, data, limit=30)
            for name, data in ERRORS.items():
                suite.case(f"client port of the {role}: {name}", answers, watchers, member, data, limit=30)
            for name, data in ELECTION.items():
                if data is None:
                    data = hello(member.sid)
                suite.case(f"election port of the {role}: {name}", closes, watchers, member, member.election_port, data, limit=30)
        for name, data in NOTIFICATION.items():
            suite.case(f"election port of server 1: {name}", closes, watchers, ensemble.members[0],
                       ensemble.members[0].election_port, data, limit=30)
        for name, data in QUORUM.items():
            suite.case(f"quorum port of the leader: {name}", closes, watchers, leader, leader.quorum_port, data, limit=30)
        suite.case("byte by byte", fragments, watchers, follower)
    return suite.close()
