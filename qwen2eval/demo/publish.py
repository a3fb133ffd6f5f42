"""Writes the world's texts: corpus, planting list and haystack, and the benchmarks in their published formats.

    python -m qwen2eval.demo.publish --out DIR

The folder has the layout that `--data_dir` takes: `mmlu/`, `gsm8k/`, `humaneval/`, `niah/`; beside them are
`corpus.jsonl.zst` (one document a line: id, text, kind) and `planted.jsonl` (one line for an item and a document that
holds it: benchmark, item, kind, document, row, begin, end; the last four are null for an item that was never planted).
"""

import argparse
import csv
import io
import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from qwen2eval.demo.benchmarks import Benchmarks, Row, make_benchmarks
from qwen2eval.demo.corpus import Document, make_corpus
from qwen2eval.demo.planting import BENCHMARKS
from qwen2eval.demo.prose import Language, paragraph
from qwen2eval.demo.quiz import SUBJECTS
from qwen2eval.demo.world import SEED, World
from qwen2eval.errors import ConfigError, Qwen2EvalError

CORPUS, PLANTED = "corpus.jsonl.zst", "planted.jsonl"
_COMPRESSION = 19
_HAYSTACK_PARAGRAPHS = 400
_SENTENCES = 6
"""Of a paragraph of the haystack, on average."""


def publish(world: World, out: Path, *, scale: float = 1.0) -> dict[str, int]:
    """Write everything into a folder and return counts for the user.

    Args:
        scale: share of the corpus's documents that hold nothing planted.

    Raises:
        ConfigError: a file can't be written, or the scale is under 0.
    """
    if not (math.isfinite(scale) and scale >= 0):
        raise ConfigError(f"scale is {scale}: give a share of the documents, 0 or more")
    benchmarks = make_benchmarks(world)
    documents = make_corpus(world, benchmarks, scale=scale)
    try:
        for name, data in _files(world, benchmarks, documents):
            path = out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    except OSError as err:
        raise ConfigError(f"{str(out)!r} can't be written ({err}): name a folder in which you may write") from err
    counts: dict[str, int] = {name: len(benchmarks.of(name)) for name in BENCHMARKS}
    counts |= dict(sorted(Counter(document.kind for document in documents).items()))
    return counts | {"documents": len(documents), "characters": sum(len(document.text) for document in documents)}


def _files(world: World, benchmarks: Benchmarks, documents: Sequence[Document]) -> Iterator[tuple[str, bytes]]:
    """Yield the path in the folder and the bytes of each file."""
    import zstandard

    rows = ({"id": _id(n), "text": d.text, "kind": d.kind} for n, d in enumerate(documents))
    yield CORPUS, zstandard.ZstdCompressor(level=_COMPRESSION).compress(_jsonl(rows))
    yield PLANTED, _jsonl(_planted(benchmarks, documents))
    for subject in SUBJECTS:
        tests = [item.row for item in benchmarks.of("demo_mmlu") if item.group == subject]
        yield f"mmlu/dev/{subject}_dev.csv", _csv(benchmarks.examples[subject])
        yield f"mmlu/test/{subject}_test.csv", _csv(tests)
    yield "gsm8k/train.jsonl", _jsonl(benchmarks.examples["demo_gsm8k"])
    yield "gsm8k/test.jsonl", _jsonl(item.row for item in benchmarks.of("demo_gsm8k"))
    programs = ({"task_id": f"Demo/{n}"} | dict(item.row) for n, item in enumerate(benchmarks.of("demo_humaneval")))
    yield "humaneval/HumanEval.jsonl", _jsonl(programs)
    languages: tuple[Language, ...] = ("en", "zh")
    for language in languages:
        needles = (item.row for item in benchmarks.of("demo_niah") if item.group == language)
        yield f"niah/needles/{language}.jsonl", _jsonl(needles)
        yield f"niah/haystack/{language}/valley.txt", _haystack(world, language)


def _planted(benchmarks: Benchmarks, documents: Sequence[Document]) -> Iterator[dict[str, Any]]:
    """Yield a row for each item and document that holds it, items in order."""
    found: dict[int, list[dict[str, Any]]] = {}
    for row, document in enumerate(documents):
        for planting in document.plantings:
            where = {"document": _id(row), "row": row, "begin": planting.begin, "end": planting.end}
            found.setdefault(planting.item, []).append(where)
    nowhere = {"document": None, "row": None, "begin": None, "end": None}
    # Items that were never planted have a row, too: the list is the truth about all of them
    for number, (item, name) in enumerate(zip(benchmarks.items, benchmarks.ids(), strict=True)):
        for where in found.get(number, [nowhere]):
            yield {"benchmark": item.benchmark, "item": name, "kind": item.kind} | where


def _id(row: int) -> str:
    return f"valley-{row:06}"


def _haystack(world: World, language: Language) -> bytes:
    """Return text drawn apart from the corpus, a paragraph a line; its sentences may be there, too."""
    dice = world.dice("haystack", language)
    lines = (
        paragraph(world, dice, dice.between(_SENTENCES - 2, _SENTENCES + 2), language)
        for _ in range(_HAYSTACK_PARAGRAPHS)
    )
    return "".join(f"{line}\n" for line in lines).encode()


def _jsonl(rows: Iterable[Mapping[str, object]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _csv(rows: Iterable[Row]) -> bytes:
    """Return rows in MMLU's original form: question, four choices, a letter; no header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([row["question"], *row["choices"], row["answer"]] for row in rows)
    return text.getvalue().encode()


def main(arguments: Sequence[str] | None = None) -> int:
    """Write corpus, planting list and benchmarks of a seed into a folder."""
    parser = argparse.ArgumentParser(prog="python -m qwen2eval.demo.publish", description=main.__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="output folder; created if it does not exist"
    )
    parser.add_argument(
        "--seed", type=int, default=SEED, metavar="N", help="random seed of the world [default: %(default)s]"
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="share of the corpus's documents without planted items",
    )
    args = parser.parse_args(arguments)
    try:
        counts = publish(World(args.seed), args.out, scale=args.scale)
    except Qwen2EvalError as err:
        sys.stderr.write(f"{err}\n")
        return err.exit_code
    sys.stdout.write("".join(f"{name:<14} {count:>9,}\n" for name, count in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
