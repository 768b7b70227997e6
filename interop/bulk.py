"""Much in little time: requests sent far ahead on one connection, built in blocks, answers only counted and checked."""

import struct

from . import wire

HEADER = struct.Struct(">iiqi")  # length, xid, zxid, error
MULTI_FAILED = b"\xff\xff\xff\xff\0"  # type and done flag of a part that is an error


class Refused(AssertionError):
    """The server answered one of the requests with an error."""


class Pipe:
    """A client whose requests are sent ahead, up to `ahead` of them."""

    def __init__(self, address, timeout_ms=120000, ahead=4000, wait=120.0):
        self.client = wire.Client(address, timeout_ms, wait=wait)
        self.ahead, self.open = ahead, 0
        self.inbox = bytearray()

    def send(self, blocks):
        """Sends each (bytes, number of requests in them), and returns when all are answered."""
        for block, count in blocks:
            try:
                self.client.socket.sendall(block)
            except OSError as error:
                raise wire.Closed(str(error)) from None
            self.open += count
            while self.open > self.ahead:
                self.take()
        while self.open:
            self.take()

    def take(self):
        """Reads what is there, at least something, and counts the answers in it."""
        try:
            piece = self.client.socket.recv(1 << 20)
        except OSError as error:
            raise wire.Closed(str(error) or "no answer in time") from None
        if not piece:
            raise wire.Closed("closed by the server")
        self.inbox += piece
        inbox, at, end = self.inbox, 0, len(self.inbox)
        while end - at >= 4:
            (length,) = struct.unpack_from(">i", inbox, at)
            if end - at < 4 + length:
                break
            _, xid, zxid, err = HEADER.unpack_from(inbox, at)
            if xid >= 0:
                if err or inbox[at + 20 : at + 25] == MULTI_FAILED:
                    raise Refused(f"request {xid}: error {err or struct.unpack_from('>i', inbox, at + 25)[0]}")
                self.open -= 1
            self.client.last_zxid = max(self.client.last_zxid, zxid)
            at += 4 + length
        del inbox[:at]

    def close(self):
        self.client.close()


def blocks(frames, each=500):
    """Groups frames into pieces for the socket."""
    group = []
    for one in frames:
        group.append(one)
        if len(group) == each:
            yield b"".join(group), len(group)
            group = []
    if group:
        yield b"".join(group), len(group)


def creates(prefix, count, data=b"", flags=wire.PERSISTENT, first=0):
    """One request for each node: `prefix` and a number of eight digits."""
    tail = wire.buffer(data) + wire.ANYONE + struct.pack(">i", flags)
    raw = prefix.encode()
    length = len(raw) + 8
    lead = struct.pack(">i", 12 + length + len(tail))
    path = struct.pack(">ii", wire.CREATE, length) + raw
    for number in range(first, first + count):
        yield b"%b%b%b%08d%b" % (lead, struct.pack(">i", number & 0x7FFFFFFF), path, number, tail)


def sets(prefix, nodes, count, data):
    """`count` writes of `data` to `nodes` nodes in turn."""
    raw = prefix.encode()
    tail = wire.buffer(data) + struct.pack(">i", -1)
    length = len(raw) + 8
    lead = struct.pack(">i", 12 + length + len(tail))
    path = struct.pack(">ii", wire.SET_DATA, length) + raw
    for number in range(count):
        yield b"%b%b%b%08d%b" % (lead, struct.pack(">i", number & 0x7FFFFFFF), path, number % nodes, tail)


def multis(operations, each):
    """Groups (op, body) into multis of `each`."""
    group, number = [], 0
    for operation in operations:
        group.append(operation)
        if len(group) == each:
            number += 1
            yield wire.request(number, wire.MULTI, wire.multi_body(group))
            group = []
    if group:
        yield wire.request(number + 1, wire.MULTI, wire.multi_body(group))


def create_many(pipe, paths, data=b"", flags=wire.PERSISTENT, each=1000):
    """Creates all these nodes by multis."""
    tail = wire.buffer(data) + wire.ANYONE + struct.pack(">i", flags)
    pipe.send((one, 1) for one in multis(((wire.CREATE, wire.string(path) + tail) for path in paths), each))
