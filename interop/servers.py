"""How each implementation is started: ours, Apache 3.8 of Debian, Apache 3.9 from the jars of pyspark."""

import glob
import os
import shutil
import tarfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HERE = os.path.dirname(os.path.abspath(__file__))
KINDS = ("zabd", "3.8", "3.9")
MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
HEAP_MB = 192
JVM = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]
DEBIAN = "/usr/share/java"
NETTY = ("handler", "buffer", "common", "transport", "codec", "resolver", "transport-native-epoll", "transport-native-unix-common")
WANTED_39 = ("zookeeper-", "slf4j-api", "log4j-api", "log4j-core", "log4j-slf4j2", "netty-", "metrics-core", "snappy",
             "commons-io", "commons-cli", "audience")


class Missing(Exception):
    """An implementation is not installed here."""


def target():
    return os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target")


def zabd():
    """Our daemon: `ZABD`, else the release build, else the debug build."""
    named = os.environ.get("ZABD")
    built = [os.path.join(target(), profile, "zabd") for profile in ("release", "debug")]
    for path in [named] if named else built:
        if os.access(path, os.X_OK):
            return path
    raise Missing(f"no zabd at {' or '.join([named] if named else built)}: cargo build --release -p zabd")


def jars_39():
    """Directory with the jars of 3.9: `ZOOKEEPER_39_JARS`, else target/zookeeper-3.9."""
    place = os.environ.get("ZOOKEEPER_39_JARS") or os.path.join(ROOT, "target", "zookeeper-3.9")
    if not glob.glob(os.path.join(place, "zookeeper-3.9*.jar")):
        raise Missing(f"no ZooKeeper 3.9 jars in {place}: python3 -m interop fetch-3.9")
    return place


def unpack_39(archive, place):
    """Takes the jars a ZooKeeper 3.9 server needs out of pyspark's source archive."""
    os.makedirs(place, exist_ok=True)
    with tarfile.open(archive) as tar:
        for item in tar:
            name = os.path.basename(item.name)
            if item.isfile() and "/jars/" in item.name and name.startswith(WANTED_39):
                with tar.extractfile(item) as source, open(os.path.join(place, name), "wb") as sink:
                    shutil.copyfileobj(source, sink)


def java():
    path = shutil.which("java")
    if path is None:
        raise Missing("no java: apt-get install zookeeper")
    return path


def java_command(kind, options=()):
    """The command line before the class name; `options` are further ones of the JVM."""
    if kind == "3.8":
        if not os.path.exists(f"{DEBIAN}/zookeeper-3.8.0.jar"):
            raise Missing("no ZooKeeper 3.8.0: apt-get install zookeeper")
        path = f"{HERE}/logging:{DEBIAN}/zookeeper.jar:{DEBIAN}/slf4j-log4j12.jar:{DEBIAN}/log4j-1.2.jar"
        # With TLS, Debian's server needs Netty, which its own path does not name.
        path = ":".join([path, *(f"{DEBIAN}/netty-{part}.jar" for part in NETTY)])
        return [java(), *JVM, *options, "-cp", path]
    place = jars_39()
    return [java(), *JVM, *options, f"-Dlog4j2.configurationFile={HERE}/logging/log4j2.properties", "-cp", f"{place}/*"]


def command(kind, config, properties=(), heap_mb=HEAP_MB):
    """The command that runs one server of this kind on a zoo.cfg.

    `properties` are system properties as `name=value`; `heap_mb` is the largest heap of a JVM.
    """
    defined = [f"-D{line}" for line in properties]
    if kind == "zabd":
        return [zabd(), *defined, config]
    return [*java_command(kind, [f"-Xmx{heap_mb}m", *defined]), MAIN, config]


def check(kinds):
    """Raises `Missing` if one of the kinds cannot be started here."""
    for kind in sorted(set(kinds)):
        if kind not in KINDS:
            raise Missing(f"{kind}: not one of {', '.join(KINDS)}")
        command(kind, "zoo.cfg")
