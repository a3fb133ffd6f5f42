"""What a text must hold, as words, where it shares an n-gram of a tokenizer's tokens with an item.

A token is no word, but a run of tokens holds whole words: those that begin behind its first place, or at a token with
the space before it, and end before its last. They are in every text with these tokens, so the quick search of raw bytes
looks for them. Where a run holds too few (long numbers, mostly), it looks for some of its characters in a row; and
where it has too few of these, too (rare signs of several tokens), for two of its words.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from decontam.bpe import BpeTokens
from decontam.errors import DecontamError
from decontam.kernels.anchors import AnchorSet, build_bpe_anchors
from decontam.kernels.grams import SIZES, gram_keys
from decontam.kernels.words import split
from decontam.normalize import CODE_POINT, Folded
from decontam.resolved import fold_resolved
from decontam.rule import Rule

Ints = npt.NDArray[np.int64]
ANCHOR, STEP = 6, 2
"""Words of an anchor, and between two of them: n-grams with ANCHOR + STEP - 1 words are found by it."""


class WordPlaces(NamedTuple):
    """All items' words (W) and tokens (T) by their places in the stripped texts, one after another."""

    hashes_W: npt.NDArray[np.uint64]
    begins_W: Ints
    ends_W: Ints
    is_single_W: npt.NDArray[np.bool_]
    begins_T: Ints
    ends_T: Ints
    is_first_T: npt.NDArray[np.bool_]
    """Whether it has the space before a stretch."""


def anchors_of(read: "BpeItems", firsts: Ints, lasts: Ints) -> AnchorSet:
    """Return what to look for, so that no run of tokens is missed.

    Args:
        firsts: first tokens of runs that must be found; `lasts`: their last ones.
    """
    places = read.places
    low, high = _known(places, firsts, lasts)
    begins, stops = _whole_words(places, low, high, places.is_first_T[firsts])
    n_words = stops - begins
    by_gram = (n_words < ANCHOR + STEP - 1) & (high - low >= SIZES[0])
    by_pair = (n_words < ANCHOR + STEP - 1) & ~by_gram & (n_words >= 2)
    is_found = (n_words >= ANCHOR + STEP - 1) | by_gram | by_pair
    points = np.frombuffer(read.stripped.encode("utf-32-le", "surrogatepass"), "<u4")
    return build_bpe_anchors(
        places.hashes_W,
        np.concatenate(([0], read.word_stops_I[:-1])).astype(np.int64),
        read.word_stops_I,
        np.unique(begins[by_pair]),
        np.unique(gram_keys(points, low[by_gram], high[by_gram])),
        k=ANCHOR,
        step=STEP,
        is_all=not (read.is_exact and is_found.all()),
    )


def _known(places: WordPlaces, firsts: Ints, lasts: Ints) -> tuple[Ints, Ints]:
    """Return the characters that runs of tokens surely hold: one that a neighbour shares is not known."""
    low, high = places.begins_T[firsts], places.ends_T[lasts]
    before, behind = np.maximum(firsts - 1, 0), np.minimum(lasts + 1, len(places.begins_T) - 1)
    low = np.where(firsts > 0, np.maximum(low, places.ends_T[before]), low)
    high = np.where(lasts < behind, np.minimum(high, places.begins_T[behind]), high)
    return low, np.maximum(low, high)


def _whole_words(places: WordPlaces, low: Ints, high: Ints, is_first: npt.NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Return the first word of runs of characters that is whole, and one past the last."""
    n_words = len(places.begins_W)
    begins = np.searchsorted(places.begins_W, low)
    at = np.minimum(begins, n_words - 1)
    is_cut = (places.begins_W[at] == low) & ~is_first & ~places.is_single_W[at]
    begins = begins + is_cut
    return begins, np.maximum(begins, np.searchsorted(places.ends_W, high))


class BpeItems(NamedTuple):
    """All items' tokens in a row, and what to look for in raw bytes."""

    ids: npt.NDArray[np.int32]
    """As the tokenizer numbers them."""
    question_stops_I: Ints
    stops_I: Ints
    places: WordPlaces
    word_stops_I: Ints
    stripped: str
    """All stripped texts, one after another."""
    is_exact: bool
    """Whether the words of all stretches are what a text's would be; if not, each text is a candidate."""


def read_items(batches: Iterable[Sequence[str]], tokenizer: BpeTokens, *, fold_case: bool, markup: bool) -> BpeItems:
    """Read items.

    Args:
        batches: texts, a question and an answer in turn, each with what keeps it apart (`resolved.BETWEEN`).

    Raises:
        DecontamError: tokens that don't say where a word begins.
    """
    parts, token_stops, word_stops, is_exact = list[_Batch](), list[Ints](), list[Ints](), True
    n_tokens = n_words = n_characters = 0
    for texts in batches:
        folded = fold_resolved("".join(texts), fold_case=fold_case, markup=markup)
        batch, begins, sizes = _read_batch(folded, tokenizer, n_characters)
        ends = np.cumsum([len(text) for text in texts])
        counts = np.concatenate(([0], np.cumsum(sizes)))
        token_stops.append(counts[np.searchsorted(begins, ends)] + n_tokens)
        word_stops.append(np.searchsorted(batch.word_begins, ends) + n_words)
        parts.append(batch)
        n_tokens, n_words = n_tokens + len(batch.ids), n_words + len(batch.word_begins)
        n_characters, is_exact = n_characters + len(batch.stripped), is_exact and batch.is_exact
    places = WordPlaces(*(np.concatenate(column) for column in zip(*(one.places for one in parts), strict=True)))
    stops = np.concatenate(token_stops).astype(np.int64)
    _check_markers(np.concatenate([one.ids for one in parts]), places.is_first_T, tokenizer)
    return BpeItems(
        *(np.concatenate([one.ids for one in parts]), stops[::2].copy(), stops[1::2].copy(), places),
        *(np.concatenate(word_stops)[1::2].astype(np.int64), "".join(one.stripped for one in parts), is_exact),
    )


def count_tokens(batches: Iterable[Sequence[str]], tokenizer: BpeTokens, rule: Rule) -> Ints:
    """Return how many tokens each text has; each ends with what keeps it apart (`resolved.BETWEEN`)."""
    found = [np.empty(0, np.int64)]
    for texts in batches:
        folded = fold_resolved("".join(texts), fold_case=rule.fold_case, markup=rule.markup)
        _, begins, sizes = _read_batch(folded, tokenizer, 0)
        counts = np.concatenate(([0], np.cumsum(sizes)))
        stops = counts[np.searchsorted(begins, np.cumsum([len(text) for text in texts]))]
        found.append(np.diff(stops, prepend=0))
    return np.concatenate(found).astype(np.int64)


class _Batch(NamedTuple):
    ids: npt.NDArray[np.int32]
    places: WordPlaces
    word_begins: Ints
    """In characters of the batch's text."""
    stripped: str
    is_exact: bool


def _read_batch(folded: Folded, tokenizer: BpeTokens, base: int) -> tuple[_Batch, Ints, Ints]:
    """Return the tokens and words of a text, where its stretches begin in it, and how many tokens each has."""
    words, tokens = split(folded), tokenizer.read(folded)
    # of each stretch in the stripped texts, where a space comes before it
    spans = tokens.stretch_ends - tokens.stretch_begins + 1
    stripped = base + 1 + np.cumsum(spans) - spans
    shifts = stripped - tokens.stretch_begins
    of_tokens = np.repeat(shifts, tokens.counts)
    is_first = np.zeros(len(tokens.ids), np.bool_)
    is_first[(np.cumsum(tokens.counts) - tokens.counts)[tokens.counts > 0]] = True
    of_words = shifts[np.searchsorted(tokens.stretch_begins, words.begins, "right") - 1]
    places = WordPlaces(
        *(words.hashes, words.begins + of_words, words.ends + of_words, words.single),
        *(tokens.begins + of_tokens - is_first, tokens.ends + of_tokens, is_first),
    )
    points = (folded.entries & CODE_POINT).astype("<u4").tobytes().decode("utf-32-le", "replace")
    bounds = zip(tokens.stretch_begins.tolist(), tokens.stretch_ends.tolist(), strict=True)
    found = [points[begin:end] for begin, end in bounds]
    stripped_text = "".join(f" {stretch}" for stretch in found)
    is_exact = all(unicodedata.is_normalized("NFC", stretch) for stretch in found)
    batch = _Batch(tokens.ids, places, folded.begins[words.begins], stripped_text, is_exact)
    return batch, folded.begins[tokens.stretch_begins], tokens.counts


def _check_markers(ids: npt.NDArray[np.int32], is_first_T: npt.NDArray[np.bool_], tokenizer: BpeTokens) -> None:
    for is_first in (True, False):
        for token in np.unique(ids[is_first_T == is_first]).tolist():
            if tokenizer.is_first(token) != is_first:
                raise DecontamError(f"tokenizer {tokenizer.name}: token {token} doesn't say whether a word begins")
