"""What a program and all it started use: memory, processes, and time without waiting for a processor.

Control groups would measure better, but ordinary users are rarely given one, so /proc is read about 20 times a second.
"""

import os
import time
from pathlib import Path
from typing import NamedTuple

from qwen2eval.sandbox.clock import RunClock

MAX_PROCESSES = 256
_PAGE = os.sysconf("SC_PAGESIZE")


class Usage(NamedTuple):
    """One look: MiB of memory of all processes, shared pages counted for each, and how many processes there are."""

    rss_mb: float
    n_processes: int


class TreeClock(RunClock):
    """The clock of a process and all it starts; it advances when `look` is called.

    Args:
        timeout_seconds: the limit of run time.
        pid: the first process.
    """

    def __init__(self, timeout_seconds: float, pid: int) -> None:
        super().__init__(timeout_seconds)
        self.pid = pid
        self.peak_rss_mb = 0.0
        # Of threads that were still there at a look
        self.cpu_seconds = 0.0
        self._waited = 0.0
        self._last_look = time.monotonic()
        # Of threads: ns on a processor, ns waiting for one
        self._times: dict[int, tuple[int, int]] = {}
        self.has_wait_times = Path("/proc/self/schedstat").exists()

    def wait_seconds(self) -> float:
        """Return for how long the thread that waited most, of all that lived at a time, was not running."""
        return self._waited

    def look(self) -> Usage:
        """Read what all processes use now."""
        now = time.monotonic()
        rss_pages, pids, times = 0, [self.pid], {}
        # Grows meanwhile
        for pid in pids:
            rss_pages += _resident_pages(pid) if pid != self.pid else 0
            threads = _names(f"/proc/{pid}/task")
            for thread in threads:
                pids += _children(pid, thread)
                if pid != self.pid and (found := _schedule(pid, thread)):
                    times[int(thread)] = found
            if len(pids) > 2 * MAX_PROCESSES:
                break
        gone = [self._times.get(thread, (0, 0)) for thread in times]
        waits = [wait - before[1] for (_, wait), before in zip(times.values(), gone, strict=True)]
        self.cpu_seconds += sum(ran - before[0] for (ran, _), before in zip(times.values(), gone, strict=True)) / 1e9
        self._waited += min(max(waits, default=0) / 1e9, now - self._last_look)
        self._times, self._last_look = times, now
        rss_mb = rss_pages * _PAGE / (1 << 20)
        self.peak_rss_mb = max(self.peak_rss_mb, rss_mb)
        return Usage(rss_mb, len(pids) - 1)


def _resident_pages(pid: int) -> int:
    words = _read(f"/proc/{pid}/statm").split()
    return int(words[1]) if words else 0


def _children(pid: int, thread: str) -> list[int]:
    return [int(word) for word in _read(f"/proc/{pid}/task/{thread}/children").split()]


def _schedule(pid: int, thread: str) -> tuple[int, int] | None:
    words = _read(f"/proc/{pid}/task/{thread}/schedstat").split()
    return (int(words[0]), int(words[1])) if words else None


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208  # twenty times a second
    except OSError:
        return []


def _read(path: str) -> str:
    try:
        with open(path) as file:  # noqa: PTH123  # as above
            return file.read()
    except OSError:
        return ""
