#!/usr/bin/env python3
"""Instructions that a standalone zabd takes for a read, a write and a create, and three members for a write, counted by
valgrind.

    python3 benches/instructions.py NAME=BINARY [NAME=BINARY …]

Times of a machine that does other work say nothing about a few percent; a count does. Each figure is the difference of two
runs, one with 1,000 operations and one with 11,000, so that the start of the server is not in it. Requests are sent fifty at a
time by one client; 100 bytes of data.
"""

import contextlib
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from interop import wire  # noqa: E402
from interop.ensemble import eventually  # noqa: E402

DATA = b"x" * 100
OPERATIONS = {
    "read": (wire.GET_DATA, lambda at: wire.string("/w") + b"\0"),
    "write": (wire.SET_DATA, lambda at: wire.set_data_body("/w", DATA)),
    "create": (wire.CREATE, lambda at: wire.create_body(f"/n-{at:07d}", DATA)),
}
FEW, MANY, AHEAD = 1000, 11000, 50


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def connected(port):
    try:
        return wire.Client(("127.0.0.1", port), 60000, wait=60.0)
    except (OSError, wire.Closed):
        return None


def start(binary, arguments, log):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", binary, *arguments]
    # With its tunables set, even to nothing, zabd does not begin anew to have large pages, whither valgrind would
    # not follow it.
    return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"GLIBC_TUNABLES": ""})


def ask(port, operation, count):
    """So many operations at one server, as soon as it serves."""
    op, body = OPERATIONS[operation]
    client = eventually("the server answers", lambda: connected(port), 60)
    client.create("/w", DATA)
    for first in range(0, count, AHEAD):
        for at in range(first, first + AHEAD):
            client.send(op, body(at))
        for _ in range(AHEAD):
            reply = client.receive()
            assert reply.err == 0, reply


def collected(server, log):
    """What a server has executed from its start to its end, which is now."""
    server.terminate()
    server.wait(60)
    log.seek(0)
    return int(re.search(r"Collected : (\d+)", log.read()).group(1))


def standalone(binary, operation, count):
    with tempfile.TemporaryDirectory() as directory, tempfile.TemporaryFile("w+") as log:
        port = free_port()
        server = start(binary, [str(port), directory], log)
        ask(port, operation, count)
        return collected(server, log)


def ensemble(binary, operation, count):
    """Of all three members together. The client is at the one that is elected, as it has the highest id."""
    sids = (1, 2, 3)
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        ports = {sid: [free_port() for _ in range(3)] for sid in sids}
        members = "".join(f"server.{sid}=127.0.0.1:{ports[sid][0]}:{ports[sid][1]}\n" for sid in sids)
        servers = []
        for sid in sids:
            data = os.path.join(directory, str(sid))
            os.mkdir(data)
            with open(os.path.join(data, "myid"), "w") as file:
                file.write(str(sid))
            config = os.path.join(directory, f"{sid}.cfg")
            with open(config, "w") as file:
                file.write(f"tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={data}\n"
                           f"clientPort={ports[sid][2]}\nadmin.enableServer=false\n{members}")
            log = stack.enter_context(tempfile.TemporaryFile("w+"))
            servers.append((start(binary, [config], log), log))
        ask(ports[3][2], operation, count)
        return sum(collected(*server) for server in servers)


def main():
    binaries = dict(argument.split("=", 1) for argument in sys.argv[1:])
    assert binaries, __doc__
    print("| instructions per | " + " | ".join(binaries) + " |")
    print("|---|" + "--:|" * len(binaries))
    rows = [(operation, standalone, operation) for operation in OPERATIONS] + [("write, three members", ensemble, "write")]
    for name, how, operation in rows:
        row = [(how(binary, operation, MANY) - how(binary, operation, FEW)) / (MANY - FEW) for binary in binaries.values()]
        print(f"| {name} | " + " | ".join(f"{figure:,.0f}" for figure in row) + " |", flush=True)


if __name__ == "__main__":
    main()
