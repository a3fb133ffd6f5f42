"""Runs of characters of a stripped text: words, each with a space before it where a separator is. Numba.

They find what words don't: n-grams of a tokenizer's tokens that hold hardly a whole word. There are three sizes, since
twelve letters in a row are common, and twelve digits are not.
"""

import numpy as np
from numba import njit

from decontam.kernels.blocks import byte, eight_bytes
from decontam.kernels.hashing import BASE, bit_place, holds, insert, mixed

SIZES = _SHORT, _MEDIUM, _LONG = (12, 16, 24)
"""Characters of a gram: of the three, the longest one that a run of tokens has is searched for."""
_SALT = np.uint64(0x2545F4914F6CDD1D)
"""Keeps keys of grams apart from those of anchors in the same set."""
_SIX, _SIX_BITS, _ONE = np.uint64(6), np.uint64(63), np.uint64(1)


@njit(nogil=True, cache=True)
def gram_keys(points, lows, highs):
    """Return for each stretch [low, high) of a text, given as code points, the key of one of its grams.

    It is one of the largest size that it has, that with the smallest key: stretches that overlap mostly have the same.
    """
    found = np.empty(len(lows), np.uint64)
    for size in SIZES:
        keys = _all_keys(points, size)
        for i in range(len(lows)):
            if highs[i] - lows[i] >= size:
                found[i] = keys[lows[i] : highs[i] - size + 1].min()
    return found


@njit(nogil=True, cache=True)
def fill_grams(grams, bits, keys, gram_bits):
    """Put keys into the set."""
    for key in grams:
        insert(mixed(key ^ _SALT), bits, keys)
        place = bit_place(key, len(gram_bits))
        gram_bits[place >> _SIX] |= _ONE << (place & _SIX_BITS)


@njit(nogil=True, cache=True)
def look_up_grams(characters, n, gram_bits, bits, keys):
    """Look up the grams of n characters, move the last ones to the front and return how many; -1 if one was found."""
    source, n_words, a, b, c = gram_bits.ctypes.data, len(gram_bits), np.uint64(0), np.uint64(0), np.uint64(0)
    power_a, power_b, power_c = _power(_SHORT), _power(_MEDIUM), _power(_LONG)
    # three rolling keys, one for each size: the newest character comes in, the oldest one leaves
    for i in range(n):
        value = np.uint64(characters[i] + 1)
        a, b, c = a * BASE + value, b * BASE + value, c * BASE + value
        if i >= _SHORT:
            a -= np.uint64(characters[i - _SHORT] + 1) * power_a
        if i >= _MEDIUM:
            b -= np.uint64(characters[i - _MEDIUM] + 1) * power_b
        if i >= _LONG:
            c -= np.uint64(characters[i - _LONG] + 1) * power_c
        # most keys end at their bit; only a few are looked up in the set
        if i >= _SHORT - 1 and _may_hold(mixed(a), source, n_words) and holds(mixed(mixed(a) ^ _SALT), bits, keys):
            return -1
        if i >= _MEDIUM - 1 and _may_hold(mixed(b), source, n_words) and holds(mixed(mixed(b) ^ _SALT), bits, keys):
            return -1
        if i >= _LONG - 1 and _may_hold(mixed(c), source, n_words) and holds(mixed(mixed(c) ^ _SALT), bits, keys):
            return -1
    # a gram may begin in the last characters and end in those that come next
    n_kept = min(n, _LONG - 1)
    for i in range(n_kept):
        characters[i] = characters[n - n_kept + i]
    return n_kept


@njit(nogil=True, cache=True)
def keep_word(source, start, stop, case, has_space, characters, m):
    """Keep the characters of a word of ASCII, and the space before it; return how many are kept."""
    lower = np.uint32(case & np.uint64(0x20))
    if has_space:
        characters[m] = 32
        m += 1
    for i in range(start, stop):
        characters[m] = np.uint32(byte(source, i)) | lower
        m += 1
    return m


@njit(nogil=True, cache=True)
def _all_keys(points, size):
    keys, power, key = np.zeros(len(points), np.uint64), _power(size), np.uint64(0)
    for i in range(len(points)):
        key = key * BASE + np.uint64(points[i] + 1)
        if i >= size:
            key -= np.uint64(points[i - size] + 1) * power
        if i >= size - 1:
            keys[i - size + 1] = mixed(key)
    return keys


@njit(nogil=True, cache=True, inline="always")
def _may_hold(key, source, n_words):
    """Whether the bit of a key is set among words of bits at an address."""
    place = bit_place(key, n_words)
    return eight_bytes(source, np.int64(place >> _SIX) * 8) >> (place & _SIX_BITS) & _ONE != np.uint64(0)


@njit(nogil=True, cache=True)
def _power(size):
    power = np.uint64(1)
    for _ in range(size):
        power *= BASE
    return power
