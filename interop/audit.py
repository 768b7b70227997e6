"""The audit log: what ZooKeeper 3.8.0 writes for one conversation, beside what ours writes for the same one."""

import json
import os
import re
import struct
import subprocess
import tempfile
import time
from itertools import groupby, zip_longest

from . import servers, wire
from .ensemble import Ensemble, eventually
from .suite import Suite

CREATE_CONTAINER, CREATE_TTL, AUTH, RECONFIG = 19, 21, 100, 16
CONTAINER, TTL, SEQUENTIAL_TTL = 4, 5, 6
DELETED = "ephemeralZNodeDeletionOnSessionCloseOrExpire"
PROPERTIES = ["zookeeper.audit.enable=true", "zookeeper.extendedTypesEnabled=true"]
LINE = re.compile(r"((?:session=|user=)[^\n]*\bresult=\w+)$")


def acl_body(path, entries, version=-1):
    packed = b"".join(struct.pack(">i", perms) + wire.string(scheme) + wire.string(who) for perms, scheme, who in entries)
    return wire.string(path) + struct.pack(">i", len(entries)) + packed + struct.pack(">i", version)


def create_body(path, flags, acl=wire.ANYONE, ttl=None):
    return wire.string(path) + wire.buffer(b"x") + acl + struct.pack(">i", flags) + (b"" if ttl is None else struct.pack(">q", ttl))


def delete_body(path, version=-1):
    return wire.string(path) + struct.pack(">i", version)


def auth(client, scheme, data):
    return client.call(AUTH, struct.pack(">i", 0) + wire.string(scheme) + wire.buffer(data), xid=-4)


class Client(wire.Client):
    """A client whose requests are written down, so that others can send the same ones."""

    steps = []  # (session, operation or what happens, record in hex)
    opened = 0

    def __init__(self, address, **more):
        Client.opened += 1
        self.number = Client.opened
        self.steps.append((self.number, "open", str(more.get("timeout_ms", 10000))))
        super().__init__(address, **more)

    def send(self, op, body=b"", xid=None):
        self.steps.append((self.number, op, body.hex()))
        return super().send(op, body, xid)

    def attempt(self, op, body):
        """A request whose outcome shows in the audit log."""
        try:
            self.call(op, body)
        except wire.ZkError:
            pass


def conversation(address, create2=True):
    """Every operation that is audited, done and refused; and some that are not. Returns the sessions, in order, and the steps."""
    Client.steps, Client.opened = [], 0
    one = Client(address)
    singles(one)
    auth(one, "digest", b"bob:secret")
    auth(one, "digest", b"eve:secret")
    one.create("/ours")
    for entries, version in (([(31, "auth", ""), (1, "world", "anyone")], -1), ([(5, "ip", "127.0.0.1/8"), (0, "world", "anyone")], -1),
                             ([(31, "digest", "bob:eUCVxQ4/rcjGUvkoOhqzdJjMyEI=")], -1), ([(31, "world", "anyone")], 9),
                             ([(31, "nothing", "like it")], -1), ([], -1)):
        one.attempt(wire.SET_ACL, acl_body("/ours", entries, version))
    two = Client(address)
    two.attempt(wire.SET_DATA, wire.set_data_body("/ours", b"stolen"))
    two.attempt(wire.CREATE, create_body("/ours/child", wire.PERSISTENT))
    multis(two, create2)
    two.attempt(RECONFIG, wire.string("") + wire.string("3") + wire.string("") + struct.pack(">q", -1))
    two.create("/gone", flags=wire.EPHEMERAL)
    two.create("/gone-too-", flags=wire.EPHEMERAL_SEQUENTIAL)
    two.delete("/gone")
    two.close()
    three = Client(address, timeout_ms=4000)
    three.create("/expires", flags=wire.EPHEMERAL)
    three.steps.append((three.number, "expire", ""))
    three.drop()
    watcher = wire.Client(address)
    eventually("the session expires", lambda: watcher.exists("/expires") is None, 20, 0.2)
    watcher.close()
    one.close()
    return [client.session for client in (one, two, three)], Client.steps


def singles(client):
    for op in (wire.CREATE, wire.CREATE2):
        for flags in (wire.PERSISTENT, wire.EPHEMERAL, wire.SEQUENTIAL, wire.EPHEMERAL_SEQUENTIAL):
            client.attempt(op, create_body(f"/n{op}-{flags}", flags))
            client.attempt(op, create_body(f"/n{op}-{flags}", flags))
    for flags in (TTL, SEQUENTIAL_TTL):
        client.attempt(CREATE_TTL, create_body(f"/ttl-{flags}", flags, ttl=1 << 30))
        client.attempt(CREATE_TTL, create_body(f"/ttl-{flags}", flags, ttl=-5))
    client.attempt(CREATE_CONTAINER, create_body("/box", CONTAINER))
    client.attempt(CREATE_CONTAINER, create_body("/box", CONTAINER))
    client.attempt(wire.CREATE, create_body("/odd-flags", 77))
    client.attempt(wire.CREATE, create_body("no/slash", 0))
    client.attempt(wire.CREATE, create_body("/no/parent", 0))
    client.attempt(wire.SET_DATA, wire.set_data_body("/box", b"data"))
    client.attempt(wire.SET_DATA, wire.set_data_body("/box", b"data", 17))
    client.attempt(wire.SET_DATA, wire.set_data_body("/nowhere", b"data"))
    client.attempt(wire.DELETE, delete_body("/nowhere"))
    client.attempt(wire.DELETE, delete_body("/n1-0", 3))
    client.attempt(wire.DELETE, delete_body("/n1-0"))
    client.exists("/box")
    client.get("/box")
    client.children("/")
    client.sync()
    client.ping()
    client.attempt(wire.CREATE, create_body("/grüße an alle", 0))


def multis(client, create2):
    """A server of 3.8.0 cannot apply a create2 within a multi that a leader of 3.9 wrote: its tree would differ from then on."""
    second = wire.CREATE2 if create2 else wire.CREATE
    done = [(wire.CREATE, create_body("/m", 0)), (second, create_body("/m/two", 0)),
            (wire.CREATE, create_body("/m/seq-", wire.SEQUENTIAL)), (wire.CREATE, create_body("/m/seq-", wire.EPHEMERAL_SEQUENTIAL)),
            (CREATE_CONTAINER, create_body("/m/box", CONTAINER)), (wire.CHECK, delete_body("/m")),
            (wire.SET_DATA, wire.set_data_body("/m", b"y")), (wire.DELETE, delete_body("/m/two"))]
    client.attempt(wire.MULTI, wire.multi_body(done))
    client.attempt(wire.MULTI, wire.multi_body(done))
    client.attempt(wire.MULTI, wire.multi_body([(CREATE_TTL, create_body("/m/ttl", TTL, ttl=1 << 30))]))
    client.attempt(wire.MULTI, wire.multi_body([(wire.CHECK, delete_body("/m"))]))
    client.attempt(wire.MULTI, wire.multi_body([]))
    client.attempt(wire.MULTI, wire.multi_body([(wire.CREATE, create_body("/m/seq-0000000002", wire.PERSISTENT)),
                                                 (wire.CREATE, create_body("/m/seq-", wire.SEQUENTIAL))]))


def lines(text, sessions):
    """The audit lines of a log, with the sessions by their order."""
    found = [match.group(1) for match in (LINE.search(line) for line in text.splitlines()) if match]
    for at, session in enumerate(sessions, 1):
        found = [line.replace(f"session=0x{session:x}\t", f"session=#{at}\t") for line in found]
    return found


def in_order(found):
    """The ephemeral nodes of one session go in an order that Java leaves open."""
    return [line for _, group in groupby(found, lambda line: line if DELETED not in line else line.split("\t")[0])
            for line in sorted(group)]


def heard(kind, kinds=None, *extra):
    """What the first member of this kind writes for the conversation with it, and the steps of that."""
    with Ensemble(kinds or [kind], properties=[*PROPERTIES, *extra]) as ensemble:
        ensemble.start()
        if kinds:
            ensemble.settled()
        member = next(member for member in ensemble.members if member.kind == kind)
        sessions, steps = conversation(member.address, "3.8" not in (kinds or []))
        time.sleep(0.2)
        ensemble.stop()
        text = member.log_text()
        path = next((line.split("=", 1)[1] for line in extra if "auditlog.file" in line), None)
        if path:
            assert not lines(text, sessions), "what has a file of its own stands nowhere else"
            with open(path) as file:
                text = file.read()
        return in_order(lines(text, sessions)), steps


def compared(theirs, ours):
    """Fails with the first lines that differ."""
    differ = [pair for pair in zip_longest(theirs, ours) if pair[0] != pair[1]]
    assert not differ, f"{len(differ)} lines differ, first: {differ[0][0]!r} of theirs, {differ[0][1]!r} of ours"
    return f"{len(ours)} lines are the same"


def beside(apache, kinds=None, *extra):
    theirs, _ = heard(apache, kinds)
    ours, _ = heard("zabd", kinds, *extra)
    # 3.8 cannot read its own createTTL again, and 3.9 has closed its log when the last line comes.
    if apache == "3.8":
        ours = [line for line in ours if "_with_ttl" not in line]
    theirs, ours = ([line for line in found if "serverStop" not in line] for found in (theirs, ours))
    return compared(theirs, ours)


def own_file():
    """The same lines in a file of their own; a server that does not start says so there."""
    in_log, _ = heard("zabd")
    with tempfile.TemporaryDirectory(prefix="interop-audit-") as directory:
        path = os.path.join(directory, "audit.log")
        in_file, _ = heard("zabd", None, f"zookeeper.auditlog.file={path}")
        assert in_log == in_file and in_file[0].endswith("operation=serverStart\tresult=success"), in_file[0]
        assert in_file[-1].endswith("operation=serverStop\tresult=invoked"), in_file[-1]
        config = os.path.join(directory, "zoo.cfg")
        with open(config, "w") as file:
            file.write(f"clientPort=nonsense\ndataDir={directory}\naudit.enable=true\nauditlog.file={path}\n")
        code = subprocess.run([servers.zabd(), config], stderr=subprocess.DEVNULL, timeout=20).returncode
        with open(path) as file:
            last = file.read().splitlines()[-1]
        assert code == 2 and last.endswith("operation=serverStart\tresult=failure"), (code, last)
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ERROR audit.Slf4jAuditLogger: user=", last), last
    return f"{len(in_file)} lines"


def record(path, apache="3.9"):
    """Writes the conversation and Apache's lines down for the tests of zk-service."""
    found, steps = heard(apache)
    with open(path, "w") as file:
        json.dump({"server": apache, "steps": steps, "lines": [line for line in found if "operation=server" not in line]}, file,
                  ensure_ascii=False, indent=0)


def main(options):
    servers.check(["zabd"])
    if options.record:
        record(options.record)
        return 0
    suite = Suite("audit")
    suite.case("a file of its own, and a start that fails", own_file)
    for apache in ("3.8", "3.9"):
        try:
            servers.check([apache])
        except servers.Missing as missing:
            print(f"  without {apache}: {missing}")
            continue
        suite.case(f"beside {apache}, alone", beside, apache)
        suite.case(f"beside {apache}, members of one ensemble", beside, apache, [apache, "zabd", "zabd"])
    return suite.close()
