"""Times and peak memory of whole processes, and how they are shown."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in `ru_maxrss`, which is bytes on macOS and KiB on Linux."""


class Cost(NamedTuple):
    """What one process cost."""

    wall_seconds: float
    cpu_seconds: float
    """User and system time. On a busy machine this is the steadier of the two."""
    peak_mb: float
    """Largest resident memory, in 10^6 bytes."""
    output: str


def measure(command: Sequence[str], *, env: Mapping[str, str] | None = None) -> Cost:
    """Run a command to its end and return what it cost.

    Raises:
        SystemExit: the command failed; with the end of what it said.
    """
    begin = time.perf_counter()
    with subprocess.Popen(
        command, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None, "a pipe was asked for"
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - begin
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{output[-2000:]}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * RSS_UNIT / 1e6, output)


def alternate(commands: Mapping[str, Sequence[str]], *, times: int, env: Mapping[str, str]) -> dict[str, Cost]:
    """Run the commands in turns, so that a busy moment hits all of them, and return the medians of each."""
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(times):
        for name, command in commands.items():
            costs[name].append(measure(command, env=env))
    return {
        name: Cost(
            median(c.wall_seconds for c in found),
            median(c.cpu_seconds for c in found),
            median(c.peak_mb for c in found),
            found[-1].output,
        )
        for name, found in costs.items()
    }


def script(name: str) -> str:
    """Return the path of a command that is installed beside this interpreter."""
    return str(Path(sys.executable).with_name(name))


def scratch_env(folder: Path) -> dict[str, str]:
    """Return variables that keep data caches in `folder` and every process off the network."""
    return {
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TQDM_DISABLE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def python(code: str) -> list[str]:
    """Return the command that runs `code` with this interpreter."""
    return [sys.executable, "-c", code]


def title(text: str) -> None:
    """Print what a table holds and how busy the machine is: wall times on a busy one say little by themselves."""
    print(f"{text}\n{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}\n", flush=True)


def show(label: str, cells: Sequence[str], *, aim: str = "") -> None:
    """Print one line of a table."""
    print(f"{label:<40}" + "".join(f"{cell:>14}" for cell in cells) + f"   {aim}".rstrip(), flush=True)


def verdict(value: float, limit: float, unit: str) -> str:
    """Say in words whether a target was met: a busy machine must not fail the whole comparison."""
    return f"target < {limit:g} {unit}: {'met' if value < limit else 'MISSED'}"
