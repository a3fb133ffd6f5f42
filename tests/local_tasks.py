"""Four small tasks, one of each kind, over rows that are written here; and short ways to run the command on them.

pick: multiple choice, two random examples in the prompt.   say: greedy generation, two filters.
read: rolling log-likelihood.                               draw: sampled generation, three repeats, a vote.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from qwen2eval.cli.main import main
from qwen2eval.run_folder.folder import Run, load_run

KINDS = ("pick", "say", "read", "draw")
ALL = ",".join(KINDS)
NUMBER = "(-?[0-9]+)"


def rows(n_docs: int, *, start: int = 0) -> list[dict[str, Any]]:
    """Return sums as questions; the last one asks the same as the first, so that two docs share a request."""
    made = []
    for i in range(start, start + n_docs):
        red, blue = (2, 3) if i == start + n_docs - 1 and n_docs > 1 else (2 + i, 3 + 2 * (i - start))
        total = red + blue
        choices = [str(total), str(total + 1), str(total - 1)]
        gold = i % 3
        made.append(
            {
                "question": f"A box holds {red} red pens and {blue} blue ones. How many pens?",
                "choices": choices[-gold:] + choices[:-gold] if gold else choices,
                "gold": gold,
                "answer": str(total),
                "topic": "few" if i < start + n_docs // 2 else "many",
            }
        )
    return made


def write_rows(path: Path, made: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return path


def write_tasks(folder: Path, *, n_docs: int = 6) -> Path:
    """Write the tasks and their rows into `folder`, for `--include_path`."""
    write_rows(folder / "train.jsonl", rows(5, start=40))
    write_rows(folder / "test.jsonl", rows(n_docs))
    for name in KINDS:
        write_task(folder, name)
    return folder


def write_task(folder: Path, name: str, *, like: str | None = None, data: str = "test.jsonl", **changes: Any) -> None:
    """Write one task's YAML.

    Args:
        name: what it is called.
        like: one of KINDS if `name` is none.
        data: the file of its docs, inside `folder`.
        changes: keys of the YAML that replace the usual ones.
    """
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"train": str(folder / "train.jsonl"), "test": str(folder / data)},
            "cache_dir": str(folder / "cache"),
        },
        "test_split": "test",
        "doc_to_text": "{{question}}\nAnswer:",
        "doc_to_target": "{{answer}}",
        "metadata": {"version": 1.0},
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config | _OF_KIND[like or name] | changes, sort_keys=False), encoding="utf-8")


def _chain(name: str, pattern: str, *steps: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {"name": name, "filter": [{"function": "regex", "regex_pattern": pattern, **options}, *steps]}


_FIRST = {"function": "take_first"}
_EXACT = [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]
_OF_KIND: Mapping[str, dict[str, Any]] = {
    "pick": {
        "fewshot_split": "train",
        "num_fewshot": 2,
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
    },
    "say": {
        "output_type": "generate_until",
        "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 6, "do_sample": False},
        "filter_list": [_chain("strict", f"#### {NUMBER}", _FIRST), _chain("loose", NUMBER, _FIRST, group_select=-1)],
        "metric_list": _EXACT,
    },
    "read": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}} {{answer}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    },
    "draw": {
        "output_type": "generate_until",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 5, "do_sample": True, "temperature": 0.8},
        "repeats": 3,
        "filter_list": [_chain("vote", NUMBER, {"function": "majority_vote"}, _FIRST)],
        "metric_list": _EXACT,
    },
}


def words(
    tasks_dir: Path, output: Path, *more: str, tasks: str = ALL, model: str = "dummy", **model_args: Any
) -> list[str]:
    """Return the command line of a run, without `qwen2eval`."""
    given = ["--model_args", ",".join(f"{k}={v}" for k, v in model_args.items())] if model_args else []
    places = ["--include_path", str(tasks_dir), "--output_path", str(output)]
    return ["run", "--model", model, *given, "--tasks", tasks, *places, "--offline", *more]


def run_here(tasks_dir: Path, output: Path, *more: str, exit_code: int = 0, **kwargs: Any) -> Run:
    """Run the command in this process and return its run."""
    assert main(words(tasks_dir, output, *more, **kwargs)) == exit_code
    return load_run(output / "latest")


def run_apart(command: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a process of its own, as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "qwen2eval", *command],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, **env},
    )


def assert_same_results(run: Run, other: Run) -> None:
    """Scores and samples are equal to the last bit, in all columns that `other` has: it may be of an older version."""
    pd.testing.assert_frame_equal(run.scores, other.scores, check_exact=True)
    scored = [name for name, task in run.info.tasks.items() if task.status == "scored"]
    assert list(run.info.tasks) == list(other.info.tasks)
    for name in scored:
        theirs = other.samples(name)
        pd.testing.assert_frame_equal(run.samples(name)[theirs.columns], theirs, check_exact=True)
