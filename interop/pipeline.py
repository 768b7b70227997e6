"""Many connections with several writes each in flight, in one thread; every answer is checked.

A connection creates nodes and sets the data of one node on the condition of its version, in turn. A request that is carried out
twice answers with NodeExists or BadVersion, and so does the next one after a set that was lost.
"""

import selectors
import struct
import time

from . import wire

IN_FLIGHT = 4
TIMEOUT_MS = 30_000


class Pipe:
    """One connection, always with `IN_FLIGHT` writes under way."""

    def __init__(self, member, root, number):
        self.member, self.number = member, number
        self.node = f"{root}/{number}"
        self.client = wire.Client(member.address, TIMEOUT_MS)
        self.client.create(self.node)
        self.client.socket.setblocking(False)
        self.buffer = bytearray()
        self.first = self.next = self.client.xid + 1
        self.due = self.next
        self.sets = 0
        self.created, self.updated = 0, 0
        self.errors = []
        self.ended = None

    def fill(self):
        """Sends as many requests as may be under way."""
        requests = b""
        while self.next - self.due < IN_FLIGHT:
            if self.next % 2:
                body = wire.create_body(f"{self.node}/{self.next}", b"")
                requests += wire.request(self.next, wire.CREATE, body)
            else:
                requests += wire.request(self.next, wire.SET_DATA, wire.set_data_body(self.node, b"x", self.sets))
                self.sets += 1
            self.next += 1
        if requests:
            # So little always finds room in the socket.
            self.client.socket.sendall(requests)

    def read(self, going_on):
        """Reads answers, checks them and asks for more. How many there were."""
        try:
            data = self.client.socket.recv(65536)
        except BlockingIOError:
            return 0
        except OSError as error:
            data, self.ended = b"", str(error)
        if not data:
            self.ended = self.ended or "closed by the server"
            return 0
        self.buffer += data
        count = 0
        while len(self.buffer) >= 4:
            (length,) = struct.unpack_from(">i", self.buffer)
            if len(self.buffer) < 4 + length:
                break
            xid, _, code = struct.unpack_from(">iqi", self.buffer, 4)
            del self.buffer[: 4 + length]
            if (xid, code) != (self.due, 0):
                self.errors.append(f"answer {xid} with {code}, {self.due} was due")
            self.created += xid % 2
            self.updated += 1 - xid % 2
            self.due += 1
            count += 1
        if going_on:
            self.fill()
        return count


class Pipeline:
    """Connections to several members. `gap_ms` is the longest time in which nobody was answered, since `begin_gap`."""

    def __init__(self, members, root, count):
        self.pipes = [Pipe(members[at % len(members)], root, at) for at in range(count)]
        self.selector = selectors.DefaultSelector()
        for pipe in self.pipes:
            self.selector.register(pipe.client.socket, selectors.EVENT_READ, pipe)
            pipe.fill()
        self.begin_gap()

    def begin_gap(self):
        self.gap, self.last = 0.0, time.monotonic()

    @property
    def gap_ms(self):
        return self.gap * 1000

    def run(self, seconds, going_on=True):
        """Goes on for so long; without `going_on`, only until all is answered."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not going_on and all(pipe.ended or pipe.due == pipe.next for pipe in self.pipes):
                return
            for key, _ in self.selector.select(0.05):
                count = key.data.read(going_on)
                now = time.monotonic()
                if count:
                    self.gap, self.last = max(self.gap, now - self.last), now
                if key.data.ended:
                    self.selector.unregister(key.fileobj)

    def close(self):
        self.selector.close()
        for pipe in self.pipes:
            pipe.client.drop()

    def check(self):
        """What went wrong, in words: nothing, if all were answered, once."""
        wrong = []
        ended = [pipe for pipe in self.pipes if pipe.ended]
        if ended:
            wrong.append(f"{len(ended)} connections closed ({ended[0].ended})")
        unanswered = sum(pipe.next - pipe.due for pipe in self.pipes)
        if unanswered:
            wrong.append(f"{unanswered} requests without an answer")
        errors = [error for pipe in self.pipes for error in pipe.errors]
        if errors:
            wrong.append(f"{len(errors)} wrong answers: {errors[0]}")
        return wrong

    def compare(self, member):
        """Whether a member has exactly what was answered."""
        client = wire.Client(member.address, TIMEOUT_MS)
        wrong = []
        for pipe in self.pipes:
            client.call(wire.SYNC, wire.string(pipe.node))
            reply = client.call(wire.EXISTS, wire.string(pipe.node) + b"\0")
            stat = wire.read_stat(reply.body, 0)
            if (stat.num_children, stat.version) != (pipe.created, pipe.updated):
                wrong.append(f"{pipe.node} has {stat.num_children} children and version {stat.version}, "
                             f"not {pipe.created} and {pipe.updated}")
        client.drop()
        return wrong[:3]
