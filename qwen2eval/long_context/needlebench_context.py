"""NeedleBench's contexts: haystack texts in a seeded order, cut to length, with needles in their places.

Two ways to build one. `FittedContexts`, the default: the final prompt has exactly the asked number of tokens of the
model under test, and needles stand between sentences. `OriginalContexts`: as OpenCompass (commit a5acc4bb) does with
cl100k_base, whatever the model: a buffer is kept free, needles are put between any two tokens, be it within a word or a
character, the distance of facts counts earlier facts twice, and a context ends where the texts end.
"""

import bisect
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate
from typing import NamedTuple

from qwen2eval.errors import ConfigError
from qwen2eval.long_context.lengths import PromptCounter
from qwen2eval.long_context.needlebench_grid import FACT_GAP_PERCENT
from qwen2eval.long_context.needlebench_texts import Frame
from qwen2eval.long_context.sentences import sentence_ends
from qwen2eval.scoring.needlebench import Part

BETWEEN_TEXTS = "\n\n"
MAX_MOVES = 3
"""Cuts of a haystack for which needles are placed anew."""
MAX_SHORTER = 12
"""Tokens that are tried to be filled up."""
FORGET_AFTER = 256
"""Counts after which tokens are forgotten: those of the haystack come back at once, those around needles never do."""
_FILLERS = (" .", ".", " a", "\n", "。")
"""What makes up for the few tokens that no cut of the haystack gives; each is one token or so."""


class Built(NamedTuple):
    """A prompt and what it became."""

    prompt: str
    n_over: int
    """Tokens by which question and needles alone exceed the asked length; 0 when it is met exactly."""
    is_repeated: bool
    """Whether the haystack texts had to be used more than once."""


@dataclass(frozen=True)
class Hidden:
    """What is hidden, and where."""

    part: Part
    needles: tuple[str, ...]
    depths: tuple[int, ...]
    """Percent; of each needle in multi-needle retrieval, else of the first."""

    @property
    def inserts(self) -> list[str]:
        """The needles as they stand in the text: on lines of their own."""
        return [f"\n{needle}\n" for needle in self.needles]


def haystack_order(n_texts: int, repeat: int) -> list[int]:
    """Return the order of the texts in a repeat: the original shuffles one list again and again, seeded by the repeat.

    >>> haystack_order(4, 0), haystack_order(4, 1)
    ([2, 0, 1, 3], [3, 2, 1, 0])
    """
    order = list(range(n_texts))
    for seed in range(repeat + 1):
        random.Random(seed).shuffle(order)
    return order


def needle_places(
    hidden: Hidden, n_haystack: int, needle_lengths: Sequence[int], *, faithful: bool = False
) -> list[int]:
    """Return how many tokens of the haystack stand before each needle, ascending.

    The facts of one reasoning follow the first at a distance of 10 % of the haystack each.

    Args:
        n_haystack: tokens of the haystack alone.
        needle_lengths: tokens.
        faithful: count the lengths of earlier facts twice, as the original does.

    >>> facts = Hidden("reasoning", ("a", "b", "c"), (50,))
    >>> needle_places(facts, 1000, [20, 30, 25]), needle_places(facts, 1000, [20, 30, 25], faithful=True)
    ([500, 600, 700], [500, 620, 750])
    """
    if hidden.part == "retrieval":
        return [int(n_haystack * (depth / 100)) for depth in hidden.depths]
    gap = n_haystack * (FACT_GAP_PERCENT / 100)
    planned: list[int] = []
    for i in range(len(hidden.needles)):
        place = int(n_haystack * (hidden.depths[0] / 100))
        if i > 0:
            place = int(planned[-1] + (needle_lengths[i - 1] if faithful else 0) + gap)
        # the original lets a planned place lie beyond the haystack by the needles before it
        planned.append(min(place, n_haystack + (sum(needle_lengths[:i]) if faithful else 0)))
    return [min(place, n_haystack) for place in planned]


class Codec(NamedTuple):
    """Text to token ids and back."""

    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]


class OriginalContexts:
    """Contexts of one language as the original makes them.

    Args:
        texts: the haystack, in the file's order.
        encode: text -> token ids; the original's is tiktoken's cl100k_base.
        decode: token ids -> text.
    """

    def __init__(
        self, texts: Sequence[str], encode: Callable[[str], list[int]], decode: Callable[[list[int]], str]
    ) -> None:
        self._encode, self._decode = encode, decode
        self._ids = [encode(text) for text in texts]

    def build(self, frame: Frame, hidden: Hidden, *, n_tokens: int, repeat: int) -> Built:
        """Return a prompt with needles and haystack of `n_tokens` tokens in all.

        Args:
            n_tokens: the context's length without its buffer.
            repeat: number of the haystack's order, from 0.
        """
        needles = [self._encode(text) for text in hidden.inserts]
        n_wanted = max(0, n_tokens - sum(map(len, needles)))
        haystack: list[int] = []
        for i in haystack_order(len(self._ids), repeat):
            haystack += self._ids[i]
            if len(haystack) >= n_wanted:
                break
        haystack = haystack[:n_wanted]
        ids: list[int] = []
        done = 0
        places = needle_places(hidden, len(haystack), [len(needle) for needle in needles], faithful=True)
        for place, needle in zip(places, needles, strict=True):
            ids += haystack[done:place] + needle
            done = place
        return Built(frame.before + self._decode(ids + haystack[done:]) + frame.after, 0, is_repeated=False)


class FittedContexts:
    """Contexts of one language that make the final prompt exactly as long as asked.

    Args:
        texts: the haystack, in the file's order.
        counter: counts tokens of the final prompt, the model's template and all.
    """

    def __init__(self, texts: Sequence[str], counter: PromptCounter) -> None:
        self._texts, self._counter, self._n_counted = [text + BETWEEN_TEXTS for text in texts], counter, 0
        # its last entry is the end of the text
        self._starts = [counter.token_starts(text)[:-1] for text in self._texts]
        self._stack = lru_cache(maxsize=64)(self._new_stack)

    def build(self, frame: Frame, hidden: Hidden, *, n_tokens: int, repeat: int) -> Built:
        """Return a prompt of exactly `n_tokens` tokens, or without haystack where that is longer already.

        Args:
            n_tokens: the final prompt's length.
            repeat: number of the haystack's order, from 0.
        """
        bare = frame.before + "".join(hidden.inserts) + frame.after
        n_haystack = n_tokens - self._count(bare)
        if n_haystack < 0:
            return Built(bare, -n_haystack, is_repeated=False)
        stack, places = self._stack(repeat), list[int]()
        n_tried: set[int] = set()
        while n_haystack not in n_tried:
            haystack = stack.first(n_haystack)
            if len(n_tried) < MAX_MOVES:  # then needles stay where they are, and only the haystack's end moves
                places = self._places(stack, hidden, n_haystack, len(haystack))
            n_tried.add(n_haystack)
            prompt = _assembled(frame, haystack, hidden, places)
            if (missing := n_tokens - self._count(prompt)) == 0:
                return Built(prompt, 0, stack.is_repeated(n_haystack))
            n_haystack = max(0, n_haystack + missing)
        # no cut gives the length: a shorter haystack, filled up
        for n_shorter in range(n_haystack, max(-1, n_haystack - MAX_SHORTER), -1):
            haystack = stack.first(n_shorter)
            places = [min(place, len(haystack)) for place in places]
            missing = n_tokens - self._count(_assembled(frame, haystack, hidden, places))
            for filler in [unit * n for n in range(missing, missing + 2) for unit in _FILLERS] if missing > 0 else []:
                prompt = _assembled(frame, haystack + filler, hidden, places)
                if self._count(prompt) == n_tokens:
                    return Built(prompt, 0, stack.is_repeated(n_shorter))
        raise AssertionError(f"no end of the haystack makes a prompt of {n_tokens} tokens")

    def _places(self, stack: "_Stack", hidden: Hidden, n_haystack: int, n_chars: int) -> list[int]:
        """Return where the needles go, in characters: between sentences, as near to their depths as can be."""
        places = needle_places(hidden, n_haystack, [0] * len(hidden.needles))
        return [min(stack.sentence_end(place), stack.last_end(n_chars)) for place in places]

    def _count(self, user_text: str) -> int:
        self._n_counted += 1
        if self._n_counted % FORGET_AFTER == 0:
            self._counter.forget()
        return self._counter.count(user_text)

    def _new_stack(self, repeat: int) -> "_Stack":
        return _Stack(self._texts, self._starts, repeat)


class _Stack:
    """The haystack of one repeat: texts in their order, and in other orders again once they are used up."""

    def __init__(self, texts: Sequence[str], starts: Sequence[Sequence[int]], repeat: int) -> None:
        self._texts, self._starts, self._rng = texts, starts, random.Random(f"haystack {repeat}")
        self._n_once = sum(map(len, starts))
        self._order: list[int] = []
        self._n_tokens: list[int] = [0]
        self._n_chars: list[int] = [0]
        self._parts: list[str] = []
        self._text = ""
        self._ends: list[int] = []
        self._add(haystack_order(len(texts), repeat))

    def first(self, n_tokens: int) -> str:
        """Return the text of the first tokens."""
        return self._text[: self._char(n_tokens)]

    def sentence_end(self, n_tokens: int) -> int:
        """Return the place between sentences that is nearest to a token's begin, in characters."""
        at = self._char(n_tokens)
        behind = bisect.bisect_right(self._ends, at)
        return min(self._ends[max(0, behind - 1) : behind + 1], key=lambda end: abs(end - at))

    def last_end(self, n_chars: int) -> int:
        """Return the last place between sentences in the first characters."""
        return self._ends[max(0, bisect.bisect_right(self._ends, n_chars) - 1)]

    def is_repeated(self, n_tokens: int) -> bool:
        """Whether the first tokens are more than the texts have."""
        return n_tokens > self._n_once

    def _char(self, n_tokens: int) -> int:
        while n_tokens >= self._n_tokens[-1]:
            again = list(range(len(self._texts)))
            self._rng.shuffle(again)
            self._add(again)
        k = bisect.bisect_right(self._n_tokens, n_tokens) - 1
        return self._n_chars[k] + self._starts[self._order[k]][n_tokens - self._n_tokens[k]]

    def _add(self, order: list[int]) -> None:
        before = len(self._text)
        self._order += order
        self._n_tokens += list(accumulate((len(self._starts[i]) for i in order), initial=self._n_tokens[-1]))[1:]
        self._n_chars += list(accumulate((len(self._texts[i]) for i in order), initial=before))[1:]
        added = "".join(self._texts[i] for i in order)
        self._text += added
        self._ends += [before + end for end in sentence_ends(added)[1 if before else 0 :]]


def load_cl100k() -> Codec:
    """Return tiktoken's cl100k_base, with which the original counts whatever the model is.

    Raises:
        ConfigError: tiktoken is not installed, or its vocabulary is neither cached nor to be had.
    """
    try:
        import tiktoken

        encoding = tiktoken.get_encoding("cl100k_base")
    except ImportError as err:
        raise ConfigError("`faithful: true` counts as the original, with tiktoken: pip install tiktoken") from err
    # tiktoken downloads the vocabulary at first use, and raises whatever its HTTP library does
    except Exception as err:
        raise ConfigError(
            "`faithful: true` counts with tiktoken's cl100k_base, whose vocabulary can't be loaded "
            f"({type(err).__name__}: {err}): run once without --offline, or set TIKTOKEN_CACHE_DIR to a folder with it"
        ) from err
    return Codec(partial(encoding.encode, disallowed_special=()), encoding.decode)


def _assembled(frame: Frame, haystack: str, hidden: Hidden, places: Sequence[int]) -> str:
    parts, done = [frame.before], 0
    for place, needle in zip(places, hidden.inserts, strict=True):
        parts += [haystack[done:place], needle]
        done = place
    return "".join([*parts, haystack[done:], frame.after])
