"""Kazoo's own tests for logins and TLS, as they stand in its package, with our server in the place of Java's."""

import importlib.util
import os
import re
import stat
import subprocess
import sys
import tempfile

from . import servers
from .ensemble import free_ports
from .suite import Suite

NEEDED = ("pytest", "kazoo", "puresasl", "OpenSSL", "jks")


def java(directory):
    """A program of this name, as which kazoo starts its servers: it starts ours with their properties and their configuration."""
    path = os.path.join(directory, "java")
    script = f"""#!{sys.executable}
import os, sys
words = sys.argv[1:]
foreign = ("-Dlog4j", "-Dfile.encoding", "-Djava.awt", "-Dzookeeper.log.dir", "-Dzookeeper.root.logger")
given = [word for word in words if word.startswith("-D") and not word.startswith(foreign)]
os.execv({servers.zabd()!r}, [{servers.zabd()!r}, *given, words[-1]])
"""
    with open(path, "w") as file:
        file.write(script)
    os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)


def run(tests, skipped, attempts=6):
    """All of these tests pass, and so many are skipped: those that need a KDC.

    `KazooClient.start` looks at whether it is connected after it has been: where the refusal of its login is back by then, it
    raises a time-out instead of what the test waits for. Such a run says nothing of a server, and is made anew.
    """
    for attempt in range(1, attempts + 1):
        code, counts, last, output = once(tests)
        raced = "AUTH_FAILED closing" in output and counts.get("failed", 0) == output.count("KazooTimeoutError: Connection time-out")
        if code == 0 or not raced or attempt == attempts:
            break
    assert code == 0 and counts.get("passed") and counts.get("skipped", 0) == skipped, output[-6000:]
    return f"{last}; {attempt} run{'s' if attempt > 1 else ''}"


def once(tests):
    """The exit code of pytest, how many tests passed and so on, its last line, and all that it says."""
    # The harness takes ports from there on: ten for each of three servers.
    first = min(free_ports(40))
    with tempfile.TemporaryDirectory(prefix="interop-kazoo-") as directory:
        java(directory)
        environment = {
            **os.environ, "PATH": f"{directory}:{os.environ['PATH']}", "ZOOKEEPER_VERSION": "3.9.4", "ZOOKEEPER_CLASSPATH": "none",
            "ZOOKEEPER_PORT_OFFSET": str(first), "TMPDIR": directory,
        }
        module, _, name = tests.partition("::")
        found = importlib.util.find_spec(module)
        target = found.origin + (f"::{name}" if name else "")
        command = [sys.executable, "-m", "pytest", "-q", "-W", "ignore", "-p", "no:cacheprovider", "--rootdir", directory, target]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=200)
    last = done.stdout.rstrip().rpartition("\n")[2]
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", last)}
    return done.returncode, counts, last.strip("= "), done.stdout


def main(_options):
    servers.check(["zabd"])
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise servers.Missing(f"without {', '.join(missing)}: pip install pytest kazoo pure-sasl pyOpenSSL pyjks")
    suite = Suite("kazoo's own tests")
    suite.case("test_sasl.py", run, "kazoo.tests.test_sasl", 2)
    suite.case("TestSSLClient", run, "kazoo.tests.test_client::TestSSLClient", 0)
    return suite.close()
