"""Peak memory of a whole run with a model that needs none: 14,000 docs, 4 choices, 5 examples drawn at random.

It may grow with the docs, but not with docs x examples: making the examples four times longer must leave it flat.
"""

import sys
import tempfile
from pathlib import Path

from lib.local_tasks import write_choices
from lib.measure import Cost, measure, scratch_env, script, show, verdict

N_DOCS = 14_000
LONGER = 4
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

        print("Peak memory in MB and, after the slash, seconds of the whole run\n")
        show("", ["qwen2eval", "lm-eval", "ratio"])
        ours = {}
        for name, label in ROWS.items():
            command = ["run", "--model", "dummy", *tasks(folder, name), "--output_path", f"{scratch}/{name}"]
            ours[name] = measure([script("qwen2eval"), *command], env=env)
            theirs = measure([script("lm-eval"), *command, "--log_samples"], env=env)
            compare(label, ours[name], theirs, limit=400 if name == "big" else None)
    a_doc = (ours["big"].peak_mb - ours["half"].peak_mb) * 1000 / (N_DOCS // 2)
    growth = ours["long"].peak_mb / ours["big"].peak_mb
    print(f"\nA doc costs {a_doc:.1f} kB; {LONGER} times longer examples cost {growth:.2f}x")
    if growth > 1.2:
        sys.exit("Memory grows with docs x few-shot text: a prompt is held in more than one copy")


def tasks(folder: Path, *names: str) -> list[str]:
    return ["--include_path", str(folder), "--tasks", ",".join(names)]


def compare(label: str, ours: Cost, theirs: Cost, *, limit: float | None) -> None:
    cells = [f"{cost.peak_mb:.0f}/{cost.wall_seconds:.0f} s" for cost in (ours, theirs)]
    aim = "" if limit is None else verdict(ours.peak_mb, limit, "MB")
    show(label, [*cells, f"{theirs.peak_mb / ours.peak_mb:.1f}x"], aim=aim)


if __name__ == "__main__":
    main()
