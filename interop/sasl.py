"""SASL on real processes: kazoo's and Java's clients, members of ours and of Apache's, and the way to logins and back."""

import os
import re
import shutil
import subprocess
import tempfile
import time

from . import check, probe, scenarios, servers, wire
from .ensemble import Ensemble, eventually
from .load import Load
from .suite import Suite

DIGEST = "org.apache.zookeeper.server.auth.DigestLoginModule required"
PROVIDER = "authProvider.sasl=org.apache.zookeeper.server.auth.SASLAuthenticationProvider"
CLIENT = 'Client { %s username="bob" password="%s"; };\n' % (DIGEST, "%s")
# Each step works with its neighbours.
STEPS = (
    [], ["enableSasl"], ["enableSasl", "learnerRequireSasl"], ["enableSasl", "learnerRequireSasl", "serverRequireSasl"],
    ["enableSasl", "learnerRequireSasl"], ["enableSasl"], [],
)
ALL = STEPS[3]


def example():
    """The JAAS file of docs/security.md."""
    with open(os.path.join(servers.ROOT, "docs", "security.md")) as file:
        return re.search(r"<!-- example jaas -->\n```\n(.*?)```", file.read(), re.DOTALL).group(1)


class Files:
    """JAAS files in a directory of their own."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="interop-sasl-")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.directory, ignore_errors=True)

    def jaas(self, name="jaas.conf", password="membersecret", client="bobsecret"):
        path = os.path.join(self.directory, name)
        with open(path, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(example().replace('password="membersecret"', f'password="{password}"') + CLIENT % client)
        return f"java.security.auth.login.config={path}"


def keys(step):
    return [f"quorum.auth.{key}=true" for key in step]


class Alone:
    """One server whose clients may log in."""

    def __init__(self, files, *lines, kind="zabd"):
        self.ensemble = Ensemble([kind], extra=[PROVIDER, *lines], properties=[files.jaas()])
        self.member = self.ensemble.members[0]

    def __enter__(self):
        self.ensemble.start()
        return self.member

    def __exit__(self, *error):
        self.ensemble.__exit__(*error)


def kazoo_client(member, user=None, password=None):
    from kazoo.client import KazooClient
    options = {"mechanism": "DIGEST-MD5", "username": user, "password": password} if user else None
    return KazooClient(hosts=f"127.0.0.1:{member.client_port}", sasl_options=options, timeout=10)


def kazoo(files):
    """A login, ACLs of the scheme, strangers, wrong passwords, the super user, a login that is demanded."""
    from kazoo.exceptions import KazooException, NoAuthError
    from kazoo.handlers.threading import KazooTimeoutError
    from kazoo.security import ACL, Id

    def connect(member, *who):
        client = kazoo_client(member, *who)
        client.start(timeout=10)
        return client

    with Alone(files, "superUser=root") as member:
        bob, root, stranger = connect(member, "bob", "bobsecret"), connect(member, "root", "rootsecret"), connect(member)
        bob.create("/mine", b"secret", acl=[ACL(31, Id("sasl", "bob"))])
        bob.create("/auth", b"secret", acl=[ACL(31, Id("auth", ""))])
        assert [acl.id for acl in bob.get_acls("/auth")[0]] == [Id("sasl", "bob")]
        for path in ("/mine", "/auth"):
            assert bob.get(path)[0] == root.get(path)[0] == b"secret"
            try:
                stranger.get(path)
                raise AssertionError(f"{path} is read by a stranger")
            except NoAuthError:
                pass
        for who, reason in ((("bob", "wrong"), 'the password is not that of "bob"'),
                            (("nobody", "bobsecret"), 'no user "nobody" is known')):
            client = kazoo_client(member, *who)
            try:
                client.start(timeout=2)
                client.get("/mine")
                raise AssertionError(f"{who} got in")
            except (KazooException, KazooTimeoutError):
                pass
            eventually(f"{who}: {reason}", lambda reason=reason: reason in member.log_text(), 5)
            client.stop()
            client.close()
        figures = member.words("mntr")
        assert "zk_zab_sasl_logins\t2" in figures, figures
        assert "zk_zab_sasl_failed\t0" not in figures, figures
        for client in (bob, root, stranger):
            client.stop()
            client.close()
    with Alone(files, "sessionRequireClientSASLAuth=true") as member:
        bob = connect(member, "bob", "bobsecret")
        bob.create("/let-in")
        stranger = wire.Client(member.address)
        try:
            stranger.create("/not")
            raise AssertionError("who has not logged in was served")
        except Exception as error:  # pylint: disable=broad-except
            assert "-124" in str(error) or "124" in repr(error), error
        bob.stop()
        bob.close()
    return "owner, auth, strangers, wrong passwords, super user; a login demanded"


def java_client(files):
    """Java's client logs in by its JAAS file."""
    def shell(member, lines, jaas):
        command = servers.java_command("3.8", ["-Xmx96m", f"-D{jaas}"])
        command[-1] += f":{servers.DEBIAN}/commons-cli.jar"
        done = subprocess.run(
            [*command, "org.apache.zookeeper.ZooKeeperMain", "-server", f"127.0.0.1:{member.client_port}"],
            input=lines, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
        )
        return done.stdout

    with Alone(files) as member:
        out = shell(member, "create /java hello sasl:bob:cdrwa\nget /java\ngetAcl /java\nwhoami\nquit\n", files.jaas())
        for wanted in ("Created /java", "hello", "'sasl,'bob", "sasl"):
            assert wanted in out, f"no '{wanted}' in {out[-3000:]}"
        out = shell(member, "get /java\nquit\n", files.jaas("wrong.conf", client="wrong"))
        assert "hello" not in out, out[-3000:]
        eventually("the reason is in the log", lambda: "the password is not that of \"bob\"" in member.log_text(), 5)
    return "create with an ACL of the scheme, get, a wrong password"


def logged_in(member):
    text = member.log_text()
    return "Successfully authenticated learner" in text or "Successfully completed the authentication using SASL" in text


def allowed(kinds):
    """From 3.9.4 on a member of Apache's logs in with DIGEST-MD5 only if it is told that nothing else is demanded of it."""
    return ["zookeeper.fips-mode=false"] if "3.9" in kinds else []


def ensembles(files, kinds, runtimes=("mio", "mio", "mio"), lines=()):
    """An ensemble under load, all logins demanded, whose leaders are killed until each kind has led."""
    with Ensemble(kinds, extra=[*keys(ALL), *lines], properties=[files.jaas(), *allowed(kinds)]) as ensemble:
        for member, runtime in zip(ensemble.members, runtimes):
            member.arguments = ["--runtime", runtime]
        ensemble.start()
        led = []
        with Load(ensemble, sessions=False) as load:
            for _ in range(2 * len(kinds)):
                leader = ensemble.settled()
                led.append(leader.kind)
                if set(led) == set(kinds) and len(led) > 2:
                    break
                time.sleep(0.5)
                scenarios.kill_and_restart(ensemble, leader)
            time.sleep(0.5)
        for member in ensemble.members:
            assert logged_in(member), f"{member} has seen no login"
        return f"led by {', '.join(led)}; {check.everything(ensemble, load)}"


def encrypted(files, kinds):
    """Logins within TLS."""
    from . import tls
    with tls.Files() as stores:
        return ensembles(files, kinds, lines=[*stores.example("members"), "sslQuorum=true"])


def strangers(files):
    """A member with a wrong password, and one that does not log in: refused with a reason, and nobody else notices."""
    with Ensemble(["zabd"] * 3, extra=keys(ALL), properties=[files.jaas()]) as ensemble:
        last = ensemble.members[2]
        done = []
        ensemble.start()
        ensemble.settled()
        for name, properties, step, reason in (
            ("wrong password", [files.jaas("wrong.conf", password="wrong")], ALL, "the password is not that of \"member\""),
            ("no login", [], [], "it does not log in, which is required"),
        ):
            last.terminate()
            last.properties, ensemble.extra = properties, keys(step)
            ensemble.configure(last)
            leader = ensemble.settled()
            client = wire.Client(leader.address)
            client.ensure("/here")
            since = {member: len(member.log_text()) for member in ensemble.members[:2]}
            last.start()
            eventually(f"{name}: refused", lambda since=since, reason=reason: any(
                reason in member.log_text()[at:] for member, at in since.items()), 10)
            end = time.monotonic() + 2
            while time.monotonic() < end:
                client.set("/here", b"x")
            assert "is not currently serving" in last.words("srvr"), name
            done.append(name)
        last.terminate()
        last.properties, ensemble.extra = [files.jaas()], keys(ALL)
        ensemble.configure(last)
        last.start()
        ensemble.settled()
    return f"refused: {', '.join(done)}; and let in again"


def unexpected(files):
    """A member that logs in where nobody takes a login is told apart from a damaged one."""
    probe.mistaken([], keys(ALL), "SASL (quorum.auth.enableSasl is not on here)", [files.jaas()])
    return "said by those who got it"


def rolling(files, kinds):
    """The three steps to logins and back, one member at a time under load."""
    with Ensemble(kinds, properties=[files.jaas(), *allowed(kinds)]) as ensemble:
        ensemble.start()
        with Load(ensemble, roam=True, sessions=False) as load:
            for step in STEPS[1:]:
                ensemble.extra = keys(step)
                leader = ensemble.settled()
                for member in [m for m in ensemble.members if m is not leader] + [leader]:
                    member.terminate()
                    ensemble.configure(member)
                    member.start()
                    ensemble.settled()
        assert all(logged_in(member) for member in ensemble.members)
        return (f"{len(STEPS) - 1} changes of {len(kinds)}; longest pause of a client {load.longest_pause():.2f} s; "
                f"{check.everything(ensemble, load)}")


def fail_overs(files, times):
    """With logins and without."""
    options = {"properties": [files.jaas()]}
    return probe.fail_overs({"without": options, "with": {**options, "extra": keys(ALL)}}, times)


def main(options):
    servers.check(["zabd"])
    suite = Suite("SASL")
    apache = os.path.exists(f"{servers.DEBIAN}/zookeeper-3.8.0.jar")
    with Files() as files:
        cases = [
            ("kazoo", kazoo, (), True),
            ("three of ours, one on each runtime", ensembles, (["zabd"] * 3, ("mio", "smol", "std")), True),
            ("three of ours, within TLS", encrypted, (["zabd"] * 3,), True),
            ("members that must not", strangers, (), True),
            ("a login that nobody takes", unexpected, (), True),
            ("to logins and back, three of ours", rolling, (["zabd"] * 3,), True),
            ("fail-over with and without", fail_overs, (10,), False),
        ]
        if apache:
            cases += [
                ("Java's client", java_client, (), True),
                ("ours with Apache's 3.8.0", ensembles, (["zabd", "3.8", "zabd"],), True),
                ("Apache's 3.8.0 with ours", ensembles, (["3.8", "zabd", "3.8"],), False),
                ("to logins and back, with 3.8.0", rolling, (["zabd", "3.8", "zabd"],), True),
            ]
        else:
            print("  without Java: no ZooKeeper 3.8.0")
        try:
            servers.check(["3.9"])
        except servers.Missing as missing:
            print(f"  without 3.9: {missing}")
        else:
            cases += [
                ("ours with Apache's 3.9", ensembles, (["zabd", "3.9", "zabd"],), True),
                ("Apache's 3.9 with ours", ensembles, (["3.9", "zabd", "3.9"],), False),
                ("to logins and back, with 3.9", rolling, (["zabd", "3.9", "zabd"],), False),
            ]
        only = options.only.split(",") if options.only else None
        for name, run, arguments, short in cases:
            chosen = any(part in name for part in only) if only else short or options.long
            if chosen:
                suite.case(name, run, files, *arguments, limit=240)
    return suite.close()
