"""Requests that cost much work or memory, and what one client can do to another's session."""

import struct
import time

from . import bulk, process, wire
from .lab import CLIENT_GAP, Lab
from .pulse import Pulse

MULTI_READ, GET_EPHEMERALS, ALL_CHILDREN_NUMBER, ADD_WATCH, AUTH = 22, 103, 104, 106, 100
OPEN_BITS = 31


def acl(entries):
    return struct.pack(">i", len(entries)) + b"".join(
        struct.pack(">i", OPEN_BITS) + wire.string(scheme) + wire.string(name) for scheme, name in entries)


def create_with(client, path, entries, data=b"", flags=0):
    return client.call(wire.CREATE, wire.string(path) + wire.buffer(data) + acl(entries) + struct.pack(">i", flags))


def identify(client, text):
    client.call(AUTH, struct.pack(">i", 0) + wire.string("digest") + wire.buffer(text), xid=-4)


def multi_read(path, count):
    part = struct.pack(">ibi", wire.GET_DATA, 0, -1) + wire.string(path) + b"\0"
    return part * count + struct.pack(">ibi", -1, 1, -1)


def attacked(lab, strike, seconds=15.0, memory_mb=None):
    """Runs `strike()` against the leader while others write through the followers; the times that these had to wait."""
    before = process.resident_mb(lab.leader)
    process.forget_peak(lab.leader)
    with Pulse(lab.followers, writers=2) as pulse:
        time.sleep(0.3)
        began = time.monotonic()
        strike(began + seconds)
        took = time.monotonic() - began
        time.sleep(0.5)
    lab.figure(f"took {took:.1f} s")
    lab.gap(pulse, CLIENT_GAP, began, what="others' longest gap")
    if memory_mb is not None:
        lab.memory(lab.leader, before, memory_mb)
    lab.all_run()
    lab.reigns_on()
    lab.kept(pulse, lab.followers)
    return lab.outcome()


def answers(client, count=1, end=None):
    """Reads so many answers, up to the time `end`, or until the server ends the connection."""
    try:
        for _ in range(count):
            left = end - time.monotonic() if end else 10.0
            if left <= 0 or not client.ready(left):
                return
            client.receive()
    except (wire.Closed, OSError):
        pass


def large_answer(options, parts):
    """A multiRead of so many parts of a megabyte each."""
    with Lab(options) as lab:
        client = wire.Client(lab.leader.address, 60000, wait=60.0)
        client.create("/big", b"x" * 1_040_000)

        def strike(end):
            client.send(MULTI_READ, multi_read("/big", parts))
            answers(client, 1, end)
            client.drop()
        return attacked(lab, strike, memory_mb=200)


def long_acl():
    return [("ip", f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}") for n in range(38999)] + [("ip", "127.0.0.1")]


def acl_checks(options, how, parts):
    """Checks or reads, in one request, of a node with 39,000 entries in its ACL."""
    with Lab(options) as lab:
        client = wire.Client(lab.leader.address, 60000, wait=60.0)
        try:
            create_with(client, "/a", long_acl())
        except wire.ZkError as refused:
            lab.figure(f"the list is refused: error {refused.code}")
            client.ensure("/a")

        def strike(end):
            if how == "check":
                client.send(wire.MULTI, wire.multi_body([(wire.CHECK, wire.string("/a") + b"\xff" * 4)] * parts))
            else:
                client.send(MULTI_READ, multi_read("/a", parts))
            answers(client, 1, end)
            client.drop()
        return attacked(lab, strike)


def identities(options, count):
    """A node with that many `digest` entries, read by a client with as many identities."""
    with Lab(options) as lab:
        client = wire.Client(lab.leader.address, 60000, wait=60.0)
        names = [("digest", f"u{n}:{'A' * 27}=") for n in range(count)]
        try:
            create_with(client, "/d", names + [("world", "anyone")])
        except wire.ZkError as refused:
            lab.figure(f"the list is refused: error {refused.code}")
            client.ensure("/d")

        def strike(end):
            body = struct.pack(">i", 0) + wire.string("digest")
            try:
                for at in range(0, count, 1000):
                    client.socket.sendall(b"".join(wire.request(-4, AUTH, body + wire.buffer(b"u%d:x" % n))
                                                   for n in range(at, at + 1000)))
                    answers(client, 1000, end)
                for number in range(20):
                    client.send(wire.GET_DATA, wire.string("/d") + b"\0")
                answers(client, 20, end)
            except wire.Closed:
                pass
            client.drop()
        return attacked(lab, strike)


def subtree_counts(options, nodes, requests):
    """getAllChildrenNumber of a large tree, pipelined."""
    with Lab(options, extra=["snapCount=100000000"]) as lab:
        pipe = bulk.Pipe(lab.leader.address, ahead=4)
        pipe.client.ensure("/many")
        bulk.create_many(pipe, (f"/many/n{n:07d}" for n in range(nodes)))
        client = wire.Client(lab.leader.address, 60000, wait=60.0)

        def strike(end):
            body = wire.string("/")
            client.socket.sendall(b"".join(wire.request(n + 1, ALL_CHILDREN_NUMBER, body) for n in range(requests)))
            answers(client, requests, end)
            client.drop()
        return attacked(lab, strike, seconds=6.0)


def many_ephemerals(options, count):
    """The end of a session with that many ephemeral nodes."""
    with Lab(options, extra=["snapCount=100000000"], heap_mb=2048) as lab:
        pipe = bulk.Pipe(lab.leader.address, ahead=4)
        pipe.client.ensure("/mine")
        bulk.create_many(pipe, (f"/mine/e{n:07d}" for n in range(count)), flags=wire.EPHEMERAL)

        def strike(end):
            pipe.client.send(wire.CLOSE)
            answers(pipe.client, 1, end)
            pipe.client.drop()
        return attacked(lab, strike)


def listings(options, children, clients):
    """Clients that list a node with very many children, three times each: no attack, only many at once."""
    with Lab(options, extra=["snapCount=100000000"], heap_mb=2048, properties=["jute.maxbuffer=67108864"]) as lab:
        pipe = bulk.Pipe(lab.leader.address, ahead=4)
        pipe.client.ensure("/many")
        bulk.create_many(pipe, (f"/many/n{n:07d}" for n in range(children)))

        def strike(end):
            links = [wire.Client(lab.leader.address, 60000, wait=60.0) for _ in range(clients)]
            for link in links:
                for _ in range(3):
                    link.send(wire.GET_CHILDREN, wire.string("/many") + b"\0")
            for link in links:
                left = 3
                while left and time.monotonic() < end:
                    link.receive()
                    left -= 1
                link.drop()
        return attacked(lab, strike, seconds=30.0)


def long_watches(options, count):
    """Watches on invented paths of a megabyte, on one connection."""
    with Lab(options) as lab:
        client = wire.Client(lab.leader.address, 60000, wait=30.0)

        def strike(end):
            try:
                for number in range(count):
                    client.send(wire.EXISTS, wire.string(f"/{number:08d}{'v' * 1_000_000}") + b"\1")
                    answers(client, 1, end)
                    if time.monotonic() > end:
                        break
            except wire.Closed:
                pass
        return attacked(lab, strike, seconds=20, memory_mb=256)


def deaf_watchers(options, watchers, nodes):
    """Recursive watches of clients that never read, and nodes with names of a megabyte."""
    with Lab(options) as lab:
        writer = wire.Client(lab.followers[0].address, 60000, wait=60.0)
        writer.ensure("/w")
        links = []
        for _ in range(watchers):
            link = wire.Client(lab.leader.address, 60000, wait=10.0)
            link.send(ADD_WATCH, wire.string("/w") + struct.pack(">i", 1))
            links.append(link)
        time.sleep(0.5)

        def strike(end):
            try:
                for number in range(nodes):
                    writer.create(f"/w/{number:04d}{'n' * 1_000_000}")
                    if time.monotonic() > end:
                        break
            except wire.Closed:
                pass
        text = attacked(lab, strike, seconds=30, memory_mb=512)
        for link in links:
            link.drop()
        return text


def unread(options, clients):
    """Clients that do not read their answers and go on asking."""
    with Lab(options) as lab:
        first = wire.Client(lab.leader.address, 60000, wait=30.0)
        first.create("/big", b"x" * 1_000_000)
        ask = wire.request(1, wire.GET_DATA, wire.string("/big") + b"\0")
        links = [wire.Client(lab.leader.address, 60000, wait=10.0) for _ in range(clients)]

        def strike(end):
            block, busy = ask * 20000, True
            for link in links:
                link.socket.setblocking(False)
            sent = [0] * clients
            while busy and time.monotonic() < end:
                busy = False
                for at, link in enumerate(links):
                    if sent[at] < 6_000_000:
                        try:
                            begin = sent[at] % len(ask)
                            sent[at] += link.socket.send(block[begin : begin + 262144])
                            busy = True
                        except BlockingIOError:
                            pass
                        except OSError:
                            sent[at] = 1 << 40
            time.sleep(1)
        # As documented: one frame unread, a mebibyte of answers, the answer that passes this bound, and the
        # slack of growing buffers.
        text = attacked(lab, strike, seconds=8, memory_mb=4.5 * clients)
        for link in links:
            link.drop()
        return text


def unread_listings(options, children, clients):
    """Clients that ask for a large list many times and never read."""
    with Lab(options, extra=["snapCount=100000000"], heap_mb=3072, properties=["jute.maxbuffer=67108864"]) as lab:
        pipe = bulk.Pipe(lab.leader.address, ahead=4)
        pipe.client.ensure("/many")
        bulk.create_many(pipe, (f"/many/node-{n:09d}" for n in range(children)))
        links = []

        def strike(_end):
            for _ in range(clients):
                link = wire.Client(lab.leader.address, 60000, wait=10.0)
                try:
                    for _ in range(50):
                        link.send(wire.GET_CHILDREN, wire.string("/many") + b"\0")
                except wire.Closed:
                    pass
                links.append(link)
            time.sleep(3)
        # One list for each of some clients, and never more than the budget of the server.
        text = attacked(lab, strike, memory_mb=768)
        for link in links:
            link.drop()
        return text


def password_of(session):
    """The password that ZooKeeper derives from the id of a session."""
    mask = (1 << 48) - 1
    seed = ((session & (1 << 64) - 1) ^ 0xB3415C00 ^ 0x5DEECE66D) & mask
    words = []
    for _ in range(4):
        seed = (seed * 0x5DEECE66D + 0xB) & mask
        words.append(struct.pack("<I", seed >> 16 & 0xFFFFFFFF))
    return b"".join(words)


class Claimed:
    """A session as somebody else names it, in the place of a previous connection."""

    def __init__(self, session):
        self.session, self.password, self.last_zxid, self.xid = session, password_of(session), 0, 0


def neighbour(options):
    """The sessions before and behind one's own are tried with the passwords that their ids give."""
    with Lab(options) as lab:
        victim = wire.Client(lab.leader.address, 60000)
        identify(victim, b"alice:pw")
        create_with(victim, "/lock", [("auth", "")], b"mine", wire.EPHEMERAL)
        own = wire.Client(lab.leader.address, 60000)
        taken = 0
        for distance in (*range(-50, 0), *range(1, 20)):
            try:
                thief = wire.Client(lab.leader.address, 60000, Claimed(own.session + distance))
                taken += thief.session == own.session + distance
                thief.close()
            except wire.Closed:
                pass
        lab.figure(f"{taken} sessions taken over", not taken)
        again = wire.Client(lab.leader.address, 60000)
        identify(again, b"alice:pw")
        there = again.exists("/lock") is not None
        lab.figure("the victim's node is there" if there else "the victim's node is gone", there)
        return lab.outcome()
