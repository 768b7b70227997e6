"""Host names, addresses and bytes that strangers send to be looked up, dialled or logged."""

import os
import shutil
import socket
import subprocess
import time

from . import process, stranger
from .attacks_peers import every_port
from .lab import QUORUM_GAP, Lab
from .pulse import Pulse

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
