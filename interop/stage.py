"""An ensemble under a real load: killed and restarted in every way, with what it took and what it cost."""

import time
from collections import namedtuple

from . import process, wire
from .ensemble import Ensemble, eventually
from .pulse import Pulse

# Beside the tree a member may hold this much: the window of transactions that its learners may still need (64 MiB), and
# buffers of the same size for what is read from the log or written to a link.
WORKING_MB = 128
TREE_FACTOR = 1.3
# seconds: until the killed members serve again; peak_mb: the most that a member had resident in the phase; gap: the longest
# time without an acknowledged write in it.
Phase = namedtuple("Phase", "name seconds peak_mb gap")


class Stage:
    """Three members, a load on them, then `faults`; `row` is the line of the table.

    All are of one kind unless `kinds` says otherwise; in a mix memory is that of our members.
    """

    def __init__(self, options, extra=(), properties=(), heap_mb=2048, limit=30.0, working_mb=WORKING_MB, kinds=None):
        self.kind, self.limit, self.working_mb = "3.8" if options.apache else "zabd", limit, working_mb
        lines = ["snapCount=100000000", "maxClientCnxns=0", *extra]
        kinds = kinds or [self.kind] * 3
        self.ensemble = Ensemble(kinds, extra=lines, properties=properties, heap_mb=heap_mb, directory=None)
        self.phases, self.notes = [], []
        self.tree_mb = self.peak_mb = 0.0

    def __enter__(self):
        self.ensemble.start()
        self.ensemble.settled()
        return self

    def __exit__(self, kind, error, trace):
        self.ensemble.__exit__(kind, error, trace)

    @property
    def members(self):
        return self.ensemble.members

    def weighed(self, members=None):
        """Those whose memory counts."""
        return [member for member in members or self.members if member.kind == self.kind]

    def victims(self, name):
        leader = self.ensemble.settled(self.limit)
        if name == "leader":
            return [leader]
        if name == "all":
            return list(self.members)
        return [next(member for member in self.members if member is not leader)]

    def faults(self, before=None, after=None, names=("one", "leader", "all", "wiped"), checks=()):
        """Kills (SIGKILL) and restarts one follower, the leader, all, and one follower whose directory is wiped.

        `before(victims)` and `after(victims)` are called around each. Nothing that was acknowledged and no session may be
        lost, all members must be equal at the end, and pass `checks`.
        """
        time.sleep(0.5)
        self.tree_mb = min(process.resident_mb(member) for member in self.weighed())
        marks = []
        with Pulse(self.members, wait=self.limit) as pulse:
            time.sleep(0.3)
            for name in names:
                victims = self.victims(name)
                if before is not None:
                    before(victims)
                peaks = process.Peaks([member for member in self.weighed() if member not in victims])
                begin = time.monotonic()
                self.replace(victims, wipe=name == "wiped")
                seconds = time.monotonic() - begin
                if after is not None:
                    after(victims)
                time.sleep(0.5)
                self.tree_mb = min([self.tree_mb, *(process.resident_mb(member) for member in self.weighed())])
                # What was killed began anew: all of its peak belongs to this phase.
                peak_mb = max([peaks.note(), *(process.peak_mb(member) for member in self.weighed(victims))])
                marks.append((name, seconds, peak_mb, begin, time.monotonic()))
        self.phases += [Phase(*mark[:3], pulse.gap(mark[3] - 0.1, mark[4])) for mark in marks]
        self.peak_mb = max(phase.peak_mb for phase in self.phases)
        self.ensemble.settled(self.limit)
        pulse.kept(self.members)
        for check in (self.equal, self.in_time, *checks, self.frugal):
            check()

    def replace(self, victims, wipe=False):
        for member in victims:
            member.kill()
        if wipe:
            victims[0].wipe()
        for member in victims:
            member.start()
        end = time.monotonic() + 4 * self.limit
        for member in victims:
            writes_through(member, end)

    def in_time(self):
        late = [phase for phase in self.phases if phase.seconds > self.limit]
        assert not late, f"served again only after more than {self.limit:g} s: {late}"

    def frugal(self):
        """The memory peak of every member; Java's heap is what it was given."""
        bound = TREE_FACTOR * self.tree_mb + self.working_mb
        assert self.kind != "zabd" or self.peak_mb <= bound, (
            f"a member had {self.peak_mb:.0f} MB, more than {TREE_FACTOR} times the tree of {self.tree_mb:.0f} MB "
            f"and {self.working_mb:.0f} MB; {self.text()}")

    def equal(self):
        """All members hold the same number of nodes and bytes, and the same digest where they show it."""
        end = time.monotonic() + 30

        def differ(found):
            # A server that has just loaded a snapshot has no digest to show.
            digests = {digest for *_, digest in found if digest}
            return len({(nodes, bytes_) for nodes, bytes_, _ in found}) > 1 or len(digests) > 1

        while differ(found := [state(member) for member in self.members]):
            assert time.monotonic() < end, f"(nodes, bytes, digest) of the members: {found}"
            time.sleep(0.2)

    def row(self, name, size):
        cells = [name, size, f"{self.tree_mb:.0f}"]
        by_name = {phase.name: phase for phase in self.phases}
        for wanted in ("one", "leader", "all", "wiped"):
            cells.append(f"{by_name[wanted].seconds:.1f}" if wanted in by_name else "")
        for wanted in ("one", "leader", "wiped"):
            cells.append(f"{by_name[wanted].gap:.2f}" if wanted in by_name else "")
        cells.append(f"{self.peak_mb:.0f} ({self.peak_mb / max(self.tree_mb, 1):.2f})")
        cells.append("; ".join(self.notes))
        return cells

    def text(self):
        phases = ", ".join(f"{phase.name} {phase.seconds:.1f} s (gap {phase.gap:.2f}, {phase.peak_mb:.0f} MB)" for phase in self.phases)
        return "; ".join([phases, f"peak {self.peak_mb:.0f} MB of a tree of {self.tree_mb:.0f}", *self.notes])


HEADINGS = ("case", "size", "tree, MB", "one: serves again, s", "leader, s", "all, s", "wiped, s", "gap, one, s",
            "gap, leader, s", "gap, wiped, s", "peak, MB (× tree)", "further")


def writes_through(member, end):
    """Waits until a client of this member can write; the time is of the monotonic clock."""
    while True:
        try:
            client = wire.Client(member.address, 30000, wait=max(0.5, min(5.0, end - time.monotonic())))
            client.create("/alive-", b"", wire.EPHEMERAL_SEQUENTIAL)
            client.close()
            return
        except (wire.Closed, wire.ZkError):
            if not member.running:
                raise AssertionError(f"{member} ended with {member.process.poll()}: {tail(member)}") from None
            if time.monotonic() > end:
                raise AssertionError(f"{member} does not serve: {tail(member)}") from None
            time.sleep(0.02)


def tail(member, lines=3):
    return " / ".join(line[:200] for line in member.log_text(len(member.logs) - 1).splitlines()[-lines:])


def state(member):
    """What can be compared without walking a large tree."""
    values = dict(line.split("\t", 1) for line in member.words("mntr", 10.0).splitlines() if "\t" in line)
    history = [line for line in member.words("hash", 10.0).splitlines() if line[:1].isalnum()]
    return values.get("zk_znode_count"), values.get("zk_approximate_data_size"), history[-1] if history else ""


def node_count(member):
    count = state(member)[0]
    return int(count) if count else 0
