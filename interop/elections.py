"""How long a mixed ensemble is without a leader: one table, from one run."""

import re

from . import mixed, scenarios
from .suite import Suite

EARLY, WAITING = [], ["election.earlyFinalize=false"]


def measure(leader, followers, times, extra):
    with mixed.led_by(leader, followers, extra=extra) as ensemble:
        return scenarios.fail_overs(ensemble, times)


def cell(detail):
    found = re.match(r"min ([\d.]+)\D+([\d.]+)\D+([\d.]+)", detail) if isinstance(detail, str) else None
    return " / ".join(f"{float(number):.0f}" for number in found.groups()) if found else "failed"


def main(options):
    suite = Suite("elections")
    kinds = mixed.available()
    rows = [("zabd", ["zabd", "zabd"]), *mixed.mixes(kinds, 3)]
    table = []
    for leader, followers in rows:
        cells = []
        for how, extra in (("early", EARLY), ("not early", WAITING)):
            cells.append(cell(suite.case(f"{mixed.name(leader, followers)}, {how}", measure, leader, followers, options.times,
                                         extra, limit=600)))
        table.append(f"| {' + '.join([leader, *followers])} | {' | '.join(cells)} |")
    print(f"\nFrom SIGKILL of the leader to the next committed write, {options.times} kills, min / median / max in ms\n")
    print("| members, the first leads first | early | `election.earlyFinalize=false` |\n|---|---|---|")
    print("\n".join(table), flush=True)
    return suite.close()
