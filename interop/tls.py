"""TLS on real processes: openssl, kazoo and Java's client; strangers; ensembles with Apache's servers; the way to TLS and back."""

import os
import re
import shutil
import socket
import ssl
import statistics
import subprocess
import tempfile
import threading
import time

from . import check, probe, scenarios, servers, wire
from .ensemble import Ensemble, eventually
from .load import Load
from .suite import Suite

DATA = os.path.join(servers.ROOT, "zab-tls", "tests", "data")
SECRET = "changeit"


class Files:
    """The test data of the crate zab-tls under the names of the examples in docs/security.md, in a directory of its own."""

    PARTS = {
        "server.pem": ("leaf.key", "chain.pem"), "ca.pem": ("ca.pem",), "keystore.p12": ("keytool.p12",),
        "truststore.p12": ("trust.p12",),
    }

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="interop-tls-")
        for name, parts in self.PARTS.items():
            self.write(name, *parts)
        with open(self.path("password"), "w") as file:
            file.write(SECRET + "\n")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.directory, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.directory, name)

    def write(self, name, *parts):
        """Exchanges a file for one with these parts of the test data one after the other."""
        with open(self.path(name + ".new"), "wb") as sink:
            for part in parts:
                with open(data(part), "rb") as source:
                    sink.write(source.read())
        os.rename(self.path(name + ".new"), self.path(name))

    def java_store(self, who):
        """A PKCS#12 store with a certificate of the test data, for Java's client; `None` for nobody."""
        if not who:
            return None
        certificate, key = who
        path = self.path(certificate + ".p12")
        subprocess.run(["openssl", "pkcs12", "-export", "-passout", f"pass:{SECRET}", "-in", data(certificate), "-inkey", data(key),
                        "-out", path], check=True)
        return path

    def example(self, name, secure_port=None):
        """The lines of an example in docs/security.md, with the files of this directory."""
        with open(os.path.join(servers.ROOT, "docs", "security.md")) as file:
            text = re.search(rf"<!-- example {name} -->\n```\n(.*?)```", file.read(), re.DOTALL).group(1)
        text = text.replace("/etc/zookeeper", self.directory)
        if secure_port:
            text = re.sub(r"secureClientPort=\d+", f"secureClientPort={secure_port}", text)
        return text.split()


def data(name):
    return os.path.join(DATA, name)


class Secure:
    """One server alone with a client port and a secure one, and a client that stays."""

    def __init__(self, files, *lines):
        from .ensemble import free_ports
        self.port, = free_ports(1)
        self.ensemble = Ensemble(["zabd"], extra=[*files.example("clients", self.port), *lines])
        self.member = self.ensemble.members[0]

    def __enter__(self):
        self.ensemble.start()
        self.witness = wire.Client(self.member.address)
        self.witness.ensure("/witness")
        self.writes = 0
        return self

    def __exit__(self, *error):
        self.ensemble.__exit__(*error)

    def write(self):
        """The witness writes; how long that took, in ms."""
        begin = time.monotonic()
        self.witness.set("/witness", str(self.writes).encode())
        self.writes += 1
        return (time.monotonic() - begin) * 1000

    def log_says(self, text, since):
        eventually(f"'{text}' in the log", lambda: text in self.member.log_text()[since:], 5)


def word(port, text=b"ruok", who=None, trusts="ca.pem", version=None):
    """A four-letter word within TLS, as `who` (a name of the test data); raises what the handshake ends with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(data(trusts))
    if who:
        certificate, key = who
        context.load_cert_chain(data(certificate), data(key))
    if version:
        context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", port), 5) as plain, context.wrap_socket(plain) as secure:
        secure.sendall(text)
        answer = b""
        while True:
            more = secure.recv(4096)
            if not more:
                return answer
            answer += more


LEAF = ("leaf.pem", "leaf.key")


def refusals(files):
    """Who is let in, and who is not: each with a reason in the log, and nobody else notices."""
    need = "ssl.clientAuth=need"
    done = []
    with Secure(files, need) as server:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            assert word(server.port, who=LEAF, version=version) == b"imok"
        for name, who, reason in (
            ("no certificate", None, "it has sent no certificate, which clientAuth=need demands"),
            ("wrong CA", ("self-ca.pem", "self.key"), "no CA of the trust store has issued it"),
            ("expired", ("expired.pem", "expired.key"), "it has expired"),
            ("not a client's", ("server.pem", "server.key"), "(CN=server,O=Test,C=DE) is refused"),
        ):
            since = len(server.member.log_text())
            try:
                answer = word(server.port, who=who)
            except (ssl.SSLError, OSError) as error:
                answer = error
            assert answer != b"imok", f"{name}: served"
            server.log_says(reason, since)
            server.write()
            done.append(name)
        for name, port, sent, reason in (
            ("plain on TLS", server.port, b"ruok", "it does not speak TLS, which is all that this port accepts"),
            ("TLS on plain", server.member.client_port, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "(TLS?)"),
            ("junk in a record", server.port, b"\x16\x03\x01\x00\x05junk!", "what it sends is not TLS"),
        ):
            since = len(server.member.log_text())
            with socket.create_connection(("127.0.0.1", port), 5) as stream:
                stream.sendall(sent)
                answer = stream.recv(100)
                assert b"imok" not in answer, f"{name}: {answer}"
            server.log_says(reason, since)
            server.write()
            done.append(name)
        try:
            word(server.port, who=LEAF, trusts="self-ca.pem")
            raise AssertionError("a client that does not trust us was served")
        except ssl.SSLError:
            server.log_says("it does not trust our certificate", 0)
        figures = server.member.words("mntr")
        failed = int(re.search(r"zk_unsuccessful_handshake\t(\d+)", figures).group(1))
        assert failed >= 7, figures
        assert int(re.search(r"zk_tls_certificate_expiry_seconds\t(\d+)", figures).group(1)) > 3e9
    return f"refused with a reason: {', '.join(done)}"


def revoked(files):
    """A certificate that is put on the list of its CA: refused from then on, and nobody else is."""
    revoked_one = ("cn.pem", "cn.key")
    files.write("lists.pem", "nobody.crl")
    with Secure(files, "ssl.clientAuth=need", "ssl.crl=true", f"zab.tls.crlFile={files.path('lists.pem')}") as server:
        assert word(server.port, who=revoked_one) == word(server.port, who=LEAF) == b"imok"
        begin = time.monotonic()
        files.write("lists.pem", "revoked.crl")

        def refused():
            try:
                return word(server.port, who=revoked_one) != b"imok"
            except (ssl.SSLError, OSError):
                return True

        eventually("it is refused", refused, 5, 0.05)
        took = time.monotonic() - begin
        server.log_says("it, or one above it, has been revoked", 0)
        assert word(server.port, who=LEAF) == b"imok"
        assert took < 1, f"after {took:.2f} s"
    return f"refused after {took:.2f} s"


def s_client(files):
    """openssl: four-letter words on the secure port and on a unified one, with the certificate in any format of store."""
    with Secure(files, "client.portUnification=true") as server:
        for port in (server.port, server.member.client_port):
            for option in ("-tls1_2", "-tls1_3"):
                command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", data("ca.pem"), "-quiet",
                           "-verify_return_error", "-verify_hostname", "localhost", "-cert", data("leaf.pem"), "-key",
                           data("leaf.key"), option]
                done = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                done.stdin.write(b"srvr")
                done.stdin.flush()
                out = done.communicate(timeout=10)[0]
                assert b"Mode: standalone" in out, out
        assert server.member.words("ruok") == "imok", "plain on the unified port"
    return "two ports, two versions"


def stores(files):
    """Each format of key and trust store, with the password as text and from a file."""
    formats = ["keytool.jks", "keytool.p12", "keytool-legacy.p12", "openssl.p12", "openssl-legacy.p12", "pbes2.store.pem"]
    for at, key in enumerate(formats):
        password = [f"ssl.keyStore.passwordPath={files.path('password')}", f"ssl.keyStore.password={SECRET}"][at % 2]
        trust = ["trust.jks", "trust.p12", "openssl-trust.p12"][at % 3]
        lines = [f"ssl.keyStore.location={data(key)}", password, f"ssl.trustStore.location={data(trust)}",
                 f"ssl.trustStore.password={SECRET}"]
        # A later line of a key wins.
        with Secure(files, *lines) as server:
            assert word(server.port, who=LEAF) == b"imok", key
    return ", ".join(formats)


def kazoo_secure(files):
    from kazoo.client import KazooClient
    with Secure(files) as server:
        for extra in ({}, {"certfile": data("leaf.pem"), "keyfile": data("leaf.key")}):
            client = KazooClient(hosts=f"127.0.0.1:{server.port}", use_ssl=True, ca=data("ca.pem"), timeout=10, **extra)
            client.start(timeout=10)
            client.create("/big", b"x" * 900_000)
            assert client.get("/big")[0] == b"x" * 900_000
            seen = []
            client.get("/big", watch=seen.append)
            client.set("/big", b"y")
            eventually("the watch fires", lambda: seen, 5)
            client.delete("/big")
            client.stop()
            client.close()
    return "with and without a certificate, 900 kB each way, a watch"


def identities(files):
    """Certificates as identities: ACLs of the scheme x509, the super user, a login that is demanded."""
    from kazoo.client import KazooClient
    from kazoo.exceptions import InvalidACLError, NoAuthError
    from kazoo.security import ACL, Id
    leaf = "CN=zk1.example.com,O=Test,C=DE"
    with Secure(files, "X509AuthenticationProvider.superUser=CN=localhost,O=Test,C=DE") as server:
        def connect(name):
            extra = {"certfile": data(f"{name}.pem"), "keyfile": data(f"{name}.key")} if name else {}
            client = KazooClient(hosts=f"127.0.0.1:{server.port}", use_ssl=True, ca=data("ca.pem"), timeout=10, **extra)
            client.start(timeout=10)
            return client

        owner, stranger, other, root = (connect(name) for name in ("leaf", None, "rsa", "cn"))
        owner.create("/mine", b"secret", acl=[ACL(31, Id("x509", leaf))])
        owner.create("/auth", b"secret", acl=[ACL(31, Id("auth", ""))])
        assert [acl.id for acl in owner.get_acls("/auth")[0]] == [Id("x509", leaf)]
        for client in (stranger, other):
            for path in ("/mine", "/auth"):
                try:
                    client.get(path)
                    raise AssertionError(f"{path} is read by a stranger")
                except NoAuthError:
                    pass
        assert owner.get("/mine")[0] == root.get("/mine")[0] == b"secret"
        try:
            owner.create("/bad", acl=[ACL(31, Id("x509", "no name"))])
            raise AssertionError("an ACL for what is no name")
        except InvalidACLError:
            pass
        for client in (owner, stranger, other, root):
            client.stop()
            client.close()
    with Secure(files, "enforce.auth.enabled=true", "enforce.auth.schemes=x509,ip") as server:
        assert word(server.port, who=LEAF) == b"imok"
    return "owner, auth, strangers, super user, what is no name"


def java_client(files):
    """Java's client with Netty: trust and key store made by keytool."""
    stores = {"keyStore.location": data("keytool.jks"), "keyStore.password": SECRET, "trustStore.location": data("trust.jks"),
              "trustStore.password": SECRET}
    flags = [f"-Dzookeeper.ssl.{key}={value}" for key, value in stores.items()]
    flags += ["-Dzookeeper.client.secure=true", "-Dzookeeper.clientCnxnSocket=org.apache.zookeeper.ClientCnxnSocketNetty"]
    command = servers.java_command("3.8", ["-Xmx96m", *flags])
    command[-1] += f":{servers.DEBIAN}/commons-cli.jar"
    with Secure(files, "ssl.clientAuth=need") as server:
        done = subprocess.run(
            [*command, "org.apache.zookeeper.ZooKeeperMain", "-server", f"127.0.0.1:{server.port}"],
            input="create /java hello\nget /java\nls /\nquit\n", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=60,
        )
        for wanted in ("Created /java", "hello", "[java, witness, zookeeper]"):
            assert wanted in done.stdout, f"no '{wanted}' in {done.stdout[-3000:]}"
    return "create, get, ls"


def half_open(files, count=1000):
    """Handshakes that never go on, at both kinds of ports: nobody else waits."""
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    lines = files.example("members") + ["sslQuorum=true"]
    from .ensemble import free_ports
    port, = free_ports(1)
    with Ensemble(["zabd"] * 3, extra=lines) as ensemble:
        # Each member has its own secure port; one is enough.
        with open(os.path.join(ensemble.members[0].directory, "zoo.cfg"), "a") as file:
            file.write("\n".join(files.example("clients", port)) + "\n")
        ensemble.start()
        leader = ensemble.settled()
        client = wire.Client(ensemble.members[0].address)
        client.ensure("/here")

        def writes(goes_on):
            """How long writes of another client take, in ms: the median, and the slowest."""
            took = []
            while len(took) < 100 or goes_on():
                begin = time.monotonic()
                client.set("/here", b"x")
                took.append((time.monotonic() - begin) * 1000)
                time.sleep(0.005)
            return statistics.median(took), max(took)

        held = []

        def open_all():
            for number in range(count):
                target = (port, leader.election_port, leader.quorum_port)[number % 3 if number < 150 else 0]
                stream = socket.create_connection(("127.0.0.1", target), 5)
                stream.sendall(hello[: 1 + number % len(hello)])
                held.append(stream)

        before = writes(lambda: False)
        opener = threading.Thread(target=open_all)
        opener.start()
        coming = writes(opener.is_alive)
        opener.join()
        assert len(held) == count
        staying = writes(lambda: False)
        assert word(port, who=LEAF) == b"imok"
        for median, slowest in (coming, staying):
            # Whoever waited for one of them would wait for the five or ten seconds that a handshake has. What else this machine does
            # can be told from the writes before.
            assert slowest < before[1] + 1000, f"slowest write {slowest:.0f} ms, before {before[1]:.0f} ms"
            assert median < 3 * before[0] + 10, f"median of writes {median:.1f} ms, before {before[0]:.1f} ms"
        leader = ensemble.settled()
        survivors = [member for member in ensemble.members if member is not leader]
        took = probe.fail_over(leader, survivors)[0]
        assert took < 2000, f"fail-over {took:.0f} ms"
        leader.kill()
        for stream in held:
            stream.close()
    shown = " → ".join(f"{median:.1f} ms, slowest {slowest:.0f}" for median, slowest in (before, coming, staying))
    return f"{count} half-open; writes before, while they come, and while they stay: {shown}; fail-over {took:.0f} ms"


def reload(files):
    """New certificates are used within a second, open connections go on, and what cannot be used is not."""
    with Secure(files, "ssl.clientAuth=none") as server:
        def shown():
            return ssl.get_server_certificate(("127.0.0.1", server.port))

        def pem(name):
            with open(data(name)) as file:
                return file.read()

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(data("ca.pem"))
        held = context.wrap_socket(socket.create_connection(("127.0.0.1", server.port), 5))
        assert shown().split() == pem("leaf.pem").split()
        files.write("server.pem", "cn.key", "cn.pem")
        begin = time.monotonic()
        eventually("the new certificate is shown", lambda: shown().split() == pem("cn.pem").split(), 3, 0.02)
        took = time.monotonic() - begin
        assert took < 1.5, f"after {took:.1f} s"
        files.write("server.pem", "rsa.key", "cn.pem")
        server.log_says("cannot be used, the old ones stay", 0)
        assert shown().split() == pem("cn.pem").split()
        held.sendall(b"ruok")
        assert held.recv(10) == b"imok", "an old connection"
        files.write("server.pem", "leaf.key", "chain.pem")
    return f"after {took:.2f} s"


def encrypted(member):
    """Whether the member says that it has spoken TLS with others."""
    text = member.log_text()
    return "Accepted TLS connection from" in text or "SSL handshake complete" in text


def mixed(files, kinds, runtimes=("mio", "mio", "mio")):
    """An ensemble under load whose leaders are killed until each kind has led."""
    with Ensemble(kinds, extra=files.example("members") + ["sslQuorum=true"]) as ensemble:
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
            assert encrypted(member), f"{member} has spoken no TLS"
        plain = [m for m in ensemble.members if "plaintext connection" in m.log_text()]
        assert not plain, plain
        return f"led by {', '.join(led)}; {check.everything(ensemble, load)}"


STEPS = (
    [], ["portUnification=true"], ["portUnification=true", "sslQuorum=true"], ["sslQuorum=true"],
    ["portUnification=true", "sslQuorum=true"], ["portUnification=true"], [],
)


def rolling(files, kinds):
    """Plain, unified, TLS, and back, one member at a time under load."""
    lines = files.example("members")
    with Ensemble(kinds, extra=[] if {"3.8", "3.9"} & set(kinds) else lines) as ensemble:
        ensemble.start()
        with Load(ensemble, roam=True, sessions=False) as load:
            for step in STEPS[1:]:
                ensemble.extra = lines + step
                leader = ensemble.settled()
                for member in [m for m in ensemble.members if m is not leader] + [leader]:
                    member.terminate()
                    ensemble.configure(member)
                    member.start()
                    ensemble.settled()
        assert all(encrypted(member) for member in ensemble.members)
        return (f"{len(STEPS) - 1} changes of {len(kinds)}; longest pause of a client {load.longest_pause():.2f} s; "
                f"{check.everything(ensemble, load)}")


def mistaken(files):
    """A member with TLS among some without, and the reverse."""
    lines = files.example("members")
    probe.mistaken([], lines + ["sslQuorum=true"], "speaks TLS")
    probe.mistaken(lines + ["sslQuorum=true"], [], "it does not speak TLS, which is all that this port accepts")
    return "TLS on plain ports, plain on TLS ports"


def fail_overs(files, times):
    """With TLS and without."""
    return probe.fail_overs({"plain": {}, "TLS": {"extra": files.example("members") + ["sslQuorum=true"]}}, times)


def main(options):
    from . import tls_clients
    servers.check(["zabd"])
    suite = Suite("TLS")
    apache = os.path.exists(f"{servers.DEBIAN}/zookeeper-3.8.0.jar")
    with Files() as files:
        cases = [
            ("who is let in", refusals, (), True),
            ("openssl s_client", s_client, (), True),
            ("stores of every kind", stores, (), True),
            ("kazoo", kazoo_secure, (), True),
            ("every client, every store", tls_clients.every_store, (), True),
            ("every client, every reason to be refused", tls_clients.every_refusal, (), True),
            ("certificates as identities", identities, (), True),
            ("certificates that change", reload, (), True),
            ("who is revoked", revoked, (), True),
            ("members that do not fit together", mistaken, (), True),
            ("1,000 half-open handshakes", half_open, (), True),
            ("three of ours, one on each runtime", mixed, (["zabd"] * 3, ("mio", "smol", "std")), True),
            ("to TLS and back, three of ours", rolling, (["zabd"] * 3,), True),
            ("fail-over with and without", fail_overs, (10,), False),
        ]
        if apache:
            cases += [
                ("Java's client", java_client, (), True),
                ("ours with Apache's 3.8.0", mixed, (["zabd", "3.8", "zabd"],), True),
                ("Apache's 3.8.0 with ours", mixed, (["3.8", "zabd", "3.8"],), False),
                ("to TLS and back, with 3.8.0", rolling, (["zabd", "3.8", "zabd"],), True),
            ]
        else:
            print("  without Java: no ZooKeeper 3.8.0")
        try:
            servers.check(["3.9"])
        except servers.Missing as missing:
            print(f"  without 3.9: {missing}")
        else:
            cases += [
                ("ours with Apache's 3.9", mixed, (["zabd", "3.9", "zabd"],), True),
                ("Apache's 3.9 with ours", mixed, (["3.9", "zabd", "3.9"],), False),
                ("to TLS and back, with 3.9", rolling, (["zabd", "3.9", "zabd"],), False),
            ]
            if apache:
                cases.append(("to TLS and back, with 3.8.0 and 3.9", rolling, (["zabd", "3.8", "3.9"],), False))
        only = options.only.split(",") if options.only else None
        for name, run, arguments, short in cases:
            chosen = any(part in name for part in only) if only else short or options.long
            if chosen:
                suite.case(name, run, files, *arguments, limit=240)
    return suite.close()
