"""NeedleBench's contexts: haystack texts in a seeded order, cut to length, with needles in their places.

Two ways to build one. `FittedContexts`, the default: the final prompt has exactly the asked number of tokens of the
model under test, and needles are placed between sentences. `OriginalContexts`: as OpenCompass (commit a5acc4bb) does
with cl100k_base, whatever the model: a buffer is kept free, needles are put between any two tokens, even within a word
or a character, the distance of facts counts earlier facts twice, and a context ends where the texts end.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

from qwen2eval.errors import ConfigError
from qwen2eval.long_context.lengths import PromptCounter
from qwen2eval.long_context.needlebench.cut import Around, Cut, count_tokens, frame_around, spelled
from qwen2eval.long_context.needlebench.grid import FACT_GAP_PERCENT
from qwen2eval.long_context.needlebench.scoring import Part
from qwen2eval.long_context.needlebench.stack import Stack, haystack_order, measured_texts
from qwen2eval.long_context.needlebench.texts import Frame

MAX_MOVES = 3
"""Cuts of a haystack for which needles are placed anew."""
MAX_SHORTER = 12
"""Tokens that are tried to be filled up."""
FORGET_AFTER = 256
"""Counts after which tokens are forgotten: those of the haystack come back at once, those around needles never do."""
VOCABULARY_URL = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
VOCABULARY_FILE = hashlib.sha1(VOCABULARY_URL.encode()).hexdigest()  # noqa: S324 - tiktoken's way to name files
"""What tiktoken calls the vocabulary in its folder."""
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
        """The needles as the text has them: on separate lines."""
        return [f"\n{needle}\n" for needle in self.needles]


def needle_places(
    hidden: Hidden, n_haystack: int, needle_lengths: Sequence[int], *, faithful: bool = False
) -> list[int]:
    """Return how many tokens of the haystack precede each needle, ascending.

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
        self._counter, self._n_counted = counter, 0
        self._texts = measured_texts(texts, counter)
        self._stack = lru_cache(maxsize=64)(lambda repeat: Stack(self._texts, counter, repeat))
        self._around = lru_cache(maxsize=256)(self._new_around)

    def build(self, frame: Frame, hidden: Hidden, *, n_tokens: int, repeat: int) -> Built:
        """Return a prompt of exactly `n_tokens` tokens, or without haystack where that is longer already.

        Args:
            n_tokens: the final prompt's length.
            repeat: number of the haystack's order, from 0.
        """
        stack = self._stack(repeat)
        around = self._around(frame)
        cut, n_tried = Cut(0, hidden.inserts, [0] * len(hidden.needles)), set[int]()
        n_haystack = n_tokens - self._count(stack, frame, around, cut)
        if n_haystack < 0:
            return Built(spelled(stack, *frame, cut), -n_haystack, is_repeated=False)
        while n_haystack not in n_tried:
            end = stack.char_at(n_haystack)
            # after some moves needles stay where they are, and only the haystack's end moves
            places = self._places(stack, hidden, n_haystack, end) if len(n_tried) < MAX_MOVES else cut.places
            cut = Cut(end, hidden.inserts, places)
            n_tried.add(n_haystack)
            if (missing := n_tokens - self._count(stack, frame, around, cut)) == 0:
                return Built(spelled(stack, *frame, cut), 0, stack.is_repeated(n_haystack))
            n_haystack = max(0, n_haystack + missing)
        return self._filled_up(stack, frame, around, cut, n_tokens=n_tokens, n_haystack=n_haystack)

    def _filled_up(
        self, stack: Stack, frame: Frame, around: Around | None, cut: Cut, *, n_tokens: int, n_haystack: int
    ) -> Built:
        """Return a prompt whose haystack is shorter than any that fits, and filled up, as no cut gives the length."""
        for n_shorter in range(n_haystack, max(-1, n_haystack - MAX_SHORTER), -1):
            end = stack.char_at(n_shorter)
            cut = Cut(end, cut.inserts, [min(place, end) for place in cut.places])
            missing = n_tokens - self._count(stack, frame, around, cut)
            for filler in [unit * n for n in range(missing, missing + 2) for unit in _FILLERS] if missing > 0 else []:
                filled = cut._replace(filler=filler)
                if self._count(stack, frame, around, filled) == n_tokens:
                    return Built(spelled(stack, *frame, filled), 0, stack.is_repeated(n_shorter))
        raise AssertionError(f"no end of the haystack makes a prompt of {n_tokens} tokens")

    def _places(self, stack: Stack, hidden: Hidden, n_haystack: int, n_chars: int) -> list[int]:
        """Return where the needles go, in characters: between sentences, as near to their depths as can be."""
        places = needle_places(hidden, n_haystack, [0] * len(hidden.needles))
        last = stack.last_end(n_chars)
        return [min(stack.sentence_end(place), last) for place in places]

    def _count(self, stack: Stack, frame: Frame, around: Around | None, cut: Cut) -> int:
        # asked each time: a haystack that begins again may cease to be countable
        if around is not None and stack.is_countable:
            return count_tokens(stack, around, cut, self._counter)
        self._n_counted += 1
        if self._n_counted % FORGET_AFTER == 0:
            self._counter.forget()
        return self._counter.count(spelled(stack, *frame, cut))

    def _new_around(self, frame: Frame) -> Around | None:
        return frame_around(*frame, self._counter)


def load_cl100k(*, offline: bool) -> Codec:
    """Return tiktoken's cl100k_base, with which the original counts whatever the model is.

    Args:
        offline: take the vocabulary from tiktoken's folder only.

    Raises:
        ConfigError: tiktoken is not installed, or its vocabulary is neither there nor to be had.
    """
    try:
        import tiktoken
    except ImportError as err:
        raise ConfigError("`faithful: true` counts as the original, with tiktoken: pip install tiktoken") from err
    if offline and not _has_vocabulary():
        raise ConfigError(_no_vocabulary("--offline is set"))
    try:
        encoding = tiktoken.get_encoding("cl100k_base")
    # tiktoken downloads the vocabulary at first use, and raises whatever its HTTP library does
    except Exception as err:
        raise ConfigError(_no_vocabulary(f"{type(err).__name__}: {err}")) from err
    return Codec(partial(encoding.encode, disallowed_special=()), encoding.decode)


def _has_vocabulary() -> bool:
    """Whether tiktoken needs no network: its vocabulary is loaded already, or lies in its folder."""
    from tiktoken import registry

    return "cl100k_base" in registry.ENCODINGS or (_tiktoken_folder() / VOCABULARY_FILE).is_file()


def _tiktoken_folder() -> Path:
    """Return where tiktoken keeps vocabularies, by its own rule."""
    named = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    return Path(named) if named else Path(tempfile.gettempdir()) / "data-gym-cache"


def _no_vocabulary(why: str) -> str:
    return (
        f"`faithful: true` counts with tiktoken's cl100k_base, whose vocabulary can't be loaded ({why}): run once "
        f"without --offline, or download {VOCABULARY_URL}, save it as {_tiktoken_folder() / VOCABULARY_FILE} (or in "
        "another folder that TIKTOKEN_CACHE_DIR names)"
    )
