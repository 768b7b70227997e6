"""An ensemble of real processes on loopback: start, kill, stop, wipe, swap, partition."""

import glob
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from . import servers, wire
from .proxy import Proxies

TICK_MS = 2000
MEMORY = "/dev/shm"


RESERVED = []


def free_ports(count):
    """Ports nobody listens on, outside the range the kernel gives to outgoing connections.

    The UDP port of the same number is held, so that another driver leaves the port alone while its server is down.
    `INTEROP_PORTS`, as 30000-31999, narrows the range.
    """
    first, last = map(int, os.environ.get("INTEROP_PORTS", "11000-31900").split("-"))
    found, port = [], random.randrange(first, last)
    while len(found) < count:
        port = port + 1 if port < last else first
        claim = socket.socket(type=socket.SOCK_DGRAM)
        try:
            claim.bind(("127.0.0.1", port))
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        RESERVED.append(claim)
        found.append(port)
    return found


def eventually(what, condition, seconds=30.0, pause=0.05):
    """Waits until `condition()` is true and returns its value; `what` is for the error."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(pause)


class Member:
    """One server: its directory, its ports and, while it runs, its process."""

    def __init__(self, sid, kind, directory, observer=False, data=None):
        self.sid, self.kind, self.observer = sid, kind, observer
        self.directory = directory
        self.data = data or os.path.join(directory, "data")
        self.client_port, self.quorum_port, self.election_port = free_ports(3)
        self.environment = {}
        self.properties = []  # system properties, as name=value
        self.heap_mb = servers.HEAP_MB
        self.wrap = []  # command that runs the server, as prlimit --nofile=64
        self.arguments = []  # further ones of zabd, as --runtime smol
        self.process = None
        self.stopped = False
        self.starts = 0
        self.logs = []  # (kind, path) of every run
        self.rebuilt = 0  # runs before its directory was made anew, see `check.rebuild`
        os.makedirs(self.data)
        with open(os.path.join(self.data, "myid"), "w") as file:
            file.write(f"{sid}\n")

    def __repr__(self):
        return f"{self.kind}#{self.sid}{'(observer)' if self.observer else ''}"

    @property
    def address(self):
        return ("127.0.0.1", self.client_port)

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def start(self):
        assert not self.running, f"{self} runs already"
        self.starts += 1
        log = os.path.join(self.directory, f"run-{self.starts:03d}-{self.kind}.log")
        self.logs.append((self.kind, log))
        environment = {**os.environ, **self.environment}
        environment.setdefault("RUST_LOG", "info")
        environment.setdefault("RUST_BACKTRACE", "1")
        command = servers.command(self.kind, os.path.join(self.directory, "zoo.cfg"), self.properties, self.heap_mb)
        with open(log, "wb") as sink:
            self.process = subprocess.Popen(
                [*self.wrap, *command, *(self.arguments if self.kind == "zabd" else [])], stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT,
                cwd=self.directory, env=environment, start_new_session=True,
            )
        self.stopped = False

    def signal(self, number):
        if self.running:
            os.kill(self.process.pid, number)

    def kill(self):
        """SIGKILL, and waits for the process to be gone."""
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()
        self.stopped = False

    def terminate(self, seconds=10.0):
        """SIGTERM; the exit status, or None if it had to be killed."""
        if self.process is None:
            return None
        self.signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def freeze(self):
        self.signal(signal.SIGSTOP)
        # One thread takes the signal and stops the others; until then they go on.
        eventually("all threads stop", lambda: all(state in "tT" for state in self.thread_states()), 5, 0.0005)
        self.stopped = True

    def thread_states(self):
        """The state of each thread, as /proc names it."""
        paths = glob.glob(f"/proc/{self.process.pid}/task/*/stat")
        return [open(path).read().rpartition(") ")[2][0] for path in paths]

    def thaw(self):
        self.signal(signal.SIGCONT)
        self.stopped = False

    def initialise(self):
        """Says that this server's empty directory is a new one, as zkServer-initialize.sh does."""
        with open(os.path.join(self.data, "initialize"), "w"):
            pass

    def wipe(self):
        """Deletes everything but the id, as an operator with a new disk would."""
        assert not self.running
        shutil.rmtree(os.path.join(self.data, "version-2"), ignore_errors=True)
        for name in os.listdir(self.data):
            if name != "myid":
                os.unlink(os.path.join(self.data, name))

    def words(self, word, wait=2.0):
        return wire.four_letter(self.address, word, wait)

    def mode(self):
        """leader, follower, observer, standalone, or '' while it does not serve."""
        if not self.running or self.stopped:
            return ""
        for line in self.words("srvr").splitlines():
            if line.startswith("Mode: "):
                return line[6:].strip()
        return ""

    def log_text(self, since=0):
        parts = []
        for _, path in self.logs[since:]:
            with open(path, errors="replace") as file:
                parts.append(file.read())
        return "".join(parts)


class Ensemble:
    """Members with one configuration. `kinds` are the voters, `observers` come after them.

    With `partitions`, every link between two members goes through a proxy of this process, so that it can be cut. With
    `second_address`, every server has its ports on 127.0.0.2 as well. With `masters`, followers serve observers, each server on an
    address of its own, as `observerMasterPort` is one number for all.
    """

    def __init__(self, kinds, observers=(), directory=None, partitions=False, tick_ms=TICK_MS, extra=(),
                 second_address=False, properties=(), heap_mb=servers.HEAP_MB, masters=False):
        servers.check([*kinds, *observers])
        self.own_directory = directory is None
        self.directory = directory or tempfile.mkdtemp(prefix="interop-")
        # A 3.8.0 server whose disk is behind when its leader dies loses a part of its log (ZOOKEEPER-4409), after which
        # there is nothing to compare with. A directory in memory is never behind, and outlives SIGKILL as well.
        in_memory = "3.8" in [*kinds, *observers] and self.own_directory and os.path.isdir(MEMORY)
        self.memory = tempfile.mkdtemp(prefix="interop-", dir=MEMORY) if in_memory else None
        self.extra = list(extra)
        self.tick_ms, self.second_address, self.masters = tick_ms, second_address, masters
        if masters:
            # Whoever dials comes from 127.0.0.1.
            self.extra += [f"observerMasterPort={free_ports(1)[0]}", "zab.checkPeerAddresses=false"]
        self.members = []
        for at, kind in enumerate([*kinds, *observers]):
            path = os.path.join(self.directory, f"member-{at + 1}")
            os.makedirs(path)
            data = os.path.join(self.memory, f"data-{at + 1}") if kind == "3.8" and self.memory else None
            member = Member(at + 1, kind, path, observer=at >= len(kinds), data=data)
            member.properties, member.heap_mb = list(properties), heap_mb
            self.members.append(member)
        self.proxies = Proxies(self.members) if partitions else None
        for member in self.members:
            self.configure(member)
            if second_address:
                # Java looks for it before it has read it from the file.
                member.environment["JDK_JAVA_OPTIONS"] = "-Dzookeeper.multiAddress.enabled=true"

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.stop()
        if self.own_directory and kind is None and not os.environ.get("INTEROP_KEEP"):
            shutil.rmtree(self.directory, ignore_errors=True)
            if self.memory:
                shutil.rmtree(self.memory, ignore_errors=True)
        elif kind is not None:
            print(f"    left for inspection: {self.directory} {self.memory or ''}", flush=True)

    @property
    def voters(self):
        return [member for member in self.members if not member.observer]

    @property
    def description(self):
        text = " ".join(member.kind for member in self.voters)
        observers = " ".join(member.kind for member in self.members if member.observer)
        return text + (f" + observers {observers}" if observers else "")

    def configure(self, member):
        """Writes the member's zoo.cfg: the same text for all, but for directories, ports and links through proxies."""
        lines = [
            f"tickTime={self.tick_ms}", "initLimit=10", "syncLimit=5", f"dataDir={member.data}",
            "clientPortAddress=127.0.0.1", f"clientPort={member.client_port}", "4lw.commands.whitelist=*",
            "admin.enableServer=false", "maxClientCnxns=0",
            "minSessionTimeout=2000", "maxSessionTimeout=120000", *self.extra,
        ]
        if member.observer:
            lines.append("peerType=observer")
        for other in self.members:
            quorum, election = other.quorum_port, other.election_port
            if self.proxies is not None and other is not member:
                quorum, election = self.proxies.ports(member, other)
            hosts = ("127.0.0.1", "127.0.0.2") if self.second_address else ("127.0.0.1",)
            if self.masters:
                hosts = (f"127.0.0.{10 + other.sid}",)
            suffix = ":observer" if other.observer else ""
            addresses = "|".join(f"{host}:{quorum}:{election}{suffix}" for host in hosts)
            lines.append(f"server.{other.sid}={addresses}")
        with open(os.path.join(member.directory, "zoo.cfg"), "w") as file:
            file.write("\n".join(lines) + "\n")

    def start(self, wait=True):
        for member in self.members:
            if not member.running:
                member.start()
        if wait:
            self.serving()
        return self

    def serving(self, members=None, seconds=60.0):
        """Waits until each of these members (all that run, unless said) answers as part of an ensemble."""
        for member in members if members is not None else [m for m in self.members if m.running and not m.stopped]:
            def serves(member=member):
                if not member.running:
                    raise AssertionError(f"{member} ended with {member.process.poll()}: {member.logs[-1][1]}")
                return member.mode()
            eventually(f"{member} serves", serves, seconds)

    def leader(self, seconds=30.0):
        def find():
            leaders = [member for member in self.members if member.mode() == "leader"]
            return leaders[-1] if leaders else None
        return eventually("a leader", find, seconds)

    def settled(self, seconds=60.0):
        """Waits until all that run serve, under exactly one leader, and returns that leader."""
        def find():
            running = [member for member in self.members if member.running and not member.stopped]
            modes = [member.mode() for member in running]
            if all(modes) and modes.count("leader") == 1:
                return running[modes.index("leader")]
            return None
        return eventually("one leader, and everybody serves", find, seconds)

    def swap(self, member, kind):
        """Another implementation on the same data directory. The member must be down."""
        assert not member.running
        servers.check([kind])
        member.kind = kind
        self.configure(member)

    def stop(self):
        """Ends every process that was started here."""
        for member in self.members:
            if member.process is not None:
                member.thaw()
                member.signal(signal.SIGTERM)
        end = time.monotonic() + 5
        for member in self.members:
            if member.process is not None:
                try:
                    member.process.wait(max(0.0, end - time.monotonic()))
                except subprocess.TimeoutExpired:
                    member.kill()
        if self.proxies is not None:
            self.proxies.stop()
