"""Strangers and slow peers on the quorum and election ports."""

import os
import shutil
import socket
import struct
import subprocess
import threading
import time

from . import bulk, process, stranger, wire
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


WINDOW = 64 << 20  # what a leader holds for those who are behind, in bytes


class Churn(threading.Thread):
    """Large writes through one member, so that the leader's window moves on."""

    def __init__(self, member, nodes, bytes_per_second, length=400000):
        super().__init__(daemon=True)
        self.client = wire.Client(member.address, 120000, wait=180.0)
        self.nodes, self.pause, self.length = nodes, length / bytes_per_second, length
        self.stopping, self.written = threading.Event(), 0

    def run(self):
        number = under_way = 0
        due = time.monotonic()
        try:
            while not self.stopping.is_set():
                number += 1
                data = number.to_bytes(8, "big") * (self.length // 8)
                self.client.send(wire.SET_DATA, wire.set_data_body(f"/data/n{number % self.nodes:08d}", data))
                under_way += 1
                while under_way > 4 or under_way and self.client.ready():
                    self.client.receive()
                    under_way -= 1
                    self.written += self.length
                due = max(due + self.pause, time.monotonic() - 1)
                time.sleep(max(0.0, due - time.monotonic()))
        except wire.Closed:
            return

    def goes_on(self, end):
        """Whether more is to be written: twice what a leader's window holds, at most until `end`."""
        return self.written < 2 * WINDOW and time.monotonic() < end

    def stop(self):
        self.stopping.set()
        self.join(200)
        self.client.drop()


def filled(member, megabytes):
    pipe = bulk.Pipe(member.address, ahead=20)
    pipe.client.ensure("/data")
    pipe.send(bulk.blocks(bulk.creates("/data/n", megabytes, b"z" * 1000000), 1))
    pipe.close()


def slow_link(options, megabytes, seconds):
    """A follower with an empty directory is synchronised over a link of 3 MB/s, while 12 MB/s are written."""
    with Lab(options, partitions=True, heap_mb=3072) as lab:
        filled(lab.leader, megabytes)
        victim = lab.followers[0]
        others = [member for member in lab.members if member is not victim]
        victim.kill()
        victim.wipe()
        lab.ensemble.proxies.slow(lab.leader, victim, 3e6)
        with Pulse(others, wait=180.0) as pulse:
            churn = Churn(lab.leader, megabytes, 12e6)
            churn.start()
            time.sleep(0.5)
            victim.start()
            end = time.monotonic() + seconds
            while churn.goes_on(end):
                time.sleep(0.1)
            calm = time.monotonic()
            lab.ensemble.proxies.slow(lab.leader, victim, None)
            back = None
            try:
                eventually("the follower is synchronised", lambda: victim.mode() == "follower", 30)
                back = time.monotonic() - calm
            except AssertionError:
                pass
            churn.stop()
        lab.gap(pulse, QUORUM_GAP)
        lab.figure(f"{churn.written / 1e6:.0f} MB written meanwhile", churn.written >= 2 * WINDOW)
        lab.figure(f"synchronised {back:.1f} s after the link was mended" if back is not None else
                   "not synchronised within 30 s of a sound link", back is not None)
        lab.reigns_on()
        lab.kept(pulse, others)
        return lab.outcome()


def slow_stranger(options, megabytes, seconds):
    """Somebody with the id of an observer that is down takes the snapshot at 3 MB/s."""
    with Lab(options, observers=1, heap_mb=3072, late=True) as lab:
        observer = lab.members[-1]
        lab.start(without=[observer])
        filled(lab.leader, megabytes)
        voters = lab.ensemble.voters
        with Pulse(voters, wait=180.0) as pulse:
            churn = Churn(lab.leader, megabytes, 12e6)
            churn.start()
            link = Learner(lab.leader.quorum_port, receive_buffer=65536)
            link.introduce(OBSERVERINFO, observer.sid)
            taken, end = 0, time.monotonic() + seconds
            while churn.goes_on(end):
                try:
                    piece = link.socket.recv(60000)
                except OSError:
                    piece = b""
                if not piece:
                    break
                taken += len(piece)
                time.sleep(0.02)
            churn.stop()
            link.close()
        lab.gap(pulse, QUORUM_GAP)
        lab.figure(f"{churn.written / 1e6:.0f} MB written, {taken / 1e6:.0f} MB taken meanwhile", churn.written >= 2 * WINDOW)
        lab.reigns_on()
        lab.kept(pulse, voters)
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


RESOLVER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>
/* A name server that does not answer, for names that begin with "slow". */
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **result) {
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    if (!real) real = dlsym(RTLD_NEXT, "getaddrinfo");
    if (name && !strncmp(name, "slow", 4)) { sleep(20); return EAI_NONAME; }
    return real(name, service, hints, result);
}
"""


def resolver_library(directory):
    compiler = shutil.which("cc")
    assert compiler, "no C compiler (cc): the resolver cannot be slowed down"
    source, library = os.path.join(directory, "slow.c"), os.path.join(directory, "slow.so")
    with open(source, "w") as file:
        file.write(RESOLVER)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def slow_names(options):
    """Election handshakes with host names that a name server does not answer for."""
    with Lab(options, late=True) as lab:
        library = resolver_library(lab.ensemble.directory)
        for member in lab.members:
            member.environment["LD_PRELOAD"] = library
        lab.start()
        target = max(lab.ensemble.voters, key=lambda member: member.sid)
        before, most, count = process.threads(target), 0, 0
        with Pulse(lab.members) as pulse:
            end = time.monotonic() + 6
            while time.monotonic() < end:
                for _ in range(50):
                    hosts = b"|".join(b"slow%d.example:1" % (count * 10 + at) for at in range(10))
                    sid = (0, 1, 2, -1 - count % 60)[count % 4]
                    try:
                        with socket.create_connection(("127.0.0.1", target.election_port), 1) as link:
                            link.sendall(stranger.handshake(sid, hosts))
                    except OSError:
                        pass
                    count += 1
                most = max(most, process.threads(target))
                time.sleep(0.05)
        lab.figure(f"{count} handshakes, {before} threads became {most}", most <= before + 8)
        lab.figure(f"{process.log_mb(target):.2f} MB of log", process.log_mb(target) < 1)
        lab.gap(pulse, QUORUM_GAP)
        lab.reigns_on()
        return lab.outcome()


def dials(options):
    """Election handshakes with the address of a stranger: who is dialled?"""
    with Lab(options) as lab, socket.create_server(("127.0.0.1", 0)) as listener:
        target = max(lab.ensemble.voters, key=lambda member: member.sid)
        called = []
        for sid in (0, 1, 2, -5, 4242):
            link = stranger.call_back(target, sid, listener, 1.0)
            if link is not None:
                called.append(sid)
                link.close()
        # A member's address may be told it in a handshake if it is one that its name resolves to; the port is not checked.
        strangers = [sid for sid in called if sid not in (1, 2)]
        lab.figure(f"dialled for the ids {called}" if called else "nobody is dialled", not strangers)
        lab.reigns_on()
        return lab.outcome()


def log_lines(options):
    """Host names that are log lines and terminal codes; then handshakes as fast as they go."""
    forged = b"x\n2026-01-01T000000Z ERROR [myid 3] FORGED LINE \x1b[31m\x1b]0;title\x07:1"
    with Lab(options) as lab:
        target = max(lab.ensemble.voters, key=lambda member: member.sid)
        for sid in (-7, 1, 4242):
            with socket.create_connection(("127.0.0.1", target.election_port), 1) as link:
                link.sendall(stranger.handshake(sid, forged))
                time.sleep(0.5)
        with socket.create_connection(target.address, 1) as link:
            link.sendall(b"\x1b]0;title\x07\nFORGED")
            time.sleep(0.3)
        with open(target.logs[-1][1], "rb") as file:
            text = file.read()
        raw = b"\x1b" in text or any(line.startswith((b"2026-01-01T", b"FORGED")) for line in text.splitlines())
        lab.figure("a forged line in the log" if raw else "escaped", not raw)
        before, began = process.log_mb(target), time.monotonic()
        with Pulse(lab.members) as pulse:
            for thread in every_port([target] * 4, 3, lambda member: flood(member, forged)):
                thread.join()
        rate = (process.log_mb(target) - before) / (time.monotonic() - began)
        lab.figure(f"{rate * 1000:.0f} kB of log per second of flood", rate < 0.1)
        lab.gap(pulse, QUORUM_GAP)
        lab.reigns_on()
        return lab.outcome()


def flood(member, host):
    for port, data in ((member.election_port, stranger.handshake(-7, host)), (member.election_port, b"\xff" * 40),
                       (member.quorum_port, b"\xff" * 40), (member.client_port, b"\x7f" * 40)):
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port), 1) as link:
                link.sendall(data)


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
