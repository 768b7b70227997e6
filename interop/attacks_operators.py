"""What runs out, and what is written in a configuration: descriptors, rights, counters, keys."""

import os
import re
import socket
import time

from . import process, wire
from .ensemble import Ensemble, eventually
from .lab import QUORUM_GAP, Lab
from .pulse import Pulse
from .stage import tail


def descriptors(options):
    """64 descriptors, clients from many addresses take them all; snapshots and logs are due, a follower comes back."""
    with Lab(options, extra=["snapCount=200"], late=True) as lab:
        for member in lab.members:
            member.wrap = ["prlimit", "--nofile=64"]
        lab.start()
        links = []
        with Pulse(lab.members) as pulse:
            for number in range(110):
                link = socket.socket()
                link.settimeout(1)
                link.bind((f"127.0.{1 + number // 50}.{1 + number % 50}", 0))
                try:
                    link.connect(lab.leader.address)
                    link.sendall(wire.connect_request(60000))
                except OSError:
                    pass
                links.append(link)
            time.sleep(0.5)
            used = process.cpu_seconds(lab.leader)
            begin = time.monotonic()
            time.sleep(2)
            # Some hundred writes are made in this time by the writers: only a loop that turns without end is seen.
            busy = (process.cpu_seconds(lab.leader) - used) / (time.monotonic() - begin)
            victim = lab.followers[0]
            victim.kill()
            victim.start()
            back = False
            try:
                eventually("back", lambda: victim.mode() == "follower", 15)
                back = True
            except AssertionError:
                pass
            time.sleep(1)
        lab.figure(f"{process.descriptors(lab.leader)} descriptors, {100 * busy:.0f} % of a processor", busy < 0.9)
        lab.all_run()
        lab.figure("a restarted follower is taken" if back else "a restarted follower is not taken", back)
        lab.gap(pulse, QUORUM_GAP)
        for link in links:
            link.close()
        lab.reigns_on()
        lab.kept(pulse)
        return lab.outcome()


# Root obeys modes only without this capability.
OBEDIENT = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"] if os.geteuid() == 0 else []


def unwritable(options):
    """A member whose version-2 may not be written is started."""
    with Lab(options) as lab:
        victim = lab.followers[0]
        directory = os.path.join(victim.data, "version-2")
        victim.terminate()
        os.chmod(directory, 0o500)
        victim.wrap = OBEDIENT
        with Pulse([member for member in lab.members if member is not victim]) as pulse:
            victim.start()
            time.sleep(3)
        code = victim.process.poll()
        served = "Peer state changed" in victim.log_text(1) or "LOOKING" in victim.log_text(1)
        lab.figure(f"ends with {code} {'after it took part' if served else 'before it takes part'}: {tail(victim, 2)[:160]}",
                   code == 3 and not served)
        os.chmod(directory, 0o700)
        victim.start()
        eventually("it serves when it may write again", lambda: victim.mode() == "follower", 20)
        lab.figure("serves again afterwards")
        lab.gap(pulse, QUORUM_GAP)
        lab.reigns_on()
        return lab.outcome()


def different_limits(options):
    """One member's jute.maxbuffer is too small for what the others hold: it is sent that in a snapshot, then in a proposal."""
    large = [f"jute.maxbuffer={16 << 20}"]
    with Lab(options, properties=large, late=True) as lab:
        lab.start()
        victim = lab.followers[0]
        client = wire.Client(lab.leader.address, 30000, wait=30.0)
        client.create("/large", b"x" * 8_000_000)

        def spoken():
            said = [line for line in victim.log_text(len(victim.logs) - 1).splitlines() if "jute.maxbuffer" in line]
            heard = [line for line in lab.leader.log_text().splitlines()[before:] if "jute.maxbuffer" in line]
            # Within a minute the leader says it three times at most.
            return bool(said and (heard or way == "proposal"))
        with Pulse([member for member in lab.members if member is not victim]) as pulse:
            for way in ("snapshot", "proposal"):
                before = len(lab.leader.log_text().splitlines())
                victim.kill()
                victim.wipe()
                victim.properties = ["jute.maxbuffer=1000000"]
                if way == "proposal":
                    client.set("/large", b"x")
                begin = time.monotonic()
                victim.start()
                if way == "proposal":
                    eventually("it serves as long as nothing is too long", lambda: victim.mode() == "follower", 20)
                    begin = time.monotonic()
                    client.set("/large", b"x" * 8_000_000)
                try:
                    eventually("it is said", spoken, 15)
                    lab.figure(f"{way}: said after {time.monotonic() - begin:.1f} s")
                except AssertionError:
                    lab.figure(f"{way}: nothing is said", False)
                time.sleep(5)
                attempts = sum("LOOKING" in line for line in victim.log_text(len(victim.logs) - 1).splitlines())
                lab.figure(f"{attempts} attempts in 5 s", attempts < 7)
                waits = victim.words("srvr")
                lab.figure("srvr says it" if "jute.maxbuffer" in waits else f"srvr says {waits!r}", "jute.maxbuffer" in waits)
            victim.kill()
            victim.properties = large
            victim.start()
            eventually("it serves with the right limit", lambda: victim.mode() == "follower", 20)
            lab.figure("serves with the right limit")
        client.close()
        lab.gap(pulse, QUORUM_GAP)
        lab.reigns_on()
        lab.kept(pulse)
        return lab.outcome()


class Alone:
    """One server without an ensemble, with any configuration."""

    def __init__(self, options, extra=(), properties=(), heap_mb=256):
        self.kind = "3.8" if options.apache else "zabd"
        self.ensemble = Ensemble([self.kind], extra=extra, properties=properties, heap_mb=heap_mb)
        self.member = self.ensemble.members[0]
        self.config = os.path.join(self.member.directory, "zoo.cfg")
        with open(self.config) as file:
            lines = [line for line in file.read().splitlines() if not line.startswith("server.")]
        with open(self.config, "w") as file:
            file.write("\n".join(lines) + "\n")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.ensemble.__exit__(*error)

    def start(self, seconds=15.0):
        """Whether it serves; False if it ends instead."""
        self.member.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not self.member.running:
                return False
            if self.member.mode():
                return True
            time.sleep(0.05)
        return False


def counter(options):
    """A standalone server at the end of the counter of its epoch, and after a restart."""
    with Alone(options) as alone:
        assert alone.start(), f"it does not start: {tail(alone.member)}"
        alone.member.terminate()
        directory = os.path.join(alone.member.data, "version-2")
        for name in os.listdir(directory):
            if name.startswith("log."):
                os.unlink(os.path.join(directory, name))
            elif name.startswith("snapshot."):
                os.rename(os.path.join(directory, name), os.path.join(directory, "snapshot.fffffff0"))
        counts = []
        for _ in range(2):
            assert alone.start(), f"it does not start: {tail(alone.member)}"
            made = 0
            try:
                client = wire.Client(alone.member.address, 20000, wait=4.0)
                for number in range(40):
                    client.create(f"/run-{len(counts)}-{number}")
                    made += 1
                client.close()
            except (wire.Closed, wire.ZkError):
                pass
            zxid = re.search(r"Zxid: (\S+)", alone.member.words("srvr"))
            counts.append((made, zxid.group(1) if zxid else "?"))
            alone.member.kill()
        text = "; after a restart ".join(f"{made} of 40 writes, zxid {zxid}" for made, zxid in counts)
        assert all(made == 40 for made, _ in counts), text
        return text


# Lines, system properties, and what must become of them: "refused" (code 2, and the key is named), "login" (a client
# without one is refused), "warned" (a WARN names the key).
KEYS = (
    (["enforce.auth.enabled=true", "enforce.auth.schemes=sasl"], [], "refused", "enforce.auth"),
    (["enforce.auth.enabled=true", "enforce.auth.schemes=digest"], [], "login", "enforce.auth"),
    ([], ["zookeeper.enforce.auth.enabled=true", "zookeeper.enforce.auth.schemes=sasl"], "refused", "enforce.auth"),
    (["sessionRequireClientSASLAuth=true"], [], "refused", "sessionRequireClientSASLAuth"),
    ([], ["zookeeper.sslQuorum=true"], "refused", "sslQuorum"),
    (["quorum.auth.enableSasl=true"], [], "refused", "quorum.auth"),
    ([], ["zookeeper.quorum.auth.enableSasl=true"], "refused", "quorum.auth"),
    (["skipACL=yes"], [], "warned", "skipACL"),
)


def keys(options):
    """Keys that protect or promise something: honoured, warned of, or refused."""
    wrong = []
    for lines, properties, wanted, name in KEYS:
        with Alone(options, extra=lines, properties=properties) as alone:
            serves = alone.start(5.0)
            log = alone.member.log_text()
            said = any(name.lower() in line.lower() for line in log.splitlines() if re.search(r"WARN|ERROR", line))
            if wanted == "refused":
                right = not serves and alone.member.process.poll() == 2 and said
            elif wanted == "warned":
                right = serves and said
            else:
                right = serves and not anonymous(alone.member)
            if not right:
                wrong.append(f"{' '.join(lines + properties)}: not {wanted}")
    text = f"{len(KEYS) - len(wrong)} of {len(KEYS)} right"
    assert not wrong, f"{text}: {'; '.join(wrong)}"
    return text


def anonymous(member):
    """Whether a client that has not logged in may write."""
    try:
        client = wire.Client(member.address, 10000, wait=3.0)
        client.create("/anonymous")
        return True
    except (wire.Closed, wire.ZkError):
        return False
