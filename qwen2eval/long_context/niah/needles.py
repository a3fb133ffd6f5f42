"""Needle sets: the classic one, fictional ones in the style of the shipped haystack, or a user's own file."""

import re
from dataclasses import dataclass
from pathlib import Path

from qwen2eval.content import content_dir
from qwen2eval.data.jsonl import read_jsonl
from qwen2eval.errors import ConfigError, DataFileError
from qwen2eval.requests import Doc

SHIPPED = ("fictional", "fictional_zh", "classic", "classic_zh")
COLUMNS = ("needle", "question", "keywords")


@dataclass(frozen=True)
class Needle:
    """A sentence to hide, and how to ask for it."""

    needle: str
    question: str
    keywords: tuple[str, ...]
    """All of them are in a right answer."""


def load_needles(name: str) -> list[Needle]:
    """Return a shipped set by its name, or the rows of a JSONL file with `needle`, `question` and `keywords`.

    Raises:
        ConfigError: neither a set nor a file.
        DataFileError: a row without a needle, a question or keywords, or with keywords that the needle doesn't have.
    """
    path = content_dir("tasks") / "niah" / "needles" / f"{name}.jsonl" if name in SHIPPED else Path(name).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"Needle set {name!r} is neither one of {', '.join(SHIPPED)} nor a file: give the path of a JSONL file "
            f"with {', '.join(COLUMNS)} as `needles` in the task's metadata"
        )
    rows = read_jsonl(path, columns=COLUMNS)
    if not rows:
        raise DataFileError(f"{path} holds no needles")
    return [_needle(row, where=f"{path}, row {number}") for number, row in enumerate(rows, 1)]


def _needle(row: Doc, *, where: str) -> Needle:
    keywords = [row["keywords"]] if isinstance(row["keywords"], str) else row["keywords"]
    if not isinstance(keywords, list) or not all(isinstance(word, str) and _has_words(word) for word in keywords):
        raise DataFileError(
            f"{where}: `keywords` is {row['keywords']!r}; it takes a list of words (signs and articles are anywhere)"
        )
    for name in ("needle", "question"):
        if not isinstance(row[name], str) or not row[name].strip():
            raise DataFileError(f"{where}: `{name}` is {row[name]!r}; it takes a text")
    if not keywords:
        raise DataFileError(f"{where}: no keywords, so no answer could be right")
    text = " ".join(row["needle"].casefold().split())
    if absent := [word for word in keywords if " ".join(word.casefold().split()) not in text]:
        raise DataFileError(f"{where}: the needle does not contain its keyword {absent[0]!r}")
    return Needle(" ".join(row["needle"].split()), row["question"].strip(), tuple(keywords))


def _has_words(keyword: str) -> bool:
    """Whether a keyword says something: not only signs, nor articles."""
    words = re.findall(r"\w+", keyword.casefold())
    return bool(set(words) - {"a", "an", "the"})
