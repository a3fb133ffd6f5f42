"""NeedleBench and LV-Eval in their published formats and sizes, with words of our own: no third party's text.

Sizes are those of the published files: 2 MB of English essays in paragraphs, 2.5 MB of Chinese articles in lines, 376
needles; LV-Eval's rows of a level by words (English) or characters (Chinese).
"""

import json
import random
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from qwen2eval.long_context.prose import write_prose

ESSAY_CHARS, N_ESSAYS = 13_400, 147
ARTICLE_CHARS, N_ARTICLES = 1_700, 500
N_NEEDLES = 188
"""In each language."""
N_CHAINS = 60
"""Of each number of facts, in each language."""
N_NAMES = 600
PASSAGE_CHARS = {"en": 9_000, "zh": 3_000}
CHARS_PER_WORD = 5.3
"""Of the shipped prose, spaces counted."""


def write_needlebench(data_dir: Path, *, has_blank_lines: bool = False) -> Path:
    """Write NeedleBench's files into `data_dir/needlebench` and return `data_dir`.

    Args:
        has_blank_lines: between the paragraphs of an essay, where a prompt can be tokenized in pieces. Without is the
            dearer case.
    """
    folder = data_dir / "needlebench"
    folder.mkdir(parents=True, exist_ok=True)
    needles = [row for i in range(N_NEEDLES) for row in (_english_needle(i), _chinese_needle(i))]
    _write_lines(folder / "needles.jsonl", needles)
    names = {"English": [f"Ann Quill{i}" for i in range(N_NAMES)], "Chinese": [f"王林{i}" for i in range(N_NAMES)]}
    (folder / "names.json").write_text(json.dumps({language: ",".join(some) for language, some in names.items()}))
    for code in ("en", "zh"):
        chains = [_chain(k, i) for k in (2, 3, 4, 5) for i in range(N_CHAINS)]
        (folder / f"multi_needle_reasoning_{code}.json").write_text(json.dumps(chains))
    between = "\n\n" if has_blank_lines else "\n"
    essays = _texts("en", N_ESSAYS, n_chars=ESSAY_CHARS, between=between, seed=1)
    articles = _texts("zh", N_ARTICLES, n_chars=ARTICLE_CHARS, between="\n", seed=1)
    _write_lines(folder / "PaulGrahamEssays.jsonl", ({"text": text} for text in essays))
    _write_lines(folder / "zh_finance.jsonl", ({"text": text} for text in articles))
    return data_dir


def write_lveval(data_dir: Path, dataset: str, level: str, *, language: str, n_rows: int) -> Path:
    """Write one data set of one level as the hub's zip into `data_dir/lveval` and return `data_dir`.

    Args:
        level: such as "128k": thousands of words, Chinese: of characters.
        language: "en" or "zh".
    """
    folder = data_dir / "lveval"
    folder.mkdir(parents=True, exist_ok=True)
    n_words = int(level.removesuffix("k")) * 1_000
    n_chars = int(n_words * CHARS_PER_WORD) if language == "en" else n_words
    rng = random.Random(f"{dataset} {level}")
    each = PASSAGE_CHARS[language]
    passages = list(_texts(language, 2 * n_chars // each, n_chars=each, between="\n", seed=2))
    with (
        zipfile.ZipFile(folder / f"{dataset}.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(f"{dataset}/{dataset}_{level}.jsonl", "w", force_zip64=True) as file,
    ):
        for i in range(n_rows):
            some = rng.sample(passages, n_chars // each)
            context = "\n\n".join(f"### Passage {k}\n{passage}" for k, passage in enumerate(some, 1))
            question, answer = (f"Who keeps bee {i}?", "Anna") if language == "en" else (f"谁养蜂{i}？", "张三")  # noqa: RUF001
            row = {"input": question, "context": context, "answers": [answer], "length": n_words}
            file.write(
                json.dumps(row | {"dataset": dataset, "language": language}, ensure_ascii=False).encode() + b"\n"
            )
    return data_dir


def _texts(language: str, n_texts: int, *, n_chars: int, between: str, seed: int) -> Iterator[str]:
    """Yield texts of paragraphs."""
    some, n_so_far, n_made = list[str](), 0, 0
    for paragraph in write_prose(language, n_chars=(n_chars + 400) * n_texts, seed=seed):
        some.append(paragraph)
        n_so_far += len(paragraph)
        if n_so_far >= n_chars and n_made < n_texts:
            yield between.join(some)
            some, n_so_far, n_made = [], 0, n_made + 1


def _english_needle(i: int) -> dict[str, str]:
    place, thing = f"Emberly Isle {i}", f"Lantern Shard {i}"
    question = f"What legendary item is hidden on {place}?"
    form = f"Please answer in the format 'The legendary item hidden on {place} is ____.'"
    needle = f"Hidden on {place} is the legendary {thing}."
    return {
        "language": "English",
        "needle": needle,
        "retrieval_question": f"{question} {form}",
        "arg1": place,
        "arg2": thing,
    }


def _chinese_needle(i: int) -> dict[str, str]:
    place, thing = f"烛光岛{i}", f"星灯碎片{i}"
    return {
        "language": "Chinese",
        "needle": f"{place}上藏着传说中的{thing}。",
        "retrieval_question": f"{place}上藏着什么传说中的东西？请按照'{place}上藏着的是____。'的格式回答。",  # noqa: RUF001
        "arg1": place,
        "arg2": thing,
    }


def _chain(n_facts: int, i: int) -> dict[str, Any]:
    facts = [f"The letter of case {n_facts}-{i} went by road {j} to the mill at Upper Fenwick." for j in range(n_facts)]
    question = f"Who wrote the letter of case {n_facts}-{i}?"
    return {"derivations": facts, "derivation_count": n_facts, "question": question, "answer": f"Lord {i} of {n_facts}"}


def _write_lines(path: Path, rows: Iterable[Any]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
