"""Command line: `python3 -m interop COMMAND`. Exit code 0 if everything held."""

import argparse
import os
import signal
import subprocess
import sys

from . import elections, logs, mixed, servers
from .ensemble import Ensemble
from .scenarios import NEED_PROXIES, SCENARIOS
from .suite import Suite


def run(options):
    """One scenario on one ensemble."""
    suite = Suite("interop run")

    def go(name):
        extra = dict(seconds=options.seconds) if name == "chaos" else {}
        if name == "failover":
            extra = dict(times=options.times)
        kinds, observers = options.members.split(","), [kind for kind in options.observers.split(",") if kind]
        with Ensemble(kinds, observers, options.directory, options.partitions or name in NEED_PROXIES, options.tick,
                      options.set) as ensemble:
            ensemble.start()
            detail = SCENARIOS[name](ensemble, **extra)
            for item in sorted(logs.new(ensemble.members)):
                print(f"          new in Java's log: {' '.join(item)}")
            return detail

    for name in options.scenario.split(","):
        suite.case(f"{name} on {options.members}{' + ' + options.observers if options.observers else ''}", go, name,
                   limit=int(options.seconds) + 300)
    return suite.close()


def fetch(options):
    """The jars of ZooKeeper 3.9, out of pyspark's source archive."""
    place = os.environ.get("ZOOKEEPER_39_JARS") or os.path.join(servers.ROOT, "target", "zookeeper-3.9")
    archive = options.archive
    if archive is None:
        cache = os.path.join(servers.ROOT, ".cache")
        os.makedirs(cache, exist_ok=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--no-build-isolation",
                        "--quiet", "-d", cache, "pyspark"], check=True)
        archive = os.path.join(cache, max(name for name in os.listdir(cache) if name.startswith("pyspark-")))
    servers.unpack_39(archive, place)
    servers.check(["3.9"])
    print(f"ZooKeeper 3.9 in {place}")
    return 0


def suite(module):
    def start(options):
        from importlib import import_module
        return import_module(f".{module}", __package__).main(options)
    return start


def main():
    parser = argparse.ArgumentParser(prog="python3 -m interop", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    one = commands.add_parser("run", help="one or more scenarios on any mix of members")
    one.add_argument("--members", default="zabd,zabd,zabd", help=f"voters, of {', '.join(servers.KINDS)}")
    one.add_argument("--observers", default="")
    one.add_argument("--scenario", default="crashes", help=", ".join(SCENARIOS))
    one.add_argument("--partitions", action="store_true", help="links through proxies")
    one.add_argument("--tick", type=int, default=2000, help="tickTime, ms")
    one.add_argument("--set", action="append", default=[], metavar="LINE", help="further line of zoo.cfg")
    one.add_argument("--directory", help="keep everything there")
    one.add_argument("--seconds", type=float, default=60, help="of chaos")
    one.add_argument("--times", type=int, default=20, help="of failover")
    one.set_defaults(start=run)

    for name, module, text in (
        ("clients", "clients", "stock clients (kazoo, zkCli.sh) on three zabd"),
        ("kazoo", "kazoo_tests", "kazoo's own tests for logins and TLS"),
        ("e2e", "e2e", "fail-over, catching up, loss of quorum, on zabd alone"),
        ("malformed", "malformed", "malformed input on all three ports of zabd"),
    ):
        commands.add_parser(name, help=text).set_defaults(start=suite(module))

    line = commands.add_parser("shell", help="`zabd shell` beside Debian's zkCli.sh, transcript by transcript")
    line.add_argument("--short", action="store_true", help="in front of our server alone")
    line.set_defaults(start=suite("shell"))

    sizes = commands.add_parser("scale", help="real sizes: long logs, large trees, many sessions, and kills")
    sizes.add_argument("--long", action="store_true", help="the full sizes, some ten minutes")
    sizes.add_argument("--apache", action="store_true", help="Debian's server in the place of ours")
    sizes.add_argument("--only", help="cases with one of these words in their names, as tail,churn")
    sizes.set_defaults(start=suite("scale"))

    hard = commands.add_parser("hardening", help="attacks by strangers, peers and clients, and operators' mistakes")
    hard.add_argument("--long", action="store_true", help="the full sizes, some fifteen minutes")
    hard.add_argument("--apache", action="store_true", help="Debian's server in the place of ours")
    hard.add_argument("--binary", help="another zabd, to compare with")
    hard.add_argument("--only", help="attacks with one of these words in their names, as epoch,watches")
    hard.add_argument("--table", action="store_true", help="the outcomes as a table at the end")
    hard.set_defaults(start=suite("hardening"))

    over = commands.add_parser("failover", help="leaders that end or fall silent, what clients see of it, and who must not be disturbed")
    over.add_argument("--long", type=float, nargs="?", const=3.0, metavar="MINUTES",
                      help="everything twenty times, and so many minutes of full load (3)")
    over.add_argument("--binary", help="another zabd, to compare with")
    over.add_argument("--only", help="cases with one of these words in their names, as stopped,load")
    over.set_defaults(start=suite("failover"))

    reigns = commands.add_parser("reigns", help="the table of fail-overs in docs/benchmarks, beside ZooKeeper's")
    reigns.add_argument("--times", type=int, default=10, help="fail-overs of each kind")
    reigns.add_argument("--nodes", type=int, default=1_000_000, help="znodes of the big tree")
    reigns.add_argument("--snapshots", type=int, default=2000, help="its snapCount")
    reigns.add_argument("--tails", type=int, default=3, help="runs without snapshots and with them, whose slowest writes are compared")
    reigns.add_argument("--requests", type=int, default=100_000, help="writes of such a run")
    reigns.add_argument("--alone", action="store_true", help="only ours, with the big tree and beside it an empty one")
    reigns.add_argument("--out", help="the directory for failover.md")
    reigns.set_defaults(start=suite("reigns"))

    secure = commands.add_parser("tls", help="TLS: openssl, kazoo, Java's client, strangers, ensembles with Apache's servers")
    secure.add_argument("--long", action="store_true", help="all cases, some five minutes")
    secure.add_argument("--only", help="cases with one of these words in their names, as kazoo,half-open")
    secure.set_defaults(start=suite("tls"))
    cost = commands.add_parser("tls-cost", help="what TLS between members costs: throughput and fail-over, as tables in docs/benchmarks")
    cost.add_argument("--rounds", type=int, default=3, help="of each kind of server, with TLS and without in turn")
    cost.add_argument("--seconds", type=float, default=5.0, help="of writes in a round")
    cost.add_argument("--times", type=int, default=20, help="leaders killed with TLS, and as many without")
    cost.add_argument("--out", help="the directory for members.md")
    cost.set_defaults(start=suite("tls_cost"))
    logins = commands.add_parser("sasl", help="SASL: kazoo, Java's client, members that log in, with Apache's servers")
    logins.add_argument("--long", action="store_true", help="all cases, some five minutes")
    logins.add_argument("--only", help="cases with one of these words in their names, as kazoo,half-open")
    logins.set_defaults(start=suite("sasl"))

    http = commands.add_parser("admin", help="HTTP for operators: Prometheus' parser, probes, the page in Chromium, what scrapes cost")
    http.add_argument("--only", help="cases with one of these words in their names, as parser,page")
    http.add_argument("--screenshot", metavar="FILE.png", help="pictures of the page, light and -dark")
    http.add_argument("--scrapes", type=int, default=500, help="of the measurement of what they cost")
    http.add_argument("--rounds", type=int, default=5, help="of the case throughput, which is only run if --only names it")
    http.set_defaults(start=suite("admin"))
    local = commands.add_parser("local-sessions", help="sessions that only their server knows, alone and among Apache's servers")
    local.set_defaults(start=suite("local_sessions"))
    modes = commands.add_parser("modes", help="the read-only mode, with kazoo, alone and among Apache's servers")
    modes.set_defaults(start=suite("modes"))

    oracle = commands.add_parser("oracle", help="two voters and `oraclePath`, alone and with ZooKeeper 3.9")
    oracle.add_argument("--only", help="cases with one of these words in their names, as withdrawn,3.9")
    oracle.set_defaults(start=suite("oracle"))

    members = commands.add_parser("reconfig", help="members that change while everything runs")
    members.add_argument("--long", action="store_true", help="all cases, with Apache's servers and clients, some fifteen minutes")
    members.add_argument("--only", help="cases with one of these words in their names, as voters,leader")
    members.set_defaults(start=suite("reconfig"))

    audit = commands.add_parser("audit", help="the audit log, line by line beside Apache's")
    audit.add_argument("--record", metavar="FILE", help="write a conversation and Apache's lines down, for the tests of zk-service")
    audit.set_defaults(start=suite("audit"))

    mix = commands.add_parser("mixed", help="ensembles of ours and Apache's")
    mix.add_argument("--selection", choices=list(mixed.SELECTIONS), default="short")
    mix.set_defaults(start=mixed.main)
    times = commands.add_parser("elections", help="times of fail-over, as a table")
    times.add_argument("--times", type=int, default=8, help="kills per ensemble")
    times.set_defaults(start=elections.main)
    soak = commands.add_parser("soak", help="all mixes, again and again")
    soak.add_argument("--minutes", type=float, default=30)
    soak.add_argument("--seed", type=int, default=1)
    soak.set_defaults(start=mixed.soak)
    alone = commands.add_parser("baseline", help="record what Java logs without us")
    alone.add_argument("--scenario", help="only these, as crashes,flapping")
    alone.set_defaults(start=mixed.baseline)
    jars = commands.add_parser("fetch-3.9", help="the jars of ZooKeeper 3.9, from PyPI's pyspark (450 MB)")
    jars.add_argument("--archive", help="pyspark-*.tar.gz that is here already")
    jars.set_defaults(start=fetch)

    options = parser.parse_args()
    # Whoever ends the driver ends its servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(options.start(options))
    except servers.Missing as missing:
        print(missing, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
