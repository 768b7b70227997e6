"""What an ensemble is put through. Each scenario takes a started ensemble, and ends with all checks."""

import random
import re
import select
import socket
import struct
import time

from . import check, features, probe, wire
from .ensemble import eventually
from .load import Load


def calm(ensemble, seconds=3.0):
    """Load and features, nothing breaks."""
    with Load(ensemble) as load:
        features.run(ensemble)
        time.sleep(seconds)
    return check.everything(ensemble, load)


def crashes(ensemble):
    """The leader is killed, then a follower, then one is frozen until it is given up, each time under load."""
    with Load(ensemble) as load:
        features.run(ensemble)
        first = ensemble.settled()
        kill_and_restart(ensemble, first)
        follower = next(m for m in ensemble.voters if m is not ensemble.settled())
        kill_and_restart(ensemble, follower)
        frozen = next(m for m in ensemble.voters if m is not ensemble.settled())
        frozen.freeze()
        time.sleep(2)
        frozen.thaw()
        ensemble.settled()
        features.run(ensemble)
    return check.everything(ensemble, load)


def kill_and_restart(ensemble, member, down=1.0):
    member.kill()
    time.sleep(down)
    member.start()
    return ensemble.settled()


def fail_overs(ensemble, times=20, pause=0.3):
    """The leader is killed again and again; how long until the next committed write through a survivor."""
    took = []
    with Load(ensemble, sessions=len(ensemble.members) > 3) as load:
        for _ in range(times):
            time.sleep(pause)
            leader = ensemble.settled()
            survivors = [m for m in ensemble.members if m is not leader]
            took.append(probe.fail_over(leader, survivors)[0])
            leader.kill()
            leader.start()
        ensemble.settled()
    counted = " ".join(f"{one:.0f}" for one in took)
    return f"{probe.summary(took)} of {times} [{counted}]; {check.everything(ensemble, load)}"


def synchronised(member):
    """How the member was first brought up to date in its last run, in ZooKeeper's words: diff, snap, trunc."""
    with open(member.logs[-1][1], errors="replace") as file:
        modes = re.findall(r"Peer state changed: .* - (diff|snap|trunc)$", file.read(), re.MULTILINE)
    return modes[0] if modes else "unknown"


def catch_up(ensemble):
    """A follower comes back by DIFF; by SNAP when its disk is empty; by TRUNC when it holds what was never committed."""
    assert ensemble.proxies is not None
    seen = []
    with Load(ensemble, sessions=False) as load:
        leader = ensemble.settled()
        follower = next(m for m in ensemble.voters if m is not leader)
        for expected, wipe in (("diff", False), ("snap", True)):
            follower.kill()
            time.sleep(0.5)
            if wipe:
                follower.wipe()
            follower.start()
            ensemble.settled()
            # A server of Apache's with an empty disk says that it has everything up to nothing.
            seen.append((expected if follower.kind == "zabd" else f"{expected} or diff", synchronised(follower)))
    detail = check.everything(ensemble, load)
    seen.append(("trunc", isolate_leader(ensemble, 0)))
    # With transactions of a later epoch in between ZooKeeper sends a snapshot; a cut is as good.
    seen.append(("snap or trunc", isolate_leader(ensemble, 20)))
    for expected, how in seen:
        assert how in expected.split(" or "), f"brought up to date by {how}, not {expected} ({seen})"
    return f"{', '.join(how for _, how in seen)}; {detail}"


def isolate_leader(ensemble, meanwhile):
    """A leader nobody hears logs proposals that are never committed; they must be gone when it comes back.

    `meanwhile` is how many writes the others commit before it does.
    """
    root = f"/isolated-{meanwhile}"
    old = ensemble.settled()
    others = [m for m in ensemble.members if m is not old]
    client = wire.Client(old.address, 60000, wait=30)
    client.ensure(root)
    ensemble.proxies.hole([old], others)
    for number in range(50):
        client.send(wire.CREATE, wire.create_body(f"{root}/lost-{number}", b"never committed"))
    fresh = eventually("the others have a leader", lambda: next((m for m in others if m.mode() == "leader"), None), 60)
    write(fresh, root, range(meanwhile))
    assert not client.ready() or not answered(client), "an isolated leader acknowledged a write"
    client.drop()
    old.kill()
    ensemble.proxies.cut([old], others)
    ensemble.proxies.heal()
    old.start()
    write(ensemble.settled(), root, range(meanwhile, 30))
    for member in ensemble.members:
        tree = check.walk(member)
        lost = [path for path in tree if path.startswith(f"{root}/lost-")]
        kept = [path for path in tree if path.startswith(f"{root}/kept-")]
        assert not lost, f"{member} kept what was never committed: {lost[:3]}"
        assert len(kept) == 30, f"{member} holds {len(kept)} of 30 committed nodes"
    return synchronised(old)


def write(member, root, numbers):
    if numbers:
        client = wire.Client(member.address, 60000)
        for number in numbers:
            client.create(f"{root}/kept-{number}", b"committed")
        client.close()


def answered(client):
    try:
        return client.receive().err == 0
    except wire.Closed:
        return False


def quorum_loss(ensemble):
    """Two of five dead: work goes on. Three: nothing is acknowledged. One back: work goes on."""
    assert len(ensemble.voters) == 5
    random.shuffle(order := list(ensemble.voters))
    with Load(ensemble, sessions=False) as load:
        time.sleep(1)
        order[0].kill()
        order[1].kill()
        two_dead = time.monotonic()
        time.sleep(4)
        order[2].kill()
        three_dead = time.monotonic()
        time.sleep(5)
        returned = time.monotonic()
        order[0].start()
        ensemble.serving([order[0], order[3], order[4]])
        time.sleep(3)
        resumed = time.monotonic()
        order[1].start()
        order[2].start()
        ensemble.settled()
    accepted = [op.sent for op in load.operations if op.outcome == "ok"]
    between = lambda a, b: sum(a < sent < b for sent in accepted)  # noqa: E731
    assert between(two_dead, three_dead) > 50, "with two of five dead nothing was written"
    assert between(three_dead, returned) == 0, "with three of five dead a write was acknowledged"
    assert between(returned, resumed) > 50, "after one had returned nothing was written"
    return (f"{between(two_dead, three_dead)} writes with two dead, 0 with three, "
            f"{between(returned, resumed)} after one returned; {check.everything(ensemble, load)}")


def partitions(ensemble):
    """Each voter in turn is cut off, then lost in a hole, while the others are written to."""
    assert ensemble.proxies is not None
    with Load(ensemble, sessions=False) as load:
        for member in ensemble.voters:
            others = [m for m in ensemble.members if m is not member]
            ensemble.proxies.cut([member], others)
            time.sleep(1.0)
            ensemble.proxies.heal()
            ensemble.settled()
        leader = ensemble.settled()
        others = [m for m in ensemble.members if m is not leader]
        ensemble.proxies.hole([leader], others)
        eventually("the others have a leader", lambda: any(m.mode() == "leader" for m in others), 60)
        ensemble.proxies.heal()
        ensemble.settled()
    return check.everything(ensemble, load)


def wipes(ensemble):
    """Every voter but the leader loses its disk, one after the other; then the leader does."""
    with Load(ensemble, sessions=False) as load:
        leader = ensemble.settled()
        for member in [m for m in ensemble.voters if m is not leader] + [leader]:
            member.kill()
            ensemble.settled()
            member.wipe()
            member.start()
            ensemble.settled()
    return check.everything(ensemble, load)


def everybody_dies(ensemble):
    """All members are killed at once, under load, and started again."""
    with Load(ensemble) as load:
        for _ in range(2):
            time.sleep(1.5)
            for member in ensemble.members:
                member.kill()
            time.sleep(0.2)
            ensemble.start()
            ensemble.settled()
        time.sleep(1)
    return check.everything(ensemble, load)


def swaps(ensemble, kinds=("zabd", "3.9", "zabd", "3.8", "zabd", "3.9")):
    """Each member runs every implementation in turn on its own data directory, each time after a SIGKILL."""
    compared = 0
    with Load(ensemble) as load:
        for kind in kinds:
            for member in ensemble.members:
                member.kill()
                ensemble.swap(member, kind)
                member.start()
                ensemble.settled()
                compared += compare_mix(ensemble)
    return f"{compared} digests on the way; {check.everything(ensemble, load)}"


def compare_mix(ensemble):
    """While both kinds are there their digests are compared; how many were."""
    if len({member.kind == "zabd" for member in ensemble.members}) == 1:
        check.rebuild(ensemble)
        return 0
    return check.midway(ensemble)


def migration(ensemble, there="zabd"):
    """Rolling migration and back: each member is stopped in good order and comes back as `there`."""
    origin = {member: member.kind for member in ensemble.members}
    compared = 0
    with Load(ensemble, roam=True) as load:
        for target in (lambda _: there, origin.get):
            # The leader last, as an operator would do.
            leader = ensemble.settled()
            for member in [m for m in ensemble.members if m is not leader] + [leader]:
                time.sleep(0.5)
                member.terminate()
                ensemble.swap(member, target(member))
                member.start()
                ensemble.settled()
                compared += compare_mix(ensemble)
    return (f"longest pause of a client {load.longest_pause():.2f} s; {compared} digests on the way; "
            f"{check.everything(ensemble, load)}")


def chaos(ensemble, seconds=60.0, seed=None):
    """Random faults under load, one at a time, then everything heals."""
    rng = random.Random(seed)
    end = time.monotonic() + seconds
    done = []
    with Load(ensemble) as load:
        while time.monotonic() < end:
            leader = ensemble.settled()
            member = rng.choice(ensemble.members)
            fault = rng.choice(["kill", "kill", "leader", "freeze", "terminate", "wipe", "two", "features"])
            if fault == "leader":
                member = leader
            done.append(f"{fault} {member.sid}")
            disturb(ensemble, member, fault, rng)
        ensemble.settled()
    return f"{', '.join(done)}; {check.everything(ensemble, load)}"


def disturb(ensemble, member, fault, rng):
    pause = rng.uniform(0.05, 2.0)
    if fault in ("kill", "leader", "wipe", "terminate"):
        member.terminate() if fault == "terminate" else member.kill()
        if fault == "wipe":
            ensemble.settled()  # an empty disk is only harmless while a quorum of the others is up
            member.wipe()
        time.sleep(pause)
        member.start()
    elif fault == "freeze":
        member.freeze()
        time.sleep(pause * 3)
        member.thaw()
    elif fault == "two":
        pair = rng.sample(ensemble.members, 2)
        for one in pair:
            one.kill()
        time.sleep(pause)
        for one in pair:
            one.start()
    else:
        features.run(ensemble)


def impatient(ensemble, times=20):
    """Clients that do not wait: with their session a second time before the first is answered, gone before the answer."""
    leader = ensemble.settled()
    for member in ensemble.members:
        for number in range(10 * times):
            asking = socket.create_connection(member.address, timeout=20)
            asking.sendall(b"mntr")
            time.sleep(number % 5 / 2000)
            # The connection is reset.
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            asking.close()
    for member in [m for m in ensemble.members if m is not leader]:
        client = wire.Client(leader.address, 20000, wait=20)
        for _ in range(times):
            both = [socket.create_connection(member.address, timeout=20) for _ in range(2)]
            for connection in both:
                connection.sendall(wire.connect_request(20000, client.session, client.password, 0))
            # Java may answer neither of them.
            select.select(both, [], [], 1)
            for connection in both:
                connection.close()
        client.drop()
    return f"{times} times at each of {len(ensemble.members) - 1} members"


def flapping(ensemble, rounds=40):
    """All members but the first end and come back at once, again and again, while it calls them; at times all do."""
    rng = random.Random(rounds)
    first, *others = ensemble.members
    for number in range(rounds):
        for member in ensemble.members if number % 4 == 0 else others:
            member.kill()
        time.sleep(rng.uniform(0.0, 0.8))
        ensemble.start(wait=False)
        time.sleep(rng.uniform(0.7, 2.0))
        one = rng.choice(others)
        one.kill()
        one.start()
        time.sleep(rng.uniform(0.1, 1.0))
    ensemble.settled()
    return f"{rounds} rounds"


def flickering(ensemble, rounds=60):
    """All links break again and again, while elections and connections are under way."""
    assert ensemble.proxies is not None
    rng = random.Random(rounds)
    with Load(ensemble, sessions=False):
        for _ in range(rounds):
            ensemble.proxies.cut(ensemble.members, ensemble.members)
            ensemble.proxies.heal()
            time.sleep(rng.uniform(0.0, 1.0))
        ensemble.settled()
    return f"{rounds} rounds"


SCENARIOS = {
    "calm": calm, "crashes": crashes, "failover": fail_overs, "catch-up": catch_up, "quorum-loss": quorum_loss,
    "partitions": partitions, "wipes": wipes, "everybody-dies": everybody_dies, "swaps": swaps, "migration": migration,
    "chaos": chaos, "impatient": impatient, "flapping": flapping,
    "flickering": flickering,
}
NEED_PROXIES = ("catch-up", "partitions", "flickering")
