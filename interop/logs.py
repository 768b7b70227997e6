"""Java's own opinion of its peers: WARN and ERROR lines, compared with those of ensembles without us."""

import os
import re

BASELINE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "baseline.txt")
ACCEPTED = {
    # A connection of ours that lost the race against the other one of its pair before it had said anything.
    ("WARN", "QuorumCnxManager", "Exception reading or writing challenge"),
    # A client of Java's own that closes while it is being answered.
    ("WARN", "NIOServerCnxn", "CancelledKeyException causing close of session: #"),
}
LINE = re.compile(r"^\d\d:\d\d:\d\d\.\d{3} (WARN|ERROR|FATAL) (\S+) - (.*)$")


def normalise(text):
    """Two occurrences of one message must become one text: no numbers, addresses or names of nodes."""
    text = re.sub(r"0x[0-9a-fA-F]+", "#", text)
    text = re.sub(r"/?(localhost|127\.0\.0\.\d)(/127\.0\.0\.\d)?(:\d+)?", "@", text).replace("@|@", "@")
    text = re.sub(r"/(load|features|probe)[\w/-]*", "/…", text)
    text = re.sub(r"/\S*/version-2\S*|/\S*interop-\S*", "FILE", text)
    text = re.sub(r"\d+", "#", text)
    text = re.sub(r"(#,? ?)+", "#", text)
    text = re.sub(r"(Current zxid #is <= #for) \w+", r"\1 TXN", text)
    return text.strip()[:160]


def complaints(path):
    """The set of (level, logger, message) in one log file."""
    found = set()
    with open(path, errors="replace") as file:
        for line in file:
            match = LINE.match(line.rstrip("\n"))
            if match:
                level, logger, message = match.groups()
                found.add((level, logger, normalise(message)))
    return found


def of(members):
    """Complaints of all Java runs of these members."""
    return {item for member in members for kind, path in member.logs if kind != "zabd" for item in complaints(path)}


def load_baseline():
    if not os.path.exists(BASELINE):
        return set()
    with open(BASELINE) as file:
        return {tuple(line.rstrip("\n").split("\t")) for line in file if line.strip() and not line.startswith("#")}


def save_baseline(items):
    with open(BASELINE, "w") as file:
        file.write("# WARN and ERROR of Apache ZooKeeper 3.8.0 and 3.9 in ensembles of their own, under the scenarios\n")
        file.write("# of this package: level, logger, message without its numbers. `python3 -m interop baseline` adds to it.\n")
        for item in sorted(items):
            file.write("\t".join(item) + "\n")


def new(members):
    """Complaints that no all-Java ensemble made in these scenarios."""
    return of(members) - load_baseline() - ACCEPTED
