"""Which benchmark items a scan finds in which form: every benchmark of a data folder, planted in real text.

Needs QWEN2EVAL_DATA with the published files, and novels under `haystack/`. Each item is written in each of twelve ways
into a passage of a novel, items with Chinese characters into a Chinese one. A cell is the share of items found by the
strict rule, of those that the index calls testable by n-grams in this form; `+` and a share for those that it calls
testable by their whole question only, found by any rule. The last two ways are edits, for which nothing is promised.
Precision: of all items that the strict rule finds in a document, the share of those that were written there: the
planted one, and others whose whole question is part of its text.

    benchmarks/decontam_recall.py [--items 300] [--benchmarks GSM8K,MMLU]
"""

import argparse
import os
import random
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from lib.benchmark_items import load_items

from decontam import Reference, ReferenceIndex
from decontam.item_ngrams import FoundBy
from decontam.rule import QWEN2, STRICT, WHOLE

LETTERS, CIRCLED = "ABCDEFGHIJKLMNOPQRST", "①②③④⑤⑥⑦⑧⑨⑩⑪⑫⑬⑭⑮⑯⑰⑱⑲⑳"
PASSAGE = 1_500
"""Characters of a document besides the item."""


def listed(item: Reference, label: str, order: Sequence[int] | None = None, between: str = "\n") -> str:
    """Return an item with a label before each of its choices, or with its answer."""
    if not item.choices:
        return f"{item.text}\n{item.answer}"
    places = range(len(item.choices)) if order is None else order
    labels = (label.format(LETTERS[i], CIRCLED[i], i + 1) for i in range(len(places)))
    return item.text + "\n" + between.join(x + item.choices[i] for x, i in zip(labels, places, strict=True))


def shuffled(item: Reference, rng: random.Random) -> list[int]:
    return rng.sample(range(len(item.choices)), len(item.choices))


class Way(NamedTuple):
    """How an item is written into a document."""

    form: str
    """The form of the index that it is; "": it is edited, so nothing is promised."""
    write: Callable[[Reference, random.Random], str]


WAYS = {
    "question": Way("question", lambda item, _: item.text),
    "with answer": Way("question_answer", lambda item, _: listed(item, "- ")),
    "A.": Way("lettered", lambda item, _: listed(item, "{0}. ")),
    "(a)": Way("lettered", lambda item, _: listed(item, "({0}) ").lower()),
    "①, one line": Way("lettered", lambda item, _: listed(item, "{1} ", between="  ")),
    "A), any order": Way("any_order", lambda item, rng: listed(item, "{0}) ", shuffled(item, rng))),
    "*, any order": Way("any_order", lambda item, rng: listed(item, "* ", shuffled(item, rng))),
    "Question: Answer:": Way("question", lambda item, _: f"Question: {item.text}\nAnswer: {item.parts[0]}"),
    "upper case, wrapped": Way(
        "question_answer", lambda item, _: textwrap.fill(listed(item, "").upper(), 50, break_long_words=False)
    ),
    "tests": Way("other", lambda item, _: item.forms[0]),
    "5 % of words changed": Way(
        "", lambda item, rng: re.sub(r"\w+", lambda m: "other" if rng.random() < 0.05 else m[0], listed(item, ""))
    ),
    "first two thirds": Way("", lambda item, _: listed(item, "")[: len(listed(item, "")) * 2 // 3]),
}


class Cell(NamedTuple):
    """What was found of items planted in one way."""

    n_testable: int
    n_strict: int
    n_whole_testable: int
    n_whole: int

    def __str__(self) -> str:
        shares = [f"{self.n_strict / self.n_testable:.3f}" if self.n_testable else ""]
        if self.n_whole_testable:
            shares.append(f"+{self.n_whole / self.n_whole_testable:.3f}")
        return " ".join(filter(None, shares)) or "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=300, help="of each benchmark, drawn at random [default: 300]")
    parser.add_argument("--benchmarks", default="", help="only these, with commas between [default: all]")
    args = parser.parse_args()
    data_dir = Path(os.environ.get("QWEN2EVAL_DATA") or sys.exit(f"QWEN2EVAL_DATA is not set: see {__file__}"))
    novels = {name: text_of(data_dir, f"haystack/{name}") for name in ("en/2701-0.txt", "zh/23962-0.txt")}
    wanted = args.benchmarks.split(",") if args.benchmarks else None
    print("| benchmark | items |", " | ".join(WAYS), "| precision |")
    print("|:--|--:|" + "--:|" * (len(WAYS) + 1))
    for name, items in load_items(data_dir).items():
        if wanted is None or name in wanted:
            cells, precision = measure(items, novels, args.items)
            print(f"| {name} | {len(items):,} |", " | ".join(map(str, cells)), f"| {precision} |", flush=True)


def measure(items: Sequence[Reference], novels: dict[str, str], most: int) -> tuple[list[Cell], str]:
    """Plant items of a benchmark in all ways, and return what is found of each."""
    rng, index = random.Random(0), ReferenceIndex.build(items)
    chosen = sorted(rng.sample(range(len(items)), min(most, len(items))))
    cells, n_right, n_wrong = [], 0, 0
    for way in WAYS.values():
        counts = Counter[tuple[str, bool]]()
        batch = [(item, way.write(items[item], rng)) for item in chosen if way.form != "other" or items[item].forms]
        for item, text in batch:
            found = rules_of(index, planted(text, novels, rng))
            kind = testable(index, item, has_choices=bool(items[item].choices), way=way)
            counts[kind, kind == "ngram" and found.get(item) in (STRICT, QWEN2)] += 1
            counts[f"any {kind}", found.get(item) in (STRICT, QWEN2, WHOLE)] += 1
            strict = [other for other, rule in found.items() if rule in (STRICT, QWEN2)]
            right = [other for other in strict if is_in(text, items[item], items[other])]
            n_right, n_wrong = n_right + len(right), n_wrong + len(strict) - len(right)
        n_testable = counts["ngram", True] + counts["ngram", False]
        n_whole = counts["any whole", True], counts["any whole", True] + counts["any whole", False]
        cells.append(Cell(n_testable, counts["ngram", True], n_whole[1], n_whole[0]))
    return cells, f"{n_right / (n_right + n_wrong):.3f}" if n_right + n_wrong else "–"


def testable(index: ReferenceIndex, item: int, *, has_choices: bool, way: Way) -> str:
    """Return by what an item is to be found in a way: ngram, whole or nothing."""
    if not way.form:
        return "ngram" if index.testable[item] else "nothing"
    values = index.forms._asdict()
    # an item without choices is written with its answer, or alone
    form = way.form if way.form == "other" or has_choices or way.form == "question" else "question_answer"
    found = FoundBy(int(values[form][item]))
    found = FoundBy(int(values["question"][item])) if found is FoundBy.NO_FORM else found
    return {FoundBy.NGRAM: "ngram", FoundBy.WHOLE: "whole"}.get(found, "nothing")


def rules_of(index: ReferenceIndex, document: str) -> dict[int, int]:
    """Return the items that are found in a document, and by which rule."""
    _, items, rules, _ = index.find_in_texts([document]).every_item.T
    return dict(zip(items.tolist(), rules.tolist(), strict=True))


def planted(text: str, novels: dict[str, str], rng: random.Random) -> str:
    """Return a passage of a novel with a text in its middle."""
    novel = novels["zh/23962-0.txt" if re.search(r"[\u3040-\u30ff\u4e00-\u9fff]", text) else "en/2701-0.txt"]
    begin = rng.randrange(len(novel) - PASSAGE)
    passage = novel[begin : begin + PASSAGE]
    return f"{passage[: PASSAGE // 2]}\n{text}\n{passage[PASSAGE // 2 :]}"


def is_in(text: str, planted_item: Reference, other: Reference) -> bool:
    """Whether a text holds an item: the planted one, one with the same words, or one whose whole question is in it."""
    words, own, wanted = (re.sub(r"[\W_]+", " ", one.lower()).strip() for one in (text, planted_item.text, other.text))
    return own == wanted or f" {wanted} " in f" {words} "


def text_of(data_dir: Path, name: str) -> str:
    return (data_dir / name).read_text(encoding="utf-8-sig")


if __name__ == "__main__":
    main()
