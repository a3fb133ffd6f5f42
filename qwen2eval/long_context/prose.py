"""The shipped haystack: plain prose of a valley that does not exist, from templates and a seed, of any length.

Each paragraph is about one person at one place, has beginning, middle and end; sentences rarely repeat exactly.
The words are in `tasks/niah/prose_en.yaml` and `prose_zh.yaml`.
"""

import random
from collections.abc import Iterator, Mapping
from typing import Any

from qwen2eval.content import content_dir
from qwen2eval.tasks.index import read_task_yaml

PROSE_VERSION = 1
"""Of the templates and of how they are drawn: another version is another text."""
_PRONOUNS = {
    "en": {"he": {"he": "he", "his": "his", "him": "him"}, "she": {"he": "she", "his": "her", "him": "her"}},
    "zh": {"he": dict.fromkeys(("he", "him"), "他"), "she": dict.fromkeys(("he", "him"), "她")},
}
_MIDDLE = (2, 5)
"""Sentences between the first and the last of a paragraph, fewest and most."""


def write_prose(language: str, *, n_chars: int, seed: int) -> list[str]:
    """Return paragraphs of at least `n_chars` characters in all; a longer text of the same seed begins alike.

    Args:
        language: "en" or "zh".
    """
    words = read_task_yaml(content_dir("tasks") / "niah" / f"prose_{language}.yaml")
    paragraphs, n_written = [], 0
    for paragraph in _paragraphs(words, _PRONOUNS[language], random.Random(f"prose {language} {seed}")):
        paragraphs.append(paragraph)
        n_written += len(paragraph)
        if n_written >= n_chars:
            break
    return paragraphs


def _paragraphs(
    words: Mapping[str, Any], pronouns: Mapping[str, Mapping[str, str]], rng: random.Random
) -> Iterator[str]:
    while True:
        gender = rng.choice(("he", "she"))
        fixed = {
            "person": rng.choice(words["people"][gender]),
            "place": rng.choice(words["places"]),
            "trade": rng.choice(words["trades"]),
            **pronouns[gender],
        }
        templates = [
            rng.choice(words["opening"]),
            *rng.sample(words["middle"], rng.randint(*_MIDDLE)),
            rng.choice(words["ending"]),
        ]
        sentences = (template.format_map(_Draws(words["lists"], fixed, rng)) for template in templates)
        yield words["space"].join(sentence[:1].upper() + sentence[1:] for sentence in sentences)


class _Draws(dict[str, str]):
    """The words of one sentence: what is fixed in its paragraph, the rest drawn, no word twice."""

    def __init__(self, lists: Mapping[str, list[str]], fixed: Mapping[str, str], rng: random.Random) -> None:
        super().__init__(fixed)
        self._lists, self._rng = lists, rng
        self._used: set[str] = set()

    def __missing__(self, name: str) -> str:
        word = self._rng.choice([word for word in self._lists[name] if word not in self._used])
        self._used.add(word)
        return word
