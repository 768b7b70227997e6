"""Ours alone: fail-over under load, every way of catching up, loss of quorum."""

from . import masters, scenarios
from .ensemble import Ensemble
from .suite import Suite


def on(kinds, scenario, observers=(), **options):
    with Ensemble(kinds, observers, **options) as ensemble:
        ensemble.start()
        ensemble.settled()
        return scenario(ensemble)


def main(_options):
    suite = Suite("end to end")
    three, five = ["zabd"] * 3, ["zabd"] * 5
    suite.case("leader killed 20 times under load", on, three, scenarios.fail_overs)
    suite.case("killed, frozen, restarted under load, an observer", on, three, scenarios.crashes, ["zabd"])
    suite.case("DIFF, SNAP after a wipe, TRUNC after isolation", on, three, scenarios.catch_up, partitions=True, tick_ms=500)
    suite.case("every voter cut off, then in a hole", on, three, scenarios.partitions, partitions=True, tick_ms=500)
    suite.case("every disk lost, one after the other", on, three, scenarios.wipes)
    suite.case("all killed at once", on, three, scenarios.everybody_dies)
    suite.case("observers served by followers, ours and Apache's", masters.served, three, ["3.8", "zabd"])
    suite.case("observers served by Apache's followers", masters.served, ["3.8"] * 3, ["zabd", "3.8"])
    suite.case("five: two dead, three dead, one back", on, five, scenarios.quorum_loss)
    return suite.close()
