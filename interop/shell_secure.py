"""`zabd shell` over TLS and with logins, in front of our server and of Apache's."""

import os
import subprocess

from .ensemble import Ensemble, free_ports
from .sasl import PROVIDER, Files as Logins
from .shell import Pair, compare, ours
from .tls import LEAF, SECRET, data

NETTY = "zookeeper.serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory"
STORES = [f"ssl.keyStore.location={data('keytool.jks')}", f"ssl.keyStore.password={SECRET}",
          f"ssl.trustStore.location={data('trust.jks')}", f"ssl.trustStore.password={SECRET}"]


def say(port, arguments, lines="", flags=""):
    """Exit code, stdout and stderr of a shell."""
    done = subprocess.run([*ours(), "-server", f"127.0.0.1:{port}", *arguments], input=lines, text=True, capture_output=True,
                          timeout=60, env={**os.environ, "HOME": "/nonexistent", "CLIENT_JVMFLAGS": flags})
    return done.returncode, done.stdout, done.stderr


def properties_file(directory, lines):
    path = os.path.join(directory, "client.properties")
    with open(path, "w") as file:
        file.write("".join(f"zookeeper.{line}\n" for line in lines))
    return path


def encrypted(kind):
    """By a file of properties, by the JVM's flags and by options; and those who are refused hear why."""
    port, = free_ports(1)
    extra = [f"secureClientPort={port}", *STORES, "ssl.clientAuth=need"]
    with Ensemble([kind], extra=extra, properties=[] if kind == "zabd" else [NETTY]) as ensemble:
        ensemble.start()
        member = ensemble.members[0]
        file = properties_file(ensemble.directory, ["client.secure=true", *STORES])
        code, out, err = say(port, ["-client-configuration", file], "create /tls hello\nget /tls\npeers\nquit\n")
        assert code == 0 and "hello" in out and "standalone" in out, f"{code} {out} {err}"
        flags = " ".join(f"-Dzookeeper.{line}" for line in ["client.secure=true", *STORES])
        assert say(port, ["get", "/tls"], flags=flags)[1].endswith("hello\n")
        certificate, key = map(data, LEAF)
        who = ["--tls-cert", certificate, "--tls-key", key]
        code, out, err = say(port, ["--tls-ca", data("ca.pem"), *who, "get", "/tls"])
        assert (code, out.splitlines()[-1:]) == (0, ["hello"]), f"{code} {out} {err}"
        # 2 MB and more in both directions, in many records.
        big = "x" * 700_000
        script = "".join(f"create /big{n} {big}\n" for n in range(3)) + "".join(f"get /big{n}\n" for n in range(3)) + "quit\n"
        code, out, err = say(port, ["--tls-ca", data("ca.pem"), *who], script)
        assert out.count(big) == 3, f"{code} {err[-500:]}"
        for name, arguments, reason in (
            ("another CA", ["--tls-ca", data("self-ca.pem"), *who], "no CA of the trust store has issued it"),
            ("no certificate", ["--tls-ca", data("ca.pem")], "certificate" if kind == "zabd" else "alert"),
            ("no file", ["--tls-ca", "/nowhere", *who], "/nowhere: No such file"),
        ):
            code, out, err = say(port, [*arguments, "get", "/tls"])
            assert code == 1 and reason in err, f"{name}: {code} {out} {err}"
        # TLS to a port in the clear: the handshake has an end.
        code, out, err = say(member.client_port, ["-timeout", "4000", "--tls-ca", data("ca.pem"), *who, "get", "/tls"])
        assert code == 1 and "TLS" in err, f"plain port: {code} {out} {err}"
    return "properties, flags, options, 2 MB; wrong CA, no certificate, no TLS there"


def other_name():
    """A server whose certificate is for another name."""
    port, = free_ports(1)
    with Ensemble(["zabd"], extra=[f"secureClientPort={port}", "ssl.clientAuth=none"]) as ensemble:
        path = os.path.join(ensemble.directory, "server.pem")
        with open(path, "wb") as sink:
            for part in ("server.key", "server.pem"):
                with open(data(part), "rb") as source:
                    sink.write(source.read())
        ensemble.members[0].properties.append(f"zookeeper.ssl.keyStore.location={path}")
        ensemble.start()
        code, out, err = say(port, ["--tls-ca", data("ca.pem"), "ls", "/"])
        assert code == 1 and "is for none of 127.0.0.1" in err, f"{code} {out} {err}"
        code, out, err = say(port, ["--tls-ca", data("ca.pem"), "--tls-any-name", "ls", "/"])
        assert code == 0 and "[zookeeper]" in out, f"{code} {out} {err}"
    return "refused, accepted if told to"


def logged_in(kind):
    """By a JAAS file as `zkCli.sh`, whose output is the same; by options; and with a wrong password."""
    with Logins() as files:
        jaas = files.jaas()
        pair = Pair(kind, extra=[PROVIDER], properties=[jaas])
        with pair as members:
            commands = ["create /mine hello sasl:bob:cdrwa", "getAcl /mine", "get /mine", "whoami", "create /auth x auth::r",
                        "getAcl /auth", "quit", ""]
            environment = {"CLIENT_JVMFLAGS": f"-D{jaas}"}
            count = compare(members, [], "\n".join(commands), environment=environment)
            port = members[0].client_port
            code, out, _ = say(port, ["get", "/mine"])
            assert code == 1, f"a stranger reads it: {out}"
            password = os.path.join(files.directory, "password")
            with open(password, "w") as file:
                file.write("bobsecret\n")
            code, out, err = say(port, ["--sasl-user", "bob", "--sasl-password-file", password, "get", "/mine"])
            assert code == 0 and "state:SaslAuthenticated" in out and out.endswith("hello\n"), f"{code} {out} {err}"
            wrong = files.jaas("wrong.conf", client="wrong")
            code, out, err = say(port, ["get", "/mine"], flags=f"-D{wrong}")
            assert code == 1 and "the login failed" in err and "AuthFailed" in err, f"{code} {out} {err}"
            return f"{count} lines as zkCli.sh; options, strangers, a wrong password"


def nobody_logs_in(kind):
    """A server without logins, and a client that wants to log in."""
    with Ensemble([kind]) as ensemble, Logins() as files:
        ensemble.start()
        jaas = files.jaas()
        code, out, err = say(ensemble.members[0].client_port, ["ls", "/"], flags=f"-D{jaas}")
        assert code == 1 and "the login failed" in err, f"{code} {out} {err}"
    return "the session ends, and says why"


def cases(suite, kinds):
    for kind in kinds:
        suite.case(f"TLS to {kind}", encrypted, kind, limit=240)
        suite.case(f"a login at {kind}", logged_in, kind, limit=240)
        suite.case(f"no login at {kind}", nobody_logs_in, kind, limit=120)
    suite.case("a certificate for another name", other_name, limit=120)
