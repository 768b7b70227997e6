"""All members restarted one after the other, under load: what their clients see of it."""

import selectors
import time

from . import wire
from .ensemble import Ensemble, eventually
from .held import CONNECTIONS
from .pipeline import TIMEOUT_MS, Pipe, Pipeline


class Roaming(Pipe):
    """A connection that goes to the next member when its own ends, and asks there what was not answered.

    It can, as what a server that ends in good order has not answered was not carried out: a request that was, too,
    would be answered by NodeExists or BadVersion there.
    """

    def __init__(self, member, root, number, members):
        super().__init__(member, root, number)
        self.members, self.moves, self.asked_again = members, [], 0

    def fill(self):
        try:
            super().fill()
        except OSError:
            pass  # The server has gone. What it has answered before is still to be read, and then the end.

    def move(self):
        """To another member that serves."""
        old, self.ended = self.member, None
        self.client.drop()
        del self.buffer[:]
        others = [member for member in self.members if member is not old]
        for at in range(100):
            member = others[at % len(others)]
            try:
                self.client = wire.Client(member.address, TIMEOUT_MS, self.client)
                break
            except wire.Expired:
                raise AssertionError(f"the session of a client of {old} has ended") from None
            except wire.Closed:
                time.sleep(0.01)
        else:
            raise AssertionError(f"a client of {old} finds no other member")
        self.client.socket.setblocking(False)
        self.member = member
        self.moves.append(old.sid)
        unanswered = range(self.due, self.next)
        self.asked_again += len(unanswered)
        # The sets under way have the versions before those that come next.
        self.sets -= sum(1 for xid in unanswered if xid % 2 == 0)
        self.next = self.due
        self.fill()


class RollingPipeline(Pipeline):
    """Roaming connections, evenly on all members."""

    def __init__(self, members, root, count):
        self.pipes = [Roaming(members[at % len(members)], root, at, members) for at in range(count)]
        self.selector = selectors.DefaultSelector()
        for pipe in self.pipes:
            self.selector.register(pipe.client.socket, selectors.EVENT_READ, pipe)
            pipe.fill()
        self.begin_gap()

    def run(self, seconds, going_on=True):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not going_on and all(pipe.due == pipe.next for pipe in self.pipes):
                return
            for key, _ in self.selector.select(0.02):
                pipe = key.data
                count = pipe.read(going_on)
                now = time.monotonic()
                if count:
                    self.gap, self.last = max(self.gap, now - self.last), now
                if pipe.ended:
                    self.selector.unregister(key.fileobj)
                    pipe.move()
                    self.selector.register(pipe.client.socket, selectors.EVENT_READ, pipe)


def rolling(count, observers, rounds):
    """Each member is asked whether it may be stopped, ended by SIGTERM, started, and asked again."""
    with Ensemble(["zabd"] * count, ["zabd"] * observers) as ensemble:
        ensemble.start()
        ensemble.settled()
        setup = wire.Client(ensemble.members[0].address)
        setup.create("/rolling")
        setup.drop()
        pipeline = RollingPipeline(ensemble.members, "/rolling", CONNECTIONS)
        pipeline.run(0.5)
        pipeline.begin_gap()
        gaps, restarts = [], 0
        for _ in range(rounds):
            for member in ensemble.members:
                eventually(f"{member} may be stopped", lambda: safe(pipeline, member), 30)
                before = [len(pipe.moves) for pipe in pipeline.pipes]
                own = [pipe.member is member for pipe in pipeline.pipes]
                pipeline.begin_gap()
                stopped = member.process
                stopped.terminate()
                eventually(f"{member} ends", lambda: pipeline.run(0.02) or stopped.poll() is not None, 10, 0)
                assert stopped.returncode == 0, f"{member} ended with {stopped.returncode}"
                pipeline.run(0.5)
                gaps.append(pipeline.gap_ms)
                moved = [len(pipe.moves) - known for pipe, known in zip(pipeline.pipes, before)]
                assert moved == [int(was) for was in own], f"{member} restarts: moves {moved} of clients, its own are {own}"
                restarts += 1
                member.start()
                eventually(f"{member} serves", lambda: pipeline.run(0.05) or member.mode() in ("leader", "follower", "observer"), 30, 0)
        pipeline.run(10, going_on=False)
        wrong = pipeline.check() or pipeline.compare(ensemble.members[-1])
        again = sum(pipe.asked_again for pipe in pipeline.pipes)
        moves = sum(len(pipe.moves) for pipe in pipeline.pipes)
        answers = sum(pipe.created + pipe.updated for pipe in pipeline.pipes)
        pipeline.close()
        assert not wrong, "; ".join(wrong)
        gaps.sort()
        return (f"{restarts} restarts, {answers} writes, none failed or twice; {moves} moves of clients, each for a restart of its "
                f"own member, with {again} requests asked again; longest time without an answer {gaps[len(gaps) // 2]:.0f} ms in the "
                f"median, {gaps[-1]:.0f} at most")


def safe(pipeline, member):
    pipeline.run(0.1)
    return member.words("safe").startswith("yes: ")


def cases(rounds):
    """Names, functions and their arguments."""
    return [("rolling restart, three members", rolling, 3, 0, rounds),
            ("rolling restart, five and an observer", rolling, 5, 1, max(1, rounds // 2))]
