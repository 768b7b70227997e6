"""Service as clients see it: small writes one after the other, and the longest time without an answer.

The writers run in a process of their own, so that what the driver does meanwhile does not count as the server's silence.
Each write creates a node of its own: what was acknowledged can be looked for afterwards.
"""

import itertools
import multiprocessing
import queue
import threading
import time
from collections import namedtuple

from . import wire

NUMBERS = itertools.count(1)
# Times are those of time.monotonic(), which is one clock for all processes.
Ack = namedtuple("Ack", "writer path sent answered")


class Writer(threading.Thread):
    """One session, on one of `addresses`; with several it goes to the next one when its server is gone."""

    def __init__(self, number, root, addresses, pause, stopping, wait):
        super().__init__(daemon=True)
        self.root = root
        self.number, self.addresses, self.pause, self.stopping, self.wait = number, list(addresses), pause, stopping, wait
        self.acks, self.reconnects, self.lost, self.session = [], 0, 0, None

    def connect(self):
        try:
            self.session = wire.Client(self.addresses[0], 120000, self.session, wait=self.wait)
            return True
        except wire.Expired:
            self.lost += 1
            self.session = None
        except wire.Closed:
            pass
        self.addresses.append(self.addresses.pop(0))
        time.sleep(0.005)
        return False

    def run(self):
        count = 0
        while not self.stopping.is_set():
            if not self.connect():
                continue
            try:
                while not self.stopping.is_set():
                    count += 1
                    path, sent = f"{self.root}/w{self.number}-{count:08d}", time.monotonic()
                    self.session.create(path)
                    self.acks.append(Ack(self.number, path, sent, time.monotonic()))
                    time.sleep(self.pause)
            except wire.Closed:
                self.reconnects += 1
                self.session.drop()
                self.addresses.append(self.addresses.pop(0))
            except wire.ZkError:
                time.sleep(0.005)


def work(root, homes, pause, wait, channel, stopping):
    writers = [Writer(number, root, addresses, pause, stopping, wait) for number, addresses in enumerate(homes)]
    for writer in writers:
        writer.start()
    channel.put("running")
    stopping.wait()
    for writer in writers:
        writer.join(wait + 1)
    channel.put(([ack for writer in writers for ack in list(writer.acks)], sum(writer.reconnects for writer in writers),
                 sum(writer.lost for writer in writers)))


class Pulse:
    """`with Pulse(members) as pulse: ...`, then `pulse.gap()` and the like.

    There are `writers` of them. Each begins at another member and goes to the next when it has to, unless `roam` is
    False. `pause` is between an answer and the next write, in seconds, and what a figure may be late by.
    """

    def __init__(self, members, writers=3, roam=True, pause=0.002, wait=20.0):
        self.members = list(members)
        addresses = [member.address for member in self.members]
        turned = [addresses[at % len(addresses):] + addresses[: at % len(addresses)] for at in range(writers)]
        homes = turned if roam else [home[:1] for home in turned]
        self.root = f"/pulse-{next(NUMBERS)}"
        fresh = multiprocessing.get_context("spawn")
        self.channel, self.stopping = fresh.Queue(), fresh.Event()
        self.process = fresh.Process(target=work, args=(self.root, homes, pause, wait, self.channel, self.stopping), daemon=True)
        self.acks, self.reconnects, self.lost = [], 0, 0
        self.wait = wait
        self.begin = self.end = None

    def __enter__(self):
        client = wire.Client(self.members[0].address)
        client.ensure(self.root)
        client.close()
        self.process.start()
        try:
            self.channel.get(timeout=30)
        except queue.Empty:
            self.process.kill()
            raise AssertionError("the writers could not start") from None
        self.begin = time.monotonic()
        return self

    def __exit__(self, kind, error, trace):
        self.end = time.monotonic()
        self.stopping.set()
        try:
            self.acks, self.reconnects, self.lost = self.channel.get(timeout=self.wait + 30)
        except queue.Empty:
            self.process.kill()
            if kind is None:
                raise AssertionError("the writers did not end") from None
        self.process.join(5)

    def gap(self, since=None, until=None):
        """The longest time in seconds in which nobody's write was acknowledged."""
        since, until = since or self.begin, until or self.end
        times = [since, *sorted(ack.answered for ack in self.acks if since < ack.answered < until), until]
        return max(later - earlier for earlier, later in zip(times, times[1:]))

    def slowest(self, since=None, until=None):
        """The longest that one write had to wait, in seconds, of those that were answered."""
        since, until = since or self.begin, until or self.end
        return max((ack.answered - ack.sent for ack in self.acks if since < ack.answered and ack.sent < until), default=0.0)

    def rate(self, since=None, until=None):
        since, until = since or self.begin, until or self.end
        return sum(since < ack.answered < until for ack in self.acks) / (until - since)

    def missing(self, member):
        """The acknowledged writes that this member does not have."""
        client = wire.Client(member.address, 30000, wait=60.0)
        client.sync()
        names = set(client.children(self.root))
        client.close()
        return [ack.path for ack in self.acks if ack.path[len(self.root) + 1:] not in names]

    def kept(self, members):
        """Raises if an acknowledged write or a session of the writers is lost."""
        assert not self.lost, f"{self.lost} sessions of the writers were lost"
        assert self.acks, "no write was acknowledged at all"
        for member in members:
            missing = self.missing(member)
            assert not missing, f"{member} lacks {len(missing)} of {len(self.acks)} acknowledged writes: {missing[:3]}"
