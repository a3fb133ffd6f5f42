"""What a document and each item have in common, once their shared n-grams are known. Numba.

A document may share n-grams with a thousand items that are made from one template, so all of it is computed here, and
objects are made of the results only.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from decontam.kernels.lcs import lcs_length

Ints = npt.NDArray[np.int64]


class Judged(NamedTuple):
    """A row for each item, ascending."""

    items: Ints
    with_answer: npt.NDArray[np.bool_]
    """Whether the rest is about question and answer; else about the question alone, for which as much holds."""
    holds: npt.NDArray[np.bool_]
    """Whether the rule of the longest common subsequence is fulfilled."""
    n_shared: Ints
    """Distinct n-grams."""
    longest: Ints
    """Tokens of the longest run in both."""
    lcs: Ints
    n_shorter: Ints
    """Tokens of the shorter one of the two sequences compared."""
    offsets: Ints
    """Which of `positions` are an item's: from [i] to [i + 1]."""
    positions: Ints
    """Of shared n-grams in the document, ascending for each item."""
    places: Ints
    """In the item."""
    ngrams: Ints
    """Their numbers."""


@njit(nogil=True, cache=True)
def judge(
    ids,
    positions,
    ngrams,
    size,
    offsets_G1,
    items_P,
    places_P,
    ids_T,
    starts_I,
    question_stops_I,
    stops_I,
    n_words,
    min_lcs,
    min_lcs_ratio,
    whole_document,
    most_exact,
):
    """Return the fields of `Judged`.

    Args:
        ids: the document's word numbers.
        positions: of n-grams in it that items have, ascending; `ngrams`: their numbers.
        size: tokens of an n-gram.
        n_words: of the vocabulary.
        min_lcs: 0 and min_lcs_ratio 0: no subsequences are computed.
        whole_document: compare all of it, not the text around shared n-grams.
        most_exact: for more items than these, a subsequence that is surely too short counts as 0.
    """
    items, offsets, at, places, numbers = _grouped(positions, ngrams, offsets_G1, items_P, places_P, len(starts_I))
    n_items = len(items)
    with_answer, holds = np.zeros(n_items, np.bool_), np.zeros(n_items, np.bool_)
    n_shared, longest = np.zeros(n_items, np.int64), np.zeros(n_items, np.int64)
    lcs, n_shorter = np.zeros(n_items, np.int64), np.ones(n_items, np.int64)
    slots, is_exact = np.full(n_words, -1, np.int32), n_items <= most_exact
    for i in range(n_items):
        item, rows = items[i], slice(offsets[i], offsets[i + 1])
        start, n_question = starts_I[item], question_stops_I[item] - starts_I[item]
        n_both = stops_I[item] - start
        is_found = False
        for part in range(2):
            n_tokens = n_both if part else n_question
            kept = places[rows] + size <= n_tokens
            if not kept.any() or (is_found and (holds[i] or n_tokens == n_question)):
                continue
            own = at[rows][kept]
            length, shorter, is_held = 0, 1, False
            if min_lcs > 0 or min_lcs_ratio > 0:
                item_ids = ids_T[start : start + n_tokens]
                length, shorter, is_held = best_lcs(
                    ids, item_ids, own, size, min_lcs, min_lcs_ratio, whole_document, slots, is_exact
                )
            if is_found and not is_held:
                continue
            if is_found or part:
                with_answer[i] = True
            is_found = True
            holds[i], lcs[i], n_shorter[i] = is_held, length, shorter
            n_shared[i], longest[i] = len(np.unique(numbers[rows][kept])), _longest(own, places[rows][kept]) + size - 1
            if min_lcs == 0 and min_lcs_ratio == 0:
                break
    return items, with_answer, holds, n_shared, longest, lcs, n_shorter, offsets, at, places, numbers


@njit(nogil=True, cache=True)
def _grouped(positions, ngrams, offsets_G1, items_P, places_P, n_all):
    """Return each item once, and all its hits: offsets, positions, places, n-grams."""
    counts, n = np.zeros(n_all + 1, np.int64), 0
    for ngram in ngrams:
        for posting in range(offsets_G1[ngram], offsets_G1[ngram + 1]):
            counts[items_P[posting]] += 1
            n += 1
    items = np.flatnonzero(counts)
    offsets = np.zeros(len(items) + 1, np.int64)
    cursors = np.zeros(n_all, np.int64)
    for i in range(len(items)):
        cursors[items[i]] = offsets[i]
        offsets[i + 1] = offsets[i] + counts[items[i]]
    at, places, numbers = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    for i in range(len(ngrams)):
        for posting in range(offsets_G1[ngrams[i]], offsets_G1[ngrams[i] + 1]):
            cursor = cursors[items_P[posting]]
            at[cursor], places[cursor], numbers[cursor] = positions[i], places_P[posting], ngrams[i]
            cursors[items_P[posting]] += 1
    return items, offsets, at, places, numbers


@njit(nogil=True, cache=True)
def best_lcs(ids, item, positions, size, min_lcs, min_lcs_ratio, whole_document, slots, is_exact):
    """Return length, tokens of the shorter sequence, and whether the rule holds, for the best sequence."""
    best_length, best_shorter, best_holds, is_first = 0, 1, False, True
    margin, begin = max(2 * len(item), len(item) + size), 0
    for i in range(len(positions)):
        # a run ends where the next n-gram neither overlaps nor touches
        if not whole_document and i + 1 < len(positions) and positions[i + 1] <= positions[i] + size:
            continue
        if whole_document:
            low, high = 0, len(ids)
        else:
            low, high = max(0, positions[begin] - margin), min(len(ids), positions[i] + size + margin)
        shorter = min(high - low, len(item))
        wanted = 0 if is_exact else max(min_lcs, int(np.ceil(min_lcs_ratio * shorter - 1e-9)))
        length = lcs_length(item, ids[low:high], slots, wanted)
        # a ratio that should be exact may come out a hair below it
        holds = length >= min_lcs and length >= min_lcs_ratio * shorter - 1e-9
        if is_first or (holds and not best_holds) or (holds == best_holds and length > best_length):
            best_length, best_shorter, best_holds, is_first = length, shorter, holds, False
        if whole_document:
            break
        begin = i + 1
    return best_length, best_shorter, best_holds


@njit(nogil=True, cache=True)
def _longest(positions, places):
    """Return how many n-grams follow each other both in the document and in the item, at most."""
    # those of one diagonal stand together, in the order of the document
    keys = np.sort((positions - places + (1 << 31)) * (1 << 32) + positions)
    best = run = 1
    for i in range(1, len(keys)):
        run = run + 1 if keys[i] == keys[i - 1] + 1 else 1
        best = max(best, run)
    return best
