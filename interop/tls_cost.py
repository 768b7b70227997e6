"""What TLS between members costs: writes through it, single ones and many ahead, and fail-overs, beside the same without it.

Ensembles with and without run at the same time, and are measured in turn in one run, so that other work of the machine meets both.
"""

import selectors
import statistics
import struct
import time
from contextlib import ExitStack

from . import probe, servers, tables, wire
from .ensemble import Ensemble
from .tls import Files

AHEAD = 64
DATA = b"x" * 100
WAYS = ("plain", "TLS")


class Writer:
    """A connection with `AHEAD` writes of 100 bytes under way."""

    def __init__(self, member, number):
        self.client = wire.Client(member.address, 30_000)
        path = f"/cost-{number}"
        self.client.ensure(path)
        self.body = wire.set_data_body(path, DATA, -1)
        self.client.socket.setblocking(True)
        self.xid, self.answered, self.buffer = self.client.xid, 0, bytearray()
        self.send(AHEAD)

    def send(self, count):
        requests = [wire.request(self.xid + 1 + n, wire.SET_DATA, self.body) for n in range(count)]
        self.xid += count
        self.client.socket.sendall(b"".join(requests))

    def read(self):
        """Takes what has come, and asks for as much again."""
        data = self.client.socket.recv(65536)
        assert data, "closed by the server"
        self.buffer += data
        at, count = 0, 0
        while len(self.buffer) - at >= 4:
            (length,) = struct.unpack_from(">i", self.buffer, at)
            if len(self.buffer) - at < 4 + length:
                break
            (code,) = struct.unpack_from(">i", self.buffer, at + 16)
            assert code == 0, f"a write is answered with {code}"
            at, count = at + 4 + length, count + 1
        del self.buffer[:at]
        self.answered += count
        if count:
            self.send(count)


def writes_per_second(ensemble, seconds):
    """Of a connection to each member."""
    writers = [Writer(member, number) for number, member in enumerate(ensemble.members)]
    with selectors.DefaultSelector() as selector:
        for writer in writers:
            selector.register(writer.client.socket, selectors.EVENT_READ, writer)
        begin = time.monotonic()
        while time.monotonic() - begin < seconds:
            for key, _ in selector.select(1.0):
                key.data.read()
        took = time.monotonic() - begin
    for writer in writers:
        writer.client.drop()
    return sum(writer.answered for writer in writers) / took


def single_write_ms(ensemble, count):
    """The median of writes one after the other, through a follower."""
    leader = ensemble.settled()
    client = wire.Client(next(member for member in ensemble.members if member is not leader).address, 30_000)
    client.ensure("/cost")
    took = []
    for _ in range(count):
        begin = time.monotonic()
        client.set("/cost", DATA)
        took.append((time.monotonic() - begin) * 1000)
    client.drop()
    return statistics.median(took)


def ensembles(stack, files, kind):
    """Three members of a kind without TLS, and three with it."""
    secure = files.example("members") + ["sslQuorum=true"]
    both = {}
    for way, lines in zip(WAYS, ([], secure)):
        both[way] = stack.enter_context(Ensemble([kind] * 3, extra=lines))
        both[way].start()
    return both


def throughput(files, kind, options):
    """A row of the first table for each way."""
    rates, singles = {way: [] for way in WAYS}, {way: [] for way in WAYS}
    with ExitStack() as stack:
        both = ensembles(stack, files, kind)
        for _ in range(options.rounds):
            for way, ensemble in both.items():
                rates[way].append(writes_per_second(ensemble, options.seconds))
                singles[way].append(single_write_ms(ensemble, 200))
    rate, single = ({way: statistics.median(found[way]) for way in WAYS} for found in (rates, singles))
    for way in WAYS:
        yield (f"| {kind}{', TLS between members' if way == 'TLS' else ''} | {rate[way]:,.0f} | {rate['plain'] / rate[way]:.2f}× "
               f"| {single[way]:.2f} ms | {single[way] / single['plain']:.2f}× |")


def fail_overs(files, times):
    """A row of the second table for each way: leaders of both ensembles are killed in turn."""
    took = {way: [] for way in WAYS}
    with ExitStack() as stack:
        both = ensembles(stack, files, "zabd")
        for _ in range(times):
            for way, ensemble in both.items():
                leader = ensemble.settled()
                time.sleep(0.3)
                took[way].append(probe.fail_over(leader, [m for m in ensemble.members if m is not leader])[0])
                leader.kill()
                leader.start()
                ensemble.settled()
    plain = statistics.median(took["plain"])
    for way in WAYS:
        median = statistics.median(took[way])
        yield (f"| zabd{', TLS between members' if way == 'TLS' else ''} | {median:.1f} ms | {min(took[way]):.1f}–{max(took[way]):.1f} ms "
               f"| {median / plain:.2f}× | {times} |")


def main(options):
    kinds = ["zabd"]
    try:
        servers.check(["3.8"])
        kinds.append("3.8")
    except servers.Missing as missing:
        print(f"without 3.8: {missing}")
    busy = tables.load()
    with Files() as files:
        rates = [line for kind in kinds for line in throughput(files, kind, options)]
        kills = list(fail_overs(files, options.times))
    table = "\n".join([
        f"| medians of {options.rounds} rounds, in turn | writes/s | cost | one write at a time | cost |", "|---|---:|---:|---:|---:|", *rates, "",
        "| fail-over: the next committed write | median | range | cost | kills |", "|---|---:|---:|---:|---:|", *kills, "",
        busy, ""])
    tables.publish(options.out, "members.md", table)
    return 0
