"""Words of folded text, and their numbers in a vocabulary. Numba; the only place that says where a word ends.

A vocabulary holds the items' words. Numbers are given by comparing code points, so equal numbers are equal words.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from decontam.kernels.blocks import byte
from decontam.kernels.hashing import hash_of, mixed, new_hash, with_point
from decontam.kernels.markup import unit_at
from decontam.normalize import CLASS_SHIFT, CODE_POINT, LETTER, MARK, NEEDS_NFKC, SEPARATOR, SINGLE, TWICE, Folded

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


def split_stretches(folded: Folded) -> Words:
    """Cut a folded text where separators are, and nowhere else; marks that belong to nothing are left out."""
    entries = folded.entries
    hashes, begins, ends = _split_stretches(entries)
    return Words(hashes, begins, ends, entries & np.uint32(CODE_POINT), np.zeros(len(hashes), np.bool_))


class VocabularyBuilder:
    """A vocabulary that grows; texts come in batches, and only the code points of new words are kept."""

    def __init__(self) -> None:
        self._n_words = self._n_points = 0
        self._made = _empty(1 << 12, 1 << 15)

    def __len__(self) -> int:
        return self._n_words

    @property
    def n_characters(self) -> int:
        """Of all words."""
        return self._n_points

    def text(self, number: int) -> str:
        """Return a word's folded text."""
        made = self._made
        return made.points[made.begins[number] : made.ends[number]].astype("<u4").tobytes().decode("utf-32-le")

    def add(self, words: Words) -> npt.NDArray[np.int32]:
        """Return the numbers of words, giving new ones to those that are not there yet."""
        self._made_room(len(words.hashes), len(words.points))
        ids, self._n_words, self._n_points = _intern(
            words.hashes, words.begins, words.ends, words.points, *self._made, self._n_words, self._n_points
        )
        numbers: npt.NDArray[np.int32] = ids
        return numbers

    def vocabulary(self) -> Vocabulary:
        """Return what was gathered, no larger than it must be."""
        made, n = self._made, self._n_words
        columns = made.hashes[:n].copy(), made.begins[:n].copy(), made.ends[:n].copy()
        return _placed(*columns, made.points[: self._n_points].copy(), 2 * n)

    def _made_room(self, n_words: int, n_points: int) -> None:
        """Make the arrays larger where so many new words might not fit."""
        old = self._made
        wanted = self._n_words + n_words, self._n_points + n_points
        if wanted[0] <= len(old.hashes) and wanted[1] <= len(old.points):
            return
        hashes, begins, ends = (_longer(x, 2 * wanted[0]) for x in (old.hashes, old.begins, old.ends))
        made = _placed(hashes, begins, ends, _longer(old.points, 2 * wanted[1]), 2 * len(hashes), self._n_words)
        self._made = made


def _empty(n_words: int, n_points: int) -> Vocabulary:
    columns = np.zeros(n_words, np.uint64), np.zeros(n_words, np.int64), np.zeros(n_words, np.int64)
    return _placed(*columns, np.zeros(n_points, np.uint32), 2 * n_words, 0)


def _longer(values: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    return np.concatenate((values, np.zeros(max(0, size - len(values)), values.dtype)))


def _placed(
    hashes: npt.NDArray[np.uint64],
    begins: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    points: npt.NDArray[np.uint32],
    n_places: int,
    n_words: int | None = None,
) -> Vocabulary:
    """Return a vocabulary of the first words, which are all different, with a table of at least so many places."""
    places = np.full(1 << max(4, n_places.bit_length()), -1, np.int32)
    _place_all(hashes, places, len(hashes) if n_words is None else n_words)
    return Vocabulary(places, hashes, begins, ends, points)


@njit(nogil=True, cache=True, inline="always")
def is_passed_over(kind, state):
    """Whether a character is as if it weren't there: invisible, or a mark with nothing that it belongs to."""
    return kind > SINGLE or (kind == MARK and state == OUTSIDE)


@njit(nogil=True, cache=True, inline="always")
def ends_word(kind, state):
    """Whether the word before a character ends there."""
    return state != OUTSIDE and (kind == SEPARATOR or kind == SINGLE or (kind == LETTER and state == IN_SINGLE))


@njit(nogil=True, cache=True)
def _split(entries):
    size = len(entries)
    hashes, single = np.empty(size, np.uint64), np.empty(size, np.bool_)
    begins, ends = np.empty(size, np.int64), np.empty(size, np.int64)
    n, state, h = 0, OUTSIDE, new_hash()
    for i in range(size):
        kind = (entries[i] >> np.uint32(CLASS_SHIFT)) & np.uint32(7)
        if is_passed_over(kind, state):
            continue
        if ends_word(kind, state):
            hashes[n], ends[n], state = hash_of(h), i, OUTSIDE
            n += 1
        if kind == SEPARATOR:
            continue
        if state == OUTSIDE:
            h, begins[n], single[n] = new_hash(), i, kind == SINGLE
            state = IN_SINGLE if kind == SINGLE else IN_WORD
        h = with_point(h, entries[i] & np.uint32(CODE_POINT))
    if state != OUTSIDE:
        hashes[n], ends[n] = hash_of(h), size
        n += 1
    return hashes[:n].copy(), begins[:n].copy(), ends[:n].copy(), single[:n].copy()


@njit(nogil=True, cache=True)
def _split_stretches(entries):
    size = len(entries)
    hashes, begins, ends = np.empty(size, np.uint64), np.empty(size, np.int64), np.empty(size, np.int64)
    n, is_inside, h = 0, False, new_hash()
    for i in range(size + 1):
        kind = SEPARATOR if i == size else (entries[i] >> np.uint32(CLASS_SHIFT)) & np.uint32(7)
        if kind == SEPARATOR:
            if is_inside:
                hashes[n], ends[n], is_inside = hash_of(h), i, False
                n += 1
        elif is_inside or kind != MARK:
            if not is_inside:
                h, begins[n], is_inside = new_hash(), i, True
            h = with_point(h, entries[i] & np.uint32(CODE_POINT))
    return hashes[:n].copy(), begins[:n].copy(), ends[:n].copy()


@njit(nogil=True, cache=True)
def read_texts(data, stops_D, folds, vocabulary, reads_markup):
    """Read texts of UTF-8 that lie one after another, each followed by UNKNOWN.

    Args:
        data: (bytes,) uint8; `stops_D`: one past each text's last.

    Returns:
        words' numbers, where they begin and end in characters of their text, and how many there are in each text with
        the UNKNOWN; -1: NFKC of the text is not found character by character, or it isn't UTF-8, and it is left out.
    """
    source, begin, size = data.ctypes.data, 0, len(data) + len(stops_D)
    ids, begins, ends = np.empty(size, np.int32), np.empty(size, np.int64), np.empty(size, np.int64)
    n_words_D, points, n = np.empty(len(stops_D), np.int64), np.empty(size, np.uint32), 0
    for text in range(len(stops_D)):
        room = points, ids, begins, ends
        stop = _read_text(source, begin, stops_D[text], folds, vocabulary, reads_markup, *room, n)
        n_words_D[text] = stop - n if stop >= 0 else -1
        n = max(n, stop)
        begin = stops_D[text]
    return ids[:n].copy(), begins[:n].copy(), ends[:n].copy(), n_words_D


@njit(nogil=True, cache=True)
def _read_text(source, p, stop, folds, vocabulary, reads_markup, points, ids, begins, ends, n):
    state, h, n_points, character, last = OUTSIDE, new_hash(), 0, 0, 0
    while p < stop:
        point, size, n_characters = byte(source, p), 1, 1
        if point > 127 or point == 38 or point == 60 or point == 92:
            point, size, n_characters = unit_at(source, p, stop, False, reads_markup)
            if size < 0:
                return -1
        first = character
        p, character = p + size, character + n_characters
        entry = folds[point]
        if entry & np.uint32(NEEDS_NFKC):
            return -1  # Python folds this text, and its words come out the same
        kind = (entry >> np.uint32(CLASS_SHIFT)) & np.uint32(7)
        if is_passed_over(kind, state):
            continue
        if ends_word(kind, state):
            ids[n], ends[n], state = _number(hash_of(h), points, n_points, vocabulary), last, OUTSIDE
            n += 1
        if kind != SEPARATOR:
            if state == OUTSIDE:
                h, n_points, begins[n] = new_hash(), 0, first
                state = IN_SINGLE if kind == SINGLE else IN_WORD
            points[n_points] = entry & np.uint32(CODE_POINT)
            h = with_point(h, points[n_points])
            n_points += 1
            if entry & np.uint32(TWICE):
                points[n_points] = points[n_points - 1]
                h = with_point(h, points[n_points])
                n_points += 1
            last = character
    if state != OUTSIDE:
        ids[n], ends[n] = _number(hash_of(h), points, n_points, vocabulary), last
        n += 1
    # no n-gram goes across it, so none goes from one text into the next
    ids[n], begins[n], ends[n] = UNKNOWN, character, character
    return n + 1


@njit(nogil=True, cache=True)
def _number(word_hash, points, n_points, vocabulary):
    """Return a word's number, or UNKNOWN."""
    mask = np.uint64(len(vocabulary.places) - 1)
    at = (mixed(word_hash) >> np.uint64(13)) & mask
    while vocabulary.places[at] >= 0:
        number = vocabulary.places[at]
        first = vocabulary.begins[number]
        if vocabulary.hashes[number] == word_hash and vocabulary.ends[number] - first == n_points:
            # the code points decide: two words with the same hash are two words
            is_same = True
            for i in range(n_points):
                is_same = is_same and vocabulary.points[first + i] == points[i]
            if is_same:
                return number
        at = (at + np.uint64(1)) & mask
    return np.int32(UNKNOWN)


@njit(nogil=True, cache=True)
def _place_all(hashes, places, n_words):
    mask = np.uint64(len(places) - 1)
    for number in range(n_words):
        at = (mixed(hashes[number]) >> np.uint64(13)) & mask
        while places[at] >= 0:
            at = (at + np.uint64(1)) & mask
        places[at] = number


@njit(nogil=True, cache=True)
def _intern(hashes, begins, ends, points, places, hashes_V, begins_V, ends_V, points_V, n, n_points):
    """Return the numbers of words; new ones go into the vocabulary, which has the room. Also its words and points."""
    ids = np.empty(len(hashes), np.int32)
    mask = np.uint64(len(places) - 1)
    for i in range(len(hashes)):
        at = (mixed(hashes[i]) >> np.uint64(13)) & mask
        while places[at] >= 0:
            if _same(places[at], hashes[i], begins[i], ends[i], points, hashes_V, begins_V, ends_V, points_V):
                break
            at = (at + np.uint64(1)) & mask
        if places[at] < 0:
            size = ends[i] - begins[i]
            points_V[n_points : n_points + size] = points[begins[i] : ends[i]]
            hashes_V[n], begins_V[n], ends_V[n] = hashes[i], n_points, n_points + size
            places[at] = n
            n += 1
            n_points += size
        ids[i] = places[at]
    return ids, n, n_points


@njit(nogil=True, cache=True)
def number_words(hashes, begins, ends, points, vocabulary):
    """Return the numbers of a text's words, UNKNOWN for those that are not in the vocabulary."""
    ids = np.empty(len(hashes), np.int32)
    for i in range(len(hashes)):
        ids[i] = _number(hashes[i], points[begins[i] : ends[i]], ends[i] - begins[i], vocabulary)
    return ids


@njit(nogil=True, cache=True)
def _same(number, word_hash, begin, end, points, hashes_V, begins_V, ends_V, points_V):
    if hashes_V[number] != word_hash or ends_V[number] - begins_V[number] != end - begin:
        return False
    for i in range(end - begin):
        if points[begin + i] != points_V[begins_V[number] + i]:
            return False
    return True
