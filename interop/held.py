"""What clients of those that stay see when their leader is killed or ended: nothing but a pause."""

import statistics
import time

from . import wire
from .ensemble import Ensemble
from .pipeline import Pipeline

CONNECTIONS = 40
RUNTIMES = ("mio", "smol", "std")
PROBATION = 2.5  # heartbeats must have been kept for two seconds before anybody is suspected


def end(member, how):
    if how == "SIGKILL":
        member.kill()
    elif how == "SIGSTOP":
        member.freeze()
    else:
        status = member.terminate()
        assert status == 0 or member.kind != "zabd", f"{member} ended with {status}"


def once(ensemble, root, how):
    """One change of the leader: the longest time without an answer, ms, and how many answers there were."""
    leader = ensemble.settled()
    stay = [member for member in ensemble.members if member is not leader and member.kind == "zabd"]
    orderly = how == "SIGTERM" and leader.kind == "zabd"
    setup = wire.Client(leader.address)
    setup.create(root)
    setup.drop()
    pipeline = Pipeline(stay, root, CONNECTIONS)
    own = None
    if orderly:
        setup = wire.Client(leader.address)
        setup.create(f"{root}-own")
        setup.drop()
        own = Pipeline([leader], f"{root}-own", 10)
        own.run(0.2)
    pipeline.run(PROBATION if how == "SIGSTOP" else 0.4)
    pipeline.begin_gap()
    end(leader, how)
    pipeline.run(0.8)
    pipeline.run(10, going_on=False)
    gap_ms = pipeline.gap_ms
    wrong = pipeline.check() or pipeline.compare(stay[0])
    if own:
        # What they were not answered was not carried out.
        own.run(5, going_on=False)
        wrong = wrong or own.compare(stay[0])
        own.close()
    pipeline.close()
    if how == "SIGSTOP":
        leader.thaw()
    else:
        leader.start()
    assert not wrong, f"{leader} ended by {how}: {'; '.join(wrong)}"
    return gap_ms, sum(pipe.created + pipe.updated for pipe in pipeline.pipes)


def change(kinds, observers=(), how="SIGKILL", times=20, runtime=None):
    with Ensemble(kinds, observers) as ensemble:
        for member in ensemble.members:
            member.arguments = ["--runtime", runtime] if runtime else []
        ensemble.start()
        ensemble.settled()
        gaps, answers = [], 0
        for number in range(times):
            gap_ms, count = once(ensemble, f"/round-{number}", how)
            gaps.append(gap_ms)
            answers += count
            time.sleep(0.1)
        ensemble.settled()
    median = statistics.median(gaps)
    return (f"{times} times, {answers} writes, 0 connections closed, 0 requests without an answer; longest time without an "
            f"answer {min(gaps):.0f} / {median:.0f} / {max(gaps):.0f} ms (min, median, max)")


def cases(times, with_apache):
    """Names, functions and their arguments."""
    three = ["zabd"] * 3
    found = [(f"connections kept, SIGKILL, {runtime}", change, three, (), "SIGKILL", times, runtime) for runtime in RUNTIMES]
    found += [(f"connections kept, {how}", change, three, (), how, times) for how in ("SIGTERM", "SIGSTOP")]
    found += [("connections kept, SIGKILL, five members", change, ["zabd"] * 5, (), "SIGKILL", times),
              ("connections kept, SIGKILL, with an observer", change, three, ["zabd"], "SIGKILL", times)]
    if with_apache:
        found.append(("connections kept, SIGKILL, with 3.8", change, ["zabd", "zabd", "3.8"], (), "SIGKILL", max(times // 3, 3)))
    return found
