"""Java's own opinion of its peers: WARN and ERROR lines, compared with those of ensembles without us."""

import os
import re

BASELINE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "baseline.txt")
# A server that ends by itself is never normal, though Apache's do under these scenarios among their own.
NEVER_NORMAL = re.compile(r"Unable to load database on disk|exiting abnormally|Exiting JVM with code")
START = re.compile(r"^\d\d:\d\d:\d\d\.\d{3} [A-Z]+ ")
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


# The end of a connection, in whatever words: under faults every thread of Java's that uses it complains in its own, and which
# of them notices first is chance.
ENDED = re.compile(
    r"java\.net\.(SocketException|ConnectException|SocketTimeoutException|NoRouteToHostException)\b"
    r"|java\.nio\.channels\.(ClosedChannel|AsynchronousClose|ClosedByInterrupt|CancelledKey)\w*Exception\b"
    r"|java\.lang\.InterruptedException\b|(java\.io\.|\b)EndOfStreamException\b"
    r"|java\.io\.IOException: (Broken pipe|Connection reset|Stream closed|Socket closed|Connection refused)"
)
CUT = re.compile(r"java\.io\.EOFException\b")
READ = re.compile(r"(Socket\w*InputStream|NioSocketImpl|BufferedInputStream|DataInputStream)\.")
CAUSE = re.compile(r"^(Caused by: )?([\w.$]+(Exception|Error|Throwable)\b.*)$")


def ends_connection(trace):
    """Whether the lines behind a message are the stack trace of a connection that has ended."""
    causes = [match.group(2) for match in map(CAUSE.match, trace) if match]
    socket = any(READ.search(line) for line in trace[1:5]) and "ByteArrayInputStream" not in "".join(trace[:5])
    return bool(causes) and all(ENDED.search(cause) or CUT.match(cause) and socket for cause in causes)


def events(path):
    """(level, logger, message, lines of the stack trace) of each WARN and ERROR in one log file."""
    current = None
    with open(path, errors="replace") as file:
        for line in file:
            line = line.rstrip("\n")
            if START.match(line):
                if current:
                    yield current
                match = LINE.match(line)
                current = (*match.groups(), []) if match else None
            elif current and len(current[3]) < 40:
                current[3].append(line)
    if current:
        yield current


def complaints(path):
    """The (level, logger, message) in one log file; whether each of its occurrences was the end of a connection."""
    found = {}
    for level, logger, message, trace in events(path):
        item = (level, logger, normalise(message))
        found[item] = found.get(item, True) and ends_connection(trace)
    return found


def of(members):
    """Complaints of all Java runs of these members, as of `complaints`."""
    found = {}
    for path in (path for member in members for kind, path in member.logs if kind != "zabd"):
        for item, ended in complaints(path).items():
            found[item] = found.get(item, True) and ended
    return found


def load_baseline():
    if not os.path.exists(BASELINE):
        return set()
    with open(BASELINE) as file:
        return {tuple(line.rstrip("\n").split("\t")) for line in file if line.strip() and not line.startswith("#")}


def save_baseline(items):
    with open(BASELINE, "w") as file:
        file.write("# WARN and ERROR of Apache ZooKeeper 3.8.0 and 3.9 in ensembles of their own, under the scenarios\n")
        file.write("# of this package: level, logger, message without its numbers. `python3 -m interop baseline` adds to it.\n")
        for item in sorted(item for item in items if not NEVER_NORMAL.search(item[2])):
            file.write("\t".join(item) + "\n")


def new(members):
    """Complaints that no all-Java ensemble made in these scenarios.

    Another wording for the end of a connection is not new, if Java's same class has complained as loudly before.
    """
    baseline = load_baseline()
    known = {item[:2] for item in baseline}
    excused = lambda item, ended: item in baseline or ended and item[:2] in known  # noqa: E731
    return {item for item, ended in of(members).items() if not excused(item, ended)}
