"""`zabd shell` beside 3.9's `zkCli.sh`, on a terminal, and when its session ends."""

import os
import pty
import re
import select
import signal
import subprocess
import time

from . import servers
from .ensemble import Ensemble, eventually
from .shell import TRANSCRIPTS, ZK_CLI, Following, Pair, differences, lines, ours, told

NEWER = """
    create /a hello
    get -b /a
    get -x /a
    get -bs /a
    set -b /a d29ybGQ=
    get /a
    set -b -s /a eA==
    whoami
    get -b /nope
    create /big 0123456789abcdef0123456789-bcdefX
    get -x /big
    create /empty ''
    get -x /empty
    ls -R /
    """
LOG = re.compile(r"\d\d:\d\d:\d\d\.\d{3} ")
# docs/shell.md, "What differs from `zkCli.sh`": where 3.8 and 3.9 differ it is as 3.8.
USAGE = re.compile(r"(?m)^\t?(get \[-s\]|set \[-s\]|set path data \[-s\]).*\n( -.*\n)*")


def as_38(said):
    return [re.sub(r" zxid: -?\d+$", "", line) for line in said]


def told_39(member, text):
    command = [*servers.java_command("3.9", ["-Xmx96m"]), "org.apache.zookeeper.ZooKeeperMain"]
    done = subprocess.run([*command, "-server", f"127.0.0.1:{member.client_port}"], input=text, text=True, capture_output=True,
                          timeout=90, env={**os.environ, "HOME": member.directory})
    out = "".join(line for line in done.stdout.splitlines(True) if not LOG.match(line))
    out, events = lines(out, ZK_CLI, member.client_port)
    err, _ = lines(USAGE.sub("USAGE\n", done.stderr), ZK_CLI, member.client_port)
    return dict(out=out, err=[line for line in err if line], events=as_38(events), exit=[str(done.returncode)])


def as_39(name):
    text = NEWER if name == "newer" else TRANSCRIPTS[name]
    commands = [line.strip() for line in text.strip().splitlines()]
    text = "\n".join([*commands, "quit", ""])
    with Pair("zabd") as pair:
        java, own = told_39(pair[0], text), told(None, pair[1], [], text)
        own["err"] = [line for line in USAGE.sub("USAGE\n", "\n".join([*own["err"], ""])).splitlines() if line]
        differences(java, own, ("out", "err", "events", "exit"))
        return f"{len(commands)} commands, {sum(map(len, java.values()))} lines"


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, member):
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.environ.update(HOME=member.directory, TERM="xterm")
            os.execv(ours()[0], [*ours(), "-server", f"127.0.0.1:{member.client_port}", "-waitforconnection"])
        self.text = ""

    def says(self, wanted, seconds=30):
        end = time.monotonic() + seconds
        while wanted not in self.text:
            assert time.monotonic() < end, f"no {wanted!r} in {self.text[-1500:]!r}"
            if select.select([self.file], [], [], 0.1)[0]:
                self.text += os.read(self.file, 4096).decode(errors="replace")

    def type(self, text):
        self.text = ""
        os.write(self.file, text.encode())


def completion():
    """Tab completes commands and paths, absolute ones and those below a directory; the lines are remembered."""
    with Ensemble(["zabd"]) as ensemble:
        ensemble.start()
        member = ensemble.members[0]
        terminal = Terminal(member)
        try:
            terminal.says("(CONNECTED) 0] ")
            terminal.type("create /completed here\r")
            terminal.says("Created /completed")
            terminal.type("create /completed/deeper down\r")
            terminal.says("Created /completed/deeper")
            terminal.type("getAllCh\t /comp\t\r")
            terminal.says("getAllChildrenNumber /completed")
            terminal.says("1\r\n")
            terminal.type("get /completed/d\t\r")
            terminal.says("down")
            terminal.type("cd /completed\r")
            terminal.says("/completed 5] ")
            terminal.type("get de\t\r")
            terminal.says("down")
            # An event in the middle of a line goes above it.
            terminal.type("addWatch /watched\r")
            terminal.says(" 7] ")
            terminal.type("get /compl")
            terminal.says("get /compl")
            subprocess.run([*ours(), "-server", f"127.0.0.1:{member.client_port}", "create", "/watched"], check=True,
                           capture_output=True, timeout=60)
            terminal.says("NodeCreated path:/watched\r\n")
            terminal.says("7] get /compl")
            terminal.type("eted\r")
            terminal.says("here")
            terminal.type("quit\r")
            assert os.waitstatus_to_exitcode(os.waitpid(terminal.pid, 0)[1]) == 0
            terminal.pid = None
        finally:
            if terminal.pid:
                os.kill(terminal.pid, signal.SIGKILL)
        path = os.path.join(member.directory, ".zkcli_history")
        with open(path) as file:
            assert "get /completed/deeper" in file.read()
        assert os.stat(path).st_mode & 0o077 == 0
    return "commands, paths, relative paths; events above the line; history for its owner only"


def expired(kind):
    """A client that stands still for longer than its session lives: it is told, and its nodes are gone."""
    with Ensemble([kind]) as ensemble:
        ensemble.start()
        member = ensemble.members[0]
        shell = Following(ensemble, ensemble.directory, "-timeout", "4000")
        try:
            shell.type("create -e /mine")
            shell.says("Created /mine")
            shell.process.send_signal(signal.SIGSTOP)

            def gone():
                done = subprocess.run([*ours(), "-server", f"127.0.0.1:{member.client_port}", "ls", "/"], capture_output=True,
                                      text=True, timeout=60)
                return done.returncode == 0 and "mine" not in done.stdout.splitlines()[-1]
            eventually("the session has expired", gone, 60, 0.5)
            shell.process.send_signal(signal.SIGCONT)
            shell.says("state:Expired")
            shell.type("ls /")
            shell.says("Not connected")
            shell.type("connect")
            shell.says("state:SyncConnected")
            shell.type("ls /")
            shell.says("[zookeeper]")
            shell.type("quit")
            assert shell.process.wait(30) == 0
        finally:
            shell.process.send_signal(signal.SIGCONT)
            shell.process.kill()
    return "told, and connected anew"


def cases(suite, kinds):
    for name in ["newer", *TRANSCRIPTS]:
        suite.case(f"as zkCli.sh of 3.9: {name}", as_39, name, limit=150)
    suite.case("on a terminal", completion, limit=120)
    for kind in kinds:
        suite.case(f"a session of {kind} that expires", expired, kind, limit=120)
