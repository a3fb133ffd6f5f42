"""The quick search of raw bytes: may this text share a run of `ngram_size` words with an item? Numba.

Any n words in a row hold k words in a row whose first has a number, in the text, that n - k + 1 divides. So it is
enough to look up the k words at those places (anchors) in the set of all the items' k words in a row: one look-up in
seven words for n = 13, k = 7, and none is missed. Bytes are decoded, folded and hashed on the way, without a parser.

All that is in doubt is a candidate: a text that folds in another way than character by character, a line that is not
plainly right JSON. A candidate costs time, a document that is missed makes the result wrong.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from decontam.kernels.blocks import WIDTH, byte, few_masks, first_bits, json_masks, text_masks, trailing_zeros
from decontam.kernels.grams import fill_grams, keep_word, look_up_grams
from decontam.kernels.hashing import (
    BASE,
    WHOLE_SALT,
    ascii_hash,
    bit_place,
    hash_of,
    holds,
    insert,
    mixed,
    new_hash,
    rotated,
    set_bits,
    with_point,
)
from decontam.kernels.json_syntax import (
    COLON,
    COMMA,
    DONE,
    FIRST_KEY,
    FIRST_VALUE,
    GIVE_UP,
    KEY,
    VALUE,
    is_at,
    is_separating,
    literal_end,
    punctuated,
    string_end,
)
from decontam.kernels.markup import is_name, unit_at
from decontam.kernels.words import IN_SINGLE, IN_WORD, OUTSIDE, ends_word, is_passed_over
from decontam.normalize import CLASS_SHIFT, CODE_POINT, NEEDS_NFKC, SEPARATOR, SINGLE, TWICE

_BUFFER = 4_096
"""Words that are kept until they are looked up, at least: 32 KB of hashes."""
_LARGEST_STEP = 512
"""Words between two anchors; so many are kept at most."""
_CANDIDATE = -1
"""Returned in place of where a text ends: it may share something with an item, or could not be read."""
_LONG_WORD = 1_024
"""Characters of a longer word are not kept: a text with one is a candidate where grams are searched for."""
_ONE, _SIX, _SIX_BITS = (np.uint64(x) for x in (1, 6, 63))


class AnchorSet(NamedTuple):
    """The set in which a text's words are looked up."""

    k: int
    """Words of an anchor."""
    step: int
    """Every so many words there is an anchor."""
    whole: int
    """Words in a row by which texts that are found in full are found, anywhere; 0: there are none."""
    bits: npt.NDArray[np.uint64]
    keys: npt.NDArray[np.uint64]
    """The set, as in `hashing.holds`."""
    whole_bits: npt.NDArray[np.uint64]
    """(2^m,) one bit for each short item, at the highest bits of its key; small enough for the first cache, since it
    is read for every word."""
    gram_bits: npt.NDArray[np.uint64]
    """(2^m,) the same for the grams by which items of other tokens than words are found; empty: there are none."""
    is_all: bool
    """Whether each text is a candidate."""
    reads_markup: bool
    """Whether HTML and escapes are read as what they stand for."""


def anchor_size(ngram_size: int) -> int:
    """Return k: long enough to be rare, short enough that anchors lie far apart (6 to 8 were best)."""
    return min(ngram_size, max(5, min(8, (ngram_size + 1) // 2)))


def build_anchors(
    hashes: npt.NDArray[np.uint64],
    starts: npt.NDArray[np.int64],
    stops: npt.NDArray[np.int64],
    windows: npt.NDArray[np.int64],
    *,
    ngram_size: int,
    whole: int,
) -> AnchorSet:
    """Make the set from the items' word hashes.

    Args:
        starts: where runs with n-grams begin among the hashes; `stops`: one past their ends.
        windows: where the words begin by which short items are found.
        ngram_size: the smallest of the rule; a smaller one is exact, too.
        whole: how many of these words there are for each short item.
    """
    k = anchor_size(ngram_size)
    # runs of an item have much in common, so the set is made first, and then the bits as its size asks
    n_keys = int(np.maximum(stops - starts - k + 1, 0).sum()) + len(windows)
    keys = np.zeros(1 << max(4, (5 * n_keys // 4).bit_length()), np.uint64)
    n_keys = _insert_runs(hashes, starts, stops, k, keys)
    bits = np.zeros(1 << max(10, (10 * (n_keys + len(windows)) // 64).bit_length()), np.uint64)
    whole_bits = np.zeros(1 << max(10, (16 * len(windows) // 64).bit_length()), np.uint64)
    _set_bits(keys, bits)
    _insert_windows(hashes, windows, whole, bits, keys, whole_bits)
    whole = whole if len(windows) else 0
    step = min(ngram_size - k + 1, _LARGEST_STEP)
    return AnchorSet(k, step, whole, bits, keys, whole_bits, np.empty(0, np.uint64), False, True)


def build_bpe_anchors(
    hashes: npt.NDArray[np.uint64],
    starts: npt.NDArray[np.int64],
    stops: npt.NDArray[np.int64],
    pairs: npt.NDArray[np.int64],
    grams: npt.NDArray[np.uint64],
    *,
    k: int,
    step: int,
    is_all: bool,
) -> AnchorSet:
    """Make the set for items whose tokens are no words; see `bpe_anchors`.

    Args:
        starts: where items begin among the hashes; `stops`: one past their ends.
        pairs: where two words in a row begin that are searched for anywhere.
        grams: keys of grams that are, too.
    """
    n_keys = int(np.maximum(stops - starts, 0).sum()) + len(pairs) + len(grams)
    bits = np.zeros(1 << max(10, (10 * n_keys // 64).bit_length()), np.uint64)
    keys = np.zeros(1 << max(4, (5 * n_keys // 4).bit_length()), np.uint64)
    whole_bits = np.zeros(1 << max(10, (16 * len(pairs) // 64).bit_length()), np.uint64)
    gram_bits = np.zeros(1 << max(10, (16 * len(grams) // 64).bit_length()) if len(grams) else 0, np.uint64)
    _insert_runs(hashes, starts, stops, k, keys)
    _set_bits(keys, bits)
    _insert_windows(hashes, pairs, 2, bits, keys, whole_bits)
    fill_grams(grams, bits, keys, gram_bits)
    return AnchorSet(k, step, 2 if len(pairs) else 0, bits, keys, whole_bits, gram_bits, is_all, True)


@njit(nogil=True, cache=True)
def flag_json_lines(buffer, begins, ends, field, anchors, case, folds):
    """Return 1 for each line that is a candidate, 0 for the others; see `ReferenceIndex.flag_json_lines`."""
    flags, words = np.empty(len(begins), np.uint8), np.empty(max(_BUFFER, 4 * anchors.whole), np.uint64)
    characters = np.empty(_BUFFER, np.uint32)
    source, n_bytes = buffer.ctypes.data, len(buffer)
    for i in range(len(begins)):
        flags[i] = _flag_line(source, n_bytes, begins[i], ends[i], field, anchors, case, folds, words, characters)
    return flags


@njit(nogil=True, cache=True)
def flag_texts(buffer, begins, ends, anchors, case, folds):
    """Return 1 for each UTF-8 text that is a candidate, 0 for the others."""
    flags, words = np.ones(len(begins), np.uint8), np.empty(max(_BUFFER, 4 * anchors.whole), np.uint64)
    characters = np.empty(_BUFFER, np.uint32)
    source, n_bytes = buffer.ctypes.data, len(buffer)
    for i in range(len(begins)):
        stop = _flag_text(source, n_bytes, begins[i], ends[i], False, anchors, case, folds, words, characters)
        flags[i] = 0 if stop == ends[i] else 1
    return flags


@njit(nogil=True, cache=True)
def _insert_runs(hashes, starts, stops, k, keys):
    """Put the k words in a row of runs into the table, without their bits; return how many are distinct."""
    n, ignored = 0, np.zeros(1, np.uint64)
    for run in range(len(starts)):
        for at in range(starts[run], stops[run] - k + 1):
            n += insert(_run_key(hashes, at, k), ignored, keys)
    return n


@njit(nogil=True, cache=True)
def _set_bits(keys, bits):
    for key in keys:
        if key:
            set_bits(key, bits)


@njit(nogil=True, cache=True)
def _insert_windows(hashes, windows, size, bits, keys, whole_bits):
    for at in windows:
        key = _whole_key(hashes, at, size)
        insert(mixed(key ^ WHOLE_SALT), bits, keys)
        place = bit_place(key, len(whole_bits))
        whole_bits[place >> _SIX] |= _ONE << (place & _SIX_BITS)


@njit(nogil=True, cache=True)
def _run_key(hashes, at, size):
    key = np.uint64(0)
    for i in range(size):
        key = key * BASE + hashes[at + i]
    return mixed(key)


@njit(nogil=True, cache=True)
def _whole_key(hashes, at, size):
    """Return the key of the words by which a short item is found; cheap to compute from that of one word before."""
    key = np.uint64(0)
    for i in range(size):
        key = rotated(key, 13) ^ hashes[at + i]
    return key


@njit(nogil=True, cache=True)
def _flag_line(source, n_bytes, p, end, field, anchors, case, folds, words, characters):
    """Check a line's syntax and look up its text. Keys with escapes, or the field twice: a parser must decide."""
    depth, objects, expected, n_found, is_text = 0, np.int64(0), VALUE, 0, False
    while p < end:
        b = byte(source, p)
        if b == 32 or b == 9 or b == 13:
            p += 1
        elif b == 34:
            if expected == KEY or expected == FIRST_KEY:
                first = p + 1
                p, has_escape = string_end(source, first, end, n_bytes)
                if p < 0 or (depth == 1 and has_escape):
                    return 1
                is_text = depth == 1 and p - 1 - first == len(field) and is_at(source, first, field)
                expected = COLON
            elif expected == VALUE or expected == FIRST_VALUE:
                if is_text:
                    p = _flag_text(source, n_bytes, p + 1, end, True, anchors, case, folds, words, characters) + 1
                    n_found += 1
                else:
                    p, _ = string_end(source, p + 1, end, n_bytes)
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
            p = literal_end(source, p, end)
            if p < 0:
                return 1
            expected = COMMA
    return 0 if expected == DONE and n_found == 1 else 1


@njit(nogil=True, cache=True)
def _flag_text(source, n_bytes, p, end, is_json, anchors, case, folds, words, characters):
    """Read a text from p; return where it ends, or _CANDIDATE.

    In JSON the text is the inside of a string, which ends at its quotation mark; else it ends at `end`.
    """
    # n: words that are kept; start: where the word begins that is being read, negative outside of words
    n, start = 0, np.int64(-1)
    # m: characters that are kept; joined: where a word begins that no separator divides from the one before
    m, joined, has_grams = 0, np.int64(-1), len(anchors.gram_bits) > 0
    if anchors.is_all:
        return _CANDIDATE
    while True:
        # a block of 64 bytes has at most 32 words, so these fit
        if n >= len(words) - WIDTH:
            n = _look_up_anchors(words, n, anchors)
            if n < 0:
                return _CANDIDATE
        if m >= len(characters) - _LONG_WORD - 2 * WIDTH:
            m = look_up_grams(characters, m, anchors.gram_bits, anchors.bits, anchors.keys)
            if m < 0:
                return _CANDIDATE
        letters, n_read = _letters(source, n_bytes, p, min(WIDTH, end - p), is_json, anchors.reads_markup)
        # bit i of `before`: whether byte i - 1 is a letter; where the two differ, a word begins or ends
        before = letters << _ONE | np.uint64(start >= 0)
        begins, ends = letters & ~before & first_bits(n_read), ~letters & before & first_bits(n_read)
        while ends:
            if start < 0:
                start = p + trailing_zeros(begins)
                begins &= begins - _ONE
            place = p + trailing_zeros(ends)
            ends &= ends - _ONE
            if has_grams:
                m = _keep_word(source, start, place, case, joined, characters, m)
                if m < 0:
                    return _CANDIDATE
            words[n] = ascii_hash(source, start, place, n_bytes, case)
            n, start = n + 1, -1
        start = p + trailing_zeros(begins) if begins else start
        p += n_read
        if n_read == WIDTH:
            continue
        # no plain letter, separator or end: an escape, markup or a character of several bytes
        if p < end and (byte(source, p) > 127 or _is_sign(byte(source, p))):
            if has_grams and start >= 0:
                m = _keep_word(source, start, p, case, joined, characters, m)
                if m < 0:
                    return _CANDIDATE
            p, n, m, joined = _read_characters(source, p, end, start, is_json, anchors, folds, words, n, characters, m)
            if p < 0:
                return _CANDIDATE
            start = -1
            continue
        if is_json and (p >= end or byte(source, p) != 34):
            return _CANDIDATE
        break
    if start >= 0:
        if has_grams:
            m = _keep_word(source, start, p, case, joined, characters, m)
        words[n] = ascii_hash(source, start, p, n_bytes, case)
        n += 1
    if m < 0 or (has_grams and look_up_grams(characters, m, anchors.gram_bits, anchors.bits, anchors.keys) < 0):
        return _CANDIDATE
    return _CANDIDATE if _look_up_anchors(words, n, anchors) < 0 else p


@njit(nogil=True, cache=True, inline="always")
def _keep_word(source, start, stop, case, joined, characters, m):
    """Keep a word's characters; return how many are kept then, -1 for a word that is too long."""
    if stop - start > _LONG_WORD:
        return np.int64(-1)
    return keep_word(source, start, stop, case, start != joined, characters, m)


@njit(nogil=True, cache=True, inline="always")
def _letters(source, n_bytes, p, size, is_json, reads_markup):
    """Return a mask of the letters among at most 64 bytes from p, and how many bytes it is about.

    It ends before what is not plain: a byte over 127, and what may be markup; in JSON a quotation mark, a control
    character or an escape that may be a letter.
    """
    if p + WIDTH > n_bytes:
        letters, special = few_masks(source, p, size, is_json)
    elif is_json:
        letters, special = json_masks(source, p)
    else:
        letters, special = text_masks(source, p)
    n_read, special = size, special & first_bits(size)
    while special:
        i = trailing_zeros(special)
        n_plain = _n_separating(source, p + i, size - i, is_json, reads_markup)
        if n_plain == 0:
            n_read = i
            break
        both = ~(first_bits(n_plain) << np.uint64(i))
        letters &= both
        special &= both
    return letters, n_read


@njit(nogil=True, cache=True, inline="always")
def _is_sign(b):
    """Whether markup, or an escape of JSON, may begin with a byte: & < or a backslash."""
    return b == 92 or b == 60 or b == 38


@njit(nogil=True, cache=True, inline="always")
def _n_separating(source, at, size, is_json, reads_markup):
    """Return how many of `size` bytes at a sign are a separator and nothing else, 1 or 2; 0: only reading it says."""
    if size < 2:
        return 0
    b, following, n_plain = byte(source, at), byte(source, at + 1), 0
    if b == 92 and is_json:
        if is_separating(following):
            is_sure = following != 92 or not reads_markup or (size > 2 and not _goes_on(byte(source, at + 2)))
            n_plain = 2 if is_sure else 0
    elif _is_sign(b):
        # a name, the number of an entity, the / or ! of a tag, or one of them in an escape
        may_go_on = _goes_on(following) or (b != 92 and (33 <= following <= 35 or following == 47))
        n_plain = 0 if may_go_on and reads_markup else 1
    return n_plain


@njit(nogil=True, cache=True, inline="always")
def _goes_on(b):
    """Whether an escape may go on with a byte behind its backslash."""
    return is_name(b) or b == 92


@njit(nogil=True, cache=True)
def _read_characters(source, p, end, start, is_json, anchors, folds, words, n, characters, m):
    """Read on character by character, until outside of a word and before a byte of ASCII.

    Args:
        start: where the word begins that p is in; negative: in none.
        n: words that are kept; `m`: characters.

    Returns:
        where it ends, or _CANDIDATE; how many words and characters are kept; where a word may
        begin that no separator divides from the last one, or a negative number.
    """
    # the begin of the word was read as ASCII, so its hash is computed again from there
    h, state, is_apart, has_grams = new_hash(), OUTSIDE if start < 0 else IN_WORD, True, len(anchors.gram_bits) > 0
    if start >= 0:
        for i in range(start, p):
            h = with_point(h, folds[byte(source, i)] & np.uint32(CODE_POINT))
    while True:
        if n >= len(words) - WIDTH:
            n = _look_up_anchors(words, n, anchors)
            if n < 0:
                return np.int64(_CANDIDATE), 0, 0, np.int64(0)
        if m >= len(characters) - _LONG_WORD - 2 * WIDTH:
            m = look_up_grams(characters, m, anchors.gram_bits, anchors.bits, anchors.keys)
            if m < 0:
                return np.int64(_CANDIDATE), 0, 0, np.int64(0)
        # back to blocks as soon as no word is cut by it
        is_plain = p >= end or (byte(source, p) < 128 and not _is_sign(byte(source, p)))
        if is_plain and (state == OUTSIDE or state == IN_SINGLE or p >= end or (is_json and byte(source, p) == 34)):
            break
        point, size, _ = unit_at(source, p, end, is_json, anchors.reads_markup)
        if size <= 0:
            return np.int64(_CANDIDATE), 0, 0, np.int64(0)
        p += size
        entry = folds[point]
        if entry & np.uint32(NEEDS_NFKC):
            return np.int64(_CANDIDATE), 0, 0, np.int64(0)
        kind = (entry >> np.uint32(CLASS_SHIFT)) & np.uint32(7)
        if is_passed_over(kind, state):
            continue  # invisible, or with nothing that it belongs to
        if ends_word(kind, state):
            words[n], state, h = hash_of(h), OUTSIDE, new_hash()
            n, is_apart = n + 1, False
        if kind == SEPARATOR:
            is_apart = True
            continue
        if state == OUTSIDE:
            state = IN_SINGLE if kind == SINGLE else IN_WORD
            if has_grams and is_apart:
                characters[m] = 32
                m += 1
        for _ in range(2 if entry & np.uint32(TWICE) else 1):
            h = with_point(h, entry & np.uint32(CODE_POINT))
            if has_grams:
                characters[m] = entry & np.uint32(CODE_POINT)
                m += 1
    # a one-character token that ASCII letters follow: they begin another word with no separator between
    joined = np.int64(p if state == IN_SINGLE else -1)
    if state != OUTSIDE:
        words[n] = hash_of(h)
        n += 1
    return np.int64(p), n, m, joined


@njit(nogil=True, cache=True)
def _look_up_anchors(words, n, anchors):
    """Look up what can be, move the rest to the front and return its size; -1 if something was found."""
    k, step, whole, bits, keys, whole_bits, _, _, _ = anchors
    # kept words begin at a multiple of `step`, counted from the text's first word
    at = 0
    while at + k <= n:
        key = np.uint64(0)
        for i in range(at, at + k):
            key = key * BASE + words[i]
        if holds(mixed(key), bits, keys):
            return -1
        at += step
    # the next place may lie in words that are not there yet
    at = min(at, n // step * step)
    if whole:
        if n >= whole and _has_whole(words, n, whole, bits, keys, whole_bits):
            return -1
        # short items may begin in the last words; anchors must keep their places
        at = min(at, max(0, n - whole + 1) // step * step)
    for i in range(at, n):
        words[i - at] = words[i]
    return n - at


@njit(nogil=True, cache=True)
def _has_whole(words, n, whole, bits, keys, whole_bits):
    # a rolling key: each step turns it by 13 bits, so the oldest word is in it turned by 13 * (whole - 1)
    key, out = _whole_key(words, 0, whole - 1), 13 * whole & 63
    for i in range(whole - 1, n):
        key = rotated(key, 13) ^ words[i]
        place = bit_place(key, len(whole_bits))
        if whole_bits[place >> _SIX] >> (place & _SIX_BITS) & _ONE and holds(mixed(key ^ WHOLE_SALT), bits, keys):
            return True
        key ^= rotated(words[i - whole + 1], out - 13 & 63)
    return False
