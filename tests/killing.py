"""Processes that SIGKILL ends at a place that they come to, not after a time: how fast a machine is changes nothing.

A place is the n-th time that a process is about to do something that Python audits (opening, renaming or removing a
file, importing a module), or a file that it has written half.
"""

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, NamedTuple


class Place(NamedTuple):
    """Where a process ends."""

    event: str
    """As https://docs.python.org/3/library/audit_events.html calls it; "write": within a file's bytes."""
    text: str = ""
    """What the event's arguments have in them; of no use with "write"."""
    number: int = 1
    """Of such an event; with "write", the bytes of a file that are still written."""


def end_at(place: Place, *, is_held: bool = False) -> None:
    """Have this process end at a place, or stay there until somebody else ends it."""
    if place.event == "write":
        # the kernel's own signal: no code of the process runs after it either
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (place.number, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        return
    numbers = count(1)

    def look(event: str, args: tuple[Any, ...]) -> None:
        if event == place.event and any(place.text in str(arg) for arg in args) and next(numbers) == place.number:
            if not is_held:
                os.kill(os.getpid(), signal.SIGKILL)
            while True:
                signal.pause()

    sys.addaudithook(look)


def wait_for(condition: Callable[[], object], *, seconds: float = 600) -> None:
    """Return when something has come about; the time is only there so that a fault doesn't hang."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it has not come about"
        time.sleep(0.01)


def run_until_each(places: Sequence[Place], work: Callable[[], object]) -> list[int]:
    """Do something in a fork for each place, one after the other, and return how they ended: exit codes as of Popen."""
    found = []
    for place in places:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                end_at(place)
                work()
                status = 0
            finally:
                os._exit(status)
        found.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    return found
