"""Observers that learn from followers (`observerMasterPort`), of ours and of Apache's, in both directions."""

import threading
import time

from . import wire
from .ensemble import Ensemble, eventually


def connect(member, seconds=20.0):
    """A session with a member that may be between two masters."""
    def attempt():
        try:
            return wire.Client(member.address)
        except (wire.Closed, OSError):
            return None
    return eventually(f"a session with {member}", attempt, seconds)


def observers_of(member):
    """How many synchronised observers a server has, as `mntr` says."""
    for line in member.words("mntr").splitlines():
        if line.startswith("zk_synced_observers"):
            return int(float(line.split()[1]))
    return 0


class Writer(threading.Thread):
    """Creates nodes through one member, one after the other, and connects again when it has to."""

    def __init__(self, member, path):
        super().__init__(daemon=True)
        self.member, self.path, self.done, self.created, self.closed = member, path, False, [], 0
        self.error = None

    def run(self):
        try:
            client, number = connect(self.member), 0
            client.ensure(self.path)
            while not self.done:
                name = f"{self.path}/{number:06d}"
                number += 1
                try:
                    client.create(name)
                    self.created.append(name)
                except (wire.Closed, OSError):
                    self.closed += 1
                    client.drop()
                    client = connect(self.member)
            client.close()
        except Exception as error:  # noqa: BLE001  (told to who waits for the thread)
            self.error = error


def served(kinds, observers):
    """Writes, sync and watches through observers; then their masters are killed under load, one after the other."""
    with Ensemble(kinds, observers, masters=True) as ensemble:
        ensemble.start()
        leader = ensemble.settled()
        watching = ensemble.members[len(kinds):]
        followers = [member for member in ensemble.voters if member is not leader]
        # An observer of Apache's takes the leader for one of the followers, and ours serves it.
        mistaken = observers.count("3.8") if leader.kind == "zabd" else 0
        assert observers_of(leader) <= mistaken, f"{leader} leads and serves observers itself"
        first, last = connect(watching[0]), connect(watching[-1])
        first.create("/masters", b"1")
        last.sync("/masters")
        assert last.get("/masters", watch=True)[0] == b"1"
        first.set("/masters", b"2")
        last.sync("/masters")
        # NodeDataChanged, in front of the answer that shows the change.
        assert last.events == [(3, "/masters")], last.events
        assert last.get("/masters")[0] == b"2"
        first.close()
        last.close()
        writers = [Writer(member, f"/through-{member.sid}") for member in watching]
        for writer in writers:
            writer.start()
        for follower in followers:
            time.sleep(1)
            follower.kill()
            counts = [len(writer.created) for writer in writers]
            eventually("all observers go on", lambda counts=counts: all(len(w.created) > n + 5 for w, n in zip(writers, counts)), 40)
            follower.start()
            ensemble.settled()
        for writer in writers:
            writer.done = True
        for writer in writers:
            writer.join(30)
            assert writer.error is None and not writer.is_alive(), f"{writer.member}: {writer.error}"
        assert ensemble.settled() is leader and observers_of(leader) <= mistaken
        # What was answered is there, at every member.
        for member in ensemble.members:
            client = connect(member)
            for writer in writers:
                client.sync(writer.path)
                children = {f"{writer.path}/{name}" for name in client.children(writer.path)}
                lost = [name for name in writer.created if name not in children]
                assert not lost, f"{member} lacks {len(lost)} of {len(writer.created)}, {lost[:3]}"
            client.close()
        closed = ", ".join(f"{w.member} {w.closed}" for w in writers)
        return f"{sum(len(w.created) for w in writers)} writes; connections closed: {closed}"
