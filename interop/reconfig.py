"""The members change while everything runs: `reconfig` of ours, of Apache's, of both in one ensemble."""

import glob
import os
import re
import struct
import subprocess
import time

from . import check, servers, wire
from .ensemble import Ensemble, eventually
from .load import Load
from .suite import Suite

RECONFIG = 16
IN_PROGRESS, NO_QUORUM, NO_AUTH, DISABLED = -14, -13, -102, -123
CONFIG = "/zookeeper/config"


class Changing(Ensemble):
    """Members of which the first `begin` are the voters at first; the others join later."""

    def __init__(self, kinds, begin, **options):
        self.begin, self.now = begin, None
        extra = ["reconfigEnabled=true", "standaloneEnabled=false", "skipACL=yes", *options.pop("extra", [])]
        super().__init__(kinds, extra=extra, **options)
        self.everybody = list(self.members)

    def configure(self, member):
        """The voters of now, and the member itself, as an observer if it is none of them: it has no vote before it is given one."""
        lines = [
            f"tickTime={self.tick_ms}", "initLimit=10", "syncLimit=5", f"dataDir={member.data}", "4lw.commands.whitelist=*",
            "admin.enableServer=false", "maxClientCnxns=0", "minSessionTimeout=2000", "maxSessionTimeout=120000", *self.extra,
        ]
        now = self.now or self.members[: self.begin]
        lines += [line(other) for other in now]
        if member not in now:
            lines += ["peerType=observer", line(member, "observer")]
        with open(os.path.join(member.directory, "zoo.cfg"), "w") as file:
            file.write("\n".join(lines) + "\n")

    def start_first(self):
        for member in self.everybody[: self.begin]:
            member.start()
        self.settled()
        return self


def line(member, role="participant"):
    return (f"server.{member.sid}=127.0.0.1:{member.quorum_port}:{member.election_port}:{role};"
            f"127.0.0.1:{member.client_port}")


def text(value):
    return struct.pack(">i", -1) if value is None else wire.string(value)


def record(joining=None, leaving=None, members=None, version=-1):
    return text(joining) + text(leaving) + text(members) + struct.pack(">q", version)


def configuration(member, wait=20.0):
    """Lines of the members, and the version, as this member has it and after all that was acknowledged."""
    client = wire.Client(member.address, 20000, wait=wait)
    client.sync()
    *lines, version = client.get(CONFIG)[0].decode().split("\n")
    client.close()
    return lines, int(version.removeprefix("version="), 16)


def change(ask, others=(), joining=(), leaving=(), members=None, seconds=40.0):
    """Changes the members through `ask`, and finds out what came of it if the connection is lost.

    `joining` are lines, `leaving` members. The version before is part of the request, so that it takes effect once at most.
    Another version afterwards is this change, as nobody else asks for one.
    """
    end = time.monotonic() + seconds
    _, before = configuration(ask)
    body = record(",".join(joining) or None, ",".join(str(member.sid) for member in leaving) or None,
                  members and ",".join(members), before)
    while True:
        code = None
        try:
            client = wire.Client(ask.address, 20000, wait=20.0)
            client.send(RECONFIG, body)
            reply = client.receive()
            client.drop()
            if not reply.err:
                return wire.read_buffer(reply.body)[0].decode()
            code = reply.err
        except wire.Closed:
            pass
        # The answer may be lost, and then the version says it. A joiner may not have caught up yet.
        for member in [ask, *others]:
            try:
                lines, version = configuration(member, 4.0)
            except wire.Closed:
                continue
            if version > before:
                return "\n".join([*lines, f"version={version:x}"])
            break
        if code not in (None, IN_PROGRESS, NO_QUORUM):
            raise wire.ZkError(code)
        if time.monotonic() > end:
            raise AssertionError(f"not changed within {seconds:g} s: error {code}")
        time.sleep(0.1)


def agreed(members, version, seconds=30.0):
    """Waits until all of these members have a configuration of this version, and say the same of it."""
    def find():
        try:
            found = [configuration(member, 4.0) for member in members]
        except wire.Closed:
            return None
        return found[0] if all(one == found[0] and one[1] == version for one in found) else None
    return eventually(f"version {version:x} on {members}", find, seconds)


def version_of(said):
    return int(said.rpartition("version=")[2], 16)


def written(member):
    """What the member's own files say of the members: the lines, and the version that is the end of the file's name."""
    with open(os.path.join(member.directory, "zoo.cfg")) as file:
        found = re.findall(r"^dynamicConfigFile=(.*)$", file.read(), re.MULTILINE)
    if not found:
        return None
    with open(found[0]) as file:
        return sorted(file.read().split("\n")), int(found[0].rpartition(".")[2], 16)


def grow_and_shrink(ensemble, steps, others=0):
    """The members of each step in turn, one change each, under load; who is new is started before, who is gone is stopped after."""
    ensemble.start_first()
    everybody = ensemble.everybody
    with Load(ensemble, sessions=False, roam=True) as load:
        now, changes = everybody[: ensemble.begin], 0
        for step in steps:
            wanted = [everybody[sid - 1] for sid in step]
            new = [member for member in wanted if member not in now]
            gone = [member for member in now if member not in wanted]
            ensemble.now = now
            for member in new:
                # One that was a member before does not find itself in what it has been told since.
                ensemble.configure(member)
                member.start()
            ensemble.serving(new)
            stay = [member for member in now if member not in gone] or new
            said = change(stay[0], [*stay[1:], *new], [line(member) for member in new], gone)
            version = version_of(said)
            lines, _ = agreed(wanted, version)
            assert lines == sorted(line(member) for member in wanted), lines
            for member in wanted:
                eventually(f"the files of {member}", lambda m=member: written(m) == (sorted(lines), version), 10)
            for member in gone:
                # It goes on without a vote until it is stopped.
                assert member.running, f"{member} ended with {member.process.poll()}: {member.logs[-1][1]}"
                member.terminate()
            now, changes = wanted, changes + 1
        time.sleep(1)
    ensemble.members = now
    found = check.everything(ensemble, load)
    return f"{changes} changes, longest pause {load.longest_pause():.2f} s; {found}"


# Growing, shrinking, and everybody replaced by somebody else one by one, whoever leads.
ALONE_TO_FIVE_AND_BACK = ((1, 2), (1, 2, 3), (1, 2, 3, 4, 5), (1, 2, 3))
REPLACED = ((2, 3, 4), (3, 4, 5), (4, 5, 6))


def leader_leaves(ensemble):
    """The leader is made an observer, then removed, then another one is: each time the others go on at once."""
    leader = ensemble.start_first().settled()
    took = []
    with Load(ensemble, sessions=False, roam=True) as load:
        for turn in range(2):
            leader = ensemble.settled()
            others = [member for member in ensemble.members if member is not leader]
            begin = time.monotonic()
            if turn:
                said = change(others[0], others[1:], leaving=[leader])
            else:
                said = change(others[0], others[1:], [line(leader, "observer")])
            agreed(others, version_of(said))
            next_leader = ensemble.settled()
            took.append(time.monotonic() - begin)
            assert next_leader is not leader, f"{leader} still leads"
            wanted = "observer" if turn == 0 else "follower"
            eventually(f"{leader} is a {wanted}", lambda m=leader, w=wanted: m.mode() == w, 30)
            # Everybody a voter again.
            said = change(next_leader, others, [line(leader)])
            agreed(ensemble.members, version_of(said))
    found = check.everything(ensemble, load)
    return f"{', '.join(f'{one:.2f}' for one in took)} s, longest pause {load.longest_pause():.2f} s; {found}"


def addresses(ensemble):
    """A voter moves to other ports, those of its peers and that of its clients; a client that was there stays connected."""
    from .ensemble import free_ports
    ensemble.start_first()
    leader = ensemble.settled()
    for moved in (next(member for member in ensemble.members if member is not leader), leader):
        others = [member for member in ensemble.members if member is not moved]
        stays = wire.Client(moved.address, 60000, wait=20.0)
        old = moved.client_port
        moved.quorum_port, moved.election_port, moved.client_port = free_ports(3)
        said = change(others[0], others[1:], [line(moved)])
        agreed(ensemble.members, version_of(said))
        ensemble.settled()
        eventually("the old port is closed", lambda p=old: not wire.four_letter(("127.0.0.1", p), "srvr", 1.0), 20)
        if moved.kind == "zabd":
            stays.sync()
        stays.drop()
    # What is on disk leads to the same.
    for member in ensemble.members:
        member.terminate()
    for member in ensemble.members:
        member.start()
    ensemble.settled()
    return f"version {configuration(ensemble.members[0])[1]:x}"


def one_voter(ensemble):
    """An ensemble of one (standaloneEnabled=false): the last voter cannot leave, two become one, and an observer stays one."""
    ensemble.start_first()
    first, second, third = ensemble.everybody
    ensemble.now = [first]
    for member in (second, third):
        member.start()
    ensemble.serving([second, third])
    said = change(first, joining=[line(second), line(third, "observer")])
    agreed(ensemble.members, version_of(said))
    for bad in (dict(leaving=[first, second]), dict(members=[line(third, "observer")])):
        try:
            raise AssertionError(f"nobody votes in {change(first, **bad)}")
        except wire.ZkError as error:
            assert error.code in (-5, -8), error
    said = change(second, [first], leaving=[first])
    agreed(ensemble.members, version_of(said))
    assert ensemble.settled() is second and third.mode() == "observer", [member.mode() for member in ensemble.members]
    first.terminate()
    second.kill()
    second.start()
    ensemble.members = [second, third]
    assert ensemble.settled() is second
    # An observer's word counts nowhere, and without it there is no quorum of two: it leaves first. It follows without a vote then.
    try:
        raise AssertionError(change(second, joining=[line(third)], seconds=1))
    except AssertionError as error:
        assert f"error {NO_QUORUM}" in str(error), error
    change(second, leaving=[third])
    said = change(second, joining=[line(third)])
    agreed(ensemble.members, version_of(said))
    return f"version {version_of(said):x}"


def blocked_port(ensemble):
    """A client port that somebody else has: the change is made, the server goes on, and listens once the port is free."""
    import socket
    from .ensemble import free_ports
    ensemble.start_first()
    leader = ensemble.settled()
    moved = next(member for member in ensemble.members if member is not leader)
    others = [member for member in ensemble.members if member is not moved]
    (moved.client_port,) = free_ports(1)
    taken = socket.create_server(moved.address)
    said = change(others[0], others[1:], [line(moved)])
    agreed(others, version_of(said))
    eventually("it says so", lambda: "Trying again" in moved.log_text(), 20)
    assert moved.running
    taken.close()
    agreed(ensemble.members, version_of(said))
    return f"version {version_of(said):x}"


def left_as_proposed(ensemble):
    """Members that were told of a configuration and stopped: it is in force once a quorum of both is there, not before."""
    first, second, third, fourth, fifth = ensemble.everybody
    three, five = ensemble.everybody[:3], ensemble.everybody
    ensemble.start_first()
    for member in three:
        member.terminate()
    # As `.dynamic.next` of one of Apache's servers, whose own files nobody has written on yet.
    for member in five:
        ensemble.now = three if member in three else five
        ensemble.configure(member)
        member.wipe()
        member.initialise()
        with open(os.path.join(member.directory, "zoo.cfg.dynamic.next"), "w") as file:
            file.write("\n".join([*sorted(line(one) for one in five), "version=100000000"]))
    for member in (first, second):
        member.start()
    time.sleep(3)
    assert not any(member.mode() for member in (first, second)), "two of five serve"
    for member in (third, fourth, fifth):
        member.start()
    agreed(five, 0x100000000, 60)
    return "version 100000000"


def commands(kinds):
    """zkCli.sh and kazoo: config, reconfig, what each of them is told."""
    with Changing(kinds, 3) as ensemble:
        ensemble.start_first()
        first, second, third = ensemble.members

        def cli(command):
            done = subprocess.run(["java", "-cp", ":".join(glob.glob("/usr/share/java/*.jar")), "org.apache.zookeeper.ZooKeeperMain",
                                   "-server", f"127.0.0.1:{first.client_port}", *command.split()],
                                  capture_output=True, text=True, timeout=60)
            return done.stdout + done.stderr
        assert f"{line(third)}\nversion=100000000" in cli("config")
        said = cli(f"reconfig -remove {third.sid}")
        assert "Committed new configuration:" in said and line(third) not in said.partition("Committed")[2], said
        agreed(ensemble.members, configuration(first)[1])
        said = cli(f"reconfig -add {line(third, 'observer')}")
        assert line(third, "observer") in said.partition("Committed")[2], said
        said = cli(f"reconfig -members {','.join(line(member) for member in ensemble.members)}")
        assert line(third) in said.partition("Committed")[2], said
        _, version = agreed(ensemble.members, configuration(first)[1])
        said = cli("reconfig -remove 3 -v 1")
        assert "version" in said.lower() and configuration(first)[1] == version, said
        kazoo(ensemble)
        return f"version {configuration(first)[1]:x}"


def kazoo(ensemble):
    from kazoo.client import KazooClient
    from kazoo.exceptions import BadArgumentsException, BadVersionError, NewConfigNoQuorumError
    first, second, third = ensemble.members
    client = KazooClient(hosts=f"127.0.0.1:{first.client_port}", timeout=10)
    client.start(timeout=30)
    heard = []
    client.get(CONFIG, watch=heard.append)
    data, _ = client.reconfig(joining=None, leaving=str(third.sid), new_members=None)
    assert line(third) not in data.decode(), data
    eventually("the watcher hears of it", lambda: heard, 10)
    data, stat = client.reconfig(joining=line(third), leaving=None, new_members=None)
    assert line(third) in data.decode() and stat.mzxid == version_of(data.decode()), (data, stat)
    for refused, arguments in (
        (BadVersionError, dict(joining=None, leaving="3", new_members=None, from_config=1)),
        (BadArgumentsException, dict(joining="bad", leaving=None, new_members=None)),
        (NewConfigNoQuorumError, dict(joining=None, leaving=None, new_members="server.9=127.0.0.1:1:2;3,server.8=127.0.0.1:4:5;6")),
    ):
        try:
            client.reconfig(**arguments)
        except refused:
            continue
        raise AssertionError(f"{arguments} was not refused by {refused.__name__}")
    client.stop()


def refused(kinds):
    """Without reconfigEnabled, and without rights."""
    with Ensemble(kinds, extra=["skipACL=yes"]) as ensemble:
        ensemble.start()
        for member in ensemble.members:
            client = wire.Client(member.address, 20000, wait=20.0)
            client.send(RECONFIG, record(leaving="3"))
            assert client.receive().err == DISABLED
            client.drop()
        assert not glob.glob(os.path.join(ensemble.members[0].directory, "zoo.cfg.*")), "nothing is written"
    with Ensemble(kinds, extra=["reconfigEnabled=true"]) as ensemble:
        ensemble.start()
        for member in ensemble.members:
            client = wire.Client(member.address, 20000, wait=20.0)
            client.send(RECONFIG, record(leaving="3"))
            assert client.receive().err == NO_AUTH
            client.drop()


def given_up(ensemble):
    """reconfigEnabled is taken away after changes whose last one is what the files say: nothing of them is in the way."""
    ensemble.start_first()
    first, _, third = ensemble.members
    change(first, leaving=[third])
    _, version = agreed([first], version_of(change(first, joining=[line(third)])))
    for member in ensemble.members:
        member.terminate()
    ensemble.extra = [line for line in ensemble.extra if not line.startswith("reconfigEnabled")]
    for member in ensemble.members:
        ensemble.configure(member)
        member.start()
    ensemble.settled()
    assert configuration(first)[1] >= version
    return f"version {configuration(first)[1]:x}"


def killed_while_changing(ensemble, times):
    """The leader is killed in the middle of a change: it takes effect or does not, everybody agrees, and another one does."""
    ensemble.start_first()
    effects = 0
    with Load(ensemble, sessions=False, roam=True) as load:
        for turn in range(times):
            leader = ensemble.settled()
            others = [member for member in ensemble.members if member is not leader]
            _, before = configuration(others[0])
            client = wire.Client(others[0].address, 20000, wait=20.0)
            client.send(RECONFIG, record(line(others[1], "observer" if turn % 2 else "participant")))
            time.sleep((turn % 5) * 0.002)
            leader.kill()
            client.drop()
            leader.start()
            ensemble.settled()
            _, after = configuration(others[0])
            effects += after != before
            said = change(others[0], others[1:], [line(member) for member in ensemble.members])
            agreed(ensemble.members, version_of(said))
    return f"{effects} of {times} took effect, longest pause {load.longest_pause():.2f} s; {check.everything(ensemble, load)}"


def on(kinds, begin, scenario, *arguments, runtimes=(), **options):
    with Changing(kinds, begin, **options) as ensemble:
        for member, runtime in zip(ensemble.everybody, runtimes):
            if member.kind == "zabd":
                member.arguments = ["--runtime", runtime]
        return scenario(ensemble, *arguments)


def main(options):
    suite = Suite("reconfig")
    runtimes = ["mio", "smol", "std", "mio", "smol", "std"]

    def case(name, function, *arguments, **named):
        if not options.only or any(word in name for word in options.only.split(",")):
            suite.case(name, function, *arguments, **named)
    six = ["zabd"] * 6
    case("one, three, five, three voters, all replaced, under load", on, six, 1, grow_and_shrink,
         ALONE_TO_FIVE_AND_BACK + REPLACED, runtimes=runtimes, tick_ms=1000)
    case("the leader leaves, and comes back", on, six[:3], 3, leader_leaves, runtimes=runtimes)
    case("other ports, for peers and clients", on, six[:3], 3, addresses, runtimes=runtimes)
    case("disabled, and without rights", refused, six[:3])
    case("reconfigEnabled is taken away", on, six[:3], 3, given_up)
    case("one voter", on, six[:3], 1, one_voter)
    case("a port that is taken", on, six[:3], 3, blocked_port)
    case("a configuration that was left as proposed", on, six[:5], 3, left_as_proposed)
    if options.long or options.only:
        case("the leader is killed in the middle of changes", on, six[:3], 3, killed_while_changing, 20)
        case("zkCli.sh and kazoo", commands, six[:3])
        for kind in ("3.8", "3.9"):
            mixes = ([kind, kind, "zabd", "zabd", kind, "zabd"], ["zabd", "zabd", kind, kind, "zabd", kind])
            for kinds in mixes:
                name = " ".join(kinds)
                case(f"one, three, five, three voters, all replaced: {name}", on, kinds, 1, grow_and_shrink,
                     ALONE_TO_FIVE_AND_BACK + REPLACED)
                case(f"the leader leaves: {name}", on, kinds[1:4], 3, leader_leaves)
                case(f"other ports: {name}", on, kinds[1:4], 3, addresses)
    return suite.close()
