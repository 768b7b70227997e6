"""Local sessions (`localSessionsEnabled`), alone and among Apache's servers, with each of both as the leader.

What Apache's `LocalSessionRequestTest`, `LocalSessionsOnlyTest`, `SessionUpgradeTest` and `MultiOperationSessionTest` assert, against
every member; and that an Apache server logs nothing for a session that owns nothing.
"""

import struct
import time

from . import mixed, wire
from .ensemble import Ensemble, eventually
from .suite import Suite

EPHEMERAL_ON_LOCAL_SESSION = -120


def figure(member, name):
    for line in member.words("mntr").splitlines():
        if line.startswith(f"zk_{name}\t"):
            return int(float(line.split("\t")[1]))
    raise AssertionError(f"{member} has no {name}")


def attach(member, previous):
    """The next connection of a session. A member that has not caught up with what its client has seen hangs up without a word."""
    end = time.monotonic() + 10
    while True:
        try:
            return wire.Client(member.address, timeout_ms=8000, previous=previous)
        except wire.Expired:
            raise
        except wire.Closed:
            assert time.monotonic() < end, f"{member} takes nobody"
            time.sleep(0.05)


def refused(member, previous):
    """Whether a member says that a session is over."""
    try:
        attach(member, previous).drop()
    except wire.Expired:
        return True
    return False


def code_of(call, *arguments):
    try:
        call(*arguments)
    except wire.ZkError as error:
        return error.code
    return 0


def of_itself(member, others, upgrades):
    """A session that owns nothing: known to its server alone, from its beginning to its end."""
    before, known = figure(member, "global_sessions"), figure(member, "local_sessions")
    client = wire.Client(member.address, timeout_ms=8000)
    assert figure(member, "local_sessions") == known + 1
    path = f"/own-{member.sid}-{client.session:x}"
    client.ensure(path)
    client.set(path, b"x")
    client.multi([(wire.CREATE, wire.create_body(path + "/part")), (wire.CHECK, wire.string(path) + b"\xff" * 4)])
    client.sync()
    assert client.get(path)[0] == b"x"
    if not upgrades:
        assert code_of(client.create, path + "/mine", b"", wire.EPHEMERAL) == EPHEMERAL_ON_LOCAL_SESSION
        body = client.multi([(wire.CREATE, wire.create_body(path + "/mine", b"", wire.EPHEMERAL))]).body
        code = EPHEMERAL_ON_LOCAL_SESSION if member.mode() == "leader" else wire.SESSION_EXPIRED
        assert struct.unpack_from(">ibii", body) == (-1, 0, code, code), body
        assert client.exists(path + "/mine") is None
    assert figure(member, "global_sessions") == before
    assert all(refused(other, client) for other in others), "it goes on elsewhere"
    client.drop()
    again = attach(member, client)
    assert again.session == client.session
    assert again.get(path)[0] == b"x"
    again.close()
    assert refused(member, again), "it is closed"
    lapsed = wire.Client(member.address, timeout_ms=4000)
    lapsed.drop()
    eventually("a silent session expires", lambda: figure(member, "local_sessions") == known, 15)
    assert refused(member, lapsed)
    assert figure(member, "global_sessions") == before


def upgraded(member, others):
    """A session that creates an ephemeral node is the ensemble's, with its id, and its end takes the node along."""
    operations = {
        "create": lambda client, path: client.create(path, b"", wire.EPHEMERAL),
        "create2": lambda client, path: client.call(wire.CREATE2, wire.create_body(path, b"", wire.EPHEMERAL)),
        "multi": lambda client, path: client.multi([(wire.CREATE, wire.create_body(path, b"", wire.EPHEMERAL))]),
    }
    for name, create in operations.items():
        before = figure(member, "global_sessions")
        client = wire.Client(member.address, timeout_ms=8000)
        path = f"/{name}-{member.sid}-{client.session:x}"
        create(client, path)
        create(client, path + "-again")
        assert client.exists(path).ephemeral_owner == client.session
        assert figure(member, "global_sessions") == before + 1
        moved = attach(others[0], client)
        assert moved.session == client.session
        moved.sync()
        assert moved.exists(path).ephemeral_owner == client.session
        moved.close()
        other = wire.Client(others[-1].address, timeout_ms=8000)
        other.sync()
        assert other.exists(path) is None, "its node is still there"
        other.close()
        assert refused(member, moved)


def session(kinds, leads, upgrades):
    extra = ["localSessionsEnabled=true", f"localSessionsUpgradingEnabled={str(upgrades).lower()}"]
    with Ensemble(kinds, extra=extra) as ensemble:
        ensemble.start()
        leader = ensemble.settled()
        if leader.kind != leads:
            # Of the other two the one with the highest id leads next.
            leader.kill()
            ensemble.settled()
            leader.start()
            leader = ensemble.settled()
        assert leader.kind == leads, f"{leader} leads"
        for member in ensemble.members:
            others = [other for other in ensemble.members if other is not member]
            of_itself(member, others, upgrades)
            if upgrades:
                upgraded(member, others)


def survives(kinds):
    """Our members' local sessions, and the connections of those, outlive their leader."""
    with Ensemble(kinds, extra=["localSessionsEnabled=true", "localSessionsUpgradingEnabled=true"]) as ensemble:
        ensemble.start()
        leader = ensemble.leader()
        ours = [member for member in ensemble.members if member.kind == "zabd" and member is not leader]
        clients = [wire.Client(member.address, timeout_ms=40_000, wait=20.0) for member in ours]
        for client in clients:
            client.create(f"/before-{client.session:x}")
        leader.kill()
        for client in clients:
            # It is read when there is a leader again.
            client.create(f"/after-{client.session:x}")
            client.create(f"/mine-{client.session:x}", b"", wire.EPHEMERAL)
        ensemble.settled()
        time.sleep(0.5)
        for client, member in zip(clients, ours):
            assert client.exists(f"/mine-{client.session:x}").ephemeral_owner == client.session
            client.close()
            assert "Holding" in member.log_text()


def main(_options):
    suite = Suite("interop local sessions")
    cases = [(["zabd"] * 3, "zabd")]
    for kind in ("3.8", "3.9"):
        if kind in mixed.available():
            cases += [([kind, "zabd", "zabd"], "zabd"), (["zabd", "zabd", kind], kind)]
    for kinds, leads in cases:
        name = "+".join(kinds)
        for upgrades in (True, False):
            suite.case(f"local sessions, {name}, {'upgraded' if upgrades else 'never upgraded'}", session, kinds, leads, upgrades)
        suite.case(f"local sessions outlive the leader, {name}", survives, kinds)
    return suite.close()
