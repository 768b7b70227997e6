"""What is loaded before the members are killed. Each case returns the stage, with its figures."""

import os
import shutil
import struct
import subprocess
import time

from . import bulk, process, wire
from .crowd import Crowd
from .ensemble import eventually
from .pulse import Pulse
from .servers import zabd
from .stage import WORKING_MB, Phase, Stage, node_count, writes_through


def holds(stage, nodes):
    """A check: every member has at least so many nodes."""
    def check():
        for member in stage.members:
            count = node_count(member)
            assert count >= nodes, f"{member} holds {count} nodes of at least {nodes}"
    return check


def content(stage, path, expected):
    """A check: every member has this in that node."""
    def check():
        for member in stage.members:
            client = wire.Client(member.address, 30000, wait=60.0)
            client.sync()
            data, _ = client.get(path)
            client.close()
            assert data == expected, f"{path} of {member} holds {len(data)} bytes {data[:20]}, not {len(expected)}"
    return check


def pipe_to(stage, **options):
    return bulk.Pipe(stage.ensemble.settled().address, **options)


def tail_of_creates(options, count, length):
    """A log of creates behind no snapshot: the whole tree is to be read from it."""
    with Stage(options) as stage:
        pipe = pipe_to(stage)
        pipe.client.ensure("/tail")
        began = time.monotonic()
        pipe.send(bulk.blocks(bulk.creates("/tail/n", count, b"x" * length), max(1, min(500, 200000 // length))))
        stage.notes.append(f"{count / (time.monotonic() - began):.0f} creates/s")
        pipe.close()
        stage.notes.append(f"{max(process.disk_mb(member) for member in stage.members):.0f} MB of log")
        stage.faults(checks=[holds(stage, count)])
        return stage


def tail_of_sets(options, megabytes):
    """A log many times as long as the tree that it leads to."""
    count = megabytes * 100
    # What is read behind the last snapshot is held until a leader says where it ends.
    with Stage(options, limit=30 + megabytes / 20, working_mb=WORKING_MB + megabytes) as stage:
        pipe = pipe_to(stage, ahead=400)
        pipe.client.ensure("/tail")
        pipe.send(bulk.blocks(bulk.creates("/tail/n", 1000)))
        pipe.send(bulk.blocks(bulk.sets("/tail/n", 1000, count, b"y" * 10000), 20))
        pipe.client.set("/tail/n00000000", b"last")
        pipe.close()
        stage.notes.append(f"{max(process.disk_mb(member) for member in stage.members):.0f} MB of log")
        stage.faults(checks=[content(stage, "/tail/n00000000", b"last")])
        if stage.kind == "zabd":
            stage.notes.append(f"read by one server alone in {reading_alone(stage):.1f} s")
        return stage


def reading_alone(stage):
    """How long a server without an ensemble needs for the same directory, in seconds."""
    # One that was not wiped: that has a snapshot.
    member = max(stage.members, key=process.disk_mb)
    stage.ensemble.stop()
    config = os.path.join(member.directory, "alone.cfg")
    with open(config, "w") as file:
        file.write(f"dataDir={member.data}\nclientPort={member.client_port}\nclientPortAddress=127.0.0.1\n"
                   "4lw.commands.whitelist=*\nsnapCount=100000000\n")
    began = time.monotonic()
    member.process = subprocess.Popen([zabd(), config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        writes_through(member, began + 120)
        return time.monotonic() - began
    finally:
        member.kill()


def wide(options, count):
    """One node with that many children, and a client that lists them."""
    with Stage(options, extra=["snapCount=400"], properties=["jute.maxbuffer=67108864"], heap_mb=2048,
               limit=30 + count / 20000) as stage:
        pipe = pipe_to(stage, ahead=8)
        pipe.client.ensure("/wide")
        bulk.create_many(pipe, (f"/wide/child-{number:08d}" for number in range(count)))
        pipe.close()

        def lists():
            for member in stage.members:
                client = wire.Client(member.address, 30000, wait=60.0)
                client.sync()
                began = time.monotonic()
                found = client.children("/wide")
                seconds = time.monotonic() - began
                client.close()
                assert len(found) == count == len(set(found)), f"{member} lists {len(found)} children of {count}"
            stage.notes.append(f"listed in {seconds:.1f} s")
        stage.faults(checks=[lists])
        return stage


def deep(options, count):
    """A tree of that many znodes: a thousand below each of the nodes of the first level, with data."""
    with Stage(options, extra=["snapCount=400"], heap_mb=2048, limit=30 + count / 20000) as stage:
        pipe = pipe_to(stage, ahead=8)
        pipe.client.ensure("/tree")
        bulk.create_many(pipe, (f"/tree/d{number:04d}" for number in range(count // 1000)))
        bulk.create_many(pipe, (f"/tree/d{number // 1000:04d}/n{number % 1000:04d}" for number in range(count)), b"d" * 50)
        pipe.close()
        stage.faults(checks=[holds(stage, count)])
        return stage


def large(options, megabytes, kinds=None):
    """Znodes far above a megabyte, with `jute.maxbuffer` in Java's hexadecimal form."""
    length = megabytes * 1000 * 1000
    allowed = f"jute.maxbuffer=0x{length + (1 << 20):x}"
    # Beside the usual: a frame is held whole where it is read, where it is prepared, and where it is written.
    with Stage(options, properties=[allowed], heap_mb=2048, limit=60.0, working_mb=WORKING_MB + 4 * megabytes,
               kinds=kinds and kinds.split()) as stage:
        for member in stage.members:
            client = wire.Client(member.address, 60000, wait=60.0)
            path = f"/large-{member.sid}"
            client.create(path, b"a" * length)
            client.set(path, b"b" * length)
            client.multi([(wire.SET_DATA, wire.set_data_body(path, bytes([member.sid]) * length))])
            client.close()
        checks = [content(stage, f"/large-{member.sid}", bytes([member.sid]) * length) for member in stage.members]
        stage.faults(checks=checks)
        return stage


def apache_history(options, count, kilobytes):
    """Three ways in which our member gets much of a history that is not known to be committed, from an Apache leader.

    A DIFF of that many changes; a log that an Apache member wrote, found at the start; and changes that are made while a
    snapshot comes.
    """
    megabytes = count * kilobytes / 1000
    with Stage(options, kinds=["zabd", "3.8", "3.8"], limit=60.0) as stage:
        ours, _, leader = stage.members
        assert stage.ensemble.settled() is leader
        pipe = pipe_to(stage, ahead=10)
        pipe.client.ensure("/tail")
        pipe.send(bulk.blocks(bulk.creates("/tail/n", 10)))
        tree_mb = process.resident_mb(ours)

        def back(what, kept_mb, write=None):
            """Starts our member, which has then to serve within its bound of memory."""
            began = time.monotonic()
            ours.start()
            if write is not None:
                write()
            writes_through(ours, began + 60)
            peak, text = process.peak_mb(ours), ours.log_text(len(ours.logs) - 1)
            ways = [way for way in ("diff", "snap", "trunc") if f"synchronization - {way}" in text]
            stage.notes.append(f"{what}: {'+'.join(ways)}, serves after {time.monotonic() - began:.1f} s, {peak:.0f} MB at most")
            stage.phases.append(Phase(what, time.monotonic() - began, peak, 0.0))
            assert peak <= tree_mb + WORKING_MB + kept_mb, stage.notes[-1]

        def change(number):
            pipe.send(bulk.blocks(bulk.sets("/tail/n", 10, number, b"y" * (1000 * kilobytes)), 1))
        ours.kill()
        change(count)
        # More than the window makes a learner ask for a snapshot: no more than that is kept.
        back(f"DIFF of {megabytes:.0f} MB", 10 * kilobytes / 1000 + 64)
        stage.ensemble.settled(60)
        ours.kill()
        shutil.rmtree(os.path.join(ours.data, "version-2"))
        shutil.copytree(os.path.join(leader.data, "version-2"), os.path.join(ours.data, "version-2"))
        # The last epoch of such a log is kept until a leader says what of it is committed.
        back(f"a log of {megabytes:.0f} MB by Apache", 1.1 * megabytes)
        stage.ensemble.settled(60)
        ours.kill()
        ours.wipe()
        # Apache's leader keeps in its heap what it proposes while it sends a snapshot, and sends it in front of NEWLEADER.
        back("changes while a snapshot comes", 2 * 100 * kilobytes / 1000, lambda: change(100))
        pipe.close()
        stage.ensemble.settled(60)
        stage.equal()
        stage.tree_mb, stage.peak_mb = tree_mb, max(phase.peak_mb for phase in stage.phases)
        return stage


def multis(options, operations):
    """Multis of that many operations: creates, changes, deletes; and one whose last part fails."""
    with Stage(options, properties=["jute.maxbuffer=16777216"]) as stage:
        pipe = pipe_to(stage, ahead=1)
        pipe.client.ensure("/multi")
        paths = [f"/multi/n{number:06d}" for number in range(operations)]
        began = time.monotonic()
        bulk.create_many(pipe, paths, b"one", each=operations)
        pipe.send((one, 1) for one in bulk.multis(((wire.SET_DATA, wire.set_data_body(path, b"two")) for path in paths),
                                                  operations))
        drop = [(wire.DELETE, wire.string(path) + b"\xff\xff\xff\xff") for path in paths]
        try:
            pipe.send((one, 1) for one in bulk.multis([*drop, (wire.DELETE, wire.string("/none") + b"\xff" * 4)],
                                                      operations + 1))
        except bulk.Refused:
            pipe.open = 0
        else:
            raise AssertionError("a multi with a part that fails was taken")
        stage.notes.append(f"three multis in {time.monotonic() - began:.1f} s")
        stage.faults(checks=[holds(stage, operations), content(stage, paths[-1], b"two")])
        pipe = pipe_to(stage, ahead=1)
        pipe.send((one, 1) for one in bulk.multis(drop, operations))
        pipe.close()
        stage.equal()
        left = max(node_count(member) for member in stage.members)
        assert left < operations, f"{left} nodes are left after a multi that deletes {operations}"
        return stage


def ephemerals(options, count):
    """One session with that many ephemeral nodes: it outlives everybody's restart, then ends."""
    with Stage(options, heap_mb=2048, properties=["jute.maxbuffer=16777216"]) as stage:
        pipe = pipe_to(stage, ahead=4)
        pipe.client.ensure("/owned")
        bulk.create_many(pipe, (f"/owned/e{number:07d}" for number in range(count)), flags=wire.EPHEMERAL)
        owner = [pipe.client]

        def again(_victims):
            owner[0].drop()
            owner[0] = wire.Client(stage.ensemble.settled().address, 120000, owner[0], wait=30.0)
        stage.faults(after=again, checks=[holds(stage, count)])
        with Pulse(stage.members) as pulse:
            time.sleep(0.3)
            began = time.monotonic()
            owner[0].call(wire.CLOSE)
            closed = time.monotonic()
            owner[0].drop()
            eventually("the nodes are gone everywhere", lambda: all(node_count(m) < count for m in stage.members), 60, 0.1)
            time.sleep(0.3)
        gap = pulse.gap(began - 0.1)
        pulse.kept(stage.members)
        stage.equal()
        stage.notes.append(f"its end: answered in {closed - began:.2f} s, longest gap of others' writes {gap:.2f} s")
        assert gap < 2.0, stage.notes[-1]
        return stage


SET_WATCHES = 101


def set_watches(last_zxid, paths):
    """The body of setWatches for data watches."""
    return (struct.pack(">qi", last_zxid, len(paths)) + b"".join(wire.string(path) for path in paths)
            + struct.pack(">ii", 0, 0))


class Watcher:
    """One session with a data watch on each of many nodes; after each loss it sets them again, as clients do."""

    def __init__(self, stage, paths):
        self.stage, self.paths = stage, paths
        self.client = wire.Client(stage.ensemble.settled().address, 120000, wait=60.0)
        pipe_requests = (wire.request(number + 1, wire.GET_DATA, wire.string(path) + b"\1")
                         for number, path in enumerate(paths))
        for at, (block, count) in enumerate(bulk.blocks(pipe_requests, 1000)):
            self.client.socket.sendall(block)
            for _ in range(count):
                assert not self.client.receive().err
        self.slowest, self.expected = 0.0, 0

    def move(self, victims):
        """Onto the first member that will be killed."""
        self.reconnect(victims[0])

    def change(self, _victims):
        """Changes one node in a hundred while nobody watches, comes back elsewhere, and hears of exactly these."""
        self.client.drop()
        changed = self.paths[self.expected % 100 :: 100]
        other = wire.Client(self.stage.ensemble.settled().address, 30000, wait=30.0)
        for path in changed:
            other.send(wire.SET_DATA, wire.set_data_body(path, b"changed"))
        for _ in changed:
            assert not other.receive().err
        other.close()
        began = time.monotonic()
        self.reconnect(self.stage.ensemble.settled())
        self.client.sync()
        self.slowest = max(self.slowest, time.monotonic() - began)
        heard = sorted(path for _, path in self.client.events)
        assert heard == sorted(changed), f"{len(heard)} events for {len(changed)} changes"
        self.expected += 1
        # What fired is set again, as an application would.
        self.client.events.clear()
        for path in changed:
            self.client.get(path, watch=True)

    def reconnect(self, member):
        self.client.drop()
        seen = self.client.last_zxid
        self.client = wire.Client(member.address, 120000, self.client, wait=60.0)
        chunk = 4000
        for at in range(0, len(self.paths), chunk):
            self.client.send(SET_WATCHES, set_watches(seen, self.paths[at : at + chunk]), xid=-8)
        for _ in range(0, len(self.paths), chunk):
            reply = self.client.receive()
            assert reply.xid == -8 and not reply.err, reply


def watches(options, count):
    with Stage(options, heap_mb=2048) as stage:
        pipe = pipe_to(stage, ahead=8)
        pipe.client.ensure("/watched")
        paths = [f"/watched/n{number:07d}" for number in range(count)]
        bulk.create_many(pipe, paths)
        pipe.close()
        watcher = Watcher(stage, paths)
        stage.faults(before=watcher.move, after=watcher.change, names=("one", "leader", "all"))
        stage.notes.append(f"reconnected with all watches set again in at most {watcher.slowest:.1f} s")
        watcher.client.close()
        return stage


def sessions(options, count):
    """That many clients over three members, which lose theirs."""
    with Stage(options, heap_mb=2048) as stage:
        with Crowd(stage.members, count) as crowd:
            crowd.all_served(60)
            times = []

            def after(_victims):
                times.append(crowd.all_served(60))
            stage.faults(after=after)
            lost = crowd.lost()
            assert not lost, f"{lost} of {count} sessions were lost"
        for phase, (middle, last) in zip(stage.phases, times):
            stage.notes.append(f"{phase.name}: clients served again after {middle:.1f} s (median), {last:.1f} s (last)")
        return stage


def churn(options, seconds, megabytes):
    """Log rolls, snapshots and purges of a day in a minute.

    A day of 100 GB in writes of a kilobyte is 1,000 snapshots and log rolls with the default of `snapCount`. Here they come
    every 2,000 writes. The purge runs at the start of a server and then every hour, so members are restarted one after the
    other all the time, each with snapshots of itself under way.
    """
    extra = ["snapCount=2000", "autopurge.snapRetainCount=3", "autopurge.purgeInterval=1", "preAllocSize=1024"]
    with Stage(options, extra=extra) as stage:
        pipe = pipe_to(stage)
        pipe.client.ensure("/churn")
        pipe.send(bulk.blocks(bulk.creates("/churn/n", 1000)))
        peaks = process.Peaks(stage.members)
        largest = written = restarts = 0
        with Pulse(stage.members) as pulse:
            end = time.monotonic() + seconds
            due = time.monotonic() + 2
            while time.monotonic() < end or written < megabytes:
                try:
                    if pipe is None:
                        pipe = pipe_to(stage, ahead=1000)
                    pipe.send(bulk.blocks(bulk.sets("/churn/n", 1000, 2000, b"z" * 1000), 200))
                    written += 2
                except wire.Closed:
                    pipe = None
                largest = max([largest, *(process.disk_mb(member) for member in stage.members)])
                if time.monotonic() > due:
                    peaks.note()
                    stage.replace([stage.members[restarts % 3]])
                    restarts, due = restarts + 1, time.monotonic() + 0.5
            stage.peak_mb = peaks.note()
        stage.tree_mb = min(process.resident_mb(member) for member in stage.members)
        stage.ensemble.settled()
        pulse.kept(stage.members)
        stage.equal()
        for member in stage.members:
            stage.replace([member])
        # Three snapshots of a megabyte, and the logs of 2,000 writes from the oldest of them on.
        eventually("all members are purged", lambda: all(process.disk_mb(member) < 40 for member in stage.members), 10)
        kept = max(process.disk_mb(member) for member in stage.members)
        stage.notes.append(f"{written} MB written, {restarts} restarts, longest gap {pulse.gap():.2f} s, at most {largest:.0f} "
                           f"MB on one disk, {kept:.0f} MB behind the last purge")
        return stage
