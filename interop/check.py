"""What must hold at the end: acknowledged writes, equal trees, sessions, digests, quiet logs."""

import re
from collections import Counter

from . import wire
from .ensemble import eventually
from .load import ROOT
from .suite import NotComparable


# ZOOKEEPER-4409, in 3.8.x: the leader dies while the follower's disk is behind, and the thread that writes the log ends on
# a socket that is gone. What it had not written is applied in memory and never logged; after the next restart this server
# lacks it. All-Java ensembles of 3.8.0 diverge like this under the same scenarios.
LOST_LOG = 'because "this.learner.sock" is null'

def ended(members):
    """Raises if a server has ended by itself."""
    for member in members:
        if not member.running:
            raise AssertionError(f"{member} ended with {member.process.poll()}: {member.log_text().splitlines()[-2:]}")


def damaged(members):
    """Servers whose directory has been damaged by Apache's 3.8, by its own log."""
    return [member for member in members if LOST_LOG in member.log_text(member.rebuilt)]


def rebuild(ensemble):
    """Makes the directories of damaged servers anew from a sound voter, as an operator has to; who was."""
    lost = damaged(ensemble.members)
    sound = [member for member in ensemble.voters if member not in lost]
    if not lost or not sound:
        return []
    for member in sound:
        walk_to(member)
    for member in lost:
        member.kill()
    # At first no more than a quorum needs: Apache's empty servers vote, and must not be one among themselves.
    lost.sort(key=lambda member: (member.observer, member.kind == "zabd"))
    first = max(0, len(ensemble.voters) // 2 + 1 - len(sound))
    for at, member in enumerate(lost):
        member.wipe()
        member.rebuilt = len(member.logs)
        member.start()
        if at + 1 >= first:
            ensemble.settled()
    return lost


class Findings(list):
    """Violations, as sentences. Long lists are cut."""

    def add(self, text):
        self.append(text)


def walk(member):
    client = wire.Client(member.address, 30000, wait=20.0)
    try:
        client.sync()
        tree = wire.walk(client)
    finally:
        client.close()
    # Each server makes this node by itself when it starts, with its own clock and its own addresses.
    tree.pop("/zookeeper/config", None)
    return tree


def trees(members):
    """The tree of each member, all at a time at which nothing changes: sessions may still expire."""
    for _ in range(5):
        found = {member: walk(member) for member in members}
        if walk(members[0]) == found[members[0]]:
            return found
    raise AssertionError("the trees change without any client")


def compare(found, findings):
    """Every member holds the same nodes, data, ACLs and stats."""
    (first, expected), *others = found.items()
    for member, tree in others:
        for path in sorted(set(expected) | set(tree)):
            if expected.get(path) != tree.get(path):
                findings.add(f"{path} differs: {first} {expected.get(path)} / {member} {tree.get(path)}")


def acknowledged(operations, tree, findings):
    """Every acknowledged write is there once, in the transaction it was told; unknown ones at most once."""
    outcome = Counter()
    deleted = {op.path: op.outcome for op in operations if op.kind == "delete"}
    zxids = Counter(op.zxid for op in operations if op.outcome == "ok")
    for zxid, times in zxids.items():
        if times > 1:
            findings.add(f"zxid 0x{zxid:x} acknowledged {times} times")
    for op in operations:
        outcome[op.outcome] += 1
        node = tree.get(op.path)
        if op.outcome not in ("ok", "unknown"):
            if op.kind != "delete" or op.outcome != wire.NO_NODE:
                findings.add(f"{op.kind} {op.path}: error {op.outcome}")
        elif op.kind == "delete":
            if op.outcome == "ok" and node is not None:
                findings.add(f"{op.path}: deletion acknowledged (zxid 0x{op.zxid:x}), still there")
        elif op.kind != "set":
            created(op, node, deleted.get(op.path), findings)
    sequences(operations, tree, findings)
    for writer in {op.writer for op in operations}:
        writer_order([op for op in operations if op.writer == writer], tree, findings)
    return outcome


def created(op, node, deletion, findings):
    if op.outcome == "ok" and node is None and deletion not in ("ok", "unknown"):
        findings.add(f"{op.path}: {op.kind} acknowledged (zxid 0x{op.zxid:x}), lost")
    if node is not None and op.kind != "sequence" and node[0] != op.data:
        findings.add(f"{op.path}: holds {node[0]}, not {op.data}")
    if op.outcome == "ok" and node is not None and node[2].czxid != op.zxid:
        findings.add(f"{op.path}: acknowledged with zxid 0x{op.zxid:x}, applied with 0x{node[2].czxid:x}")


def sequences(operations, tree, findings):
    """Sequential nodes: each datum at most once, each name given to one request."""
    holders = Counter(node[0] for path, node in tree.items() if path.startswith(f"{ROOT}/seq/"))
    for data, times in holders.items():
        if times > 1:
            findings.add(f"sequence write {data} applied {times} times")
    for op in operations:
        if op.kind == "sequence" and op.outcome == "ok" and tree.get(op.path, (None,))[0] != op.data:
            findings.add(f"{op.path}: acknowledged to {op.data}, holds {tree.get(op.path, (None,))[0]}")


def writer_order(operations, tree, findings):
    """Writes of one client are in its order, and its counters went up once per write."""
    last = 0
    for op in operations:
        if op.outcome == "ok":
            if op.zxid <= last:
                findings.add(f"writer {op.writer}: zxid 0x{op.zxid:x} after 0x{last:x}")
            last = op.zxid
    for kind, name in (("set", "count"), ("multi", "multi")):
        mine = [op for op in operations if op.kind == kind]
        sure = sum(op.outcome == "ok" for op in mine)
        most = sure + sum(op.outcome == "unknown" for op in mine)
        node = tree.get(f"{ROOT}/w{operations[0].writer}/{name}")
        if node is None or not sure <= node[2].version <= most:
            findings.add(f"writer {operations[0].writer}: {name} at {node and node[2].version}, must be {sure}..{most}")


def sessions(keepers, tree, findings):
    """Nodes of living sessions are there, nodes of ended ones are not, no node without a session."""
    owners = {path: node[2].ephemeral_owner for path, node in tree.items() if node[2].ephemeral_owner}
    for keeper in keepers:
        there = [path for path in keeper.paths if owners.get(path) == keeper.session]
        if keeper.ended == "alive" and len(there) != len(keeper.paths):
            findings.add(f"session 0x{keeper.session:x} lives, its nodes are gone: {keeper.paths}")
        if keeper.ended in ("closed", "dropped", "lost") and there:
            findings.add(f"session 0x{keeper.session:x} is {keeper.ended}, its nodes stay: {there}")


def expired(keepers, member, seconds=40.0):
    """Waits until the sessions left to die are dead: their nodes must go by themselves."""
    waiting = {path for keeper in keepers if keeper.ended == "dropped" for path in keeper.paths}
    if not waiting:
        return
    client = wire.Client(member.address, 30000)

    def gone():
        client.sync()
        names = client.children(f"{ROOT}/ephemeral")
        return not waiting & {f"{ROOT}/ephemeral/{name}" for name in names}

    try:
        eventually("nodes of dead clients are removed", gone, seconds, 0.3)
    finally:
        client.close()


DIGEST_INTERVAL = 128  # servers remember the digest after every zxid that this divides
SNAPSHOT_TAKEN = "Getting a snapshot from leader"
# Servers of Apache's that replaced history: their digests are wrong until what a fuzzy snapshot holds already is replayed.
FUZZY = re.compile(rf"{SNAPSHOT_TAKEN}|Truncating log to get in sync|Peer state changed: .* - (snap|trunc)$", re.MULTILINE)

# What Java says while it gives up its role: the thread that applies and the one that reads the log again can meet there.
GIVING_UP = re.compile(r"(Learner - shutdown \w+|Leader - Shutdown called).*?Peer state changed: looking", re.DOTALL)


def mark(member, writes=2 * DIGEST_INTERVAL + 10):
    """Writes until the zxid has gone over a multiple of `DIGEST_INTERVAL`; the zxids written."""
    client = wire.Client(member.address, 30000, wait=20.0)
    client.ensure("/digests")
    xids = [client.send(wire.SET_DATA, wire.set_data_body("/digests", b"%d" % number)) for number in range(writes)]
    zxids = [reply.zxid for reply in (client.receive() for _ in xids) if not reply.err]
    assert len(zxids) == writes, f"only {len(zxids)} of {writes} writes were taken"
    client.close()
    return range(min(zxids), max(zxids) + 1)


def history(member):
    """zxid -> digest, as the server remembers it (`hash`)."""
    pairs = re.findall(r"^([0-9a-f]+): (-?[0-9]+)$", member.words("hash", 10.0), re.MULTILINE)
    return {int(zxid, 16): int(digest) % 2**64 for zxid, digest in pairs}


def replaced_by_java(member, java_led):
    """Whether the member took over history from a server of Apache's, whose snapshots are fuzzy."""
    return java_led and bool(FUZZY.search(member.log_text()))


def digests(members, everyone, findings):
    """Our digest and Java's after the same transaction, each by the server's own account; how many were compared.

    After what was written just now they must be equal, whatever was before. What the servers remember from before must be
    equal, too, unless one of the two took a snapshot of Java's. Complaints in the logs count likewise.
    """
    java_led = any(m.kind != "zabd" and "Peer state changed: leading" in m.log_text() for m in everyone)
    fuzzy = {member for member in members if replaced_by_java(member, java_led)}
    ours = [member for member in members if member.kind == "zabd"]
    theirs = [member for member in members if member.kind != "zabd"]
    for member in set(theirs) - fuzzy if ours else ():
        if "Digests are not matching" in GIVING_UP.sub("", member.log_text(member.rebuilt)):
            findings.add(f"{member}: digest mismatch in its log")
    # A leader that has lost a part of its log has another tree, and ours says so.
    misled = any(LOST_LOG in member.log_text() for member in everyone)
    for member in ours:
        complaint = re.search(r"ERROR.*digest .* should be .*", member.log_text())
        if complaint and not misled:
            findings.add(f"{member}: {complaint.group(0)}")
    fresh = mark(members[0])
    for member in members:
        walk_to(member)
    found = {member: history(member) for member in members}
    compared = Counter()
    for mine in ours:
        for other in theirs:
            for zxid in found[mine].keys() & found[other].keys():
                recent = zxid in fresh
                compared[recent] += 1
                if found[mine][zxid] != found[other][zxid] and (recent or not {mine, other} & fuzzy):
                    findings.add(f"digest after 0x{zxid:x}: {mine} {found[mine][zxid]:x}, {other} {found[other][zxid]:x}")
            if not any(zxid in fresh for zxid in found[mine].keys() & found[other].keys()):
                findings.add(f"no digest of {mine} and {other} could be compared: {found[mine].keys()}, {found[other].keys()}")
    return sum(compared.values())


def walk_to(member):
    """Waits until the member has applied everything that was acknowledged."""
    client = wire.Client(member.address, 30000, wait=20.0)
    client.sync()
    client.close()


def panics(members, findings):
    for member in members:
        for line in member.log_text().splitlines():
            if re.search(r"panicked at|Exiting JVM with code|diverg", line):
                findings.add(f"{member}: {line[:200]}")


def midway(ensemble):
    """What can be compared while a mix lasts and clients write: digests of ours and Java's; how many were."""
    rebuild(ensemble)
    findings, aside = Findings(), damaged(ensemble.members)
    compared = digests([member for member in ensemble.members if member not in aside], ensemble.members, findings)
    if findings:
        raise AssertionError("\n".join(findings))
    return compared


def everything(ensemble, load):
    """All checks, on all members; raises with what was found."""
    findings = Findings()
    if load.stuck:
        findings.add(f"load threads did not end: {load.stuck}")
    ended(ensemble.members)
    ensemble.settled()
    members = ensemble.members
    expired(load.keepers, members[0])
    rebuilt = rebuild(ensemble)
    aside = damaged(members)
    sound = [member for member in members if member not in aside]
    if not sound:
        raise NotComparable(f"{aside} lost a part of their log to ZOOKEEPER-4409: nothing to compare")
    compared = digests(sound, members, findings)
    found = trees(sound)
    compare(found, findings)
    tree = found[sound[0]]
    acknowledged(load.operations, tree, findings)
    sessions(load.keepers, tree, findings)
    panics(members, findings)
    if findings:
        shown = findings[:12] + ([f"and {len(findings) - 12} more"] if len(findings) > 12 else [])
        raise AssertionError("\n".join(shown))
    counts = Counter(op.kind for op in load.operations if op.outcome == "ok")
    text = (f"{sum(counts.values())} writes acknowledged, {load.unknown} unknown, "
            f"{len(tree)} nodes equal on {len(sound)} members, {len(load.keepers)} sessions, {compared} digests")
    if rebuilt:
        text = f"{text} (rebuilt after ZOOKEEPER-4409: {rebuilt})"
    if not aside:
        return text
    text = f"{text} (set aside: {aside}, ZOOKEEPER-4409)"
    kinds = {member.kind for member in members}
    if "zabd" in kinds and len(kinds) > 1 and len({member.kind == "zabd" for member in sound}) == 1:
        raise NotComparable(f"nothing of ours compared with anything of Apache's: {text}")
    return text
