"""Peers that take what they are sent slowly, while much is written."""

import threading
import time

from . import bulk, wire
from .ensemble import eventually
from .lab import QUORUM_GAP, Lab
from .pulse import Pulse
from .stranger import OBSERVERINFO, Learner

WINDOW = 64 << 20  # what a leader holds for those who are behind, in bytes


class Churn(threading.Thread):
    """Large writes through one member, so that the leader's window moves on."""

    def __init__(self, member, nodes, bytes_per_second, length=400000):
        super().__init__(daemon=True)
        self.client = wire.Client(member.address, 120000, wait=180.0)
        self.nodes, self.pause, self.length = nodes, length / bytes_per_second, length
        self.stopping, self.written = threading.Event(), 0

    def run(self):
        number = under_way = 0
        due = time.monotonic()
        try:
            while not self.stopping.is_set():
                number += 1
                data = number.to_bytes(8, "big") * (self.length // 8)
                self.client.send(wire.SET_DATA, wire.set_data_body(f"/data/n{number % self.nodes:08d}", data))
                under_way += 1
                while under_way > 4 or under_way and self.client.ready():
                    self.client.receive()
                    under_way -= 1
                    self.written += self.length
                due = max(due + self.pause, time.monotonic() - 1)
                time.sleep(max(0.0, due - time.monotonic()))
        except wire.Closed:
            return

    def goes_on(self, end):
        """Whether more is to be written: twice what a leader's window holds, at most until `end`."""
        return self.written < 2 * WINDOW and time.monotonic() < end

    def stop(self):
        self.stopping.set()
        self.join(200)
        self.client.drop()


def filled(member, megabytes):
    pipe = bulk.Pipe(member.address, ahead=20)
    pipe.client.ensure("/data")
    pipe.send(bulk.blocks(bulk.creates("/data/n", megabytes, b"z" * 1000000), 1))
    pipe.close()


def slow_link(options, megabytes, seconds):
    """A follower with an empty directory is synchronised over a link of 3 MB/s, while 12 MB/s are written."""
    with Lab(options, partitions=True, heap_mb=3072) as lab:
        filled(lab.leader, megabytes)
        victim = lab.followers[0]
        others = [member for member in lab.members if member is not victim]
        victim.kill()
        victim.wipe()
        lab.ensemble.proxies.slow(lab.leader, victim, 3e6)
        with Pulse(others, wait=180.0) as pulse:
            churn = Churn(lab.leader, megabytes, 12e6)
            churn.start()
            time.sleep(0.5)
            victim.start()
            end = time.monotonic() + seconds
            while churn.goes_on(end):
                time.sleep(0.1)
            calm = time.monotonic()
            lab.ensemble.proxies.slow(lab.leader, victim, None)
            back = None
            try:
                eventually("the follower is synchronised", lambda: victim.mode() == "follower", 30)
                back = time.monotonic() - calm
            except AssertionError:
                pass
            churn.stop()
        lab.gap(pulse, QUORUM_GAP)
        lab.figure(f"{churn.written / 1e6:.0f} MB written meanwhile", churn.written >= 2 * WINDOW)
        lab.figure(f"synchronised {back:.1f} s after the link was mended" if back is not None else
                   "not synchronised within 30 s of a sound link", back is not None)
        lab.reigns_on()
        lab.kept(pulse, others)
        return lab.outcome()


def slow_stranger(options, megabytes, seconds):
    """Somebody with the id of an observer that is down takes the snapshot at 3 MB/s."""
    with Lab(options, observers=1, heap_mb=3072, late=True) as lab:
        observer = lab.members[-1]
        lab.start(without=[observer])
        filled(lab.leader, megabytes)
        voters = lab.ensemble.voters
        with Pulse(voters, wait=180.0) as pulse:
            churn = Churn(lab.leader, megabytes, 12e6)
            churn.start()
            link = Learner(lab.leader.quorum_port, receive_buffer=65536)
            link.introduce(OBSERVERINFO, observer.sid)
            taken, end = 0, time.monotonic() + seconds
            while churn.goes_on(end):
                try:
                    piece = link.socket.recv(60000)
                except OSError:
                    piece = b""
                if not piece:
                    break
                taken += len(piece)
                time.sleep(0.02)
            churn.stop()
            link.close()
        lab.gap(pulse, QUORUM_GAP)
        lab.figure(f"{churn.written / 1e6:.0f} MB written, {taken / 1e6:.0f} MB taken meanwhile", churn.written >= 2 * WINDOW)
        lab.reigns_on()
        lab.kept(pulse, voters)
        return lab.outcome()
