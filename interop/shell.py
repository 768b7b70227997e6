"""The same lines to Debian's zkCli.sh and to `zabd shell`, each in front of a fresh server, and what both say of them.

And `zabd shell` in front of Apache's servers, which are killed under it.
"""

import difflib
import os
import re
import subprocess
import threading
import time

from . import servers
from .clients import ZK_CLI
from .ensemble import Ensemble, eventually
from .suite import Suite

EVENT = re.compile(r"\nWATCHER::\n\n(WatchedEvent [^\n]*)\n")
# What `set /p unseen` below, behind `printwatches off`, causes.
UNSEEN = "WatchedEvent state:SyncConnected type:NodeDataChanged path:/p"

# Every transcript ends in `quit`, so that both sides close their sessions.
TRANSCRIPTS = {
    "nodes": """
        ls /
        create /a hello
        create /a again
        create
        get /a
        get -s /a
        get /a -s
        get -sw /a
        get /nope
        get
        stat /a
        stat /nope
        ls -s /
        ls
        ls /nope
        ls /a/b/
        set /a world
        set -s /a x
        set -v 9 /a x
        set /a y -v 2
        set /a z -v
        set /a
        set -x /a b
        create /a/b
        get /a/b
        create /a/b/c deep
        create /a/d ''
        get /a/d
        ls -R /
        ls -R /a
        ls -R /nope
        delete /a
        delete /nope
        delete -v 7 /a/d
        delete /a/d
        delete /zookeeper
        deleteall /a
        deleteall /nope
        ls /
        getAllChildrenNumber /
        getAllChildrenNumber /nope
        sync /
        sync /nope
        config
        config -s
        config -c
        reconfig -add x
        reconfig
        """,
    "kinds": """
        create -e /e
        create -e /e/child
        create -s /s- x
        create -s -e /s- x
        create -es /s- x
        create -s /nope/s-
        create -c /cont
        create -c -e /x
        create -t 100000 /ttl x
        create -s -t 100000 /ttl- x
        create -t x /q
        create -t -5 /q
        create -e -t 5 /q
        create -c -t 5 /q
        create -t
        get -s /ttl
        get -s /cont
        getEphemerals
        getEphemerals /e
        getEphemerals /nope
        getEphemerals nope
        ls /
        """,
    "words": """
        create "/sp ace" 'a b c'
        get "/sp ace"
        create '/quo"te' "it's"
        get '/quo"te'
        ls /
        create /x a"b c
        get /x
        set /x "open end
        get /x
        create /empty ""
        get /empty
        create a b
        create /a//b
        create /a/../b
        create /./a
        create /end/
        create ""
        get //
        create -- -dash
        bogus
        BOGUS /a
        """,
    "acl": """
        create /a x
        getAcl /a
        getAcl -s /a
        getAcl /nope
        setAcl /a world:anyone:cdrw
        getAcl /a
        setAcl /a world:anyone:r
        setAcl -v 7 /a world:anyone:r
        create /b x world:anyone:rw,ip:127.0.0.1:cdrwa
        getAcl /b
        create /c x foo
        create /c x world:anyone:q
        getAcl /c
        create /d x nosuch:id:r
        create /f x digest:u:nonsense:r
        getAcl /f
        setAcl /b foo
        setAcl /b
        setAcl -s /b world:anyone:cdrwa
        create /b/1
        create /b/1/2
        setAcl -R /b world:anyone:cdra
        getAcl /b/1/2
        addauth digest u:p
        create /mine x auth::cdrwa
        getAcl /mine
        whoami
        addauth
        setAcl /b foo,bar
        """,
    "quota": """
        create /a 1
        create /a/b 2
        listquota /a
        setquota -n 10 /a
        listquota /a
        setquota -b 5 /a
        listquota /a
        setquota -N 20 /a
        setquota -B 100 /a
        listquota /a
        setquota -n x /a
        setquota -n 0 /a
        setquota -n 1 /a
        setquota -b 1 /a/b
        setquota -n 5 /nope
        setquota -n 5 /zookeeper/quota
        setquota /a
        setquota -n
        delquota -n /a
        listquota /a
        delquota /a
        listquota /a
        delquota /a
        delquota /nope
        ls -R /zookeeper
        """,
    "watches": """
        create /a 1
        get -w /a
        set /a 2
        set /a 3
        stat -w /later
        create /later
        ls -w /
        create /child
        get /a watch
        set /a 4
        ls / watch
        create /child2
        stat /a watch
        delete /a
        addWatch /r
        create /r
        create /r/s
        addWatch -m PERSISTENT /p
        create /p
        addWatch -m nonsense /p
        addWatch
        removewatches /p
        removewatches /p
        removewatches /r -a
        removewatches /never
        delete /r/s 0
        printwatches
        printwatches off
        printwatches
        get -w /p
        set /p unseen
        printwatches on
        printwatches
        """,
    "shell": """
        history
        create /a
        ls /
        redo 2
        redo 99
        redo 3
        redo
        history
        nonsense
        close
        ls /
        get /a
        printwatches
        history
        redo 1
        version
        """,
    "members": """
        config
        config -w
        config -cs
        reconfig -v x
        reconfig -v x -add a
        reconfig -file /nonexistent
        reconfig -file /nonexistent -members b
        reconfig -file /nonexistent -members b -add c
        reconfig -members server.1=a:1:2 -remove 1
        reconfig -add server.9=LOCALHOST:1:2;3
        reconfig -remove 1
        reconfig -members server.1=a:1:2;3 -v 0
        ls -R /zookeeper
        """,
}

# One command on the command line.
SINGLE = (
    ["ls", "/"], ["get", "/nope"], ["bogus"], ["create"], ["create", "/one", "two words"], ["get", "/one"], ["ls", "-x", "/"],
    ["stat", "/a/../b"], ["-waitforconnection", "ls", "/"], ["-r", "-timeout", "5000", "get", "/one"], ["delete", "/zookeeper"],
    ["quit"], ["history"], ["getAcl"], ["create", "-e", "/gone"], ["set", "/one"], ["-nonsense", "ls", "/"],
)


def ours():
    return [servers.zabd(), "shell"]


def lines(text, tool, port):
    """What was said, without what differs between two runs of one tool: the remaining text, and the events apart, as Java
    shows them on another thread."""
    text = re.sub(r"SLF4J: .*\n", "", text).replace(f"127.0.0.1:{port}", "SERVER")
    assert not [time for time in re.findall(r"^[cm]time = (.*)$", text, re.M)
                if not re.fullmatch(r"\w{3} \w{3} \d\d \d\d:\d\d:\d\d \S+ \d{4}", time)], "times look otherwise"
    text = re.sub(r"(?m)^([cm])time = .*$", r"\1time = TIME", text)
    # `docs/shell.md`, "What differs from `zkCli.sh`".
    text = re.sub(r"(?m)^ZooKeeper CLI version: .*$", "VERSION", text)
    if tool is not ZK_CLI:
        text = re.sub(r"(?m)(?<=^\twhoami \n)(\t[a-z].*\n)+", "", text)
        text = text.replace("unknown option -nonsense is ignored\n", "")
    events = EVENT.findall(text)
    # Java's last events may be cut off by the end of the process.
    events = [event for event in events if "state:Closed" not in event]
    if tool is ZK_CLI:
        # Java's events have a thread of their own, which may come to one that was not to be printed when `printwatches on`
        # has been read already.
        events = [event for event in events if event != UNSEEN]
    return EVENT.sub("", text).splitlines(), events


def told(tool, member, arguments, text, environment=None):
    command = ["bash", ZK_CLI] if tool is ZK_CLI else ours()
    # No file of whoever runs this.
    environment = {**os.environ, **(environment or {}), "HOME": member.directory}
    done = subprocess.run([*command, "-server", f"127.0.0.1:{member.client_port}", *arguments], input=text, text=True,
                          capture_output=True, timeout=90, env=environment)
    out, events = lines(done.stdout, tool, member.client_port)
    err, _ = lines(done.stderr, tool, member.client_port)
    return dict(out=out, err=err, events=events, exit=[str(done.returncode)])


def compare(pair, arguments, text, may_lack=(), environment=None):
    java, own = (told(tool, member, arguments, text, environment) for tool, member in zip((ZK_CLI, None), pair))
    differences(java, own, [what for what in ("out", "err", "events", "exit") if what not in may_lack])
    return sum(len(java[what]) for what in ("out", "err", "events"))


def differences(java, own, of):
    for what in of:
        difference = list(difflib.unified_diff(java[what], own[what], f"zkCli.sh, {what}", f"zabd shell, {what}", lineterm="", n=2))
        assert not difference, "\n".join(difference)


class Pair:
    """Two servers of a kind, each alone."""

    def __init__(self, kind, extra=(), properties=()):
        lines = ["extendedTypesEnabled=true", *extra]
        self.each = [Ensemble([kind], extra=lines, properties=properties) for _ in range(2)]

    def __enter__(self):
        for ensemble in self.each:
            ensemble.start()
        return [ensemble.members[0] for ensemble in self.each]

    def __exit__(self, kind, error, trace):
        for ensemble in self.each:
            ensemble.__exit__(kind, error, trace)


def transcript(kind, name):
    with Pair(kind) as pair:
        commands = [line.strip() for line in TRANSCRIPTS[name].strip().splitlines()]
        count = compare(pair, [], "\n".join([*commands, "quit", ""]))
        assert count > len(commands) / 2, f"only {count} lines"
        return f"{len(commands)} commands, {count} lines"


def single(kind):
    with Pair(kind) as pair:
        for arguments in SINGLE:
            try:
                # Java may end before it has shown who it is connected to.
                compare(pair, arguments, "", may_lack=("events",))
            except AssertionError as error:
                raise AssertionError(f"{' '.join(arguments)}\n{error}") from None
        return f"{len(SINGLE)} commands"


class Following:
    """A shell that is left open, and what it says."""

    def __init__(self, ensemble, directory, *arguments):
        hosts = ",".join(f"127.0.0.1:{member.client_port}" for member in ensemble.members)
        self.process = subprocess.Popen([*ours(), "-server", hosts, *arguments, "-waitforconnection"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                        env={**os.environ, "HOME": directory})
        self.text = ""
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.text += line

    def type(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def says(self, wanted, seconds=60):
        eventually(f"'{wanted}' is said\n{self.text[-2000:]}", lambda: wanted in self.text, seconds)


def killed(kind):
    """Members of another implementation are killed in turn; the session goes on, and its watches with it."""
    with Ensemble([kind] * 3) as ensemble:
        ensemble.start()
        shell = Following(ensemble, ensemble.directory)
        try:
            shell.type("create -e /mine")
            shell.says("Created /mine")
            shell.type("addWatch /watched")
            shell.type("create /watched")
            shell.says("NodeCreated path:/watched")
            for at, member in enumerate(ensemble.members):
                member.kill()
                ensemble.settled()
                other = ensemble.members[(at + 1) % 3]

                def write(other=other, at=at):
                    done = subprocess.run([*ours(), "-server", f"127.0.0.1:{other.client_port}", "create", f"/watched/{at}-{time.time()}"],
                                          capture_output=True, text=True, timeout=60)
                    return done.returncode == 0 and f"NodeCreated path:/watched/{at}-" in shell.text
                eventually(f"a watch fires after {member} was killed", write, 60, 0.5)
                member.start()
                ensemble.settled()
            assert "Expired" not in shell.text, shell.text[-2000:]
            lost = shell.text.count("state:Disconnected")
            assert lost >= 1, "the session's own server was never killed"
            shell.type("ls /")
            shell.says("mine")
            shell.type("quit")
            assert shell.process.wait(30) == 0
            return f"{lost} connections lost"
        finally:
            shell.process.kill()


def main(options):
    suite = Suite("zabd shell")
    kinds = ["zabd"] if options.short else ["zabd", "3.8"]
    for kind in kinds:
        for name in TRANSCRIPTS:
            suite.case(f"as zkCli.sh in front of {kind}: {name}", transcript, kind, name, limit=150)
        suite.case(f"as zkCli.sh in front of {kind}: one command", single, kind, limit=240)
    from . import shell_more, shell_secure
    shell_more.cases(suite, ["zabd", "3.8"])
    # Apache's servers in the short form, too: it is their client whose place this takes.
    shell_secure.cases(suite, ["zabd", "3.8"])
    suite.case("the members of 3.8 are killed", killed, "3.8", limit=240)
    return suite.close()
