"""SIGKILL at ten places, then the same command once more: the result of a run that nobody killed.

The places are spread over start-up, answering, and scoring and writing. At most of them the run kills itself; while it
answers, the test does so when so many answers are in the store, and the run can't come to its end meanwhile.
"""

import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from qwen2eval.run_folder.folder import load_run
from tests.killing import Place, wait_for
from tests.local_tasks import assert_same_results, words, write_tasks

SEED = 20241124
BATCH = 2
DRAFT = Place("os.mkdir", ".partial")

# Runs the first command itself and each further one in a fork. One thread: forks of torch's thread pools hang.
FORK_SERVER = """
import json, os, sys
from qwen2eval.cli.main import main
from tests.killing import Place, end_at
to_caller = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
print(main(json.loads(sys.stdin.readline())), file=to_caller)
for line in sys.stdin:
    command, place, is_held = json.loads(line)
    pid = os.fork()
    if pid == 0:
        if place:
            end_at(Place(*place), is_held=is_held)
        os._exit(main(command))
    print(pid, file=to_caller)
    print(os.waitpid(pid, 0)[1], file=to_caller)
"""
# The installed command, imports and all
COMMAND = """
import json, sys
from tests.killing import Place, end_at
end_at(Place(*json.loads(sys.argv[1])))
from qwen2eval.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@dataclass
class Started:
    """A run that goes on in another process."""

    pid: int
    wait: Callable[[], int]
    """-> exit code; minus the signal's number if one ended it."""


class ForkServer:
    """Starts runs as forks of a process that has done one: seconds less for each."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._ask, self._answers = process.stdin, process.stdout

    def start(self, command: list[str], place: Place | None = None, *, is_held: bool = False) -> Started:
        print(json.dumps([command, place, is_held]), file=self._ask, flush=True)
        pid = int(self._answers.readline())
        return Started(pid, lambda: os.waitstatus_to_exitcode(int(self._answers.readline())))


@contextmanager
def fork_server(first_command: list[str]) -> Iterator[ForkServer]:
    """Run one command to its end, then start others."""
    with subprocess.Popen(
        [sys.executable, "-c", FORK_SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
    ) as process:
        print(json.dumps(first_command), file=process.stdin, flush=True)
        assert process.stdout.readline() == "0\n"
        yield ForkServer(process)


Stop = Callable[[ForkServer, list[str], Path], None]
"""Starts a run, and has it killed."""


def in_start_up(_server: ForkServer, command: list[str], _output: Path) -> None:
    words = [sys.executable, "-c", COMMAND, json.dumps(Place("import", "lm_eval")), *command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")


def at(place: Place) -> Stop:
    def stop(server: ForkServer, command: list[str], _output: Path) -> None:
        assert server.start(command, place).wait() == -signal.SIGKILL

    return stop


def with_answers(n_answers: int) -> Stop:
    """Stop when so many are in the store; until then it is at most about to write."""

    def stop(server: ForkServer, command: list[str], output: Path) -> None:
        run = server.start(command, DRAFT, is_held=True)
        wait_for(lambda: len(stored(output)) >= n_answers or has_ended(run.pid))
        os.kill(run.pid, signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL

    return stop


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def some(n_stops: int, n_answers: int) -> list[Stop]:
    """Return stops while answering, in the order in which they can come."""
    return [with_answers(n) for n in sorted(random.Random(SEED).sample(range(1, n_answers), n_stops))]


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


def kill_often(
    server: ForkServer,
    stops: Sequence[Stop],
    command: list[str],
    output: Path,
    after_each: Callable[[], None] = lambda: None,
) -> None:
    """Run the command until each stop has killed it, and at last to its end."""
    before: dict[tuple, tuple] = {}
    for stop in stops:
        stop(server, command, output)
        now = stored(output)
        assert now.items() >= before.items(), "an answer was lost or given anew"
        before = now
        assert_only_whole_runs(output)
        after_each()
    assert server.start(command).wait() == 0
    assert stored(output).items() >= before.items()
    after_each()


def assert_only_whole_runs(output: Path) -> None:
    """Every folder that can be taken for a run has all that belongs to it; so has what `latest` points to."""
    assert all((folder / "run.json").exists() for folder in output.glob("[!.]*") if folder.is_dir())
    for file in output.glob("*/run.json"):  # in drafts, too: run.json is what makes a folder a run
        made = load_run(file.parent)
        assert len(made.scores) > 0
        assert all(len(made.samples(name)) > 0 for name in made.info.tasks)
        # The report comes after the run: a kill in between leaves a whole run, and `qwen2eval report` makes its page
        page = file.parent / "report.html"
        assert not page.exists() or page.read_text().rstrip().endswith("</html>")


@pytest.mark.slow
def test_a_run_killed_ten_times_ends_like_one_that_was_not(tmp_path):
    tasks_dir = write_tasks(tmp_path / "tasks", n_docs=8)
    output, unkilled, log = tmp_path / "killed", tmp_path / "unkilled", tmp_path / "log"
    command = words(tasks_dir, output, batch=BATCH, log=log)
    logs: list[list[str]] = []

    def take_log() -> None:
        logs.append(log.read_text().split() if log.exists() else [])
        log.unlink(missing_ok=True)

    counts = [0]
    with fork_server(words(tasks_dir, unkilled, batch=BATCH)) as server:
        n_distinct = len(stored(unkilled))
        first, second, *others = some(4, n_distinct)
        stops = [
            in_start_up,
            first,
            at(Place("sqlite3.connect", "store.sqlite")),
            second,
            *others,
            with_answers(n_distinct),
            at(Place("open", ".partial/")),
            at(Place("open", "report.html")),
            at(Place("os.rename", ".partial")),
        ]
        kill_often(server, stops, command, output, lambda: (take_log(), counts.append(len(stored(output)))))
    assert counts[-1] == n_distinct
    answered: list[str] = []
    for asked, n_new in zip(logs, (b - a for a, b in pairwise(counts)), strict=True):
        assert not set(asked) & set(answered), "a request was asked again that the store could answer"
        assert 0 <= len(asked) - n_new <= BATCH, "more was lost than the batch under way"
        answered += asked[:n_new]
    assert len(answered) == len(set(answered)) == n_distinct

    last = load_run(output / "latest")
    assert (last.path / "report.html").exists()
    assert last.info.requests.n_answered == 0  # some died after the last answer
    assert_same_results(last, load_run(unkilled / "latest"))
    assert {key[1:] for key in stored(output)} == {key[1:] for key in stored(unkilled)}


NUMBER = r"-?\d+\.\d+(?:e-?\d+)?"


def numbers_of(response: str) -> list[float]:
    """Return the log-probabilities in a sample's response."""
    return [float(found) for found in re.findall(NUMBER, response)]


@pytest.mark.slow
def test_our_engine_killed_while_it_answers_gives_the_same(tmp_path, tiny_model):
    """The plan tells which requests share a prefix, not what is left to ask; sums may differ in the last bits."""
    tasks_dir = write_tasks(tmp_path / "tasks", n_docs=8)
    model = {"model": "qwen2", "pretrained": tiny_model, "pass_tokens": 32}
    output, unkilled = tmp_path / "killed", tmp_path / "unkilled"
    command = words(tasks_dir, output, "--batch_size", str(BATCH), **model)
    with fork_server(words(tasks_dir, unkilled, "--batch_size", str(BATCH), **model)) as server:
        kill_often(server, some(3, len(stored(unkilled))), command, output)
    assert len(stored(output)) == len(stored(unkilled))
    last, whole = (load_run(folder / "latest") for folder in (output, unkilled))
    pd.testing.assert_frame_equal(last.scores, whole.scores, rtol=1e-5)
    for name in whole.info.tasks:
        mine, others = last.samples(name), whole.samples(name)
        assert mine["extracted"].equals(others["extracted"])
        for response, other in zip(mine["response"], others["response"], strict=True):
            assert numbers_of(response) == pytest.approx(numbers_of(other), abs=1e-4)
            assert re.sub(NUMBER, "", response) == re.sub(NUMBER, "", other)


@pytest.mark.slow
def test_a_real_model_killed_while_it_answers_gives_the_same_to_the_last_bit(tmp_path, tiny_model):
    """Batches are formed anew after each kill; padding and their order must not show in the numbers."""
    tasks_dir = write_tasks(tmp_path / "tasks", n_docs=8)
    model = {"model": "hf", "pretrained": tiny_model}
    output, unkilled = tmp_path / "killed", tmp_path / "unkilled"
    command = words(tasks_dir, output, "--batch_size", str(BATCH), **model)
    with fork_server(words(tasks_dir, unkilled, "--batch_size", str(BATCH), **model)) as server:
        kill_often(server, some(3, len(stored(unkilled))), command, output)
    assert len(stored(output)) == len(stored(unkilled))
    assert_same_results(load_run(output / "latest"), load_run(unkilled / "latest"))
