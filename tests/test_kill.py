"""SIGKILL at ten random moments, then the same command once more: the result of a run that nobody killed.

The moments are spread over start-up, answering, and scoring and writing. Each is found by watching what the run has
left on disk, so that a slow machine does not move them all into start-up.
"""

import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from qwen2eval.backends import open_front
from qwen2eval.cli import build_parser, config_from_args
from qwen2eval.finished_run import load_run
from qwen2eval.libraries import prepared_libraries
from qwen2eval.plan import make_plan
from tests.local_tasks import assert_same_results, words, write_tasks

SEED = 20241124
PATIENCE_SECONDS = 60
BATCH = 2

# Runs the first command itself and each further one in a fork. One thread: forks of torch's thread pools hang.
FORK_SERVER = """
import os, sys
from qwen2eval.cli import main
to_caller = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
print(main(sys.stdin.readline().rstrip("\\n").split("\\t")), file=to_caller)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os._exit(main(line.rstrip("\\n").split("\\t")))
    print(pid, file=to_caller)
    print(os.waitpid(pid, 0)[1], file=to_caller)
"""


@dataclass
class Started:
    """A run that goes on in another process."""

    pid: int
    wait: Callable[[], int]
    """-> exit code; minus the signal's number if one ended it."""


Start = Callable[[list[str]], Started]


def start_command(command: list[str]) -> Started:
    """Start the installed command, imports and all."""
    process = subprocess.Popen(
        [sys.executable, "-m", "qwen2eval", *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )

    def wait() -> int:
        err = process.communicate()[1]
        assert err == b"", err.decode()
        return process.returncode

    return Started(process.pid, wait)


@contextmanager
def fork_server(first_command: list[str]) -> Iterator[Start]:
    """Run one command to its end, then start others as forks of that process: seconds less for each."""
    with subprocess.Popen(
        [sys.executable, "-c", FORK_SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
    ) as server:
        ask, answers = server.stdin, server.stdout

        def start(command: list[str]) -> Started:
            print(*command, sep="\t", file=ask, flush=True)
            pid = int(answers.readline())
            return Started(pid, lambda: os.waitstatus_to_exitcode(int(answers.readline())))

        print(*first_command, sep="\t", file=ask, flush=True)
        assert answers.readline() == "0\n"
        yield start


@dataclass(frozen=True)
class Moment:
    """When to kill: when the run has come so far, and then some seconds."""

    n_answers: int = 0
    """In the store."""
    is_writing: bool = False
    """The draft of the run folder is there."""
    seconds: float = 0.0

    @property
    def is_start_up(self) -> bool:
        return not self.n_answers and not self.is_writing

    def wait(self, output: Path, pid: int) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._is_early(output) and not has_ended(pid):
            assert time.monotonic() < deadline, f"never came to {self}"
            time.sleep(0.001)
        time.sleep(self.seconds)

    def _is_early(self, output: Path) -> bool:
        if self.is_writing:
            return not list(output.glob(".*.partial"))
        return len(stored(output)) < self.n_answers


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def moments(n_answers: int, rng: random.Random) -> list[Moment]:
    """Return ten moments in the order in which they can come."""
    start_up = [Moment(seconds=rng.uniform(0, 1)) for _ in range(2)]
    answering = [Moment(n_answers=n, seconds=rng.uniform(0, 0.02)) for n in sorted(rng.sample(range(1, n_answers), 4))]
    scoring = [Moment(n_answers=n_answers, seconds=rng.uniform(0, 0.1))]
    writing = [Moment(is_writing=True, seconds=rng.uniform(0, 0.1)) for _ in range(3)]
    return [start_up[0], *answering[:2], start_up[1], *answering[2:], *scoring, *writing]


def stored(output: Path) -> dict[tuple, tuple]:
    """Return the store's rows by key; {} while there is none."""
    query = "SELECT model_id, digest, seed, repeat, * FROM answers"
    try:
        db = sqlite3.connect(f"file:{output / 'store.sqlite'}?mode=ro", uri=True)
    except sqlite3.OperationalError:
        return {}
    try:
        return {row[:4]: row[4:] for row in db.execute(query)}
    except sqlite3.OperationalError:  # not made yet, or made at this moment
        return {}
    finally:
        db.close()


def n_distinct_requests(command: list[str]) -> int:
    """Count the run's distinct requests from its plan."""
    config = config_from_args(build_parser().parse_args(command))
    with prepared_libraries(offline=config.offline):
        tasks = make_plan(config, open_front(config)).tasks.values()
    return len({(r.digest, repeat) for task in tasks for r in task.requests for repeat in range(task.repeats)})


def kill_often(start: Start, command: list[str], output: Path, after_each: Callable[[], None] = lambda: None) -> None:
    """Run the command until each moment has killed it, and at last to its end.

    Args:
        start: how to start it, save for the moments of start-up: those meet the installed command, imports and all.
        after_each: what to do after each run.
    """
    before: dict[tuple, tuple] = {}
    for planned in moments(n_distinct_requests(command), random.Random(SEED)):
        moment = planned
        begin = start_command if planned.is_start_up else start
        while not kill_at(moment, begin(command), output):  # it was faster: sooner next time
            moment = replace(moment, seconds=moment.seconds / 2)
            after_each()
        now = stored(output)
        assert now.items() >= before.items(), "an answer was lost or given anew"
        before = now
        assert_only_whole_runs(output)
        after_each()
    assert start(command).wait() == 0
    assert stored(output).items() >= before.items()
    after_each()


def kill_at(moment: Moment, started: Started, output: Path) -> bool:
    """Kill a run at a moment; tell whether it was still alive."""
    moment.wait(output, started.pid)
    if not has_ended(started.pid):
        with suppress(ProcessLookupError):
            os.kill(started.pid, signal.SIGKILL)
    exit_code = started.wait()
    assert exit_code in (0, -signal.SIGKILL)
    return exit_code != 0


def assert_only_whole_runs(output: Path) -> None:
    """Every folder that can be taken for a run has all that belongs to it; so has what `latest` points to."""
    assert all((folder / "run.json").exists() for folder in output.glob("[!.]*") if folder.is_dir())
    for file in output.glob("*/run.json"):  # in drafts, too: run.json is what makes a folder a run
        made = load_run(file.parent)
        assert len(made.scores) > 0
        assert all(len(made.samples(name)) > 0 for name in made.info.tasks)
        assert (file.parent / "report.html").read_text().rstrip().endswith("</html>")


@pytest.mark.slow
def test_a_run_killed_ten_times_ends_like_one_that_was_not(tmp_path):
    tasks_dir = write_tasks(tmp_path / "tasks", n_docs=8)
    output, unkilled, log = tmp_path / "killed", tmp_path / "unkilled", tmp_path / "log"
    command = words(tasks_dir, output, batch=BATCH, delay=0.02, log=log)
    n_distinct = n_distinct_requests(command)
    logs: list[list[str]] = []

    def take_log() -> None:
        logs.append(log.read_text().split() if log.exists() else [])
        log.unlink(missing_ok=True)

    counts = [0]
    with fork_server(words(tasks_dir, unkilled, batch=BATCH)) as start:
        kill_often(start, command, output, lambda: (take_log(), counts.append(len(stored(output)))))
    assert counts[-1] == n_distinct
    answered: list[str] = []
    for asked, n_new in zip(logs, (b - a for a, b in pairwise(counts)), strict=True):
        assert not set(asked) & set(answered), "a request was asked again that the store could answer"
        assert 0 <= len(asked) - n_new <= BATCH, "more was lost than the batch under way"
        answered += asked[:n_new]
    assert len(answered) == len(set(answered)) == n_distinct

    last = load_run(output / "latest")
    assert last.info.requests.n_answered == 0  # some died after the last answer
    assert_same_results(last, load_run(unkilled / "latest"))
    assert {key[1:] for key in stored(output)} == {key[1:] for key in stored(unkilled)}


NUMBER = r"-?\d+\.\d+(?:e-?\d+)?"


def numbers_of(response: str) -> list[float]:
    """Return the log-probabilities in a sample's response."""
    return [float(found) for found in re.findall(NUMBER, response)]


@pytest.mark.slow
def test_our_engine_killed_ten_times_gives_the_same(tmp_path, tiny_model):
    """The plan tells which requests share a prefix, not what is left to ask; sums may differ in the last bits."""
    tasks_dir = write_tasks(tmp_path / "tasks", n_docs=8)
    model = {"model": "qwen2", "pretrained": tiny_model, "pass_tokens": 32}
    output, unkilled = tmp_path / "killed", tmp_path / "unkilled"
    command = words(tasks_dir, output, "--batch_size", str(BATCH), **model)
    with fork_server(words(tasks_dir, unkilled, "--batch_size", str(BATCH), **model)) as start:
        kill_often(start, command, output)
    assert len(stored(output)) == n_distinct_requests(command)
    last, whole = (load_run(folder / "latest") for folder in (output, unkilled))
    pd.testing.assert_frame_equal(last.scores, whole.scores, rtol=1e-5)
    for name in whole.info.tasks:
        mine, others = last.samples(name), whole.samples(name)
        assert mine["extracted"].equals(others["extracted"])
        for response, other in zip(mine["response"], others["response"], strict=True):
            assert numbers_of(response) == pytest.approx(numbers_of(other), abs=1e-4)
            assert re.sub(NUMBER, "", response) == re.sub(NUMBER, "", other)


@pytest.mark.slow
def test_a_real_model_killed_ten_times_gives_the_same_to_the_last_bit(tmp_path, tiny_model):
    """Batches are formed anew after each kill; padding and their order must not show in the numbers."""
    tasks_dir = write_tasks(tmp_path / "tasks", n_docs=8)
    model = {"model": "hf", "pretrained": tiny_model}
    output, unkilled = tmp_path / "killed", tmp_path / "unkilled"
    command = words(tasks_dir, output, "--batch_size", str(BATCH), **model)
    with fork_server(words(tasks_dir, unkilled, "--batch_size", str(BATCH), **model)) as start:
        kill_often(start, command, output)
    assert len(stored(output)) == n_distinct_requests(command)
    assert_same_results(load_run(output / "latest"), load_run(unkilled / "latest"))
