"""What a server's process uses, from /proc: memory, processor time, threads, descriptors, bytes on disk."""

import os


def status(member, key):
    """A number of /proc/PID/status, or 0 if the process is gone."""
    try:
        with open(f"/proc/{member.process.pid}/status") as file:
            for line in file:
                if line.startswith(key + ":"):
                    return int(line.split()[1])
    except (OSError, AttributeError):
        pass
    return 0


def resident_mb(member):
    return status(member, "VmRSS") / 1024


def peak_mb(member):
    """The most that was resident since the start, or since `forget_peak`."""
    return status(member, "VmHWM") / 1024


def forget_peak(member):
    with open(f"/proc/{member.process.pid}/clear_refs", "w") as file:
        file.write("5")


def threads(member):
    return status(member, "Threads")


def descriptors(member):
    try:
        return len(os.listdir(f"/proc/{member.process.pid}/fd"))
    except OSError:
        return 0


def cpu_seconds(member):
    with open(f"/proc/{member.process.pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def disk_mb(member):
    """Bytes in use below the data directory, in MB. Logs are allocated ahead: what is not written does not count."""
    total = 0
    for directory, _, names in os.walk(member.data):
        for name in names:
            try:
                total += os.stat(os.path.join(directory, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total / 1e6


def log_mb(member):
    """What the server has written to its own log in this run."""
    return os.path.getsize(member.logs[-1][1]) / 1e6


class Peaks:
    """The largest resident memory of any member since the start of this measurement, over all its runs."""

    def __init__(self, members):
        self.members, self.largest = members, 0.0
        for member in members:
            if member.running:
                forget_peak(member)

    def note(self):
        """To be called before a process is ended; what it had at most is lost with it."""
        self.largest = max([self.largest, *(peak_mb(member) for member in self.members if member.running)])
        return self.largest
