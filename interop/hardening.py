"""Attacks and operators' mistakes, each against an ensemble of its own, with what they did to everybody else."""

import os
from collections import namedtuple
from functools import partial

from . import attacks_clients as clients, attacks_directories as directories, attacks_names as names
from . import attacks_operators as operators, attacks_pace as pace, attacks_peers as peers, servers
from .suite import Suite

# `short`: part of the form that runs in CI. Where a size differs `long` has the other arguments.
Attack = namedtuple("Attack", "name run short long", defaults=(True, None))

ATTACKS = (
    Attack("one packet claims a higher epoch", peers.one_packet),
    Attack("epochs at the end of their range", peers.exhaustion),
    Attack("acceptedEpoch 2147483647 on one member", partial(peers.damaged_epoch, value=2147483647)),
    Attack("acceptedEpoch 100 on one member", partial(peers.damaged_epoch, value=100)),
    Attack("a foreign data directory", directories.foreign_directory),
    Attack("a foreign data directory while there is no leader", directories.foreign_directory_first),
    Attack("a configuration in votes", peers.configuration),
    Attack("a snapshot over a slow link", partial(pace.slow_link, megabytes=100, seconds=40), True,
           partial(pace.slow_link, megabytes=300, seconds=60)),
    Attack("a stranger that reads slowly", partial(pace.slow_stranger, megabytes=100, seconds=40), True,
           partial(pace.slow_stranger, megabytes=300, seconds=60)),
    Attack("false followers", peers.false_followers),
    Attack("ids that are not in the configuration", peers.unlisted),
    Attack("300 silent quorum connections", peers.silent),
    Attack("names that are not answered for", names.slow_names),
    Attack("a stranger's address to dial", names.dials),
    Attack("log lines from outside", names.log_lines),
    Attack("REVALIDATE without end", partial(peers.debts, what="REVALIDATE")),
    Attack("SYNC without end", partial(peers.debts, what="SYNC")),
    Attack("writes without end by a learner", partial(peers.debts, what="writes")),
    Attack("multiRead of 2 GB", partial(clients.large_answer, parts=2100)),
    Attack("multiRead of 40 GB", partial(clients.large_answer, parts=40000), False),
    Attack("2,000 checks of a long ACL", partial(clients.acl_checks, how="check", parts=2000)),
    Attack("20,000 reads of a long ACL", partial(clients.acl_checks, how="read", parts=20000)),
    Attack("18,000 identities", partial(clients.identities, count=18000)),
    Attack("20,000 counts of 100,000 nodes", partial(clients.subtree_counts, nodes=100000, requests=20000)),
    Attack("the end of 100,000 ephemerals", partial(clients.many_ephemerals, count=100000), True,
           partial(clients.many_ephemerals, count=500000)),
    Attack("lists of many children", partial(clients.listings, children=100000, clients=50), True,
           partial(clients.listings, children=300000, clients=200)),
    Attack("watches of a megabyte", partial(clients.long_watches, count=400), True, partial(clients.long_watches, count=2500)),
    Attack("recursive watchers that do not read", partial(clients.deaf_watchers, watchers=30, nodes=15), True,
           partial(clients.deaf_watchers, watchers=60, nodes=60)),
    Attack("200 clients that do not read", partial(clients.unread, clients=200)),
    Attack("large lists that are not read", partial(clients.unread_listings, children=200000, clients=60), True,
           partial(clients.unread_listings, children=1000000, clients=60)),
    Attack("a neighbour's session", clients.neighbour),
    Attack("64 descriptors", operators.descriptors),
    Attack("a directory that may not be written", operators.unwritable),
    Attack("another jute.maxbuffer on one member", operators.different_limits),
    Attack("the counter of a standalone server", operators.counter),
    Attack("keys that protect", operators.keys),
)


def main(options):
    if options.binary:
        os.environ["ZABD"] = os.path.abspath(options.binary)
    servers.check(["3.8" if options.apache else "zabd"])
    suite, rows = Suite("hardening"), []
    for attack in ATTACKS:
        if options.only and not any(word in attack.name for word in options.only.split(",")):
            continue
        if not (options.long or options.only or attack.short):
            continue
        run = attack.long if options.long and attack.long else attack.run

        def strike(run=run, attack=attack):
            try:
                text = run(options)
            except AssertionError as unmet:
                rows.append((attack.name, f"**{str(unmet).splitlines()[0]}**"))
                raise
            rows.append((attack.name, text))
            return text
        suite.case(attack.name, strike, limit=300 if options.long or options.apache else 150)
    if options.table:
        print("\n| attack | outcome |\n|---|---|")
        for name, text in rows:
            print(f"| {name} | {text} |")
    return suite.close()
