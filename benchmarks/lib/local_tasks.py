"""Tasks with generated rows that both programs can run, in a folder of their own: no third party's text, no network."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import yaml

TEXT = """river stone window market harvest bridge copper lantern orchard harbour winter signal paper garden engine
mirror valley thread silver autumn barrel candle feather kitchen ladder meadow needle ocean pocket quarry ribbon"""
WORDS = TEXT.split()
N_SUBJECTS = 57
N_FEWSHOT_DOCS = 285
"""Five for each of 57 subjects, as in MMLU."""


def write_choices(folder: Path, name: str, *, n_docs: int, fewshot_factor: int = 1) -> None:
    """Write a multiple-choice task of MMLU's shape: 4 choices, 5 examples drawn at random.

    Args:
        folder: made if it isn't there; goes to `--include_path`.
        fewshot_factor: how many times longer than the docs the examples are.
    """
    rng = random.Random(20240715)
    data = {
        "test": _write_rows(folder / f"{name}_test.jsonl", _questions(rng, n_docs, 1)),
        "dev": _write_rows(folder / f"{name}_dev.jsonl", _questions(rng, N_FEWSHOT_DOCS, fewshot_factor)),
    }
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": data},
        "test_split": "test",
        "fewshot_split": "dev",
        "num_fewshot": 5,
        "output_type": "multiple_choice",
        "description": "Questions with four choices.\n\n",
        "doc_to_text": "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\n"
        "D. {{choices[3]}}\nAnswer:",
        "doc_to_choice": ["A", "B", "C", "D"],
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


def write_answers(folder: Path, name: str, *, n_docs: int) -> None:
    """Write a generation task of GSM8K's shape: 5 examples, an answer that a pattern extracts."""
    rng = random.Random(20240716)
    data = {
        "test": _write_rows(folder / f"{name}_test.jsonl", _sums(rng, n_docs)),
        "dev": _write_rows(folder / f"{name}_dev.jsonl", _sums(rng, N_FEWSHOT_DOCS)),
    }
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": data},
        "test_split": "test",
        "fewshot_split": "dev",
        "num_fewshot": 5,
        "output_type": "generate_until",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["Question:"], "do_sample": False},
        "filter_list": [
            {
                "name": "number",
                "filter": [{"function": "regex", "regex_pattern": r"(-?\d+)"}, {"function": "take_first"}],
            }
        ],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


def _questions(rng: random.Random, n_docs: int, factor: int) -> Iterator[dict[str, object]]:
    for i in range(n_docs):
        yield {
            "question": f"Question {i}: which of these goes with {_text(rng, 45 * factor)}?",
            "choices": [_text(rng, 5 * factor) for _ in range(4)],
            "answer": rng.randrange(4),
            "subject": f"subject_{i % N_SUBJECTS}",
        }


def _sums(rng: random.Random, n_docs: int) -> Iterator[dict[str, object]]:
    for i in range(n_docs):
        first, second = rng.randrange(1000), rng.randrange(1000)
        question = f"{_text(rng, 40)}: {first} of them came, then {second} ({i}). How many?"
        yield {"question": question, "answer": str(first + second)}


def _text(rng: random.Random, n_words: int) -> str:
    return " ".join(rng.choices(WORDS, k=n_words))


def _write_rows(path: Path, rows: Iterator[dict[str, object]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)
