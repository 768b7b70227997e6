"""Strangers and slow peers on the quorum and election ports."""

import os
import socket
import struct
import threading
import time

from . import process, stranger, wire
from .ensemble import eventually
from .lab import QUORUM_GAP, Lab
from .pulse import Pulse
from .stranger import ACK, ACKEPOCH, FOLLOWERINFO, OBSERVERINFO, Learner


def accepted(member):
    try:
        with open(os.path.join(member.data, "version-2", "acceptedEpoch")) as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def one_packet(options):
    """Introductions with the id of a follower that is there, and a higher accepted epoch."""
    with Lab(options) as lab:
        with Pulse(lab.members) as pulse:
            links = []
            for epoch in (50, 1 << 20, 0x7FFFFFFE):
                link = Learner(lab.leader.quorum_port)
                link.send(FOLLOWERINFO, epoch << 32, stranger.introduction(lab.followers[0].sid))
                # A history ahead of everybody's is claimed along with it.
                link.send(ACKEPOCH, (epoch << 32) + 5, struct.pack(">i", epoch))
                links.append(link)
                time.sleep(2.2)
            for link in links:
                link.close()
        lab.reigns_on()
        lab.gap(pulse, QUORUM_GAP)
        lab.kept(pulse)
        sane = all(accepted(member) == lab.epoch for member in lab.members)
        lab.figure(f"accepted epochs {[accepted(member) for member in lab.members]}", sane)
        return lab.outcome()


def every_port(members, seconds, say):
    """Calls `say(member)` from one thread for each member, again and again."""
    end = time.monotonic() + seconds

    def run(member):
        while time.monotonic() < end:
            try:
                say(member)
            except (OSError, wire.Closed):
                pass
            time.sleep(0.01)
    threads = [threading.Thread(target=run, args=(member,), daemon=True) for member in members]
    for thread in threads:
        thread.start()
    return threads


def exhaustion(options):
    """Epochs at the end of their range on all quorum ports, for some seconds and through an election."""
    def claim(member):
        link = Learner(member.quorum_port, wait=0.3)
        link.send(FOLLOWERINFO, 0x7FFFFFFF << 32, stranger.introduction(1))
        link.send(OBSERVERINFO, 0x7FFFFFFF << 32, stranger.introduction(99))
        try:
            link.receive()
        finally:
            link.close()

    with Lab(options) as lab:
        with Pulse(lab.members) as pulse:
            began = time.monotonic()
            threads = every_port(lab.members, 6, claim)
            time.sleep(3)
            lab.reigns_on()
            calm = time.monotonic()
            lab.leader.kill()
            for thread in threads:
                thread.join()
            lab.leader.start()
            lab.ensemble.settled(60)
        lab.gap(pulse, QUORUM_GAP, began, calm, "longest gap while the leader lived")
        lab.gap(pulse, 2.0, calm, None, "and around its death")
        lab.kept(pulse)
        highest = max(accepted(member) for member in lab.members)
        lab.figure(f"highest accepted epoch {highest}", highest < 1000)
        for member in lab.members:
            member.kill()
        lab.ensemble.start(wait=False)
        lab.ensemble.settled(60)
        lab.figure("serves after a restart of all")
        return lab.outcome()


def damaged_epoch(options, value):
    """A follower comes back with this number in its acceptedEpoch."""
    with Lab(options) as lab:
        victim = lab.followers[0]
        with Pulse([member for member in lab.members if member is not victim]) as pulse:
            victim.terminate()
            with open(os.path.join(victim.data, "version-2", "acceptedEpoch"), "w") as file:
                file.write(str(value))
            time.sleep(0.5)
            victim.start()
            time.sleep(6)
        lab.figure(f"{pulse.reconnects} connections lost", pulse.reconnects == 0)
        # A promise that can be kept is overtaken by a new epoch of the same leader.
        now = next((member for member in lab.members if member.mode() == "leader"), None)
        lab.figure("leader stays" if now is lab.leader else f"leader {lab.leader.sid} became {now}", now is lab.leader)
        lab.gap(pulse, QUORUM_GAP)
        others = [member for member in lab.members if member is not victim]
        lab.kept(pulse, others)
        lab.figure(f"accepted epochs {[accepted(member) for member in lab.members]}",
                   all((accepted(member) or 0) <= 101 for member in others))
        lab.figure(f"that member: {victim.mode() or 'out'}")
        return lab.outcome()


def configuration(options):
    """Votes that carry another configuration with a high version; then an election."""
    strange = (b"server.1=127.0.0.1:1:2:participant\nserver.2=127.0.0.1:3:4:participant\n"
               b"server.9=127.0.0.1:5:6:participant\nversion=7fffffff00000001")
    with Lab(options) as lab, socket.create_server(("127.0.0.1", 0)) as listener:
        same = "\n".join(f"server.{m.sid}=127.0.0.1:{m.quorum_port}:{m.election_port}:participant" for m in lab.members)
        links = []
        for member in lab.members:
            for config in (strange, f"{same}\nversion=7fffffff00000001".encode()):
                sid = max(other.sid for other in lab.members if other is not member)
                text = stranger.vote(sid, config=config) * 2
                if sid > member.sid:
                    link = socket.create_connection(("127.0.0.1", member.election_port))
                    link.sendall(stranger.handshake(sid) + text)
                else:
                    # Who has the higher id is the one who dials.
                    link = stranger.call_back(member, sid, listener)
                    if link is not None:
                        link.sendall(text)
                links.append(link)
                time.sleep(0.3)
        for link in links:
            if link is not None:
                link.close()
        lab.reigns_on()
        with Pulse(lab.members) as pulse:
            lab.leader.kill()
            time.sleep(3)
            lab.leader.start()
            time.sleep(3)
        lab.all_run()
        lab.ensemble.settled(30)
        lab.gap(pulse, 2.0, what="an election afterwards")
        lab.kept(pulse)
        return lab.outcome()


def false_followers(options):
    """Strangers with the ids of both followers acknowledge everything, while these are there and after they have died."""
    acknowledged = [0]

    def pretend(leader, sid, taken):
        try:
            link = Learner(leader.quorum_port)
            link.introduce(FOLLOWERINFO, sid)
            link.synchronise()
            taken.append(sid)
            while True:
                kind, zxid, _ = link.receive()
                if kind == stranger.PROPOSAL:
                    link.send(ACK, zxid)
                    acknowledged[0] += 1
                elif kind == stranger.PING:
                    link.send(stranger.PING, zxid, b"")
        except (OSError, wire.Closed):
            return

    with Lab(options) as lab:
        taken = []
        with Pulse(lab.members) as pulse:
            for follower in lab.followers:
                threading.Thread(target=pretend, args=(lab.leader, follower.sid, taken), daemon=True).start()
            time.sleep(2)
        lab.figure(f"{len(taken)} of 2 false followers taken", not taken)
        lab.gap(pulse, QUORUM_GAP)
        for follower in lab.followers:
            follower.kill()
        time.sleep(0.3)
        answered = 0
        try:
            client = wire.Client(lab.leader.address, wait=5.0)
            for number in range(50):
                client.create(f"/alone-{number}")
                answered += 1
        except (wire.Closed, wire.ZkError):
            pass
        lab.figure(f"{answered} of 50 writes acknowledged by the leader alone", answered == 0)
        return lab.outcome()


def unlisted(options):
    """An introduction with an id that no configuration has."""
    with Lab(options) as lab:
        client = wire.Client(lab.leader.address)
        client.call(100, struct.pack(">i", 0) + wire.string("digest") + wire.buffer(b"bob:secret"), xid=-4)
        private = struct.pack(">ii", 1, 31) + wire.string("auth") + wire.string("")
        client.call(wire.CREATE, wire.string("/private") + wire.buffer(b"TOPSECRET") + private + struct.pack(">i", 0))
        client.close()
        for kind, sid in ((OBSERVERINFO, 4242), (FOLLOWERINFO, 4242), (OBSERVERINFO, -1)):
            content = b""
            try:
                link = Learner(lab.leader.quorum_port, wait=3.0)
                link.introduce(kind, sid)
                content = link.synchronise()
            except (OSError, wire.Closed, struct.error):
                pass
            link.close()
            shown = b"TOPSECRET" in content
            name = "observer" if kind == OBSERVERINFO else "follower"
            lab.figure(f"{name} {sid}: {'reads private data' if shown else 'gets nothing' if not content else 'gets the tree'}",
                       not content)
        lab.reigns_on()
        return lab.outcome()


def silent(options):
    """300 connections to the leader's quorum port that say nothing, renewed as they end; a follower is restarted."""
    with Lab(options) as lab:
        stop, open_links = threading.Event(), []

        def hold():
            while not stop.is_set():
                alive = []
                for link in open_links:
                    try:
                        if link.recv(1, socket.MSG_PEEK) == b"":
                            raise OSError
                        alive.append(link)
                    except BlockingIOError:
                        alive.append(link)
                    except OSError:
                        link.close()
                open_links[:] = alive
                while len(open_links) < 300 and not stop.is_set():
                    try:
                        link = socket.create_connection(("127.0.0.1", lab.leader.quorum_port), 1)
                        link.setblocking(False)
                        open_links.append(link)
                    except OSError:
                        break
                time.sleep(0.02)
        thread = threading.Thread(target=hold, daemon=True)
        thread.start()
        time.sleep(1.5)
        victim = lab.followers[0]
        victim.kill()
        began = time.monotonic()
        victim.start()
        try:
            eventually("back", lambda: victim.mode() == "follower", 30)
        except AssertionError:
            pass
        back = time.monotonic() - began
        stop.set()
        thread.join()
        for link in open_links:
            link.close()
        lab.figure(f"a restarted follower is back after {back:.1f} s", back < 5)
        lab.reigns_on()
        return lab.outcome()


def debts(options, what):
    """Somebody with the id of an observer that is down asks without end and reads nothing."""
    asks = {
        "REVALIDATE": stranger.packet(stranger.REVALIDATE, -1, struct.pack(">qi", 12345, 30000)),
        "SYNC": stranger.packet(stranger.REQUEST, -1, struct.pack(">qii", 1, 1, 9) + wire.string("/"), struct.pack(">i", 0)),
        "writes": stranger.packet(stranger.REQUEST, -1, struct.pack(">qii", 1, 1, wire.CREATE)
                                  + wire.create_body("/owed-", b"x" * 100, wire.SEQUENTIAL), struct.pack(">i", 0)),
    }
    with Lab(options, observers=1, late=True) as lab:
        observer = lab.members[-1]
        lab.start(without=[observer])
        with Pulse(lab.followers) as pulse:
            link = Learner(lab.leader.quorum_port, receive_buffer=4096, wait=2.0)
            link.introduce(OBSERVERINFO, observer.sid)
            link.synchronise()
            before, sent, end = process.resident_mb(lab.leader), 0, time.monotonic() + 6
            process.forget_peak(lab.leader)
            block = asks[what] * 2000
            try:
                while time.monotonic() < end:
                    sent += link.socket.send(block)
            except OSError:
                pass
        lab.figure(f"{sent / 1e6:.0f} MB asked")
        # What is written fills the leader's window, and is queued for its disk once more.
        lab.memory(lab.leader, before, 160 if what == "writes" else 100)
        lab.gap(pulse, QUORUM_GAP)
        lab.reigns_on()
        link.close()
        return lab.outcome()
