"""Words of folded text, and their numbers in a vocabulary. Numba; the only place that says where a word ends.

A vocabulary holds the items' words. Numbers are given by comparing code points, so equal numbers are equal words.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from decontam.kernels.hashing import PRIME, SEED, mixed
from decontam.normalize import CLASS_SHIFT, CODE_POINT, LETTER, MARK, SEPARATOR, SINGLE, Folded

UNKNOWN = -1
"""The number of a word that no item has."""
OUTSIDE, IN_WORD, IN_SINGLE = 0, 1, 2
"""Where the reading of a text is: outside of words, in one, or in a one-character token, which marks may still join."""


class Words(NamedTuple):
    """Words of a text; places count folded entries."""

    hashes: npt.NDArray[np.uint64]
    begins: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    points: npt.NDArray[np.uint32]
    """Folded code points of the whole text."""
    single: npt.NDArray[np.bool_]
    """Whether a word is a character of a script without spaces."""


class Vocabulary(NamedTuple):
    """Open addressing over word hashes."""

    places: npt.NDArray[np.int32]
    """(2^m,) numbers of words, -1 for free."""
    hashes: npt.NDArray[np.uint64]
    begins: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    points: npt.NDArray[np.uint32]


def split(folded: Folded) -> Words:
    """Cut a folded text into words."""
    entries = folded.entries
    hashes, begins, ends, single = _split(entries)
    return Words(hashes, begins, ends, entries & np.uint32(CODE_POINT), single)


def empty_vocabulary(n_words: int, points: npt.NDArray[np.uint32]) -> Vocabulary:
    """Return room for at most so many words, whose code points are all in `points`."""
    n_places = 1 << max(4, (2 * n_words).bit_length())
    return Vocabulary(
        np.full(n_places, -1, np.int32),
        np.zeros(n_words, np.uint64),
        np.zeros(n_words, np.int64),
        np.zeros(n_words, np.int64),
        points,
    )


@njit(nogil=True, cache=True)
def _split(entries):
    size = len(entries)
    hashes, single = np.empty(size, np.uint64), np.empty(size, np.bool_)
    begins, ends = np.empty(size, np.int64), np.empty(size, np.int64)
    n, state, h = 0, OUTSIDE, SEED
    for i in range(size):
        kind = (entries[i] >> np.uint32(CLASS_SHIFT)) & np.uint32(7)
        if kind == MARK and state == OUTSIDE:
            continue
        if state != OUTSIDE and (kind == SEPARATOR or kind == SINGLE or (kind == LETTER and state == IN_SINGLE)):
            hashes[n], ends[n], state = h, i, OUTSIDE
            n += 1
        if kind == SEPARATOR:
            continue
        if state == OUTSIDE:
            h, begins[n], single[n] = SEED, i, kind == SINGLE
            state = IN_SINGLE if kind == SINGLE else IN_WORD
        h = (h ^ np.uint64(entries[i] & np.uint32(CODE_POINT))) * PRIME
    if state != OUTSIDE:
        hashes[n], ends[n] = h, size
        n += 1
    return hashes[:n].copy(), begins[:n].copy(), ends[:n].copy(), single[:n].copy()


@njit(nogil=True, cache=True)
def intern_words(hashes, begins, ends, points, places, hashes_V, begins_V, ends_V):
    """Return the numbers of words, giving new ones, and how many there are; `points` are those of both."""
    ids, n = np.empty(len(hashes), np.int32), 0
    mask = np.uint64(len(places) - 1)
    for i in range(len(hashes)):
        at = (mixed(hashes[i]) >> np.uint64(13)) & mask
        while places[at] >= 0:
            if _same(places[at], hashes[i], begins[i], ends[i], points, hashes_V, begins_V, ends_V, points):
                break
            at = (at + np.uint64(1)) & mask
        if places[at] < 0:
            places[at] = n
            hashes_V[n], begins_V[n], ends_V[n] = hashes[i], begins[i], ends[i]
            n += 1
        ids[i] = places[at]
    return ids, n


@njit(nogil=True, cache=True)
def find_words(hashes, begins, ends, points, places, hashes_V, begins_V, ends_V, points_V):
    """Return the numbers of a text's words, UNKNOWN for those that the vocabulary hasn't."""
    ids = np.empty(len(hashes), np.int32)
    mask = np.uint64(len(places) - 1)
    for i in range(len(hashes)):
        at = (mixed(hashes[i]) >> np.uint64(13)) & mask
        while places[at] >= 0:
            if _same(places[at], hashes[i], begins[i], ends[i], points, hashes_V, begins_V, ends_V, points_V):
                break
            at = (at + np.uint64(1)) & mask
        ids[i] = places[at]
    return ids


@njit(nogil=True, cache=True)
def _same(number, word_hash, begin, end, points, hashes_V, begins_V, ends_V, points_V):
    if hashes_V[number] != word_hash or ends_V[number] - begins_V[number] != end - begin:
        return False
    for i in range(end - begin):
        if points[begin + i] != points_V[begins_V[number] + i]:
            return False
    return True
