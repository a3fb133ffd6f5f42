"""The items as numbered tokens: read once, when the index is built.

Shape suffixes: I items, T tokens of all items in a row.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from decontam.bpe import BpeTokens, BpeVocabulary
from decontam.bpe_anchors import BpeItems, anchors_of, read_items
from decontam.kernels.anchors import AnchorSet
from decontam.kernels.ngrams import NgramTable, build_ngrams, ngram_starts
from decontam.kernels.words import UNKNOWN, Vocabulary, VocabularyBuilder, split
from decontam.references import Reference
from decontam.resolved import BETWEEN, fold_resolved
from decontam.rule import Rule

_BATCH_CHARACTERS = 250_000
"""Text of items that is folded at once: folded text takes 20 bytes a character and more."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Items:
    """The items' tokens."""

    ids_T: npt.NDArray[np.int32]
    """Numbers of words in the vocabulary."""
    starts_I: Ints
    """Where each item begins; its question comes first, its answer after it."""
    question_stops_I: Ints
    """One past the last token of each question."""
    stops_I: Ints
    """One past the last token of each item."""
    sizes_I: Ints
    """Tokens of the n-grams by which each item is found."""

    @property
    def n_tokens_I(self) -> Ints:
        """Tokens of question and answer."""
        return self.stops_I - self.starts_I

    @property
    def is_short_I(self) -> npt.NDArray[np.bool_]:
        """Whether an item has no n-gram."""
        return self.n_tokens_I < self.sizes_I


class ReadItems(NamedTuple):
    """All items as they were read by the rule's tokenizer."""

    ids_T: npt.NDArray[np.int32]
    """Numbers of tokens in the vocabulary."""
    single_T: npt.NDArray[np.bool_]
    """Whether a token is one character of a script without spaces; never, where tokens are a model's."""
    question_stops_I: Ints
    """One past the last token of each question."""
    stops_I: Ints
    """One past the last token of each item."""
    vocabulary: Vocabulary | BpeVocabulary
    """The tokens that items have."""
    hashes_T: npt.NDArray[np.uint64]
    """Hashes of words; none where tokens are a model's."""
    bpe: BpeItems | None
    """Where tokens are a model's: what to search for in raw bytes. None: tokens are words."""


def read_tokens(references: Sequence[Reference], rule: Rule) -> ReadItems:
    """Read the items with the rule's tokenizer.

    Raises:
        DecontamError: a tokenizer that is not there, or whose tokens don't say where a word begins.
    """
    return _read_words(references, rule) if rule.tokenizer == "words" else _read_bpe(references, rule)


def place_items(read: ReadItems, rule: Rule) -> Items:
    """Return where the items begin and end, and by which n-gram size each is found."""
    # not views of other arrays: a pickled index would have other types, for which kernels are compiled again
    question_stops_I, stops_I = map(np.ascontiguousarray, (read.question_stops_I, read.stops_I))
    starts_I = np.concatenate(([0], stops_I[:-1])).astype(np.int64)
    sizes_I = _ngram_sizes(read.single_T, starts_I, stops_I, rule)
    return Items(read.ids_T, starts_I, question_stops_I, stops_I, sizes_I)


def index_ngrams(items: Items, size: int) -> NgramTable:
    """Index the n-grams of all items that are found by this size."""
    of_size = items.sizes_I == size
    starts = ngram_starts(items.starts_I[of_size], items.stops_I[of_size], size)
    return build_ngrams(items.ids_T, starts, items.starts_I, size)


def index_short_items(items: Items, is_whole_I: npt.NDArray[np.bool_], n_first: int) -> NgramTable | None:
    """Index the first tokens of short items that are found in full; None: there are no such items.

    Args:
        n_first: as `fewest_tokens` returns it.
    """
    if not n_first:
        return None
    return build_ngrams(items.ids_T, items.starts_I[is_whole_I].astype(np.int32), items.starts_I, n_first)


def fewest_tokens(items: Items, is_whole_I: npt.NDArray[np.bool_], min_whole: int) -> int:
    """Return the tokens of the shortest text that is found in full, a question or an item; 0 if there is none.

    Args:
        is_whole_I: the items that are found in full.
        min_whole: as in the rule.
    """
    n_question_I = items.question_stops_I - items.starts_I
    # a question that is long enough is found alone, without its answer
    lengths_I = np.where(n_question_I >= min_whole, n_question_I, items.n_tokens_I)[is_whole_I]
    return int(lengths_I.min()) if len(lengths_I) else 0


def bpe_anchors(read: BpeItems, items: Items, size: int, is_whole_I: npt.NDArray[np.bool_], rule: Rule) -> AnchorSet:
    """Return what to search for in raw bytes, where tokens are a model's: n-grams of items, and short items in full."""
    of_size = ~items.is_short_I
    firsts = ngram_starts(items.starts_I[of_size], items.stops_I[of_size], size).astype(np.int64)
    starts_I = items.starts_I[is_whole_I]
    runs = [(firsts, firsts + size - 1)]
    for stops_I in (items.question_stops_I[is_whole_I], items.stops_I[is_whole_I]):
        is_long = stops_I - starts_I >= rule.min_whole
        runs.append((starts_I[is_long], stops_I[is_long] - 1))
    low, high = (np.concatenate(column) for column in zip(*runs, strict=True))
    return anchors_of(read, low, high)


def _read_words(references: Sequence[Reference], rule: Rule) -> ReadItems:
    """Read the items as words, batch by batch."""
    builder, parts, stops, n_words = VocabularyBuilder(), [], [], 0
    for batch in _batches(references):
        texts = _texts(batch)
        folded = fold_resolved("".join(texts), fold_case=rule.fold_case, markup=rule.markup)
        words = split(folded)
        ends = np.cumsum([len(text) for text in texts])
        stops.append(np.searchsorted(folded.begins[words.begins], ends) + n_words)
        parts.append((words.hashes, builder.add(words), words.single))
        n_words += len(words.hashes)
    hashes, ids, single = (np.concatenate(column) for column in zip(*parts, strict=True))
    # question and answer in turn
    all_stops = np.concatenate(stops).astype(np.int64)
    return ReadItems(ids, single, all_stops[::2], all_stops[1::2], builder.vocabulary(), hashes, None)


def _read_bpe(references: Sequence[Reference], rule: Rule) -> ReadItems:
    """Read the items as a model's tokens."""
    tokenizer = BpeTokens(rule.tokenizer)
    read = read_items(map(_texts, _batches(references)), tokenizer, fold_case=rule.fold_case, markup=rule.markup)
    # only the items' own tokens get a number: what a scan counts by token then is small
    known, ids = np.unique(read.ids, return_inverse=True)
    numbers = np.full(tokenizer.n_tokens, UNKNOWN, np.int32)
    numbers[known] = np.arange(len(known))
    vocabulary = BpeVocabulary(tokenizer, numbers, len(known))
    single, hashes = np.zeros(len(ids), np.bool_), np.empty(0, np.uint64)
    stops = read.question_stops_I, read.stops_I
    return ReadItems(ids.astype(np.int32), single, *stops, vocabulary, hashes, read)


def _texts(batch: Sequence[Reference]) -> list[str]:
    """Return question and answer of each item in turn, and what keeps them apart."""
    return [text + BETWEEN for item in batch for text in (item.text, item.answer)]


def _batches(references: Sequence[Reference]) -> Iterable[list[Reference]]:
    batch: list[Reference] = []
    size = 0
    for item in references:
        batch.append(item)
        size += len(item.text) + len(item.answer)
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _ngram_sizes(single_T: npt.NDArray[np.bool_], starts_I: Ints, stops_I: Ints, rule: Rule) -> Ints:
    """Return each item's n-gram size: that of single characters where these are most of its tokens."""
    n_single_T1 = np.concatenate(([0], np.cumsum(single_T)))
    is_single_I = 2 * (n_single_T1[stops_I] - n_single_T1[starts_I]) > stops_I - starts_I
    words, single = rule.sizes
    return np.where(is_single_I, single, words).astype(np.int64)
