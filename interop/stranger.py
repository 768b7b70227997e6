"""What anybody who reaches the peer ports can say there: introductions, votes, packets of a learner."""

import socket
import struct

from . import wire

REQUEST, PROPOSAL, ACK, COMMIT, PING, REVALIDATE, SYNC = 1, 2, 3, 4, 5, 6, 7
NEWLEADER, FOLLOWERINFO, UPTODATE, SNAP, OBSERVERINFO, ACKEPOCH = 10, 11, 12, 15, 16, 18
SNAPSHOT_END = b"BenWasHere"
NO_IDENTITIES = b"\xff\xff\xff\xff"


def packet(kind, zxid=0, data=None, identities=NO_IDENTITIES):
    return struct.pack(">iq", kind, zxid) + wire.buffer(data) + identities


def introduction(sid):
    """LearnerInfo: the id, version 1.0 of the protocol, configuration 0."""
    return struct.pack(">qiq", sid, 0x10000, 0)


def handshake(sid, address=b"127.0.0.1:29999"):
    """The opening of an election connection."""
    return struct.pack(">qqi", -65536, sid, len(address)) + address


def vote(leader, zxid=0, election_round=1, epoch=0, state=0, config=b""):
    body = struct.pack(">iqqqqi", state, leader, zxid, election_round, epoch, 2) + wire.buffer(config)
    return struct.pack(">i", len(body)) + body


class Learner:
    """A connection to a quorum port that introduces itself as it likes."""

    def __init__(self, port, receive_buffer=None, wait=10.0):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(wait)
        self.socket.connect(("127.0.0.1", port))
        self.inbox = b""

    def send(self, *fields):
        self.socket.sendall(packet(*fields))

    def take(self, count):
        while len(self.inbox) < count:
            piece = self.socket.recv(1 << 16)
            if not piece:
                raise wire.Closed("closed by the server")
            self.inbox += piece
        taken, self.inbox = self.inbox[:count], self.inbox[count:]
        return taken

    def receive(self):
        """(type, zxid, data) of the next packet."""
        kind, zxid, length = struct.unpack(">iqi", self.take(16))
        data = self.take(length) if length >= 0 else None
        (identities,) = struct.unpack(">i", self.take(4))
        for _ in range(2 * max(identities, 0)):
            (length,) = struct.unpack(">i", self.take(4))
            self.take(max(length, 0))
        return kind, zxid, data

    def introduce(self, kind, sid, epoch=0):
        """Introduces itself and acknowledges the epoch as one who has nothing; the leader's epoch, or raises if refused."""
        self.send(kind, epoch << 32, introduction(sid))
        _, zxid, _ = self.receive()
        self.send(ACKEPOCH, -1, struct.pack(">i", -1))
        return zxid >> 32

    def synchronise(self):
        """Takes the snapshot and goes on until UPTODATE; the bytes of the snapshot."""
        content = b""
        kind, _, _ = self.receive()
        if kind == SNAP:
            while SNAPSHOT_END not in self.inbox:
                piece = self.socket.recv(1 << 16)
                if not piece:
                    raise wire.Closed("closed by the server")
                self.inbox += piece
            at = self.inbox.index(SNAPSHOT_END) + len(SNAPSHOT_END)
            content, self.inbox = self.inbox[:at], self.inbox[at:]
        while kind != UPTODATE:
            kind, zxid, _ = self.receive()
            if kind == NEWLEADER:
                self.send(ACK, zxid)
        return content

    def refused(self):
        """Whether the other side ends the connection, without a packet of any kind before."""
        try:
            return not self.socket.recv(1)
        except socket.timeout:
            return False
        except OSError:
            return True

    def close(self):
        self.socket.close()


def call_back(member, sid, listener, wait=2.0):
    """Says to be `sid` at the address of `listener`; the connection that the member opens to it, or None."""
    listener.settimeout(wait)
    address = f"127.0.0.1:{listener.getsockname()[1]}".encode()
    with socket.create_connection(("127.0.0.1", member.election_port), wait) as conn:
        conn.sendall(handshake(sid, address))
        try:
            return listener.accept()[0]
        except OSError:
            return None
