"""Modes of a server that Apache's tests look for: the read-only mode, with kazoo, alone and among Apache's servers."""

from . import mixed
from .ensemble import Ensemble, eventually
from .suite import Suite


def client_of(members, read_only=True):
    from kazoo.client import KazooClient
    client = KazooClient(hosts=",".join(f"127.0.0.1:{member.client_port}" for member in members), timeout=10, read_only=read_only,
                         randomize_hosts=False)
    client.start(timeout=40)
    return client


def read_only(kinds):
    """The first member is left alone: it lets read, refuses writes, and serves all again once there is a majority."""
    from kazoo.client import KeeperState
    from kazoo.exceptions import NotReadOnlyCallError
    from kazoo.handlers.threading import KazooTimeoutError

    with Ensemble(kinds, properties=["readonlymode.enabled=true"], extra=["localSessionsEnabled=true"]) as ensemble:
        ensemble.start()
        ensemble.serving()
        left, *others = ensemble.members
        writer = client_of([left], read_only=False)
        writer.create("/n", b"x")
        writer.stop()
        assert left.words("isro").strip() == "rw"
        for member in others:
            member.kill()
        eventually("isro says ro", lambda: left.words("isro").strip() == "ro", 30)
        assert "Mode: read-only" in left.words("srvr"), left.words("srvr")
        client = client_of([left])
        assert client.client_state == KeeperState.CONNECTED_RO, client.client_state
        assert client.get("/n")[0] == b"x"
        for write in (lambda: client.create("/m"), lambda: client.set("/n", b"y"), lambda: client.delete("/n")):
            try:
                write()
            except NotReadOnlyCallError:
                continue
            raise AssertionError("a write was not refused")
        try:
            from kazoo.client import KazooClient
            KazooClient(hosts=f"127.0.0.1:{left.client_port}", timeout=3).start(timeout=3)
            raise AssertionError("a client that writes was served")
        except KazooTimeoutError:
            pass
        left.kill()
        before = len(left.log_text())
        left.start()
        if left.kind == "zabd":
            # It does not know any more what of its log is committed, and does not show less than before.
            eventually("it says why clients cannot read", lambda: "clients cannot read here" in left.log_text()[before:], 30)
            assert left.words("isro").strip() == "null"
        others[0].start()
        eventually("the client may write", lambda: client.connected and client.client_state == KeeperState.CONNECTED, 40)
        client.create("/m", b"z")
        client.stop()


def goes_on(kinds):
    """What kazoo's own test asserts: a client from before ends up connected for reading."""
    from kazoo.client import KazooClient, KeeperState
    from kazoo.exceptions import NotReadOnlyCallError

    with Ensemble(kinds, properties=["readonlymode.enabled=true"], extra=["localSessionsEnabled=true"]) as ensemble:
        ensemble.start()
        ensemble.serving()
        left, *others = ensemble.members
        hosts = ",".join(f"127.0.0.1:{member.client_port}" for member in ensemble.members)
        client = KazooClient(hosts=hosts, timeout=10, read_only=True, connection_retry={"max_tries": -1, "max_delay": 1})
        client.start(timeout=15)
        for member in others:
            member.kill()
        eventually("the client reads", lambda: client.client_state == KeeperState.CONNECTED_RO, 15)
        assert client.get_children("/") == ["zookeeper"], client.get_children("/")
        try:
            client.create("/fred")
            raise AssertionError("a write was not refused")
        except NotReadOnlyCallError:
            pass
        client.stop()


def main(_options):
    suite = Suite("interop modes")
    kinds = [["zabd"] * 3]
    if "3.8" in mixed.available():
        kinds.append(["zabd", "3.8", "3.8"])
    for members in kinds:
        suite.case(f"a client from before, {members[0]} is left of {'+'.join(members)}", goes_on, members)
        suite.case(f"read-only, {members[0]} is left of {'+'.join(members)}", read_only, members)
    return suite.close()
