"""Real sizes: what is loaded, then every way of being killed, with the time until all serve and the memory it took."""

from collections import namedtuple

from . import scale_cases as cases, servers
from .stage import HEADINGS
from .suite import Suite

# `short` runs in CI, `long` by command; both are arguments of `run`. Cases without a `short` are long, and ours alone.
Case = namedtuple("Case", "name run short long unit")

CASES = (
    Case("log tail of creates, large", cases.tail_of_creates, (45_000, 2000), (45_000, 2000), "{} × {} B"),
    Case("log tail of creates, many", cases.tail_of_creates, (100_000, 100), (400_000, 100), "{} × {} B"),
    Case("log tail of changes", cases.tail_of_sets, (200,), (1000,), "{} MB"),
    Case("tree of znodes", cases.deep, (200_000,), (1_000_000,), "{}"),
    Case("children of one node", cases.wide, (200_000,), (1_000_000,), "{}"),
    Case("znodes beyond a megabyte", cases.large, (20,), (40,), "3 × {} MB"),
    # Leader of each kind, DIFF and SNAP in both directions.
    Case("znodes beyond a megabyte, mixed", cases.large, None, (10, "zabd 3.8 zabd"), "3 × {} MB on {}"),
    Case("znodes beyond a megabyte, mixed", cases.large, None, (40, "zabd zabd 3.8"), "3 × {} MB on {}"),
    Case("znodes beyond a megabyte, mixed", cases.large, None, (40, "3.8 3.8 zabd"), "3 × {} MB on {}"),
    Case("history of an Apache leader", cases.apache_history, None, (500, 900), "{} × {} kB by DIFF"),
    Case("multis", cases.multis, (20_000,), (20_000,), "{} operations"),
    Case("ephemerals of one session", cases.ephemerals, (100_000,), (100_000,), "{}"),
    Case("watches of one session", cases.watches, (50_000,), (200_000,), "{}"),
    Case("sessions", cases.sessions, (3_000,), (20_000,), "{}"),
    Case("churn", cases.churn, (10, 100), (60, 1000), "{} s, at least {} MB"),
)


def main(options):
    servers.check(["3.8" if options.apache else "zabd"])
    suite, rows = Suite("real sizes"), []
    for case in CASES:
        if options.only and not any(word in case.name for word in options.only.split(",")):
            continue
        size = case.long if options.long else case.short
        if size is None or (options.apache and case.short is None):
            continue
        text = case.unit.format(*(f"{one:,}" if isinstance(one, int) else one for one in size))

        def run(case=case, size=size, text=text):
            stage = case.run(options, *size)
            rows.append(stage.row(case.name, text))
            return stage.text()
        suite.case(f"{case.name}, {text}", run, limit=1200 if options.long or options.apache else 120)
    print("\n| " + " | ".join(HEADINGS) + " |\n|" + "---|" * len(HEADINGS))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(flush=True)
    return suite.close()
