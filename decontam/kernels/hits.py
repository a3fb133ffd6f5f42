"""The n-grams that one text shares with items, item by item, and what follows from their places. Numba.

An n-gram has a position in the text and a place in the item; their difference is its diagonal. N-grams of one diagonal
that follow each other are one longer run of words that both have.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from decontam.kernels.hashing import BASE

Ints = npt.NDArray[np.int64]


class Hits(NamedTuple):
    """The n-grams that one text shares with items, item by item."""

    items: Ints
    """Ascending."""
    offsets: Ints
    """(items + 1,): which of the following are an item's: from [i] to [i + 1]."""
    positions: Ints
    """Where the n-grams begin in the text, in tokens, ascending for each item."""
    places: Ints
    """Where they begin in the item, in tokens."""
    numbers: Ints
    """Numbers of the n-grams."""
    is_own: npt.NDArray[np.bool_]
    """Whether they say which item of its benchmark it is."""


@njit(nogil=True, cache=True)
def group_by_item(positions, ngrams, table, scratch):
    """Return each item that has one of these n-grams once, with all its hits: a counting sort."""
    counts, cursors, n = scratch.counts_I, scratch.cursors_I, 0
    for ngram in ngrams:
        n += table.offsets_G1[ngram + 1] - table.offsets_G1[ngram]
    found, n_items = np.empty(n, np.int64), 0
    for ngram in ngrams:
        for posting in range(table.offsets_G1[ngram], table.offsets_G1[ngram + 1]):
            item = table.items_P[posting]
            if not counts[item]:
                found[n_items] = item
                n_items += 1
            counts[item] += 1
    items = np.sort(found[:n_items])
    offsets = np.zeros(n_items + 1, np.int64)
    for i in range(n_items):
        cursors[items[i]] = offsets[i]
        offsets[i + 1] = offsets[i] + counts[items[i]]
        counts[items[i]] = 0
    at, places, numbers = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    is_own = np.empty(n, np.bool_)
    for i in range(len(ngrams)):
        for posting in range(table.offsets_G1[ngrams[i]], table.offsets_G1[ngrams[i] + 1]):
            cursor = cursors[table.items_P[posting]]
            at[cursor], places[cursor], numbers[cursor] = positions[i], table.places_P[posting], ngrams[i]
            is_own[cursor] = table.is_own_P[posting]
            cursors[table.items_P[posting]] += 1
    for item in items:
        cursors[item] = 0
    return Hits(items, offsets, at, places, numbers, is_own)


@njit(nogil=True, cache=True)
def has_same_hits(offsets, positions, places, i):
    """Whether item i shares the same n-grams at the same places as the one before."""
    before, low, high = offsets[i - 1], offsets[i], offsets[i + 1]
    if high - low != low - before:
        return False
    for j in range(high - low):
        if positions[low + j] != positions[before + j] or places[low + j] != places[before + j]:
            return False
    return True


@njit(nogil=True, cache=True)
def n_inside_part(places, low, high, last_place):
    """Return how many n-grams of an item begin at `last_place` in it or before: those inside of one of its parts."""
    n = 0
    for j in range(low, high):
        n += places[j] <= last_place
    return n


@njit(nogil=True, cache=True)
def is_template(hits, i, longest, n_question, n_tokens, size):
    """Whether item i shares only n-grams that others have, too, and its question is not in the text in full.

    Args:
        longest: tokens of the longest run of the question, and of question and answer, where they share n-grams.
        n_question: tokens of the question; where that has no n-gram, question and answer must be there in full.
        n_tokens: tokens of question and answer.
        size: tokens of an n-gram.
    """
    low, high = hits.offsets[i], hits.offsets[i + 1]
    if hits.is_own[low:high].any():
        return False
    part, wanted = (0, n_question) if n_question >= size else (1, n_tokens)
    return n_inside_part(hits.places, low, high, wanted - size) == 0 or longest[part] < wanted


@njit(nogil=True, cache=True)
def only_run(positions, places, low, high, last_place, size):
    """Return the first and last n-gram of a part of an item if each overlaps or touches the next, else -1 for both."""
    first = last = np.int64(-1)
    for j in range(low, high):
        if places[j] <= last_place:
            if last >= 0 and positions[j] > last + size:
                return np.int64(-1), np.int64(-1)
            first, last = positions[j] if first < 0 else first, positions[j]
    return first, last


@njit(nogil=True, cache=True)
def longest_in_a_row(positions, places):
    """Return how many n-grams follow each other both in the text and in the item, at most."""
    # diagonal and position in one number: sorted, those of one diagonal are together, in the order of the text
    keys = np.sort((positions - places + (1 << 31)) * (1 << 32) + positions)
    best = run = 1
    for i in range(1, len(keys)):
        run = run + 1 if keys[i] == keys[i - 1] + 1 else 1
        best = max(best, run)
    return best


@njit(nogil=True, cache=True)
def add_spans(positions, size, begins, ends, spans, n):
    """Write the runs of n-grams that overlap or touch; positions ascend, and may repeat."""
    first = last = positions[0]
    for position in positions:
        if position > last + size:
            spans[n, 0], spans[n, 1] = begins[first], ends[last + size - 1]
            n += 1
            first = position
        last = position
    spans[n, 0], spans[n, 1] = begins[first], ends[last + size - 1]
    return n + 1


@njit(nogil=True, cache=True)
def has_new_places(hits, row, seen):
    """Whether no row before had its n-grams at the same places of the text; `seen` then holds this one, too."""
    low, n, key = hits.offsets[row], hits.offsets[row + 1] - hits.offsets[row], np.uint64(0)
    for i in range(low, low + n):
        key = (key ^ np.uint64(hits.positions[i])) * BASE
    # the high bits of a product are the well mixed ones
    at = int(key >> np.uint64(32)) & (len(seen) - 1)
    while seen[at] >= 0:
        other = hits.offsets[seen[at]]
        is_same = hits.offsets[seen[at] + 1] - other == n
        for i in range(n):
            is_same = is_same and hits.positions[low + i] == hits.positions[other + i]
        if is_same:
            return False
        at = (at + 1) & (len(seen) - 1)
    seen[at] = row
    return True
