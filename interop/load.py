"""Writes through every member, and a record of what each write was told.

The load runs in a process of its own, so that its threads do not disturb what the driver measures. Each writer belongs
to one member, sends a few requests ahead, and never repeats one: a request without an answer is unknown, it may have
been applied once or not at all.
"""

import multiprocessing
import queue
import threading
import time
from collections import namedtuple

from . import wire

ROOT = "/load"
MORTAL_MS = 4000  # time-out of sessions that will be left to die
# outcome: "ok", "unknown" (no answer), or an error code. `path` is the created path if the server chose it.
Operation = namedtuple("Operation", "writer number kind path data outcome zxid sent answered")
# ended: "alive", "closed" by request, "dropped" (the client died), "expired" or "lost" (refused when coming back).
Keeper = namedtuple("Keeper", "session ended paths moves")


class Writer(threading.Thread):
    """One client, of one member or of whichever answers. Kinds of writes alternate; see `next_operation`."""

    def __init__(self, number, addresses, stopping, depth, pause):
        super().__init__(daemon=True)
        self.number, self.addresses, self.stopping = number, list(addresses), stopping
        self.depth, self.pause = depth, pause
        self.home = f"{ROOT}/w{number}"
        self.done, self.count, self.client = [], 0, None
        self.gaps = []  # (from, until): no acknowledgement in between
        self.last_ack = None

    def next_operation(self):
        self.count += 1
        number, data = self.count, f"{self.number}:{self.count}".encode()
        turn = number % 8
        if turn in (1, 4, 6):
            path = f"{self.home}/n{number:07d}"
            return number, "create", path, data, wire.CREATE, wire.create_body(path, data)
        if turn == 2:
            path = f"{ROOT}/seq/s-"
            return number, "sequence", path, data, wire.CREATE, wire.create_body(path, data, wire.SEQUENTIAL)
        if turn in (3, 7):
            path = f"{self.home}/count"
            return number, "set", path, data, wire.SET_DATA, wire.set_data_body(path, data)
        if turn == 5 and number > 40:
            path = f"{self.home}/n{number - 36:07d}"
            return number, "delete", path, b"", wire.DELETE, wire.string(path) + b"\xff\xff\xff\xff"
        path = f"{self.home}/m{number:07d}"
        body = wire.multi_body([
            (wire.CREATE, wire.create_body(path, data)),
            (wire.SET_DATA, wire.set_data_body(f"{self.home}/multi", data)),
        ])
        return number, "multi", path, data, wire.MULTI, body

    def connect(self, previous):
        try:
            return wire.Client(self.addresses[0], 20000, previous, wait=8.0)
        except wire.Expired:
            return None
        except wire.Closed:
            time.sleep(0.003)
            self.addresses.append(self.addresses.pop(0))
            return previous

    def run(self):
        previous = None
        while not self.stopping.is_set():
            client = self.connect(previous)
            if client is None or client is previous:
                previous = client
                continue
            self.client = client
            self.converse(client)
            client.drop()
            previous = client
            self.addresses.append(self.addresses.pop(0))
        if self.client is not None:
            try:
                wire.Client(self.addresses[0], 20000, self.client, wait=2.0).close()
            except wire.Closed:
                pass

    def converse(self, client):
        """Writes until the connection ends or the load does; then everything sent is accounted for."""
        pending = []
        try:
            while pending or not self.stopping.is_set():
                while len(pending) < self.depth and not self.stopping.is_set():
                    number, kind, path, data, op, body = self.next_operation()
                    sent = time.monotonic()
                    pending.append((number, kind, path, data, sent))
                    client.send(op, body, xid=number)
                    if client.ready():
                        break
                self.account(client.receive(), pending)
                if self.pause:
                    time.sleep(self.pause)
        except wire.Closed:
            pass
        for number, kind, path, data, sent in pending:
            self.done.append(Operation(self.number, number, kind, path, data, "unknown", 0, sent, 0.0))

    def account(self, reply, pending):
        number, kind, path, data, sent = pending.pop(0)
        now = time.monotonic()
        if reply.xid != number:
            raise AssertionError(f"writer {self.number}: answer {reply.xid} to request {number}")
        if kind == "sequence" and not reply.err:
            path = wire.read_string(reply.body)[0]
        outcome = reply.err or "ok"
        if kind == "multi" and reply.err == 0 and b"\xff\xff\xff\xff\x00" in reply.body[:5]:
            outcome = int.from_bytes(reply.body[9:13], "big", signed=True)
        self.done.append(Operation(self.number, number, kind, path, data, outcome, reply.zxid, sent, now))
        if outcome == "ok":
            if self.last_ack is not None and now - self.last_ack > 0.005:
                self.gaps.append((self.last_ack, now))
            self.last_ack = now


class Sessions(threading.Thread):
    """Sessions with ephemeral nodes: kept alive, moved from member to member, closed, or left to die."""

    def __init__(self, addresses, stopping):
        super().__init__(daemon=True)
        self.addresses, self.stopping = addresses, stopping
        self.keepers, self.results = [], []

    def open(self, at, timeout_ms):
        client = wire.Client(self.addresses[at % len(self.addresses)], timeout_ms, wait=4.0)
        paths = [client.create(f"{ROOT}/ephemeral/e-", b"%d" % client.session, wire.EPHEMERAL_SEQUENTIAL) for _ in range(2)]
        return {"client": client, "at": at, "paths": paths, "moves": 0, "mortal": timeout_ms == MORTAL_MS}

    def run(self):
        at = 0
        while not self.stopping.wait(0.3):
            at += 1
            if len(self.keepers) < 2 * len(self.addresses):
                try:
                    # Those that will be left to die have the short time-out.
                    self.keepers.append(self.open(at, MORTAL_MS if at % 3 == 0 else 120000))
                except (wire.Closed, wire.ZkError):
                    pass
                continue
            keeper = self.keepers[at % len(self.keepers)]
            if keeper["mortal"]:
                # The last sign of life was up to some seconds ago: it may have expired already, both are right.
                keeper["client"].drop()
                self.end(keeper, "dropped")
            elif at % 7 == 0:
                self.close(keeper)
            else:
                self.move(keeper)
        for keeper in list(self.keepers):
            if keeper["mortal"]:
                keeper["client"].drop()
                self.end(keeper, "dropped")
            else:
                self.end(keeper, "alive")

    def end(self, keeper, how):
        self.keepers.remove(keeper)
        self.results.append(Keeper(keeper["client"].session, how, keeper["paths"], keeper["moves"]))

    def close(self, keeper):
        try:
            keeper["client"].call(wire.CLOSE)
            self.end(keeper, "closed")
        except (wire.Closed, wire.ZkError):
            self.end(keeper, "unknown")
        keeper["client"].drop()

    def move(self, keeper):
        """Takes the session to the next member, without a word to the one it was on."""
        for _ in self.addresses:
            keeper["at"] += 1
            try:
                client = wire.Client(
                    self.addresses[keeper["at"] % len(self.addresses)], keeper["client"].timeout_ms, keeper["client"], 3.0
                )
            except wire.Expired:
                keeper["client"].drop()
                self.end(keeper, "lost")
                return
            except wire.Closed:
                continue
            keeper["client"].drop()
            keeper["client"], keeper["moves"] = client, keeper["moves"] + 1
            return


def prepare(address):
    client = wire.Client(address)
    for path in (ROOT, f"{ROOT}/seq", f"{ROOT}/ephemeral"):
        client.ensure(path)
    return client


def work(addresses, depth, pause, sessions, roam, channel, stopping):
    """The load process."""
    client = prepare(addresses[0])
    writers = [
        Writer(number, addresses[number:] + addresses[:number] if roam else [address], stopping, depth, pause)
        for number, address in enumerate(addresses)
    ]
    for writer in writers:
        for path in (writer.home, f"{writer.home}/count", f"{writer.home}/multi"):
            client.ensure(path)
    client.close()
    threads = writers + ([Sessions(addresses, stopping)] if sessions else [])
    for thread in threads:
        thread.start()
    channel.put("running")
    stopping.wait()
    for thread in threads:
        thread.join(20)
    stuck = [thread.name for thread in threads if thread.is_alive()]
    channel.put((
        [operation for writer in writers for operation in list(writer.done)],
        list(threads[-1].results) if sessions else [],
        [list(writer.gaps) for writer in writers],
        stuck,
    ))


class Load:
    """`with Load(ensemble) as load: ...`, then `load.operations`, `load.keepers` and `load.gaps`.

    One writer per member, which stays with it; with `roam` it goes to the next one when its server is gone.
    """

    def __init__(self, ensemble, depth=4, pause=0.004, sessions=True, roam=False):
        addresses = [member.address for member in ensemble.members]
        # Not a fork: that would keep the proxies' sockets open when they are closed here.
        fresh = multiprocessing.get_context("spawn")
        self.channel, self.stopping = fresh.Queue(), fresh.Event()
        self.process = fresh.Process(
            target=work, args=(addresses, depth, pause, sessions, roam, self.channel, self.stopping), daemon=True
        )
        self.operations, self.keepers, self.gaps, self.stuck = [], [], [], []

    def __enter__(self):
        self.process.start()
        try:
            self.channel.get(timeout=30)
        except queue.Empty:
            self.process.kill()
            raise AssertionError("the load could not start") from None
        return self

    def __exit__(self, kind, error, trace):
        self.stopping.set()
        try:
            self.operations, self.keepers, self.gaps, self.stuck = self.channel.get(timeout=40)
        except queue.Empty:
            self.process.kill()
            if kind is None:
                raise AssertionError("the load did not end") from None
        self.process.join(5)

    @property
    def acknowledged(self):
        return sum(operation.outcome == "ok" for operation in self.operations)

    @property
    def unknown(self):
        return sum(operation.outcome == "unknown" for operation in self.operations)

    def longest_pause(self):
        """Longest time in seconds in which one writer got no acknowledgement."""
        return max((until - since for gaps in self.gaps for since, until in gaps), default=0.0)
