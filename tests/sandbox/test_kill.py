"""The host is killed while programs run, none of which ends by itself: soon after, nothing of the sandbox is left."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from qwen2eval.sandbox import STRONG_LEVELS, Check
from qwen2eval.sandbox.levels import DROPPED_UID
from qwen2eval.sandbox.supervise import run_check
from qwen2eval.sandbox.worker import Worker, WorkerLostError
from tests.sandbox.conftest import NOBODY, run_as, skip_without
from tests.sandbox.run_attacks import below, mounts_of_sandboxes, names_in

LIMIT_SECONDS = 60  # five are plenty where nothing else runs


@pytest.fixture
def boxes():
    """Return a temporary directory that any user may use, and that nobody else does."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield folder


def traces(boxes):
    return {
        "boxes": names_in(boxes),
        "mounts": mounts_of_sandboxes(),
        "shared memory": [names_in("/dev/shm", user=user) for user in (DROPPED_UID, NOBODY)],  # noqa: S108  # looked at
    }


def started_at(pid):
    """Return what tells a process from a later one of the same number, `None` if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def still_there(family):
    return [pid for pid, start in family.items() if start is not None and started_at(pid) == start]


def n_pythons(root):
    """Count a process and those below it, save for bubblewrap's own."""
    return sum(name.startswith("python") for name in below(root).values())


def wait_for(condition, *, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("user", ["caller", "ordinary"])
@pytest.mark.parametrize("level", STRONG_LEVELS)
def test_nothing_is_left(level, user, boxes):
    skip_without(level)
    before = traces(boxes)
    host = run_as(user, "hold.py", level, TMPDIR=boxes)
    try:
        wait_for(lambda: host.poll() is not None or n_pythons(host.pid) == 1 + 3 + 4)
        assert host.poll() is None, host.stderr.read().decode()
        family = {pid: started_at(pid) for pid in below(host.pid)}
    finally:
        host.send_signal(signal.SIGKILL)
        host.wait()
    wait_for(lambda: not still_there(family) and traces(boxes) == before, seconds=LIMIT_SECONDS)
    assert still_there(family) == []
    assert traces(boxes) == before
    host.stdout.close()
    host.stderr.close()


@pytest.mark.parametrize("level", STRONG_LEVELS)
def test_a_program_ends_with_its_zygote(level):
    skip_without(level)
    worker = Worker(level)
    spin = Check("while True: pass", timeout_seconds=600)  # so that no limit ends it

    def run():
        with pytest.raises(WorkerLostError):
            run_check(worker, spin, together=None)

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: len(below(worker.pid)) == 2)
    family = {pid: started_at(pid) for pid in below(worker.pid)}
    assert len(family) == 2
    os.kill(worker.pid, signal.SIGKILL)
    wait_for(lambda: not still_there(family), seconds=LIMIT_SECONDS)
    left = still_there(family)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []
    thread.join()
    worker.close()


@pytest.mark.parametrize("level", STRONG_LEVELS)
def test_a_copy_of_the_host_does_not_keep_it_alive(level):
    """A fork of the host holds the socket, too: what counts is that the host itself is gone."""
    skip_without(level)
    script = (
        "import os, sys, time\nfrom qwen2eval.sandbox import Sandbox\n"
        "s = Sandbox(sys.argv[1])\ns.check('print(1)')\npid = s._idle.queue[-1].pid\n"
        "if os.fork() == 0:\n  time.sleep(600)\n  os._exit(0)\n"
        "print(pid, flush=True)\ntime.sleep(600)\n"
    )
    host = subprocess.Popen([sys.executable, "-c", script, level], stdout=subprocess.PIPE)
    worker = int(host.stdout.readline())
    start = started_at(worker)
    copies = [pid for pid in below(host.pid) if pid != host.pid]
    host.kill()
    host.wait()
    wait_for(lambda: started_at(worker) != start, seconds=LIMIT_SECONDS)
    gone = started_at(worker) != start
    for pid in copies:
        if started_at(pid):
            os.kill(pid, signal.SIGKILL)
    host.stdout.close()
    assert gone
