"""Stock clients over TLS: openssl, kazoo and Java's with Netty, each with every format of store and every reason to be refused."""

import os
import subprocess
import threading

from . import servers
from .ensemble import eventually
from .tls import LEAF, SECRET, Secure, data

# What a server of ours may be given as key store, with a trust store of each format.
KEY_STORES = ("keytool.jks", "keytool.p12", "keytool-legacy.p12", "openssl.p12", "openssl-legacy.p12", "pbes2.store.pem")
TRUST_STORES = ("trust.jks", "trust.p12", "openssl-trust.p12", "ca.pem")
# What Java's client is given as its own key store.
JAVA_STORES = ("keytool.jks", "keytool.p12", "openssl.p12", "pkcs8.store.pem")
PATIENCE_S = 30


class Attempt:
    """Whom a client shows itself as, and what it makes of the server."""

    def __init__(self, who=LEAF, trusts="ca.pem", tls=True, checks_name=False):
        self.who, self.trusts, self.tls, self.checks_name = who, trusts, tls, checks_name


def openssl(files, port, attempt, refused=None, _store=None):
    """Whether `openssl s_client` is answered a four-letter word."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", data(attempt.trusts), "-quiet",
               "-verify_return_error"]
    if attempt.checks_name:
        command += ["-verify_hostname", "localhost"]
    if attempt.who:
        command += ["-cert", data(attempt.who[0]), "-key", data(attempt.who[1])]
    done = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        done.stdin.write(b"srvr")
        done.stdin.flush()
        return b"Mode: standalone" in done.communicate(timeout=PATIENCE_S)[0]
    except BrokenPipeError:
        return False
    finally:
        done.kill()
        done.wait()


def kazoo(files, port, attempt, refused=None, _store=None):
    """Whether kazoo gets a session, writes and reads."""
    from kazoo.client import KazooClient
    from kazoo.handlers.threading import KazooTimeoutError
    extra = {}
    if attempt.tls:
        extra = {"use_ssl": True, "ca": data(attempt.trusts), "check_hostname": attempt.checks_name}
        if attempt.who:
            extra |= {"certfile": data(attempt.who[0]), "keyfile": data(attempt.who[1])}
    client = KazooClient(hosts=f"localhost:{port}", timeout=10, **extra)
    try:
        client.start(timeout=3 if refused else PATIENCE_S)
        client.ensure_path("/kazoo")
        client.set("/kazoo", b"hello")
        return client.get("/kazoo")[0] == b"hello"
    except KazooTimeoutError:
        return False
    finally:
        client.stop()
        client.close()


def java(files, port, attempt, refused=None, store=None):
    """Whether Java's client, which checks the server's name unless told otherwise, writes and reads."""
    flags = []
    if attempt.tls:
        stores = {"trustStore.location": data(attempt.trusts), "trustStore.password": SECRET}
        own = data(store) if store else files.java_store(attempt.who)
        if own:
            stores["keyStore.location"] = own
            # With a password Java takes every PEM file for an encrypted one.
            if not own.endswith(".pem"):
                stores["keyStore.password"] = SECRET
        if not attempt.checks_name:
            stores["hostnameVerification"] = "false"
        flags = [f"-Dzookeeper.ssl.{key}={value}" for key, value in stores.items()]
        flags += ["-Dzookeeper.client.secure=true", "-Dzookeeper.clientCnxnSocket=org.apache.zookeeper.ClientCnxnSocketNetty"]
    command = servers.java_command("3.8", ["-Xmx96m", *flags])
    command[-1] += f":{servers.DEBIAN}/commons-cli.jar"
    command += ["org.apache.zookeeper.ZooKeeperMain", "-timeout", "20000", "-server", f"localhost:{port}"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        process.stdin.write("create /java hello\nget /java\n" + ("" if refused else "quit\n"))
        process.stdin.flush()
        if refused:
            # It would try again and again.
            eventually("Java's client is refused or ends", lambda: refused() or process.poll() is not None, PATIENCE_S)
            process.kill()
        out = process.communicate(timeout=PATIENCE_S)[0]
    finally:
        process.kill()
        process.wait()
    if not refused and "hello" not in out.splitlines():
        print(out[-3000:])
    return "hello" in out.splitlines()


def clients():
    found = {"openssl": openssl, "kazoo": kazoo}
    if os.path.exists(f"{servers.DEBIAN}/zookeeper-3.8.0.jar"):
        found["java"] = java
    return found


def every_store(files):
    """Each client at a server with each format of key store and of trust store."""
    count = 0
    for at, key in enumerate(KEY_STORES):
        trust = TRUST_STORES[at % len(TRUST_STORES)]
        lines = [f"ssl.keyStore.location={data(key)}", f"ssl.keyStore.password={SECRET}",
                 f"ssl.trustStore.location={data(trust)}", f"ssl.trustStore.password={SECRET}", "ssl.clientAuth=need"]
        with Secure(files, *lines) as server:
            for name, client in clients().items():
                attempt = Attempt(checks_name=True)
                store = JAVA_STORES[at % len(JAVA_STORES)]
                assert client(files, server.port, attempt, None, store), f"{name} is not served by a server with {key} and {trust}"
                count += 1
    return f"{count} of {', '.join(clients())} with {len(KEY_STORES)} key stores and {len(TRUST_STORES)} trust stores"


# What is wrong, how the client is, which port it is at, and what the server's log says of it.
NO_CERTIFICATE = "it has sent no certificate, which clientAuth=need demands"
NOT_TLS = "it does not speak TLS, which is all that this port accepts"
REFUSALS = (
    ("wrong CA", Attempt(who=("self-ca.pem", "self.key")), "secure", "no CA of the trust store has issued it"),
    ("expired", Attempt(who=("expired.pem", "expired.key")), "secure", "it has expired"),
    ("no certificate", Attempt(who=None), "secure", NO_CERTIFICATE),
    ("does not trust us", Attempt(trusts="self-ca.pem"), "secure", "it does not trust our certificate"),
    ("wrong name", Attempt(checks_name=True), "other name", "it does not trust our certificate"),
    ("plain on TLS", Attempt(tls=False), "secure", NOT_TLS),
    ("TLS on plain", Attempt(), "plain", "(TLS?)"),
)


class Witness(threading.Thread):
    """Writes all the time, so that it would notice if somebody else's refusal made the server stall or closed its connection."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.slowest, self.error, self.ends = server, 0.0, None, threading.Event()
        self.start()

    def run(self):
        try:
            while not self.ends.wait(0.05):
                self.slowest = max(self.slowest, self.server.write())
        except Exception as error:  # noqa: BLE001
            self.error = error

    def stop(self):
        self.ends.set()
        self.join()
        assert self.error is None and self.slowest < 2000, f"{self.error}, slowest write {self.slowest:.0f} ms"
        return self.slowest


def every_refusal(files):
    """Each client for each reason: refused with that reason in the log, while another one writes."""
    count, slowest = 0, 0.0
    files.write("named.pem", "server.key", "server.pem")
    own = {"other name": [f"ssl.keyStore.location={files.path('named.pem')}"]}
    for where in ("secure", "plain", "other name"):
        with Secure(files, "ssl.clientAuth=need", *own.get(where, [])) as server:
            witness = Witness(server)
            port = server.member.client_port if where == "plain" else server.port
            for what, attempt, there, reason in REFUSALS:
                for name, client in clients().items() if there == where else ():
                    if not attempt.tls and client is openssl:
                        # It speaks nothing else.
                        continue
                    since = len(server.member.log_text())
                    # Java's shows a certificate only if one of the CAs that the server names has issued it.
                    told = NO_CERTIFICATE if (what, name) == ("wrong CA", "java") else reason

                    def refused():
                        return told in server.member.log_text()[since:]

                    assert not client(files, port, attempt, refused), f"{name} is served: {what}"
                    eventually(f"'{told}' for {name}: {what}", refused, 5)
                    count += 1
            slowest = max(slowest, witness.stop())
    return f"{count} of {', '.join(clients())}: {', '.join(what for what, *_ in REFUSALS)}; slowest write of another {slowest:.0f} ms"
