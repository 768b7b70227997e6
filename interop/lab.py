"""Where attacks are run: an ensemble with writers on it, and what must not have happened to it."""

import os

from . import process, wire
from .ensemble import Ensemble

# The right values are those of docs/hardening.md; a figure fails a suite on a loaded machine only at this multiple.
MARGIN = 6
QUORUM_GAP = 0.5  # the longest time without a write that a peer may cause, in seconds
CLIENT_GAP = 0.1  # and that a client may cause to others


class Lab:
    """An ensemble that is attacked: `with Lab(options) as lab: ...; return lab.outcome()`.

    It has a leader when the block begins, unless `late`: then `start` is called in it.
    """

    def __init__(self, options, members=3, observers=0, extra=(), heap_mb=1024, late=False, **more):
        self.late = late
        self.kind = "3.8" if options.apache else "zabd"
        self.ensemble = Ensemble([self.kind] * members, [self.kind] * observers, extra=["maxClientCnxns=0", *extra],
                                 heap_mb=heap_mb, **more)
        self.figures, self.unmet = [], []

    def __enter__(self):
        try:
            return self if self.late else self.start()
        except BaseException:
            self.ensemble.stop()
            raise

    def __exit__(self, kind, error, trace):
        self.ensemble.__exit__(kind, error, trace)

    def start(self, without=()):
        """Starts all but these members, and notes who leads in which epoch."""
        for member in self.ensemble.members:
            if member not in without:
                member.start()
        self.leader = self.ensemble.settled()
        self.followers = [m for m in self.ensemble.voters if m is not self.leader and m not in without]
        self.epoch = epoch_of(self.leader)
        return self

    @property
    def members(self):
        return self.ensemble.members

    def figure(self, text, holds=True):
        """One part of the outcome; what does not hold fails the suite."""
        self.figures.append(text)
        if not holds:
            self.unmet.append(text)

    def gap(self, pulse, right, since=None, until=None, what="longest gap"):
        """The longest time without an acknowledged write, right if it is at most `right` seconds."""
        gap = pulse.gap(since, until)
        self.figure(f"{what} {gap:.2f} s", gap <= right * MARGIN)

    def reigns_on(self, new_epoch=False):
        """The leader is who it was, in its epoch unless a new one may have begun in place."""
        try:
            now = self.ensemble.settled(30)
        except AssertionError:
            return self.figure("no leader for 30 s", False)
        changed = epoch_of(now) != self.epoch and not new_epoch
        return self.figure("leader stays" if now is self.leader and not changed else
                           f"leader {self.leader.sid} of epoch {self.epoch} became {now.sid} of {epoch_of(now)}",
                           now is self.leader and not changed)

    def all_run(self):
        ended = [f"{m} ended with {m.process.returncode}" for m in self.members if m.process is not None and not m.running]
        self.figure(", ".join(ended) or "all run", not ended)

    def kept(self, pulse, members=None):
        try:
            pulse.kept(members or [member for member in self.members if member.running])
        except (AssertionError, wire.Closed) as lost:
            self.figure(str(lost), False)
        else:
            self.figure(f"{len(pulse.acks)} writes kept")

    def memory(self, member, before_mb, bound_mb):
        """What a member had at most, beyond what it had before."""
        if not member.running:
            return self.figure(f"{member} ended with {member.process.returncode}", False)
        more = process.peak_mb(member) - before_mb
        return self.figure(f"at most {more:.0f} MB more", more <= bound_mb)

    def outcome(self):
        text = "; ".join(self.figures)
        assert not self.unmet, f"{text}\nnot right: {'; '.join(self.unmet)}"
        return text


def epoch_of(member):
    """The epoch that a member has begun or joined, from its directory."""
    with open(os.path.join(member.data, "version-2", "currentEpoch")) as file:
        return int(file.read())
