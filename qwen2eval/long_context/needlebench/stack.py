"""NeedleBench's haystack of one repeat: its texts in their order, as places of characters, tokens and sentences.

Texts are tokenized and parted into sentences once for all repeats, lengths and parts of the benchmark. The haystack of
a repeat is an order of them, and is never built in full.
"""

import bisect
import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from qwen2eval.long_context.lengths import PromptCounter
from qwen2eval.long_context.safe_cuts import first_cut, last_cut
from qwen2eval.long_context.sentences import sentence_ends

BETWEEN_TEXTS = "\n\n"
WINDOW = 64
"""Characters in which a cut is looked for, to begin with."""


@dataclass(frozen=True)
class Texts:
    """The texts of a haystack, in the file's order, with what is known of each by itself."""

    texts: Sequence[str]
    """Each with the blank line that follows it."""
    starts: "Sequence[array[int]]"
    """Where each token begins, in characters."""
    ends: "Sequence[array[int]]"
    """Places between sentences, in characters; the begin is not one."""
    is_exact: bool
    """Whether every token has a place."""


def measured_texts(texts: Sequence[str], counter: PromptCounter) -> Texts:
    """Return the texts with their tokens and sentences; the last ones are kept for the benchmark's other parts."""
    return _measured(tuple(texts), _ByIdentity(counter))


def haystack_order(n_texts: int, repeat: int) -> list[int]:
    """Return the order of the texts in a repeat: the original shuffles one list again and again, seeded by the repeat.

    >>> haystack_order(4, 0), haystack_order(4, 1)
    ([2, 0, 1, 3], [3, 2, 1, 0])
    """
    order = list(range(n_texts))
    for seed in range(repeat + 1):
        random.Random(seed).shuffle(order)
    return order


class Stack:
    """The haystack of one repeat: texts in their order, and in other orders again once they are used up."""

    def __init__(self, texts: Texts, counter: PromptCounter, repeat: int) -> None:
        self._texts, self._counter, self._rng = texts, counter, random.Random(f"haystack {repeat}")
        self._n_once = sum(map(len, texts.starts))
        self._order: list[int] = []
        self._n_tokens: list[int] = [0]
        self._n_chars: list[int] = [0]
        # where texts don't part tokens: behind which character, and how many tokens more there are in all
        self._seams: list[int] = [0]
        self._more: list[int] = [0]
        self.is_countable = counter.has_safe_cuts and texts.is_exact
        """Whether `token_at` is right."""
        self._add(haystack_order(len(texts.texts), repeat))

    def between(self, begin: int, end: int) -> str:
        """Return the haystack from one character to another."""
        k = bisect.bisect_right(self._n_chars, begin) - 1
        parts = []
        while begin < end:
            at = self._n_chars[k]
            parts.append(self._texts.texts[self._order[k]][begin - at : end - at])
            begin, k = self._n_chars[k + 1], k + 1
        return "".join(parts)

    def char_at(self, n_tokens: int) -> int:
        """Return how many characters the first tokens have, as the texts are tokenized by themselves."""
        # The texts are used up: they follow again in a new order, as often as needed
        if not self._n_once:
            raise self._counter.no_tokens_error(self._texts.texts[0])
        while n_tokens >= self._n_tokens[-1]:
            again = list(range(len(self._texts.texts)))
            self._rng.shuffle(again)
            self._add(again)
        k = bisect.bisect_right(self._n_tokens, n_tokens) - 1
        return self._n_chars[k] + self._texts.starts[self._order[k]][n_tokens - self._n_tokens[k]]

    def sentence_end(self, n_tokens: int) -> int:
        """Return the place between sentences that is nearest to a token's begin, in characters."""
        at = self.char_at(n_tokens)
        behind = self.last_end(at)
        k = bisect.bisect_right(self._n_chars, at) - 1
        while k < len(self._order):
            ends = self._texts.ends[self._order[k]]
            if (i := bisect.bisect_right(ends, at - self._n_chars[k])) < len(ends):
                return min(behind, self._n_chars[k] + ends[i], key=lambda end: abs(end - at))
            k += 1
        return behind

    def last_end(self, n_chars: int) -> int:
        """Return the last place between sentences in the first characters."""
        for k in range(min(bisect.bisect_right(self._n_chars, n_chars), len(self._order)) - 1, -1, -1):
            ends = self._texts.ends[self._order[k]]
            if i := bisect.bisect_right(ends, n_chars - self._n_chars[k]):
                return self._n_chars[k] + ends[i - 1]
        return 0

    def is_repeated(self, n_tokens: int) -> bool:
        """Whether the first tokens are more than the texts have."""
        return n_tokens > self._n_once

    def first_cut(self, begin: int, end: int) -> int | None:
        """Return the first place between two others where tokens are always parted; None where there is none."""
        window = WINDOW
        while True:
            until = min(end, begin + window)
            if (found := first_cut(self.between(begin, until))) is not None:
                return begin + found
            if until == end:
                return None
            window *= 8

    def last_cut(self, begin: int, end: int) -> int | None:
        """Return the last place between two others where tokens are always parted; None where there is none."""
        window = WINDOW
        while True:
            since = max(begin, end - window)
            if (found := last_cut(self.between(since, end))) is not None:
                return since + found
            if since == begin:
                return None
            window *= 8

    def token_at(self, cut: int) -> int:
        """Return how many tokens the haystack has up to a place where tokens are always parted."""
        k = bisect.bisect_right(self._n_chars, cut) - 1
        n_tokens = self._n_tokens[k]
        if cut > self._n_chars[k]:
            n_tokens += bisect.bisect_left(self._texts.starts[self._order[k]], cut - self._n_chars[k])
        return n_tokens + self._more[bisect.bisect_right(self._seams, cut) - 1]

    def _add(self, order: list[int]) -> None:
        begin = self._n_chars[-1]
        self._order += order
        texts, starts = self._texts.texts, self._texts.starts
        self._n_tokens += list(accumulate((len(starts[i]) for i in order), initial=self._n_tokens[-1]))[1:]
        self._n_chars += list(accumulate((len(texts[i]) for i in order), initial=begin))[1:]
        if self.is_countable:
            self._count_seams(begin)

    def _count_seams(self, begin: int) -> None:
        """Note how many tokens more or fewer texts have together, where one begins with white space."""
        for place in self._n_chars[bisect.bisect_left(self._n_chars, max(begin, 1)) : -1]:
            if place < self._seams[-1] or not self.between(place, place + 1).isspace():
                continue
            left = self.last_cut(self._seams[-1], place) or self._seams[-1]
            if (right := self.first_cut(place, self._n_chars[-1])) is None:
                # No text behind this one: a corpus of white space
                self.is_countable = False
                return
            n_tokens = self._counter.count_alone(self.between(left, right))
            apart = self.token_at(right) - self.token_at(left)
            self._seams.append(right)
            self._more.append(self._more[-1] + n_tokens - apart)


class _ByIdentity:
    """A counter as a key: measures of another one's tokenizer are others."""

    def __init__(self, counter: PromptCounter) -> None:
        self.counter = counter

    def __hash__(self) -> int:
        return id(self.counter.spec.tokenizer)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and self.counter.spec.tokenizer is other.counter.spec.tokenizer


@lru_cache(maxsize=2)
def _measured(texts: tuple[str, ...], key: _ByIdentity) -> Texts:
    """Measure the texts of a language; two languages are kept."""
    whole = [text + BETWEEN_TEXTS for text in texts]
    n_lost = key.counter.n_lost
    starts = [key.counter.token_starts(text)[:-1] for text in whole]
    key.counter.forget()
    ends = [array("I", sentence_ends(text)[1:]) for text in whole]
    return Texts(whole, starts, ends, is_exact=key.counter.n_lost == n_lost)
