"""Which benchmark items are put into the corpus, and how: exactly, edited, by a phrase, or not at all.

What was planted is known for sure only if nothing else in the corpus repeats an item. `NgramGuard` sees to that with
its own few lines, not with `decontam`, whose flags are to be compared with this truth.
"""

# ruff: noqa: RUF001 - Chinese is written with its own signs

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from qwen2eval.demo.dice import Dice

Kind = Literal["exact", "edited", "near_miss", "unseen"]
"""exact: the item's text is in the corpus; edited: with other signs, case or a few other words; near_miss: documents
share a common phrase of 13 words with it, and nothing else; unseen: no document has 13 words of it in a row."""
KINDS: tuple[Kind, ...] = get_args(Kind)
Benchmark = Literal["demo_gsm8k", "demo_humaneval", "demo_mmlu", "demo_niah"]
BENCHMARKS: tuple[Benchmark, ...] = get_args(Benchmark)
NGRAM_SIZE = 13
"""Words in a row that make a match in the Qwen2 report (arXiv 2407.10671, section 5.2.6)."""

_SHARES: Mapping[Kind, float] = {"exact": 0.25, "edited": 0.15, "near_miss": 0.15}
_WORD = re.compile(r"[a-z0-9']+|[\u4e00-\u9fff]")
_NOT_IN_WORD = re.compile(r"['’]")


@dataclass(frozen=True)
class Item:
    """One item of a benchmark."""

    benchmark: Benchmark
    kind: Kind
    group: str
    """MMLU's subject, a needle's language; elsewhere empty."""
    question: str
    """What a corpus is searched for: question, prompt or needle."""
    more: str
    """What is searched for together with it: choices, solution, the needle's question."""
    planted: str
    """The text in the corpus: question and answer as the model learns them; empty if it was not planted."""
    row: Mapping[str, Any]
    """As in the published file."""
    phrase: str = ""
    """What a near miss shares with documents."""


def words(text: str) -> list[str]:
    """Return the words of a text, and Chinese characters one by one, in lower case.

    >>> words("Ana's 2 red hens: 两只鸡")
    ['anas', '2', 'red', 'hens', '两', '只', '鸡']
    """
    return _WORD.findall(_NOT_IN_WORD.sub("", text.lower()))


def ngrams(text: str) -> set[str]:
    """Return all runs of 13 words."""
    found = words(text)
    return {" ".join(found[i : i + NGRAM_SIZE]) for i in range(len(found) - NGRAM_SIZE + 1)}


class NgramGuard:
    """Keeps benchmark items apart from each other, and other documents apart from them."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, text: str, *, phrase: str = "") -> bool:
        """Remember an item's runs of words, unless another item has one of them; return whether it was taken.

        Args:
            phrase: a common one, with which other items may begin, too.
        """
        # The common phrase is meant to be shared: it must not count as a repetition
        if not self._taken.isdisjoint(ngrams(text.replace(phrase, "", 1))):
            return False
        # With the phrase: no other document may have it by chance
        self._taken |= ngrams(text)
        return True

    def lets_pass(self, text: str) -> bool:
        """Return whether a document repeats no item."""
        return self._taken.isdisjoint(ngrams(text))

    def passing(self, make: Callable[[], str], n: int) -> Iterator[str]:
        """Yield `n` texts that pass, made one after the other."""
        while n:
            if self.lets_pass(text := make()):
                n -= 1
                yield text


def kinds(n_items: int, dice: Dice) -> list[Kind]:
    """Return the kinds of a benchmark's items, in random order; what is left by the planted ones is unseen."""
    planted: list[Kind] = [kind for kind, share in _SHARES.items() for _ in range(round(share * n_items))]
    unseen: list[Kind] = ["unseen"] * (n_items - len(planted))
    return dice.shuffled(planted + unseen)


PHRASES: Mapping[Benchmark, Sequence[str]] = {
    "demo_mmlu": (
        "Please read every line on this sheet with care before you choose one answer.",
        "Each good answer given by a child of this school earns one sweet plum.",
    ),
    "demo_gsm8k": (
        "It is a fine and quiet day and all of the shops are open.",
        "As everybody knows, the old bridge is closed again and people walk around it.",
    ),
    "demo_humaneval": (
        "This small tool may be used, copied and changed by all who live here.",
        "Written by the makers of fine machines, with no promise that it works well.",
    ),
    "demo_niah": (
        "As old and young people here have been told again and again by everyone:",
        "This line was copied by hand from the oldest of the seven grey books:",
    ),
}
"""What near misses begin with: 13 words or a few more, less than 0.6 of any item."""
CHINESE_PHRASES: Mapping[Benchmark, str] = {
    "demo_mmlu": "请先仔细读完这一页再选答案。",
    "demo_niah": "村里的老老少少早就都听说过：",
}


def edit(text: str, dice: Dice) -> str:
    """Return a text with other signs, another case, or a few other words."""
    return next(edited for change in dice.shuffled(_EDITS) if (edited := change(text)) != text)


def _other_signs(text: str) -> str:
    return text.translate(_SIGNS)


def _lower_case(text: str) -> str:
    return text.lower()


def _other_words(text: str) -> str:
    """Change at most two words: two of the first ones that have a substitute."""
    n_changes = 0
    for old, new in _SUBSTITUTES.items():
        changed = re.sub(rf"(?<!\w){old}(?!\w)" if old.isascii() else old, new, text, count=1)
        n_changes += changed != text
        text = changed
        if n_changes == 2:
            break
    return text


_SIGNS = str.maketrans({",": " –", ";": ",", ".": "!", "?": " ?!", ":": " –", "，": " ", "。": " . ", "？": "?"})
_EDITS: tuple[Callable[[str], str], ...] = (_other_signs, _lower_case, _other_words)
_SUBSTITUTES = {
    "The town book": "The city book",
    "Look at": "See",
    "At the gate": "By the gate",
    "The big map": "The large map",
    "A traveller": "A stranger",
    "On the third page": "On the next page",
    "Of four numbers": "From four numbers",
    "orders four": "sorts four",
    "put first": "place first",
    "put last": "place last",
    "How many": "What number of",
    "how many": "what number of",
    "come to": "get to",
    "secret": "hidden",
    "takes": "is given",
    "密码": "暗号",
    "请看": "请读",
    "门口": "门边",
    "书里": "本里",
}
