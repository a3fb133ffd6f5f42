"""The items of every published benchmark in a data folder, as references: whatever its files look like."""

import csv
import gzip
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from decontam import Reference

Row = dict[str, Any]
Item = tuple[str, str | tuple[str, ...], tuple[str, ...]]
"""Question, answer or choices, other forms."""


class Source(NamedTuple):
    """A benchmark's files, and how a row becomes an item."""

    pattern: str
    item: Callable[[Row], Item]
    is_split: bool = False
    """Whether each file is a benchmark of its own."""


def _fields(question: str, answer: str | None = None, *forms: str) -> Callable[[Row], Item]:
    def item(row: Row) -> Item:
        found = "" if answer is None else row[answer]
        texts = tuple(map(str, found)) if isinstance(found, list) else str(found)
        return row[question], texts, tuple(_text(row[form]) for form in forms)

    return item


def _choices(question: str, *names: str) -> Callable[[Row], Item]:
    return lambda row: (row[question], tuple(str(row[name]) for name in names), ())


def _text(value: object) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _arc(row: Row) -> Item:
    return row["question"]["stem"], tuple(choice["text"] for choice in row["question"]["choices"]), ()


def _belebele(row: Row) -> Item:
    return f"{row['flores_passage']}\n{row['question']}", tuple(row[f"mc_answer{i}"] for i in range(1, 5)), ()


SOURCES = {
    "GSM8K": Source("gsm8k/test.jsonl", _fields("question", "answer")),
    "MATH-500": Source("math500/test.jsonl", _fields("problem", "solution")),
    "MGSM": Source("mgsm/*.tsv", lambda row: (row["0"], row["1"], ()), is_split=True),
    "MMLU": Source("mmlu/test/*.csv", _choices("question", "choice0", "choice1", "choice2", "choice3")),
    "MMLU-Pro": Source("mmlu_pro/test-*.parquet", _fields("question", "options")),
    "CMMLU": Source("cmmlu/data/*/*.csv", _choices("Question", "A", "B", "C", "D")),
    "ARC-Challenge": Source("arc_challenge/ARC-V1-Feb2018-2/*/*.jsonl", _arc),
    "HellaSwag": Source("hellaswag/hellaswag_val.jsonl", _fields("ctx", "endings")),
    "WinoGrande": Source("winogrande/hub/*/*.parquet", _choices("sentence", "option1", "option2")),
    "TruthfulQA": Source("truthfulqa/TruthfulQA.csv", _choices("Question", "Best Answer", "Incorrect Answers")),
    "TheoremQA": Source("theoremqa/theoremqa_test.json", _fields("Question", "Answer")),
    "BBH": Source("bbh/bbh/*.json", _fields("input", "target"), is_split=True),
    "BELEBELE": Source("belebele/*.jsonl", _belebele),
    "XCOPA": Source("xcopa/*/test.*.jsonl", _choices("premise", "choice1", "choice2"), is_split=True),
    "XWinograd": Source("xwinograd/hub/test/*.jsonl", _choices("sentence", "option1", "option2"), is_split=True),
    "PAWS-X": Source("paws_x/x-final/*/test_2k.tsv", lambda row: (row["1"], row["2"], ()), is_split=True),
    "HumanEval": Source("humaneval/*.jsonl.gz", _fields("prompt", "canonical_solution", "test")),
    "MBPP": Source("mbpp/mbpp.jsonl", _fields("text", "code", "test_list")),
    "MultiPL-E": Source("multipl_e/prompts/*.jsonl", _fields("prompt", "tests"), is_split=True),
    "LiveCodeBench": Source("livecodebench/test.jsonl", _fields("question_content")),
    "IFEval": Source("ifeval/input_data.jsonl", _fields("prompt")),
    "MT-Bench": Source("mt_bench/question.jsonl", lambda row: (row["turns"][0], row["turns"][1], ())),
    "Arena-Hard": Source("arena_hard/arena-hard-v0.1/question.jsonl", lambda row: (_turn(row), "", ())),
    "LV-Eval": Source("lveval/scored_outputs/*_0", _fields("input", "gold_ans")),
    "XSTest": Source("safety/xstest_prompts.csv", _fields("prompt")),
}


def _turn(row: Row) -> str:
    return str(row["turns"][0]["content"]) if "turns" in row else str(row["prompt"])


def load_items(data_dir: Path) -> dict[str, list[Reference]]:
    """Return the items of each benchmark whose files are there; items without a letter are left out."""
    found: dict[str, list[Reference]] = {}
    for name, source in SOURCES.items():
        for path in sorted(data_dir.glob(source.pattern)):
            benchmark = f"{name}/{path.stem}" if source.is_split else name
            items = found.setdefault(name, [])
            for row in _rows(path):
                question, answer, forms = source.item(row)
                choices = answer if isinstance(answer, tuple) else ()
                text = "\n".join(answer) if isinstance(answer, tuple) else answer
                if re.search(r"\w", question):
                    items.append(Reference(f"{name}/{len(items)}", question, text, benchmark, choices, forms))
    return found


def _rows(path: Path) -> Iterator[Row]:
    if path.suffix == ".parquet":
        yield from pq.read_table(path).to_pylist()
        return
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text(encoding="utf-8-sig")
    if path.suffix == ".csv":
        yield from csv.DictReader(text.splitlines(keepends=True))
    elif path.suffix == ".tsv":
        yield from (
            {str(i): cell for i, cell in enumerate(line.split("\t"))} for line in text.split("\n") if "\t" in line
        )
    elif path.suffix == ".json":
        rows = json.loads(text)
        yield from rows["examples"] if isinstance(rows, dict) else rows
    else:
        yield from (json.loads(line) for line in text.split("\n") if line.strip())
