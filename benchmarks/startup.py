"""How long the first answer takes, beside lm-eval: help, task search, and the way to the model.

The runs are of two local tasks with generated rows, 20 docs each, and of a model that costs nothing.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from lib.local_tasks import write_answers, write_choices
from lib.measure import Cost, alternate, measure, python, scratch_env, script, show, title, verdict

TIMES = 5
LOCAL = ("local_choices", "local_answers")
DEMO = ("demo_mmlu", "demo_gsm8k")
PLAN = """
import sys, time
from qwen2eval import RunConfig
from qwen2eval.evaluate import plan
folder, *tasks = sys.argv[1:]
plan(RunConfig(model="dummy", tasks=tuple(tasks), include_path=(folder,), limit=20))
print(time.time(), time.process_time())
"""
"""All that a run does before it opens the model; prints when it was done, and its processor time."""


def main() -> None:
    ours, theirs = script("qwen2eval"), script("lm-eval")
    with tempfile.TemporaryDirectory() as scratch:
        folder, env = Path(scratch) / "tasks", scratch_env(Path(scratch))
        write_choices(folder, LOCAL[0], n_docs=40)
        write_answers(folder, LOCAL[1], n_docs=40)
        # builds what is built once: our index of lm-eval's tasks, the data sets' cache
        run = ["run", "--model", "dummy", "--include_path", str(folder), "--limit", "20", "--tasks", ",".join(LOCAL)]
        run_ours, run_theirs = [ours, *run, "--output_path", f"{scratch}/a"], [theirs, *run]
        measure([ours, "tasks", "gsm"], env=env)
        measure(run_ours, env=env)

        title(f"Seconds of wall time and, after the slash, of processor time; medians of {TIMES} in turns")
        show("", ["qwen2eval", "lm-eval", "ratio"])
        helps = alternate({"ours": [ours, "--help"], "theirs": [theirs, "--help"]}, times=TIMES, env=env)
        compare("--help", helps["ours"], helps["theirs"], limit=0.5)
        search = alternate({"ours": [ours, "tasks", "gsm"]}, times=TIMES, env=env)["ours"]
        compare("tasks gsm, ls tasks (once)", search, measure([theirs, "ls", "tasks"], env=env), limit=1.0)
        runs = alternate({"ours": run_ours, "theirs": run_theirs}, times=TIMES, env=env)
        compare("a whole run of two tasks", runs["ours"], runs["theirs"])

        print("\nSeconds from the start of the process to a finished plan: then the model is opened\n")
        for tasks in (LOCAL, DEMO):
            times = [until_planned(folder, tasks, env) for _ in range(TIMES)]
            wall, cpu = (median(of_kind) for of_kind in zip(*times, strict=True))
            show(", ".join(tasks), [f"{wall:.2f}/{cpu:.2f}"], aim=verdict(wall, 2.0, "s"))


def compare(label: str, ours: Cost, theirs: Cost, *, limit: float | None = None) -> None:
    times = [f"{cost.wall_seconds:.2f}/{cost.cpu_seconds:.2f}" for cost in (ours, theirs)]
    aim = "" if limit is None else verdict(ours.wall_seconds, limit, "s")
    show(label, [*times, f"{theirs.wall_seconds / ours.wall_seconds:.1f}x"], aim=aim)


def until_planned(folder: Path, tasks: Sequence[str], env: Mapping[str, str]) -> tuple[float, float]:
    """Return wall and processor seconds from the start of the process until its plan is made."""
    begin = time.time()
    finished, cpu_seconds = measure([*python(PLAN), str(folder), *tasks], env=env).output.split()[-2:]
    return float(finished) - begin, float(cpu_seconds)


if __name__ == "__main__":
    main()
