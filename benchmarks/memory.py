"""Peak memory of a whole run with a model that needs none: 14,000 docs, 4 choices, 5 examples drawn at random.

It may grow with the docs, but not with docs x examples: making the examples four times longer must leave it flat.
"""

import sys
import tempfile
from pathlib import Path

from lib.local_tasks import write_choices
from lib.measure import Cost, measure, scratch_env, script, show, title, verdict

N_DOCS = 14_000
LONGER = 4
MAX_GROWTH = 1.2
"""Prompts kept spelled out would add some 100 MB, a third of the whole."""
ROWS = {
    "half": "half of the docs",
    "big": f"{N_DOCS:,} docs x 4 choices, 5-shot",
    "long": f"the same, examples {LONGER} times longer",
}


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder, env = Path(scratch) / "tasks", scratch_env(Path(scratch))
        write_choices(folder, "half", n_docs=N_DOCS // 2)
        write_choices(folder, "big", n_docs=N_DOCS)
        write_choices(folder, "long", n_docs=N_DOCS, fewshot_factor=LONGER)
        # reading a data set for the first time costs memory that has nothing to do with requests
        measure([script("qwen2eval"), "plan", "--model", "dummy", *tasks(folder, *ROWS)], env=env)

        title("Peak memory in MB and, after the slash, seconds of the whole run")
        show("", ["qwen2eval", "lm-eval", "ratio"])
        ours = {}
        for name, label in ROWS.items():
            command = ["run", "--model", "dummy", *tasks(folder, name), "--output_path", f"{scratch}/{name}"]
            ours[name] = measure([script("qwen2eval"), *command], env=env)
            # two minutes each: only where there is something to compare
            theirs = None if name == "half" else measure([script("lm-eval"), *command, "--log_samples"], env=env)
            compare(label, ours[name], theirs, limit=400 if name == "big" else None)
    a_doc = (ours["big"].peak_mb - ours["half"].peak_mb) * 1000 / (N_DOCS // 2)
    growth = ours["long"].peak_mb / ours["big"].peak_mb
    print(f"\nA doc costs {a_doc:.1f} kB; {LONGER} times longer examples cost {growth:.2f}x")
    if growth > MAX_GROWTH:
        sys.exit("Memory grows with docs x few-shot text: somewhere prompts are kept spelled out")


def tasks(folder: Path, *names: str) -> list[str]:
    return ["--include_path", str(folder), "--tasks", ",".join(names)]


def compare(label: str, ours: Cost, theirs: Cost | None, *, limit: float | None) -> None:
    cells = [f"{cost.peak_mb:.0f}/{cost.wall_seconds:.0f}" for cost in (ours, theirs) if cost is not None]
    ratio = [] if theirs is None else [f"{theirs.peak_mb / ours.peak_mb:.1f}x"]
    show(label, [*cells, *ratio], aim="" if limit is None else verdict(ours.peak_mb, limit, "MB"))


if __name__ == "__main__":
    main()
