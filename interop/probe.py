"""Measures how long an ensemble cannot write: from a SIGKILL to the next committed write through a survivor.

Stock clients wait before they reconnect, so they measure their own patience. The probe tries every survivor at once, all
the time: one attempt is a connection that re-attaches a session of before and sends a write behind it in the same
segment. It ends when a write is answered with a zxid of a new epoch. Between attempts that a server refused at once lie
0.2 ms, which is what the result may be late by.
"""

import os
import selectors
import signal
import socket
import struct
import time

from . import wire
from .ensemble import Ensemble, eventually

PATH = "/probe"


class Attempt:
    """One connection under way: connect, handshake, write, answer."""

    def __init__(self, client, number):
        self.client = client
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer, self.sent = b"", False
        self.socket.connect_ex(client.target)
        self.out = wire.connect_request(30000, client.session, client.password, client.last_zxid) + wire.request(
            1, wire.SET_DATA, wire.set_data_body(PATH, b"%d" % number)
        )

    def advance(self):
        """None while under way, 0 if it failed, the zxid if the write is committed."""
        try:
            if not self.sent:
                if self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    return 0
                self.socket.send(self.out)
                self.sent = True
                return None
            piece = self.socket.recv(4096)
        except BlockingIOError:
            return None
        except OSError:
            return 0
        if not piece:
            return 0
        self.buffer += piece
        while len(self.buffer) >= 4:
            (length,) = struct.unpack_from(">i", self.buffer)
            if len(self.buffer) < 4 + length:
                return None
            payload, self.buffer = self.buffer[4 : 4 + length], self.buffer[4 + length :]
            if length in (36, 37):
                if struct.unpack_from(">i", payload, 4)[0] <= 0:
                    raise AssertionError(f"session 0x{self.client.session:x} was lost")
                continue
            xid, zxid, err = struct.unpack_from(">iqi", payload)
            if xid == 1:
                return zxid if err == 0 else 0
        return None


def prepare(member):
    """A session on this member, to be re-attached later."""
    client = wire.Client(member.address, 30000)
    client.ensure(PATH)
    client.target = member.address
    client.drop()
    return client


def fail_over(victim, survivors, limit=60.0):
    """Kills `victim`; (milliseconds to the next committed write, epoch of that write)."""
    clients = [prepare(member) for member in survivors]
    epoch = max(client.last_zxid for client in clients) >> 32
    selector, number = selectors.DefaultSelector(), 0
    start = time.monotonic_ns()
    os.kill(victim.process.pid, signal.SIGKILL)
    for client in clients:
        begin(selector, client, number)
    try:
        while time.monotonic_ns() - start < limit * 1e9:
            for key, _ in selector.select(0.001):
                attempt = key.data
                zxid = attempt.advance()
                if zxid is None:
                    if attempt.sent:
                        selector.modify(attempt.socket, selectors.EVENT_READ, attempt)
                    continue
                if zxid >> 32 > epoch:
                    return (time.monotonic_ns() - start) / 1e6, zxid >> 32
                selector.unregister(attempt.socket)
                attempt.socket.close()
                number += 1
                time.sleep(0.0002)
                begin(selector, attempt.client, number)
    finally:
        for key in list(selector.get_map().values()):
            key.data.socket.close()
        selector.close()
    raise AssertionError(f"no write committed within {limit:g} s of the death of {victim}")


def begin(selector, client, number):
    attempt = Attempt(client, number)
    selector.register(attempt.socket, selectors.EVENT_WRITE, attempt)


def summary(times):
    ordered = sorted(times)
    median = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return f"min {ordered[0]:.1f} / median {median:.1f} / max {ordered[-1]:.1f} ms"


def fail_overs(variants, times):
    """How long the next committed write takes after the leader is killed, in ensembles of three that differ in some options, in one run."""
    took = {}
    for name, options in variants.items():
        with Ensemble(["zabd"] * 3, **options) as ensemble:
            ensemble.start()
            took[name] = []
            for _ in range(times):
                leader = ensemble.settled()
                time.sleep(0.3)
                took[name].append(fail_over(leader, [m for m in ensemble.members if m is not leader])[0])
                leader.kill()
                leader.start()
                ensemble.settled()
    return "; ".join(f"{name} {summary(times)}" for name, times in took.items())


def mistaken(extra, odd_extra, reason, properties=()):
    """Two members serve and a third is configured another way than they: one of them, or it itself, says `reason`."""
    with Ensemble(["zabd"] * 3, extra=extra, properties=list(properties)) as ensemble:
        odd = ensemble.members[2]
        ensemble.start()
        ensemble.settled()
        odd.terminate()
        ensemble.extra = odd_extra
        ensemble.configure(odd)
        leader = ensemble.settled()
        client = wire.Client(leader.address)
        client.ensure("/here")
        since = {member: len(member.log_text()) for member in ensemble.members}
        odd.start()
        said = lambda: [m for m, at in since.items() if reason in m.log_text()[0 if m is odd else at:]]
        eventually(f"'{reason}' in a log", said, 15)
        for _ in range(100):
            client.set("/here", b"x")
            time.sleep(0.02)
        for member in ensemble.members:
            lines = [line for line in member.log_text().splitlines() if reason in line]
            assert len(lines) <= 35, f"{member} says it {len(lines)} times"
        assert "is not currently serving" in odd.words("srvr")
