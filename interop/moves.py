"""Directories and configurations that one implementation leaves and the other takes over, and what 3.8 leaves out of its log."""

import glob
import os
import re
import socket
import struct
import subprocess
import time

from . import check, servers, wire
from .ensemble import eventually
from .load import Load

UNUSED = r"(?:was|were) taken by a leader of ZooKeeper 3.8 and never proposed"


def files(member, pattern):
    return sorted(glob.glob(os.path.join(member.data, "version-2", pattern)), key=os.path.getmtime)


def whole(path):
    """Whether the snapshot is complete: a server that is killed leaves one that is not."""
    return subprocess.run([servers.zabd(), "inspect", "snapshot", path], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL).returncode == 0


def written(member, suffix, since):
    """The complete snapshots of this form, written after `since`."""
    return [path for path in files(member, f"snapshot.*.{suffix}") if os.path.getmtime(path) >= since and whole(path)]


def keep_one_snapshot(member, suffix, since):
    """Deletes every snapshot but the newest of this form, written after `since`."""
    kept = written(member, suffix, since)
    assert kept, f"{member} has written no .{suffix} snapshot: {files(member, 'snapshot.*')}"
    for path in files(member, "snapshot.*"):
        if path != kept[-1]:
            os.unlink(path)
    return os.path.basename(kept[-1])


def compressed(ensemble, suffix, there="zabd"):
    """Each member in turn: Java's compressed snapshot is all that zabd finds, then ours all that Java finds."""
    kinds = {member: member.kind for member in ensemble.members}
    with Load(ensemble, sessions=False) as load:
        for member in ensemble.voters:
            since = 0.0
            for kind in (there, kinds[member]):
                eventually(f"{member} writes a snapshot", lambda m=member, s=since: written(m, suffix, s), 60, 0.2)
                member.kill()
                keep_one_snapshot(member, suffix, since)
                ensemble.swap(member, kind)
                since = time.time()
                member.start()
                ensemble.settled()
    return check.everything(ensemble, load)


def leave_out(leader):
    """A request for which a leader of 3.8 takes a zxid and proposes nothing: a multi without a path."""
    nameless = struct.pack(">i", -1) + wire.buffer(b"") + wire.ANYONE + struct.pack(">i", 0)
    client = wire.Client(leader.address, 4000)
    client.send(wire.MULTI, wire.multi_body([(wire.CREATE, nameless)]))
    time.sleep(0.3)
    client.drop()


def unused_zxids(ensemble):
    """A 3.8 leader leaves zxids out: ours goes on, comes back, and takes over a log of Java's that has the gaps."""
    leader = ensemble.settled()
    assert leader.kind == "3.8", f"{leader} leads"
    ours = next(member for member in ensemble.voters if member.kind == "zabd")
    theirs = next(member for member in ensemble.voters if member.kind == "3.8" and member is not leader)
    client = wire.Client(ours.address, 60000, wait=30)
    client.ensure("/unused")
    for turn in range(3):
        leave_out(leader)
        for number in range(20):
            client.create(f"/unused/n-{turn}-{number}", b"behind the gap")
    client.close()
    found = eventually("zabd sees unused zxids", lambda: re.findall(rf"\S+ {UNUSED}", ours.log_text()), 10)
    assert "expected 0x" in theirs.log_text(), f"{theirs} has seen no gap: nothing was shown"
    assert "is older" not in ours.log_text() and ours.mode() == "follower", f"{ours} fell behind"
    for member, kind in ((ours, "zabd"), (theirs, "zabd")):
        member.kill()
        ensemble.swap(member, kind)
        member.start()
        ensemble.settled()
    assert re.search(UNUSED, open(theirs.logs[-1][1], errors="replace").read()), "the log that was taken over had no gap"
    # The leader's own clients are stuck since: `PrepRequestProcessor.pRequest` of 3.8 made no transaction.
    leader.kill()
    leader.start()
    ensemble.settled()
    with Load(ensemble) as load:
        time.sleep(2)
    return f"{len(found)} unused zxids; {check.everything(ensemble, load)}"


def unused_alone(ensemble):
    """A 3.8 leader leaves a zxid out while only ours is there to acknowledge what follows: another epoch has to begin."""
    leader = ensemble.settled()
    assert leader.kind == "3.8", f"{leader} leads"
    ours = next(member for member in ensemble.voters if member.kind == "zabd")
    theirs = next(member for member in ensemble.voters if member.kind == "3.8" and member is not leader)
    theirs.kill()
    leave_out(leader)
    # What follows is the session of another client.
    client = socket.create_connection(leader.address, timeout=20)
    client.sendall(wire.connect_request(20000, 0, b"\0" * 16, 0))
    begin = time.monotonic()
    eventually("zabd leaves the leader", lambda: "no digest shows that nothing was lost" in ours.log_text(), 20)
    client.close()
    ensemble.serving([ours], 60)
    took = time.monotonic() - begin
    theirs.start()
    ensemble.settled()
    with Load(ensemble) as load:
        time.sleep(2)
    return f"served again after {took:.1f} s; {check.everything(ensemble, load)}"


def server_lines(ensemble, observers=()):
    lines = []
    for member in ensemble.members:
        role = "observer" if member in observers else "participant"
        lines.append(f"server.{member.sid}=127.0.0.1:{member.quorum_port}:{member.election_port}:{role};"
                     f"127.0.0.1:{member.client_port}")
    return lines


def config_of(member):
    client = wire.Client(member.address, 20000, wait=20)
    client.sync()
    text = client.get("/zookeeper/config")[0].decode()
    client.close()
    return text


def reconfiguration(ensemble):
    """zabd on the files that Java's servers write with reconfigEnabled, as follower and leader, and when the members change.

    Of four voters one becomes an observer: of the three that stay, two are Java's, so that they go on while ours is down.
    """
    leader = ensemble.settled()
    # The one with the highest id leads when that leader is lost.
    ours = [member for member in ensemble.voters if member is not leader][-1]
    eventually("dynamic configuration files", lambda: glob.glob(os.path.join(ours.directory, "zoo.cfg.dynamic.*")), 20)
    kind = ours.kind
    ours.terminate()
    ours.kind = "zabd"
    ours.start()
    with Load(ensemble, sessions=False) as load:
        ensemble.settled()
        versions = {config_of(member).rpartition("version=")[2] for member in ensemble.members}
        assert len(versions) == 1 and versions != {"0"}, f"versions of the configuration: {versions}"
        led = 0
        for turn in range(10):
            leader = ensemble.settled()
            led += leader is ours
            if leader is not ours and (led or turn > 4):
                break
            time.sleep(0.5)
            leader.kill()
            time.sleep(0.2)
            leader.start()
        assert leader is not ours, "zabd leads again and again"
        third = next(member for member in ensemble.voters if member not in (ours, leader))
        client = wire.Client(leader.address, 30000, wait=30)
        members = wire.string("\n".join(server_lines(ensemble, [third])))
        client.send(16, struct.pack(">ii", -1, -1) + members + struct.pack(">q", -1))
        try:
            reply = client.receive()
            assert reply.err == 0, f"reconfig: error {reply.err}"
            client.close()
        except wire.Closed:
            pass  # A leader that moves to the new configuration may close its clients.
        # Ours goes along, also from its own files.
        ensemble.settled()
        version = config_of(leader).rpartition("version=")[2]
        assert config_of(ours).rpartition("version=")[2] == version
        assert third.mode() == "observer", third.mode()
        assert glob.glob(os.path.join(ours.directory, f"zoo.cfg.dynamic.{version}")), "it is not written down"
        ours.terminate()
        ours.start()
        ensemble.settled()
        assert config_of(ours).rpartition("version=")[2] == version
        # And back, on the same files.
        ours.terminate()
        ours.kind = kind
        ours.start()
        ensemble.settled()
        ours.terminate()
        ours.kind = "zabd"
        ours.start()
        ensemble.settled()
    return f"zabd led {led} times; {check.everything(ensemble, load)}"
