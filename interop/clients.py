"""Stock clients on three of ours: kazoo through every port, and Debian's zkCli.sh."""

import multiprocessing
import os
import subprocess
import threading
import time

from .ensemble import Ensemble, eventually
from .suite import Suite

ZK_CLI = "/usr/share/zookeeper/bin/zkCli.sh"


def connect(member, timeout=10.0):
    from kazoo.client import KazooClient
    client = KazooClient(hosts=f"127.0.0.1:{member.client_port}", timeout=timeout)
    client.start(timeout=10)
    return client


def kazoo_one(member):
    """Create, read, write, watch, list, delete, transaction, ACL through one port."""
    from kazoo.exceptions import BadVersionError, NoNodeError, NodeExistsError, NotEmptyError
    client = connect(member)
    root = f"/kazoo-{member.sid}"
    assert client.create(root, b"root") == root
    path, stat = client.create(f"{root}/a", b"one", include_data=True)
    assert path == f"{root}/a" and stat.version == 0
    seen = []
    assert client.get(f"{root}/a", watch=seen.append)[0] == b"one"
    client.get_children(root, watch=seen.append)
    assert client.exists(f"{root}/b", watch=seen.append) is None
    assert client.set(f"{root}/a", b"two").version == 1
    client.create(f"{root}/b")
    eventually("three watches fire", lambda: len(seen) == 3, 5, 0.01)
    assert sorted(event.type for event in seen) == ["CHANGED", "CHILD", "CREATED"]
    assert sorted(client.get_children(root)) == ["a", "b"]
    for error, call in ((NodeExistsError, lambda: client.create(root)), (NoNodeError, lambda: client.get(f"{root}/c")),
                        (BadVersionError, lambda: client.set(f"{root}/a", b"", version=7)),
                        (NotEmptyError, lambda: client.delete(root))):
        try:
            call()
        except error:
            continue
        raise AssertionError(f"no {error.__name__}")
    transaction = client.transaction()
    transaction.check(f"{root}/a", version=1)
    transaction.create(f"{root}/c", b"three")
    transaction.delete(f"{root}/b")
    results = transaction.commit()
    assert results[1] == f"{root}/c" and results[2] is True, results
    assert [acl.perms for acl in client.get_acls(root)[0]] == [31]
    client.sync(root)
    client.delete(root, recursive=True)
    assert client.exists(root) is None
    client.stop()
    client.close()


def watch_elsewhere(here, there):
    """A watch set through one server fires for a change through another."""
    a, b = connect(here), connect(there)
    path = a.create("/watched-", sequence=True)
    fired = threading.Event()
    a.get(path, watch=lambda event: fired.set())
    b.sync(path)
    b.set(path, b"changed")
    assert fired.wait(5), "no event"
    b.delete(path)
    for client in (a, b):
        client.stop()
        client.close()


def hold_ephemeral(port, path, channel):
    from kazoo.client import KazooClient
    client = KazooClient(hosts=f"127.0.0.1:{port}", timeout=4.0)
    client.start()
    client.create(path, ephemeral=True)
    channel.put(client.client_id[0])
    time.sleep(600)


def ephemeral_dies(ensemble):
    """The process of a client is killed; its node goes when its session expires, everywhere."""
    fresh = multiprocessing.get_context("spawn")
    channel = fresh.Queue()
    path = "/ephemeral"
    holder = fresh.Process(target=hold_ephemeral, args=(ensemble.members[0].client_port, path, channel), daemon=True)
    holder.start()
    session = channel.get(timeout=20)
    clients = [connect(member) for member in ensemble.members]
    for client in clients:
        client.sync(path)
        assert client.exists(path).ephemeralOwner == session
    holder.kill()
    died = time.monotonic()
    for client in clients:
        eventually("the ephemeral node disappears", lambda: client.exists(path) is None, 20, 0.1)
        client.stop()
        client.close()
    return f"gone {time.monotonic() - died:.1f} s after its client, session time-out 4 s"


def sequence(ensemble):
    clients = [connect(member) for member in ensemble.members]
    clients[0].ensure_path("/sequence")
    for client in clients:
        client.sync("/sequence")
    names = [clients[number % 3].create("/sequence/n-", sequence=True) for number in range(30)]
    assert names == [f"/sequence/n-{number:010d}" for number in range(30)], names
    for client in clients:
        client.sync("/sequence")
        assert len(client.get_children("/sequence")) == 30
        client.stop()
        client.close()


def zk_cli(member, *commands):
    """Output of one zkCli.sh session that is given these commands."""
    environment = dict(os.environ, CLIENT_JVMFLAGS="-Xmx64m -XX:TieredStopAtLevel=1")
    done = subprocess.run(
        ["bash", ZK_CLI, "-server", f"127.0.0.1:{member.client_port}"], input="\n".join([*commands, "quit", ""]),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, env=environment,
    )
    return done.stdout


def zk_cli_one(member):
    root = f"/cli-{member.sid}"
    text = zk_cli(member, f"create {root} hello", f"get -w {root}", f"set {root} world", f"create {root}/x y", f"ls {root}",
                  f"stat {root}", f"create -e {root}/mine me", f"delete {root}/x", f"deleteall {root}", f"ls {root}")
    for wanted in (f"Created {root}", "hello", "NodeDataChanged", "[x]", "dataVersion = 1", f"Created {root}/mine",
                   f"Node does not exist: {root}"):
        assert wanted in text, f"no '{wanted}' in the output of zkCli.sh:\n{text[-3000:]}"


def main(_options):
    suite = Suite("stock clients")
    with Ensemble(["zabd"] * 3) as ensemble:
        suite.case("three servers from zoo.cfg", lambda: ensemble.start() and None)
        for member in ensemble.members:
            suite.case(f"kazoo through server {member.sid} ({member.mode()})", kazoo_one, member, limit=60)
        for at, member in enumerate(ensemble.members):
            other = ensemble.members[(at + 1) % 3]
            suite.case(f"kazoo, watch on {member.sid}, change on {other.sid}", watch_elsewhere, member, other, limit=60)
        suite.case("sequence of creates through three servers", sequence, ensemble, limit=60)
        suite.case("ephemeral node of a killed client", ephemeral_dies, ensemble, limit=60)
        if os.path.exists(ZK_CLI):
            for member in ensemble.members:
                suite.case(f"zkCli.sh through server {member.sid}", zk_cli_one, member, limit=90)
        else:
            print(f"  without zkCli.sh: no {ZK_CLI}")
    return suite.close()
