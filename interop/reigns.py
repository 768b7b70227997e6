"""The table of fail-overs: ours and ZooKeeper's, killed, frozen, ended, and with a big tree and snapshots all the time."""

import re
import statistics
import subprocess
import threading
import time

from . import bulk, servers, tables, wire
from .ensemble import Ensemble
from .held import CONNECTIONS, PROBATION
from .pipeline import Pipeline
from .pulse import Pulse

HOW = {"SIGKILL": "killed", "SIGSTOP": "frozen", "SIGTERM": "ended", "SIGUSR1": "made to resign"}
# Apache's takes ten seconds to miss a leader that does not run.
PATIENCE = {"zabd": 2.0, "3.8": 13.0}


def end(member, how):
    if how == "SIGKILL":
        member.kill()
    elif how == "SIGSTOP":
        member.freeze()
    elif how == "SIGTERM":
        member.terminate()
    else:
        import signal
        member.signal(signal.SIGUSR1)


def once(ensemble, kind, root, how):
    """Time to the next answer of any member, ms; connections of those that stay that were closed; their requests without an
    answer."""
    leader = ensemble.settled()
    stay = [member for member in ensemble.voters if member is not leader]
    setup = wire.Client(stay[0].address, 30000, wait=20)
    setup.create(root)
    setup.drop()
    if how == "SIGSTOP":
        time.sleep(PROBATION)
    patience = PATIENCE[kind] if how == "SIGSTOP" else 2.5
    pipeline = Pipeline(stay, root, CONNECTIONS)
    pipeline.run(0.5)
    with Pulse(stay, writers=4) as pulse:
        pipeline.run(0.3)
        since = time.monotonic()
        end(leader, how)
        pipeline.run(patience)
        pipeline.run(5, going_on=False)
        until = time.monotonic()
    closed = sum(1 for pipe in pipeline.pipes if pipe.ended)
    unanswered = sum(pipe.next - pipe.due for pipe in pipeline.pipes)
    pipeline.close()
    if how == "SIGSTOP":
        leader.thaw()
    elif how != "SIGUSR1":
        leader.start()
    return pulse.gap(since - 0.05, until) * 1000, closed, unanswered


def row(ensemble, kind, how, times, what):
    results = [once(ensemble, kind, f"/{what.replace(' ', '-')}-{how}-{number}", how) for number in range(times)]
    gaps = sorted(result[0] for result in results)
    closed, unanswered = (sum(result[at] for result in results) for at in (1, 2))
    return statistics.median(gaps), (
        f"| {kind} | {what} | {HOW[how]} | {statistics.median(gaps):.0f} ms | {gaps[0]:.0f}–{gaps[-1]:.0f} ms | {times} | "
        f"{closed} of {times * CONNECTIONS} | {unanswered} |")


def grow(ensemble, count):
    """A tree of so many nodes."""
    leader = ensemble.settled()
    # Answers to a thousand creates are long: who does not read them is not read either.
    pipe = bulk.Pipe(leader.address, ahead=10)
    bulk.create_many(pipe, (f"/big{number:04d}" for number in range(count // 1000)))
    bulk.create_many(pipe, (f"/big{number // 1000:04d}/n{number % 1000:04d}" for number in range(count)), b"d" * 50)
    pipe.close()


def compare_tails(ensemble, options):
    """How long writes take without snapshots and with one being written all the time: rows of a table, in turn."""
    rows, tails = [], {"none": [], "all the time": []}
    for run in range(options.tails):
        for what, count in (("none", 2_000_000_000), ("all the time", options.snapshots)):
            ensemble.stop()
            ensemble.extra = [f"snapCount={count}"]
            for member in ensemble.members:
                ensemble.configure(member)
            ensemble.start()
            ensemble.settled()
            rate, median, tail, longest = tail_of(ensemble, options.requests)
            tails[what].append(tail)
            rows.append(f"| {what} | {run + 1} | {rate} | {median / 1000:.1f} ms | {tail / 1000:.1f} ms | {longest / 1000:.0f} ms |")
            print(rows[-1], flush=True)
    without, beside = (statistics.median(tails[what]) for what in tails)
    print(f"99.9 % with snapshots: {beside / without:.2f} times that without, medians of {options.tails} runs", flush=True)
    return rows


def tail_of(ensemble, requests):
    """Writes/s, and in microseconds: the median, what 99.9 % took at most, the longest."""
    command = ["cargo", "run", "--quiet", "--release", "-p", "benches", "--bin", "load", "--", "writes", "9", "1", str(requests)]
    command += [f"127.0.0.1:{member.client_port}" for member in ensemble.members]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    figures = re.search(r"^(\d+)/s.*median (\d+), .* 99\.9 % (\d+), longest (\d+)", done.stdout, re.DOTALL)
    return tuple(int(figure) for figure in figures.groups())


class Filler(threading.Thread):
    """Writes without end, so that a snapshot is always being written."""

    def __init__(self, ensemble):
        super().__init__(daemon=True)
        self.ensemble, self.stopping = ensemble, False

    def run(self):
        while not self.stopping:
            for member in self.ensemble.voters:
                try:
                    client = wire.Client(member.address, 30000, wait=5)
                    while not self.stopping:
                        client.set("/big0000/n0000", b"x" * 50)
                except (wire.Closed, wire.ZkError, OSError):
                    time.sleep(0.05)


def main(options):
    kinds = ["zabd"]
    if options.alone:
        return big(options, [], {})
    try:
        servers.check(["3.8"])
        kinds.append("3.8")
    except servers.Missing as missing:
        print(f"without 3.8: {missing}")
    lines, medians = [], {}
    for kind in kinds:
        with Ensemble([kind] * 3) as ensemble:
            ensemble.start()
            for how in [how for how in HOW if kind == "zabd" or how != "SIGUSR1"]:
                medians[kind, how], line = row(ensemble, kind, how, options.times, "empty tree")
                lines.append(line)
                print(line, flush=True)
    return big(options, lines, medians)


def big(options, lines, medians):
    """The rows of a big tree; then the table."""
    busy = tables.load()
    if not medians:
        with Ensemble(["zabd"] * 3) as ensemble:
            ensemble.start()
            for how in ("SIGKILL", "SIGSTOP"):
                medians["zabd", how], line = row(ensemble, "zabd", how, options.times, "empty tree")
                lines.append(line)
                print(line, flush=True)
    with Ensemble(["zabd"] * 3, extra=["snapCount=2000000000"]) as ensemble:
        ensemble.start()
        begin = time.monotonic()
        grow(ensemble, options.nodes)
        print(f"{options.nodes} nodes in {time.monotonic() - begin:.0f} s", flush=True)
        tails = compare_tails(ensemble, options)
        filler = Filler(ensemble)
        filler.start()
        for how in ("SIGKILL", "SIGSTOP"):
            what = f"{options.nodes:,} znodes and snapshots"
            median, line = row(ensemble, "zabd", how, options.times, what)
            lines.append(line)
            print(f"{line} ({median / medians['zabd', how]:.2f} times that of the empty tree)", flush=True)
        filler.stopping = True
        taken = sum(member.log_text().count("napshot") for member in ensemble.members)
        print(f"lines of the logs about snapshots: {taken}", flush=True)
    table = "\n".join([
        "| server | with | the leader is | to the next answer, median | range | times | clients disconnected | requests without an answer |",
        "|---|---|---|---:|---:|---:|---:|---:|", *lines, "",
        f"Writes beside that, nine connections with one in flight each, {options.nodes:,} znodes, in turn:", "",
        "| snapshots | run | writes/s | median | 99.9 % within | longest |", "|---|---:|---:|---:|---:|---:|", *tails, "",
        f"Three members, {CONNECTIONS} clients on the two that stay, with four writes each in flight. {busy}", ""])
    tables.publish(options.out, "failover.md", table)
    return 0
