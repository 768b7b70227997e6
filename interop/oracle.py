"""Two voters with an oracle (`oraclePath`): one of them is killed, and the other serves if its file says 1, and only then."""

import os
import time

from . import mixed, wire
from .ensemble import Ensemble, eventually
from .suite import Suite

# Long enough for whoever would serve without a grant: ZooKeeper's servers look at the file within a second or two.
QUIET_SECONDS = 8.0


class Pair(Ensemble):
    """Two voters, each with a file of its own, which says 0 at first."""

    def __init__(self, kinds, observers=()):
        super().__init__(kinds, observers, extra=["oraclePath=oracle"])
        for member in self.members:
            # A server runs in its directory.
            say(member, "0")

    def begin(self):
        self.start()
        self.settled()
        return self


def say(member, text):
    """What the oracle says to a member, put there at once as a whole."""
    path = os.path.join(member.directory, "oracle")
    with open(path + ".new", "w") as file:
        file.write(text + "\n")
    os.rename(path + ".new", path)


def put(member, path, data=b""):
    """Writes through a member; waits until it is acknowledged."""
    client = wire.Client(member.address, 20000, wait=20.0)
    client.create(path, data)
    client.close()


def has(member, path):
    client = wire.Client(member.address, 20000, wait=20.0)
    client.sync()
    found = client.exists(path)
    client.close()
    return bool(found)


def stays_out(members, seconds=QUIET_SECONDS):
    """Nobody of them serves, from when the loss was noticed on."""
    eventually(f"{members} no longer serve", lambda: not any(member.mode() for member in members), 30)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for member in members:
            assert not member.mode(), f"{member} serves as {member.mode()} without a grant"
        time.sleep(0.1)


def alone(kinds, observers, loses):
    """One of two is killed: without a grant nobody serves, with it the other one does; then the first one comes back."""
    with Pair(kinds, observers) as ensemble:
        leader = ensemble.begin().leader()
        follower = next(member for member in ensemble.voters if member is not leader)
        lost, left = (leader, follower) if loses == "leader" else (follower, leader)
        rest = [member for member in ensemble.members if member is not lost]
        put(left, "/both")
        # What the other file says is nobody's business.
        say(lost, "1")
        before = len(left.log_text())
        lost.kill()
        stays_out(rest)
        say(lost, "0")
        begin = time.monotonic()
        say(left, "1")
        # A server of ZooKeeper looks more and more seldom, at last once a minute.
        eventually(f"{left} leads alone", lambda: left.mode() == "leader", 90)
        waited = time.monotonic() - begin
        put(left, "/alone")
        ensemble.serving(rest, 90)
        lost.start()
        ensemble.serving([lost], 90)
        assert ensemble.settled() is left, "the one that came back leads"
        assert has(lost, "/alone") and has(lost, "/both")
        say(left, "0")
        put(lost, "/two")
        time.sleep(6.0)
        assert ensemble.settled() is left and has(left, "/two"), "two that are up need no oracle"
        if left.kind == "zabd":
            said = [line for line in left.log_text()[before:].splitlines() if "The oracle (oraclePath)" in line]
            assert len(said) == 2 and "does not let" in said[0] and "lets this server" in said[1], said
        return f"served {waited:.1f} s after the grant"


def withdrawn(kinds):
    """A leader that goes on alone ends when its file says so no more; writes that come then are not acknowledged."""
    with Pair(kinds) as ensemble:
        left = ensemble.begin().leader()
        lost = next(member for member in ensemble.members if member is not left)
        say(left, "1")
        lost.kill()
        time.sleep(8.0)
        assert left.mode() == "leader"
        assert left.log_text().count("LOOKING") == 1, "it leads on, without an election"
        put(left, "/alone")
        for text in ("0", None, "yes", " 1"):
            if text is None:
                os.unlink(os.path.join(left.directory, "oracle"))
            else:
                say(left, text)
            stays_out([left], 4.0)
            say(left, "1")
            eventually(f"{left} leads alone again", lambda: left.mode() == "leader", 90)
        put(left, "/again")
        say(left, "0")
        lost.start()
        ensemble.settled()
        assert has(lost, "/alone") and has(lost, "/again")


def in_turn(kinds):
    """What one has committed alone is lost if the other leads next without it, and afterwards both have the same."""
    with Pair(kinds) as ensemble:
        ensemble.begin()
        one, two = ensemble.members
        put(one, "/both")
        for member in (one, two):
            member.kill()
        for member in (one, two, one, two):
            say(member, "1")
            member.start()
            eventually(f"{member} leads alone", lambda member=member: member.mode() == "leader", 90)
            put(member, f"/by-{member.sid}-{member.starts}")
            say(member, "0")
            member.kill()
        say(two, "1")
        two.start()
        eventually("the second leads alone", lambda: two.mode() == "leader", 90)
        one.start()
        ensemble.settled(90)
        for member in (one, two):
            assert has(member, "/both") and has(member, "/by-2-2") and has(member, "/by-2-3"), f"{member}"
            assert not has(member, "/by-1-2") and not has(member, "/by-1-3"), f"{member} has what was lost"


def main(options):
    suite = Suite("interop oracle")
    only = options.only.split(",") if options.only else [""]

    def case(name, *arguments):
        if any(word in name for word in only):
            suite.case(name, *arguments)

    for loses in ("leader", "follower"):
        case(f"the {loses} of two is killed", alone, ["zabd", "zabd"], ["zabd"], loses)
    case("a grant is withdrawn", withdrawn, ["zabd", "zabd"])
    case("each leads alone in turn", in_turn, ["zabd", "zabd"])
    for kind in [kind for kind in mixed.available() if kind == "3.9"]:
        for kinds in (["zabd", kind], [kind, "zabd"]):
            for loses in ("leader", "follower"):
                case(f"the {loses} of {kinds[1]} (leads) and {kinds[0]} is killed", alone, kinds, [], loses)
    return suite.close()
