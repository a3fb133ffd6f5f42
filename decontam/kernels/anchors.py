"""The quick look at raw bytes: may this text share a run of `ngram_size` words with an item? Numba.

Any n words in a row hold k words in a row whose first has a number, in the text, that n - k + 1 divides. So it is
enough to look up the k words at those places (anchors) in the set of all the items' k words in a row: one look in seven
words for n = 13, k = 7, and none is missed. Bytes are decoded, folded and hashed on the way, without a parser; a text
that folds in another way than character by character is left to the slow way, and so is anything that isn't plainly
right.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from decontam.kernels.hashing import BASE, PRIME, SEED, WHOLE_SALT, holds, insert, mixed
from decontam.kernels.json_syntax import (
    COLON,
    COMMA,
    DONE,
    FIRST_KEY,
    FIRST_VALUE,
    GIVE_UP,
    KEY,
    VALUE,
    escaped,
    is_at,
    literal_end,
    punctuated,
    string_end,
)
from decontam.kernels.utf8 import decoded
from decontam.kernels.words import IN_SINGLE, IN_WORD, OUTSIDE
from decontam.normalize import CLASS_SHIFT, CODE_POINT, LETTER, LOOK, MARK, SEPARATOR, SINGLE, fold_table

_BLOCK, _BUFFER = 4_096, 16_384
"""Bytes between two looks at how many words there are; words that are kept until they are looked up."""
_SPECIAL = 128
"""From here on, entries of a byte table say that a byte is not a letter, digit or separator of ASCII."""
_LOOK_AT_IT = -1


class AnchorSet(NamedTuple):
    """What a text's words are looked up in."""

    k: int
    """Words of an anchor."""
    step: int
    """Every so many words there is an anchor."""
    whole: int
    """Words in a row by which short items are found, anywhere; 0: there are none."""
    bits: npt.NDArray[np.uint64]
    keys: npt.NDArray[np.uint64]
    """The set, as in `hashing.holds`."""


def anchor_size(ngram_size: int) -> int:
    """Return k: long enough to be rare, short enough that anchors lie far apart (6 to 8 were best)."""
    return min(ngram_size, max(5, min(8, (ngram_size + 1) // 2)))


def build_anchors(
    hashes: npt.NDArray[np.uint64],
    starts: npt.NDArray[np.int64],
    stops: npt.NDArray[np.int64],
    is_short: npt.NDArray[np.bool_],
    *,
    ngram_size: int,
    whole: int,
) -> AnchorSet:
    """Make the set from the items' word hashes.

    Args:
        starts: where items begin among the hashes; `stops`: one past their ends.
        is_short: items to be found whole.
        ngram_size: the smallest.
        whole: the first words by which short items are found; no short item has fewer. 0: there are none.
    """
    k = anchor_size(ngram_size)
    n_keys = int(np.maximum(stops - starts, 0).sum()) + len(starts)
    bits = np.zeros(1 << max(10, (10 * n_keys // 64).bit_length()), np.uint64)
    keys = np.zeros(1 << max(4, (3 * n_keys // 2).bit_length()), np.uint64)
    _fill(hashes, starts, stops, is_short, k, whole, bits, keys)
    return AnchorSet(k, ngram_size - k + 1, whole, bits, keys)


def byte_table(fold_case: bool, *, json: bool) -> npt.NDArray[np.uint8]:
    """Return for each byte the folded letter or digit, 0 for a separator, or at least 128 for what needs a look."""
    table = np.full(256, _SPECIAL, np.uint8)
    entries = fold_table(fold_case)[:128]
    kinds = entries >> CLASS_SHIFT
    table[:128] = np.where(kinds == LETTER, entries & CODE_POINT, 0)
    if json:
        table[:32] = table[ord('"')] = table[ord("\\")] = _SPECIAL
    return table


@njit(nogil=True, cache=True)
def flag_json_lines(buffer, begins, ends, field, k, step, whole, bits, keys, table, folds):
    """Return 1 for each line that must be looked at, 0 for the others; see `ReferenceIndex.flag_json_lines`."""
    flags, words = np.empty(len(begins), np.uint8), np.empty(_BUFFER + 1, np.uint64)
    for i in range(len(begins)):
        flags[i] = _flag_line(buffer, begins[i], ends[i], field, k, step, whole, bits, keys, table, folds, words)
    return flags


@njit(nogil=True, cache=True)
def flag_texts(buffer, begins, ends, k, step, whole, bits, keys, table, folds):
    """Return 1 for each UTF-8 text that must be looked at, 0 for the others."""
    flags, words = np.ones(len(begins), np.uint8), np.empty(_BUFFER + 1, np.uint64)
    for i in range(len(begins)):
        stop = _look_up(buffer, begins[i], ends[i], False, k, step, whole, bits, keys, table, folds, words)
        flags[i] = 0 if stop == ends[i] else 1
    return flags


@njit(nogil=True, cache=True)
def _fill(hashes, starts, stops, is_short, k, whole, bits, keys):
    for item in range(len(starts)):
        if not is_short[item]:
            for at in range(starts[item], stops[item] - k + 1):
                insert(_run_key(hashes, at, k), bits, keys)
        elif whole and whole <= stops[item] - starts[item]:
            insert(mixed(_plain_key(hashes, starts[item], whole) ^ WHOLE_SALT), bits, keys)


@njit(nogil=True, cache=True, inline="always")
def _plain_key(hashes, at, size):
    key = np.uint64(0)
    for i in range(size):
        key = key * BASE + hashes[at + i]
    return key


@njit(nogil=True, cache=True, inline="always")
def _run_key(hashes, at, size):
    return mixed(_plain_key(hashes, at, size))


@njit(nogil=True, cache=True)
def _flag_line(buffer, p, end, field, k, step, whole, bits, keys, table, folds, words):
    """Check a line's syntax and look up its text. Keys with escapes, or the field twice: a parser must tell."""
    depth, objects, expected, n_found, is_text = 0, np.int64(0), VALUE, 0, False
    while p < end:
        b = buffer[p]
        if b == 32 or b == 9 or b == 13:
            p += 1
        elif b == 34:
            if expected == KEY or expected == FIRST_KEY:
                first = p + 1
                p, has_escape = string_end(buffer, first, end)
                if p < 0 or (depth == 1 and has_escape):
                    return 1
                is_text = depth == 1 and p - 1 - first == len(field) and is_at(buffer, first, field)
                expected = COLON
            elif expected == VALUE or expected == FIRST_VALUE:
                if is_text:
                    p = _look_up(buffer, p + 1, end, True, k, step, whole, bits, keys, table, folds, words) + 1
                    n_found += 1
                else:
                    p, _ = string_end(buffer, p + 1, end)
                if p <= 0:
                    return 1
                is_text, expected = False, COMMA
            else:
                return 1
        elif b == 44 or b == 58 or b == 123 or b == 125 or b == 91 or b == 93:
            if is_text and b != 58:
                return 1  # not a string
            expected, depth, objects = punctuated(b, expected, depth, objects)
            if expected == GIVE_UP:
                return 1
            p += 1
        else:
            if is_text or depth == 0 or (expected != VALUE and expected != FIRST_VALUE):
                return 1
            p = literal_end(buffer, p, end)
            if p < 0:
                return 1
            expected = COMMA
    return 0 if expected == DONE and n_found == 1 else 1


@njit(nogil=True, cache=True)
def _look_up(buffer, p, end, is_json, k, step, whole, bits, keys, table, folds, words):
    """Read a text from p; return where it ends, or a negative number if it must be looked at.

    In JSON the text is the inside of a string, which ends at its quotation mark; else it ends at `end`.
    """
    n, state, h = 0, OUTSIDE, SEED
    while True:
        if n >= _BUFFER - _BLOCK:
            n = _taken(words, n, k, step, whole, bits, keys)
            if n < 0:
                return _LOOK_AT_IT
        if state != IN_SINGLE:
            stop = min(end, p + _BLOCK)
            in_word = np.int64(state)
            while p < stop:
                c = table[buffer[p]]
                if c >= _SPECIAL:
                    break
                # the hash is always stored, and counts where a word ends: a branch for it would cost more
                words[n] = h
                is_letter = np.int64(c != 0)
                n += in_word & (1 - is_letter)
                h = (h ^ np.uint64(c)) * PRIME if is_letter else SEED
                in_word = is_letter
                p += 1
            state = in_word
            if p == stop and p < end:
                continue
        if p >= end:
            if is_json:
                return _LOOK_AT_IT
            break
        point, size = _one(buffer, p, end, is_json)
        if size <= 0:
            if size == 0:
                break
            return _LOOK_AT_IT
        p += size
        entry = folds[point]
        if entry & np.uint32(LOOK):
            return _LOOK_AT_IT
        kind = (entry >> np.uint32(CLASS_SHIFT)) & np.uint32(7)
        if kind == MARK and state == OUTSIDE:
            continue
        if kind > SINGLE:
            continue  # invisible
        if state != OUTSIDE and (kind == SEPARATOR or kind == SINGLE or (kind == LETTER and state == IN_SINGLE)):
            words[n], state, h = h, OUTSIDE, SEED
            n += 1
        if kind != SEPARATOR:
            if state == OUTSIDE:
                state = IN_SINGLE if kind == SINGLE else IN_WORD
            h = (h ^ np.uint64(entry & np.uint32(CODE_POINT))) * PRIME
    if state != OUTSIDE:
        words[n] = h
        n += 1
    if _taken(words, n, k, step, whole, bits, keys) < 0:
        return _LOOK_AT_IT
    return p


@njit(nogil=True, cache=True, inline="always")
def _one(buffer, p, end, is_json):
    """Return the code point at p and its bytes: 0 bytes at a string's end, negative for what is not right."""
    b = buffer[p]
    if b < 128:
        if not is_json or (b >= 32 and b != 34 and b != 92):
            return np.int64(b), 1
        if b == 34:
            return np.int64(0), 0
        return escaped(buffer, p, end) if b == 92 else (np.int64(0), -1)
    return decoded(buffer, p, end)


@njit(nogil=True, cache=True)
def _taken(words, n, k, step, whole, bits, keys):
    """Look up what can be, move the rest to the front and return its size; -1 if something was found."""
    at = 0
    while at + k <= n:
        if holds(_run_key(words, at, k), bits, keys):
            return -1
        at += step
    if whole:
        if n >= whole:
            power, key = np.uint64(1), _plain_key(words, 0, whole)
            for _ in range(whole):
                power *= BASE
            if holds(mixed(key ^ WHOLE_SALT), bits, keys):
                return -1
            for i in range(whole, n):
                key = key * BASE + words[i] - words[i - whole] * power
                if holds(mixed(key ^ WHOLE_SALT), bits, keys):
                    return -1
        # short items may begin in the last words; anchors must keep their places
        at = min(at, max(0, n - whole + 1) // step * step)
    for i in range(at, n):
        words[i - at] = words[i]
    return n - at
