"""Ensembles of ours and Apache's: who leads, who follows, who observes, in every combination."""

import itertools
import random
import time

from . import logs, moves, parts, scenarios, servers
from .ensemble import Ensemble
from .suite import Suite


def available():
    """The kinds that can be started here; ours must be among them."""
    servers.check(["zabd"])
    kinds = ["zabd"]
    for kind in ("3.8", "3.9"):
        try:
            servers.check([kind])
            kinds.append(kind)
        except servers.Missing as missing:
            print(f"without {kind}: {missing}")
    return kinds


def mixes(kinds, size):
    """All (leader, followers) with at least one of ours and one of Apache's."""
    for leader in kinds:
        for followers in itertools.combinations_with_replacement(kinds, size - 1):
            if len({"zabd"} & {leader, *followers}) and {leader, *followers} != {"zabd"}:
                yield leader, list(followers)


def led_by(leader, followers, observers=(), **options):
    """Starts an ensemble in which the first leader is of the given kind: it has the highest id, and starts first."""
    ensemble = Ensemble([*followers, leader], observers, **options)
    try:
        voters = ensemble.voters
        for member in ensemble.members:
            # An empty directory of ours only counts before all voters are up if an operator says so.
            member.initialise()
        for member in (voters[-1], *voters[: len(voters) // 2]):
            member.start()
        ensemble.serving()
        first = ensemble.leader()
        assert first is voters[-1], f"{first} leads, not {voters[-1]}"
        ensemble.start()
        ensemble.settled()
    except BaseException:
        ensemble.stop()
        raise
    return ensemble


def quiet(ensemble):
    """No member of Java logs what it would not log among its own."""
    new = logs.new(ensemble.members)
    assert not new, "new in Java's logs:\n" + "\n".join(" ".join(item) for item in sorted(new))


def exercise(leader, followers, observers=(), scenario=scenarios.crashes, silence=True, **options):
    with led_by(leader, followers, observers, **options) as ensemble:
        detail = scenario(ensemble)
        if silence:
            quiet(ensemble)
        return detail


def from_java(kinds, scenario, silence=True, **options):
    with Ensemble(kinds, **options) as ensemble:
        ensemble.start()
        ensemble.settled()
        detail = scenario(ensemble)
        if silence:
            quiet(ensemble)
        return detail


def name(leader, followers, observers=()):
    text = f"leader {leader}, followers {' '.join(followers)}"
    return text + (f", observers {' '.join(observers)}" if observers else "")


def short(suite, kinds):
    java = kinds[1:]
    suite.case(name("zabd", java[:1] * 2), exercise, "zabd", java[:1] * 2)
    suite.case(name(java[-1], ["zabd", "zabd"], ["zabd"]), exercise, java[-1], ["zabd", "zabd"], ["zabd"])
    suite.case(name("zabd", ["zabd", java[-1]], [java[0]]), exercise, "zabd", ["zabd", java[-1]], [java[0]])
    suite.case(f"every kind of create in multis, {name('zabd', [java[0], java[-1]])}", exercise, "zabd", [java[0], java[-1]],
               scenario=parts.creates, properties=parts.EXTENDED)
    suite.case(f"migration {java[0]} -> zabd -> {java[0]}", from_java, java[:1] * 3, scenarios.migration)


def three(suite, kinds):
    for leader, followers in mixes(kinds, 3):
        suite.case(name(leader, followers), exercise, leader, followers)
    for leader, observer in itertools.product(kinds, kinds):
        if "zabd" in (leader, observer) and leader != observer:
            case = (leader, ["zabd", leader], [observer])
            suite.case(name(*case), exercise, *case)


def five(suite, kinds):
    rng = random.Random(5)
    for leader in kinds:
        options = [followers for first, followers in mixes(kinds, 5) if first == leader and len({first, *followers}) > 2]
        for followers in rng.sample(options, min(3, len(options))):
            suite.case(name(leader, followers), exercise, leader, followers, limit=400)
    suite.case("five, loss of quorum", from_java, [*kinds, *kinds][:5], scenarios.quorum_loss)


FORMS = ("gz", "snappy")


def snapshots(form):
    return [f"snapshot.compression.method={form}", "snapCount=300"]


def directories(suite, kinds):
    java = kinds[1:]
    swap = tuple(kind for one in (java[-1], *java) for kind in ("zabd", one))
    for kind in java:
        suite.case(f"swaps from {kind}", from_java, [kind] * 3, lambda e: scenarios.swaps(e, swap), limit=500)
        suite.case(f"migration {kind} -> zabd -> {kind}", from_java, [kind] * 3, scenarios.migration, limit=400)
        for form in FORMS:
            suite.case(f"only {form} snapshots, {kind} -> zabd -> {kind}", from_java, [kind] * 3,
                       lambda e, form=form: moves.compressed(e, form), limit=400, extra=snapshots(form))


def faults(suite, kinds):
    for kind in kinds[1:]:
        for case in (("zabd", [kind, "zabd"]), (kind, ["zabd", kind])):
            for scenario in (scenarios.wipes, scenarios.everybody_dies):
                suite.case(f"{scenario.__name__}, {name(*case)}", exercise, *case, scenario=scenario)
            for scenario in (scenarios.catch_up, scenarios.partitions):
                suite.case(f"{scenario.__name__}, {name(*case)}", exercise, *case, scenario=scenario, partitions=True,
                           tick_ms=500)


def elections(suite, kinds):
    """Times of fail-over, by mix, with our early decision and without."""
    for leader, followers in mixes(kinds, 3):
        for how, extra in (("", []), (", no early decision", ["election.earlyFinalize=false"])):
            suite.case(f"fail-over, {name(leader, followers)}{how}", exercise, leader, followers,
                       scenario=lambda e: scenarios.fail_overs(e, 5), extra=extra)


def configurations(suite, kinds):
    """Groups with weights, and several addresses per server."""
    groups = ["group.1=1", "group.2=2", "group.3=3:4:5", *(f"weight.{sid}={2 if sid == 3 else 1}" for sid in range(1, 6))]
    for kind in kinds[1:]:
        for leader, followers in (("zabd", [kind, "zabd"]), (kind, ["zabd", kind])):
            suite.case(f"two addresses each, {name(leader, followers)}", exercise, leader, followers,
                       extra=["multiAddress.enabled=true"], second_address=True)
            suite.case(f"groups and weights, {name(leader, followers + followers)}", exercise, leader, followers + followers,
                       extra=groups, limit=400)


def left_out(suite, kinds):
    """zxids that a 3.8 leader never uses, and the membership as a leader of Java's changes it.

    What Java logs of a malformed request and of a reconfig is not in the baseline.
    """
    for scenario in (moves.unused_zxids, moves.unused_alone) if "3.8" in kinds else ():
        suite.case(f"{scenario.__name__}, led by 3.8", exercise, "3.8", ["zabd", "3.8"], scenario=scenario, silence=False)
    for kind in kinds[1:]:
        suite.case(f"reconfiguration by {kind}", from_java, [kind] * 4, moves.reconfiguration, silence=False,
                   extra=["reconfigEnabled=true", "skipACL=yes"], limit=400)


SELECTIONS = {
    "short": [short], "three": [three], "five": [five], "directories": [directories], "faults": [faults],
    "configurations": [configurations], "elections": [elections],
    "moves": [left_out], "full": [three, configurations, left_out, directories, faults, five, elections],
}


def main(options):
    suite = Suite(f"mixed ensembles ({options.selection})")
    kinds = available()
    if len(kinds) == 1:
        raise servers.Missing("no Apache ZooKeeper here")
    for part in SELECTIONS[options.selection]:
        part(suite, kinds)
    return suite.close()


def soak(options):
    """Every mix gets chaos in turn, until the time is over."""
    suite = Suite(f"soak {options.minutes:g} minutes, seed {options.seed}", compare_all=False)
    kinds, rng = available(), random.Random(options.seed)
    end = time.monotonic() + options.minutes * 60
    while time.monotonic() < end:
        order = [(*mix, []) for mix in mixes(kinds, 3)]
        order += [(*rng.choice(list(mixes(kinds, 5))), [rng.choice(kinds)]) for _ in range(3)]
        rng.shuffle(order)
        for leader, followers, observers in order:
            if time.monotonic() > end:
                break
            seed = rng.randrange(1 << 30)
            suite.case(f"seed {seed}, {name(leader, followers, observers)}", exercise, leader, followers, observers,
                       scenario=lambda e, seed=seed: scenarios.chaos(e, 40, seed), limit=400)
    return suite.close()


def two_addresses(ensemble):
    """With several addresses per server Java has more to go wrong when connections break."""
    return scenarios.flapping(ensemble)


def baseline(options):
    """All scenarios on all-Java ensembles, or those named; what they log is normal."""
    wanted = options.scenario.split(",") if options.scenario else None
    suite = Suite("all-Java baseline")
    items = logs.load_baseline()

    def record(kinds, observers, scenario, **extra):
        with Ensemble(kinds, observers, **extra) as ensemble:
            try:
                ensemble.start()
                ensemble.settled()
                return scenario(ensemble)
            finally:
                items.update(logs.of(ensemble.members))

    cases = [(["3.8"] * 3, ["3.8"]), (["3.9"] * 3, ["3.9"]), (["3.8", "3.9", "3.8"], []), (["3.9", "3.8", "3.9"], ["3.8"])]
    links = dict(partitions=True, tick_ms=500, extra=["snapCount=300"])
    on_all = [(scenarios.crashes, {}), (scenarios.wipes, {}), (scenarios.everybody_dies, {}), (scenarios.impatient, {}),
              (scenarios.flapping, {}), (scenarios.chaos, {}), (scenarios.catch_up, links), (scenarios.partitions, links),
              (scenarios.flickering, links), (two_addresses, dict(second_address=True, extra=["multiAddress.enabled=true"]))]
    rest = [(["3.8"] * 3, lambda e: scenarios.migration(e, "3.9"), "migration"),
            (["3.8"] * 3, lambda e: scenarios.swaps(e, ("3.9", "3.8")), "swaps"),
            (["3.8", "3.9", "3.8", "3.9", "3.8"], scenarios.quorum_loss, "quorum_loss")]
    for kinds, observers in cases:
        for scenario, extra in on_all:
            if wanted is None or scenario.__name__ in wanted:
                suite.case(f"{' '.join([*kinds, *observers])} {scenario.__name__}", record, kinds, observers, scenario,
                           limit=400, **extra)
    for kinds, scenario, text in rest:
        if wanted is None or text in wanted:
            suite.case(text, record, kinds, [], scenario, limit=400)
    for form in FORMS if wanted is None or "compressed" in wanted else ():
        suite.case(f"only {form} snapshots", record, ["3.8"] * 3, [], lambda e, form=form: moves.compressed(e, form, "3.9"),
                   limit=400, extra=snapshots(form))
    logs.save_baseline(items)
    print(f"{len(items)} messages in the baseline")
    return suite.close()
