"""A member comes back with the data directory of another ensemble."""

import os
import shutil
import time

from . import bulk, wire
from .ensemble import eventually
from .lab import QUORUM_GAP, Lab
from .pulse import Pulse


def have_elections(lab, times=4):
    """Ends an ensemble after some elections more than a new one has, each with a write."""
    for number in range(times):
        leader = lab.ensemble.settled()
        client = wire.Client(leader.address)
        client.create(f"/foreign-{number}")
        client.drop()
        leader.kill()
        leader.start()
        lab.ensemble.settled()
    lab.ensemble.stop()


def hundred_nodes(lab):
    pipe = bulk.Pipe(lab.leader.address)
    pipe.client.ensure("/home")
    pipe.send(bulk.blocks(bulk.creates("/home/n", 100)))
    pipe.close()


def nodes_left(members):
    left = []
    for member in members:
        try:
            client = wire.Client(member.address)
            left.append(len(client.children("/home")))
            client.close()
        except (OSError, wire.Closed, wire.ZkError):
            left.append(0)
    return left


def give_directory(donor, victim):
    shutil.rmtree(os.path.join(victim.data, "version-2"))
    shutil.copytree(os.path.join(donor.data, "version-2"), os.path.join(victim.data, "version-2"))


def says_foreign(member, sid, starts=0):
    """Whether the log names the other member and what to do."""
    text = member.log_text(starts)
    return f"Server {sid} has the data of another ensemble" in text and "ensembleId" in text


def foreign_directory(options):
    """A follower comes back with the data directory of another ensemble, which has had more elections."""
    with Lab(options) as other:
        have_elections(other)
        with Lab(options) as lab:
            hundred_nodes(lab)
            victim = lab.followers[0]
            others = [member for member in lab.members if member is not victim]
            with Pulse(others) as pulse:
                victim.kill()
                give_directory(other.members[victim.sid - 1], victim)
                victim.start()
                time.sleep(7)
            now = next((member for member in others if member.mode() == "leader"), None)
            lab.figure("leader stays" if now is lab.leader else f"leader {lab.leader.sid} became {now}", now is lab.leader)
            lab.gap(pulse, QUORUM_GAP)
            left = nodes_left(others)
            lab.figure(f"{' and '.join(map(str, left))} of 100 nodes left", left == [100, 100])
            if pulse.acks and left == [100, 100]:
                lab.kept(pulse, others)
            told = says_foreign(victim, lab.leader.sid, 1) and says_foreign(lab.leader, victim.sid)
            lab.figure("both sides say why" if told else "not both sides say why", told)
            return lab.outcome()


def foreign_directory_first(options):
    """The same, but all are down, and the foreign member is there first, with one of the two others."""
    with Lab(options) as other:
        have_elections(other)
        with Lab(options) as lab:
            hundred_nodes(lab)
            victim, (first, second) = lab.members[2], lab.members[:2]
            for member in lab.members:
                member.terminate()
            give_directory(other.members[victim.sid - 1], victim)
            victim.start()
            time.sleep(1)
            first.start()
            time.sleep(6)
            serving = [str(member) for member in (first, victim) if member.mode() in ("leader", "follower")]
            lab.figure("nobody serves without a quorum of its own" if not serving else f"{' and '.join(serving)} serve", not serving)
            told = says_foreign(victim, first.sid, 1) and says_foreign(first, victim.sid, 1)
            lab.figure("both sides say why" if told else "not both sides say why", told)
            second.start()
            eventually("the two others serve", lambda: {first.mode(), second.mode()} == {"leader", "follower"})
            left = nodes_left([first, second])
            lab.figure(f"then {' and '.join(map(str, left))} of 100 nodes", left == [100, 100])
            victim.terminate()
            shutil.rmtree(os.path.join(victim.data, "version-2"))
            victim.start()
            eventually("that member follows with an empty directory", lambda: victim.mode() == "follower")
            lab.figure(f"{nodes_left([victim])[0]} on that member, made empty", nodes_left([victim]) == [100])
            return lab.outcome()
