"""The items' n-grams: which of them a text has, and in which items they are. Numba; exact: it compares word numbers.

Shape suffixes: T tokens of all items in a row, G distinct n-grams, P postings (an item's place with an n-gram).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from decontam.kernels.hashing import BASE, mixed

Ints = npt.NDArray[np.int64]


class Hits(NamedTuple):
    """N-grams of a text that items have."""

    positions: Ints
    """Of their first token in the text."""
    ngrams: Ints
    """Their numbers."""


class NgramTable(NamedTuple):
    """N-grams of one size."""

    size: int
    places: npt.NDArray[np.int32]
    """(2^m,) numbers of n-grams by hash, open addressing, -1 for free."""
    bits: npt.NDArray[np.uint64]
    """(2^m,) one bit for each n-gram, by its hash: it answers most look-ups of what isn't there, from nearer memory."""
    first_G: npt.NDArray[np.int32]
    """Where in the items' tokens each occurs first."""
    offsets_G1: Ints
    """Which postings belong to each n-gram: from [g] to [g + 1]."""
    items_P: npt.NDArray[np.int32]
    """Which item each posting is in."""
    places_P: npt.NDArray[np.int32]
    """Where in the item it is, in tokens."""
    is_own_P: npt.NDArray[np.bool_]
    """Whether an n-gram says which item of its benchmark it is; one that several have is a template."""

    @property
    def n_ngrams(self) -> int:
        """How many are distinct."""
        return len(self.first_G)

    def find(self, ids: npt.NDArray[np.int32], ids_T: npt.NDArray[np.int32]) -> Hits:
        """Return the n-grams of a text, given as word numbers, that items have."""
        return Hits(*_find(ids, self.size, self.places, self.bits, self.first_G, ids_T))

    def postings(self, hits: Hits) -> tuple[npt.NDArray[np.int64], ...]:
        """Return items, positions in the text, places in the items, and n-grams: a row for each item that has a hit."""
        columns: tuple[npt.NDArray[np.int64], ...] = _expanded(
            hits.positions, hits.ngrams, self.offsets_G1, self.items_P, self.places_P
        )
        return columns


def build_ngrams(ids_T: npt.NDArray[np.int32], starts: npt.NDArray[np.int32], starts_I: Ints, size: int) -> NgramTable:
    """Make the table of the n-grams that begin at `starts`, places in all items' tokens, ascending.

    Args:
        starts_I: where the items begin.
    """
    places = np.full(1 << max(4, (5 * len(starts) // 4).bit_length()), -1, np.int32)
    bits = np.zeros(1 << max(4, (16 * len(starts) // 64).bit_length()), np.uint64)
    number_P, first_G = _number(ids_T, starts, size, places, bits)
    counts = np.bincount(number_P, minlength=len(first_G))
    offsets_G1 = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    items_P, places_P = _postings(number_P, starts, starts_I, offsets_G1)
    is_own_P = np.ones(len(items_P), np.bool_)
    return NgramTable(size, places, bits, first_G, offsets_G1, items_P, places_P, is_own_P)


def without_postings(table: NgramTable, is_kept_P: npt.NDArray[np.bool_]) -> NgramTable:
    """Return a table with some of its postings; an n-gram may have none then."""
    kept = np.concatenate(([0], np.cumsum(is_kept_P)))
    return table._replace(
        offsets_G1=kept[table.offsets_G1].astype(np.int64),
        items_P=table.items_P[is_kept_P],
        places_P=table.places_P[is_kept_P],
        is_own_P=table.is_own_P[is_kept_P],
    )


@njit(nogil=True, cache=True)
def _expanded(positions, ngrams, offsets_G1, items_P, places_P):
    n = 0
    for ngram in ngrams:
        n += offsets_G1[ngram + 1] - offsets_G1[ngram]
    items, at, places, numbers = (
        np.empty(n, np.int64),
        np.empty(n, np.int64),
        np.empty(n, np.int64),
        np.empty(n, np.int64),
    )
    n = 0
    for i in range(len(ngrams)):
        for posting in range(offsets_G1[ngrams[i]], offsets_G1[ngrams[i] + 1]):
            items[n], at[n], places[n], numbers[n] = items_P[posting], positions[i], places_P[posting], ngrams[i]
            n += 1
    return items, at, places, numbers


@njit(nogil=True, cache=True)
def _postings(number_P, starts, starts_I, offsets_G1):
    """Return item and place of each posting, n-gram by n-gram."""
    items_P, places_P = np.empty(len(starts), np.int32), np.empty(len(starts), np.int32)
    cursors, item = offsets_G1[:-1].copy(), 0
    for i in range(len(starts)):
        # an item without tokens begins where the next one does: the last one at or before a start is meant
        while item + 1 < len(starts_I) and starts_I[item + 1] <= starts[i]:
            item += 1
        at = cursors[number_P[i]]
        items_P[at], places_P[at] = item, starts[i] - starts_I[item]
        cursors[number_P[i]] += 1
    return items_P, places_P


@njit(nogil=True, cache=True)
def _key(ids, at, size):
    key = np.uint64(0)
    for i in range(size):
        # + 1, so that word 0 at the front changes the key
        key = key * BASE + np.uint64(ids[at + i] + 1)
    return mixed(key)


@njit(nogil=True, cache=True, inline="always")
def _word(key, n_words):
    """Return which of some words of bits, a power of two, has the bit of a key: that of the key's lowest bits."""
    return key >> np.uint64(40) & np.uint64(n_words - 1)


@njit(nogil=True, cache=True)
def _place(key, ids, at, size, places, first_G, ids_T):
    """Return where an n-gram's number is, or would be."""
    mask = np.uint64(len(places) - 1)
    place = (key >> np.uint64(13)) & mask
    while places[place] >= 0:
        first, is_same = first_G[places[place]], True
        for i in range(size):
            if ids[at + i] != ids_T[first + i]:
                is_same = False
                break
        if is_same:
            break
        place = (place + np.uint64(1)) & mask
    return place


@njit(nogil=True, cache=True)
def _number(ids_T, starts, size, places, bits):
    """Fill the table; return each start's n-gram, and where each n-gram occurs first."""
    number_P, first_G, n = np.empty(len(starts), np.int32), np.empty(len(starts), np.int32), 0
    for i in range(len(starts)):
        key = _key(ids_T, starts[i], size)
        place = _place(key, ids_T, starts[i], size, places, first_G, ids_T)
        if places[place] < 0:
            places[place], first_G[n] = n, starts[i]
            bits[_word(key, len(bits))] |= np.uint64(1) << (key >> np.uint64(1) & np.uint64(63))
            n += 1
        number_P[i] = places[place]
    return number_P, first_G[:n].copy()


@njit(nogil=True, cache=True)
def _find(ids, size, places, bits, first_G, ids_T):
    positions, numbers = np.empty(len(ids), np.int64), np.empty(len(ids), np.int64)
    n, n_known, key, power = 0, 0, np.uint64(0), np.uint64(1)
    for _ in range(size):
        power *= BASE
    for i in range(len(ids)):
        if ids[i] < 0:
            # no n-gram goes across a word that no item has, nor across the end of a text
            n_known, key = 0, np.uint64(0)
            continue
        # the key of the last words, as `_key` computes it: one more, one less
        key = key * BASE + np.uint64(ids[i] + 1)
        if n_known >= size:
            key -= np.uint64(ids[i - size] + 1) * power
        n_known += 1
        if n_known >= size:
            at, hashed = i - size + 1, mixed(key)
            if not bits[_word(hashed, len(bits))] >> (hashed >> np.uint64(1) & np.uint64(63)) & np.uint64(1):
                continue
            place = _place(hashed, ids, at, size, places, first_G, ids_T)
            if places[place] >= 0:
                positions[n], numbers[n] = at, places[place]
                n += 1
    return positions[:n].copy(), numbers[:n].copy()
