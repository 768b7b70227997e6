"""A runner small enough to read: cases with a time limit, one line each, a closing line per suite."""

import signal
import sys
import time
import traceback


class NotComparable(Exception):
    """Nothing of ours could be compared with anything of Apache's: neither passed nor failed."""


class TooLong(Exception):
    """A case did not end within its limit."""


def alarm(_number, _frame):
    raise TooLong


class Suite:
    """`suite.case(name, function, ...)` runs one case; `suite.close()` prints the result and returns the exit code.

    A case that ends with nothing compared is repeated once with another ensemble, and then counts as failed, if everything is
    to be compared; otherwise it is only reported.
    """

    def __init__(self, name, compare_all=True):
        self.name, self.passed, self.failed, self.open = name, 0, [], []
        self.compare_all = compare_all
        self.begin = time.monotonic()
        print(f"{name}", flush=True)

    def case(self, name, function, *args, limit=300, again=True, **kwargs):
        begin = time.monotonic()
        signal.signal(signal.SIGALRM, alarm)
        signal.alarm(limit)
        try:
            detail = function(*args, **kwargs)
        except TooLong:
            self.fail(name, begin, f"not done within {limit} s\n{traceback.format_exc(limit=-4)}")
            return None
        except NotComparable as error:
            print(f"  open    {name} ({time.monotonic() - begin:.1f} s): {error}", flush=True)
            signal.alarm(0)
            if again and self.compare_all:
                return self.case(name, function, *args, limit=limit, again=False, **kwargs)
            self.open.append(name)
            return None
        except (AssertionError, OSError, ValueError) as error:
            self.fail(name, begin, str(error) or traceback.format_exc(limit=-4))
            return None
        except Exception:  # noqa: BLE001  (whatever it was, the other cases are run)
            self.fail(name, begin, traceback.format_exc())
            return None
        finally:
            signal.alarm(0)
        self.passed += 1
        text = f": {detail}" if isinstance(detail, str) else ""
        print(f"  ok      {name} ({time.monotonic() - begin:.1f} s){text}", flush=True)
        return detail if detail is not None else True

    def fail(self, name, begin, why):
        self.failed.append(name)
        print(f"  FAILED  {name} ({time.monotonic() - begin:.1f} s)", flush=True)
        for line in why.rstrip().splitlines():
            print(f"          {line[:400]}", flush=True)

    def close(self):
        for name in self.failed:
            print(f"  failed: {name}")
        for name in self.open:
            print(f"  nothing compared: {name}")
        print(f"{self.name}: {self.passed} passed, {len(self.failed)} failed, {len(self.open)} with nothing to compare "
              f"({time.monotonic() - self.begin:.0f} s)")
        sys.stdout.flush()
        return 1 if self.failed or self.compare_all and self.open else 0
