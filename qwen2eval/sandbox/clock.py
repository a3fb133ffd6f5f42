"""How long a check has run, without the time in which it waited for a processor that others used."""

import os
import time

GRACE_SECONDS = 0.25
BORDER = 1.2  # a run is stopped at this multiple of its limit; one that ends between the two is repeated alone
BUSY_SHARE = 0.2  # of wall time spent waiting: above it, the machine was busy


class RunClock:
    """The clock of one check, which may have several processes.

    Args:
        timeout_seconds: the limit of run time.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self.timeout_seconds = timeout_seconds
        self.started = time.monotonic()
        self.pids: list[int] = []
        self.has_wait_times = True

    @property
    def wall_seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def stop_seconds(self) -> float:
        """Run time after which the check is stopped."""
        return self.timeout_seconds * BORDER + GRACE_SECONDS

    @property
    def max_wall_seconds(self) -> float:
        """Wall time after which it is stopped whatever it waited for."""
        return 10 * self.timeout_seconds + 5

    def wait_seconds(self) -> float:
        """Return for how long the main threads of all processes were ready, but not running."""
        return sum(self._wait_of(pid) for pid in self.pids)

    def run_seconds(self) -> float:
        """Return wall time less the time of waiting; a sleeping program runs."""
        wall = self.wall_seconds
        return max(0.0, wall - (self.wait_seconds() if self.has_wait_times else wall - wall / _load()))

    def _wait_of(self, pid: int) -> float:
        try:
            with open(f"/proc/{pid}/schedstat") as file:  # noqa: PTH123  # a hundred times a second
                return int(file.read().split()[1]) / 1e9
        except FileNotFoundError:
            self.has_wait_times = os.path.exists("/proc/self/schedstat")  # noqa: PTH110
            return 0.0
        except (OSError, IndexError, ValueError):
            return 0.0


def _load() -> float:
    """Return runnable processes a processor, at least 1: used where the kernel does not count waiting."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
