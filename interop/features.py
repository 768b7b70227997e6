"""What clients may rely on, tried across every pair of neighbouring members."""

import struct

from . import wire
from .ensemble import eventually

ROOT = "/features"


def run(ensemble):
    """Through each member and the next one; raises with the first thing that is wrong."""
    members = ensemble.members
    client = wire.Client(members[0].address)
    client.ensure(ROOT)
    client.close()
    for at, here in enumerate(members):
        there = members[(at + 1) % len(members)]
        for check in (watches, moves, syncs, multis, errors, ephemerals):
            try:
                check(here, there)
            except (AssertionError, wire.ZkError, wire.Closed) as error:
                raise AssertionError(f"{check.__name__} through {here} and {there}: {error!r}") from error
    sequence(members)
    return f"{len(members)} pairs"


def expect(code, call, *args):
    try:
        call(*args)
    except wire.ZkError as error:
        assert error.code == code, f"error {error.code}, not {code}"
        return
    raise AssertionError(f"no error, {code} expected")


def attach(member, previous):
    """Moves a session. A server that is behind what the client has seen closes the connection: try again."""
    def attempt():
        try:
            return wire.Client(member.address, 20000, previous)
        except wire.Expired:
            raise
        except wire.Closed:
            return None
    return eventually(f"session accepted by {member}", attempt, 5, 0.01)


def pair(here, there):
    return wire.Client(here.address), wire.Client(there.address)


def event(client, kind, path):
    """A ping makes the server answer something; the event comes before or after it."""
    def arrived():
        client.ping()
        return (kind, path) in client.events
    eventually(f"event {kind} on {path}", arrived, 5, 0.01)


def watches(here, there):
    a, b = pair(here, there)
    path = f"{ROOT}/watch-{here.sid}"
    assert a.exists(path, watch=True) is None
    b.create(path, b"1")
    event(a, 1, path)
    a.get(path, watch=True)
    a.children(path, watch=True)
    b.set(path, b"2")
    event(a, 3, path)
    b.create(f"{path}/child")
    event(a, 4, path)
    b.delete(f"{path}/child")
    a.sync()
    a.get(path, watch=True)
    b.delete(path)
    event(a, 2, path)
    a.close()
    b.close()


def moves(here, there):
    """A session goes to another server: it keeps its node, and writes of the old connection are refused."""
    old = wire.Client(here.address, 20000)
    path = old.create(f"{ROOT}/moving-", b"", wire.EPHEMERAL_SEQUENTIAL)
    new = attach(there, old)
    assert new.session == old.session
    assert new.get(path)[1].ephemeral_owner == old.session
    new.set(path, b"moved")
    try:
        old.set(path, b"stale")
        raise AssertionError("a write of the old connection was taken")
    except (wire.Closed, wire.ZkError):
        pass
    new.sync()
    assert new.get(path)[0] == b"moved"
    back = attach(here, new)
    back.sync()
    assert back.get(path)[0] == b"moved"
    back.close()
    new.drop()
    old.drop()
    wrong = wire.Client(there.address, 20000)
    wrong.password = b"\1" * 16
    wrong.drop()
    try:
        attach(here, wrong)
        raise AssertionError("a wrong password was accepted")
    except wire.Expired:
        pass
    look = wire.Client(there.address)
    look.sync()
    assert look.exists(path) is None, "the node outlived its session"
    look.close()


def syncs(here, there):
    # A leader of Apache's answers a sync of its own clients at once, also before it has applied what its followers
    # have acknowledged already (ZOOKEEPER-1675 and kin): nothing can be asked of it.
    if there.kind != "zabd" and there.mode() == "leader":
        return
    a, b = pair(here, there)
    path = a.create(f"{ROOT}/sync-", b"", wire.SEQUENTIAL)
    for number in range(20):
        a.set(path, b"%d" % number)
        b.sync(path)
        assert b.get(path)[0] == b"%d" % number, "a read after sync is older than an acknowledged write"
    b.delete(path)
    a.close()
    b.close()


def multis(here, there):
    a, b = pair(here, there)
    base = a.create(f"{ROOT}/multi-", b"0", wire.SEQUENTIAL)
    check = wire.string(base) + struct.pack(">i", 0)
    a.multi([(wire.CHECK, check), (wire.CREATE, wire.create_body(f"{base}/x", b"x")),
             (wire.SET_DATA, wire.set_data_body(base, b"1", 0))])
    reply = b.call(wire.SYNC, wire.string("/"))
    reply = b.call(wire.MULTI, wire.multi_body([
        (wire.CREATE, wire.create_body(f"{base}/y", b"y")),
        (wire.CHECK, check),
        (wire.DELETE, wire.string(f"{base}/x") + b"\xff\xff\xff\xff"),
    ]))
    codes = [struct.unpack_from(">i", reply.body, at + 9)[0] for at in (0, 13, 26)]
    assert codes == [0, wire.BAD_VERSION, -2], f"results of a failed multi: {codes}"
    a.sync()
    assert a.children(base) == ["x"], "a failed multi left something"
    b.multi([(wire.DELETE, wire.string(f"{base}/x") + b"\xff\xff\xff\xff"),
             (wire.DELETE, wire.string(base) + b"\xff\xff\xff\xff")])
    a.close()
    b.close()


def errors(here, there):
    """Refused writes go through the log as well: the zxid moves on, nothing else does."""
    a, b = pair(here, there)
    path = a.create(f"{ROOT}/error-", b"", wire.SEQUENTIAL)
    b.sync()
    before = b.last_zxid
    expect(wire.NODE_EXISTS, b.create, path)
    expect(wire.BAD_VERSION, b.set, path, b"", 7)
    expect(wire.NO_NODE, b.delete, f"{path}/none")
    assert b.last_zxid >= before + 3, "refused writes took no zxid"
    b.delete(path)
    expect(wire.NO_NODE, b.set, path, b"")
    a.close()
    b.close()


def ephemerals(here, there):
    a, b = pair(here, there)
    path = a.create(f"{ROOT}/ephemeral-", b"", wire.EPHEMERAL_SEQUENTIAL)
    expect(-108, a.create, f"{path}/child")
    b.sync()
    stat = b.exists(path, watch=True)
    assert stat is not None and stat.ephemeral_owner == a.session
    a.close()
    event(b, 2, path)
    b.close()


def sequence(members):
    """Sequential nodes made through all members in turn are numbered without gap or repetition."""
    clients = [wire.Client(member.address) for member in members]
    base = clients[0].create(f"{ROOT}/numbers-", b"", wire.SEQUENTIAL)
    for client in clients:
        client.sync()
    names = [clients[at % len(clients)].create(f"{base}/n-", b"", wire.SEQUENTIAL) for at in range(30)]
    assert names == [f"{base}/n-{number:010d}" for number in range(30)], names
    for client in clients:
        client.close()
