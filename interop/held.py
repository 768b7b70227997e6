"""What clients of those that stay see when their leader is killed or ended: nothing but a pause."""

import signal
import statistics
import time

from . import wire
from .ensemble import Ensemble, eventually
from .pipeline import Pipeline

CONNECTIONS = 40
RUNTIMES = ("mio", "smol", "std")
PROBATION = 2.5  # heartbeats must have been kept for two seconds before anybody is suspected


def end(member, how):
    if how == "SIGKILL":
        member.kill()
    elif how == "SIGSTOP":
        member.freeze()
    elif how == "SIGUSR1":
        member.signal(signal.SIGUSR1)
        eventually(f"{member} follows", lambda: member.mode() == "follower", pause=0.001)
    else:
        status = member.terminate()
        assert status == 0 or member.kind != "zabd", f"{member} ended with {status}"


def hole(ensemble, leader):
    """The links of the leader to the others take everything and deliver nothing. Clients reach all of them."""
    ensemble.proxies.hole([leader], [member for member in ensemble.members if member is not leader])


def once(ensemble, root, how):
    """One change of the leader: the longest time without an answer, ms, and how many answers there were."""
    leader = ensemble.settled()
    # Who only resigns stays, too, and so do its clients.
    resigns = how == "SIGUSR1"
    stay = [member for member in ensemble.members if (resigns or member is not leader) and member.kind == "zabd"]
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
    pipeline.run(PROBATION if how in ("SIGSTOP", "hole") else 0.4)
    pipeline.begin_gap()
    if how == "hole":
        hole(ensemble, leader)
    else:
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
    elif how == "hole":
        ensemble.proxies.heal()
    elif not resigns:
        leader.start()
    assert not wrong, f"{leader} ended by {how}: {'; '.join(wrong)}"
    return gap_ms, sum(pipe.created + pipe.updated for pipe in pipeline.pipes), leader.kind


def change(kinds, observers=(), how="SIGKILL", times=20, runtime=None):
    with Ensemble(kinds, observers, partitions=how == "hole") as ensemble:
        for member in ensemble.members:
            member.arguments = ["--runtime", runtime] if runtime else []
        ensemble.start()
        ensemble.settled()
        gaps, answers, led = [], 0, []
        for number in range(times):
            gap_ms, count, kind = once(ensemble, f"/round-{number}", how)
            gaps.append(gap_ms)
            led.append(kind)
            answers += count
            time.sleep(0.1)
        ensemble.settled()
    median = statistics.median(gaps)
    by_kind = ", ".join(f"{led.count(kind)} of {kind}" for kind in sorted(set(led)))
    return (f"{times} times (leaders: {by_kind}), {answers} writes, 0 connections closed, 0 requests without an answer; longest time without an "
            f"answer {min(gaps):.0f} / {median:.0f} / {max(gaps):.0f} ms (min, median, max)")


def not_leading():
    """A follower, an observer and a leader without a successor say so, and nothing changes."""
    with Ensemble(["zabd"] * 3, ["zabd"]) as ensemble:
        ensemble.start()
        leader = ensemble.settled()
        followers = [member for member in ensemble.voters if member is not leader]
        before = [member.mode() for member in ensemble.members]
        with_clients = Pipeline(ensemble.members, "", 8)
        for member in [*followers, ensemble.members[3]]:
            member.signal(signal.SIGUSR1)
            eventually(f"{member} says so", lambda said=member: "this server does not lead. Nothing changes" in said.log_text())
        with_clients.run(0.5)
        with_clients.run(5, going_on=False)
        wrong = with_clients.check()
        with_clients.close()
        assert not wrong and [member.mode() for member in ensemble.members] == before, f"{before}: {wrong}"
        # It is asked in the moment in which they stop, and gives up nothing.
        for member in followers:
            member.freeze()
        leader.signal(signal.SIGUSR1)
        time.sleep(0.2)
        for member in followers:
            member.kill()
        eventually("it has no quorum", lambda: leader.mode() != "leader")
        assert "it was asked to make way" not in leader.log_text(), f"{leader} made way for nobody"
        return "said by two followers and an observer; a leader whose followers stop in that moment does not make way"


def cases(times, apache):
    """Names, functions and their arguments. `apache` are the kinds of Apache's servers that can be started."""
    three = ["zabd"] * 3
    few = max(times // 3, 3)
    found = [(f"connections kept, SIGKILL, {runtime}", change, three, (), "SIGKILL", times, runtime) for runtime in RUNTIMES]
    found += [(f"connections kept, {how}", change, three, (), how, times) for how in ("SIGTERM", "SIGSTOP")]
    found += [(f"connections kept, SIGUSR1, {runtime}", change, three, (), "SIGUSR1", times, runtime) for runtime in RUNTIMES]
    found += [("connections kept, SIGKILL, five members", change, ["zabd"] * 5, (), "SIGKILL", times),
              ("connections kept, SIGKILL, with an observer", change, three, ["zabd"], "SIGKILL", times),
              ("connections kept, SIGUSR1, five and an observer", change, ["zabd"] * 5, ["zabd"], "SIGUSR1", times),
              ("SIGUSR1 to who does not lead", not_leading)]
    found.append(("connections kept, links that swallow", change, three, (), "hole", few))
    # The last voter has the highest id, and leads first: that one is killed as leader, and stays later.
    found += [(f"connections kept, SIGKILL, with {kind}", change, ["zabd", "zabd", kind], (), "SIGKILL", few) for kind in apache]
    return found
