"""Stock clients of the members that stay: kazoo and ZooKeeper's own see no change of their connection."""

import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time

from . import held, servers
from .ensemble import Ensemble

HERE = os.path.dirname(os.path.abspath(__file__))


class Kazoo(threading.Thread):
    """A client of one member, which writes and reads all the time and keeps what its listener is told."""

    def __init__(self, member, path):
        from kazoo.client import KazooClient
        super().__init__(daemon=True)
        self.path, self.states, self.errors = path, [], []
        self.version, self.longest, self.stopping = 0, 0.0, False
        self.client = KazooClient(hosts=f"127.0.0.1:{member.client_port}", timeout=10.0)
        self.client.add_listener(self.states.append)
        self.client.start(timeout=10)
        self.client.create(path, b"")
        self.start()

    def run(self):
        while not self.stopping:
            begin = time.monotonic()
            try:
                self.client.set(self.path, b"%d" % self.version, version=self.version)
                self.version += 1
                assert self.client.get(self.path)[1].version == self.version
            except Exception as error:  # noqa: BLE001  (whatever a client sees is a finding)
                self.errors.append(repr(error))
                return
            self.longest = max(self.longest, time.monotonic() - begin)

    def end(self):
        """What it has seen that it should not have."""
        self.stopping = True
        self.join(15)
        states, errors = list(self.states), list(self.errors)
        self.client.stop()
        self.client.close()
        wrong = [f"state {state}" for state in states[1:]] + errors
        return wrong, self.version, self.longest * 1000


class Java:
    """The same with ZooKeeper's own client."""

    classes = None

    def __init__(self, member, path):
        if Java.classes is None:
            Java.classes = compiled()
        command = servers.java_command("3.8", ["-Xmx64m"])
        command[-1] += f":{Java.classes}"
        self.process = subprocess.Popen([*command, "Watched", f"127.0.0.1:{member.client_port}", path], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        # Its log comes the same way.
        first = next((line.strip() for line in self.process.stdout if line.startswith(("event", "error"))), "its end")
        assert first == "event SyncConnected", f"Java's client began with {first!r}"

    def end(self):
        out, _ = self.process.communicate(timeout=30)
        lines = out.split("\n")
        wrong = [line for line in lines if line.startswith(("event", "error")) and line != "event Closed"]
        (said,) = [line.split() for line in lines if line.startswith("writes")] or [["", "0", "", "0"]]
        return wrong or ([] if said[0] else [f"it ended: {out[-300:]!r}"]), int(said[1]), float(said[3])


def compiled():
    """The directory with the class of `java/Watched.java`."""
    if shutil.which("javac") is None:
        raise servers.Missing("no javac: apt-get install default-jdk-headless")
    place = tempfile.mkdtemp(prefix="interop-java-")
    path = servers.java_command("3.8")[-1]
    subprocess.run(["javac", "-nowarn", "-cp", path, "-d", place, os.path.join(HERE, "java", "Watched.java")], check=True)
    return place


def unnoticed(kind, how, times):
    """The leader ends again and again; two clients on each of the others see nothing of it."""
    writes, longest = 0, []
    with Ensemble(["zabd"] * 3) as ensemble:
        ensemble.start()
        for number in range(times):
            leader = ensemble.settled()
            stay = [member for member in ensemble.members if how == "SIGUSR1" or member is not leader]
            clients = [kind(member, f"/{number}-{member.sid}-{at}") for member in stay for at in range(2)]
            time.sleep(held.PROBATION if how == "SIGSTOP" else 0.5)
            held.end(leader, how)
            time.sleep(1.0)
            found = [client.end() for client in clients]
            if how == "SIGSTOP":
                leader.thaw()
            elif how != "SIGUSR1":
                leader.start()
            wrong = [text for texts, _, _ in found for text in texts]
            assert not wrong, f"{leader} ended by {how}, and clients of the others saw: {'; '.join(wrong[:5])}"
            writes += sum(count for _, count, _ in found)
            longest += [ms for _, _, ms in found]
    return (f"{times} times, {writes} writes, no change of any connection seen; longest for one write and read "
            f"{statistics.median(longest):.0f} ms in the median of clients, {max(longest):.0f} at most")


def cases(times):
    """Names, functions and their arguments; and what is left out here, and why."""
    found, missing = [], []
    for name, kind, needs in (("kazoo", Kazoo, need_kazoo), ("Java's client", Java, need_java)):
        try:
            needs()
            found += [(f"not noticed by {name}, {how}", unnoticed, kind, how, times)
                      for how in ("SIGKILL", "SIGTERM", "SIGUSR1", "SIGSTOP")]
        except servers.Missing as error:
            missing.append(f"{name}: {error}")
    return found, missing


def need_kazoo():
    try:
        import kazoo  # noqa: F401
    except ImportError:
        raise servers.Missing("pip install kazoo") from None


def need_java():
    servers.check(["3.8"])
    if shutil.which("javac") is None:
        raise servers.Missing("no javac: apt-get install default-jdk-headless")
