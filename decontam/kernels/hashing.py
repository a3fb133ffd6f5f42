"""Hashes of words and of runs of words, and the set of keys that a scan looks into. Numba; imported by other kernels.

A word's hash is made of its folded text as UTF-8, 8 bytes at once, so words of up to 8 bytes never have the same. A run
of words has a polynomial of their hashes as its key. Hashes only find candidates: all that is reported was compared
token by token.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from decontam.kernels.blocks import byte, eight_bytes

# constants whose bits are well mixed: FNV-1a's offset basis, a prime of XXH3; BASE and _MIX are splitmix64's
_SEED, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x9FB21C651E98DF25)
BASE = np.uint64(0x9E3779B97F4A7C15)
WHOLE_SALT = np.uint64(0x5851F42D4C957F2D)
"""Keeps keys of whole short items apart from those of anchors."""
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_ZERO, _ONE, _SHIFT_29, _SHIFT_32, _SIX_BITS = (np.uint64(x) for x in (0, 1, 29, 32, 63))


class Hash(NamedTuple):
    """Of a word that is read character by character."""

    done: np.uint64
    pending: np.uint64
    """Up to 8 bytes, the first is the lowest."""
    n_pending: int


@njit(nogil=True, cache=True, inline="always")
def new_hash():
    """Return the state before a word."""
    return Hash(_SEED, _ZERO, 0)


@njit(nogil=True, cache=True)
def with_point(state, point):
    """Return the state after one more folded code point."""
    p = np.uint64(point)
    if p < np.uint64(0x80):
        return _with_byte(state, p)
    if p < np.uint64(0x800):
        state = _with_byte(state, np.uint64(0xC0) | p >> np.uint64(6))
    else:
        if p < np.uint64(0x10000):
            state = _with_byte(state, np.uint64(0xE0) | p >> np.uint64(12))
        else:
            state = _with_byte(state, np.uint64(0xF0) | p >> np.uint64(18))
            state = _with_byte(state, np.uint64(0x80) | p >> np.uint64(12) & _SIX_BITS)
        state = _with_byte(state, np.uint64(0x80) | p >> np.uint64(6) & _SIX_BITS)
    return _with_byte(state, np.uint64(0x80) | p & _SIX_BITS)


@njit(nogil=True, cache=True, inline="always")
def hash_of(state):
    """Return a word's hash."""
    return _chained(state.done, state.pending)


@njit(nogil=True, cache=True, inline="always")
def ascii_hash(source, begin, end, n_bytes, case):
    """Return the hash of a word of letters and digits of ASCII.

    Args:
        source: address of `n_bytes` bytes.
        case: the bit of lower case in each byte, where case is folded; 0 where it isn't. Digits have it.
    """
    done = _SEED
    while end - begin > 8:
        done = _chained(done, eight_bytes(source, begin) | case)
        begin += 8
    if begin + 8 <= n_bytes:
        last = eight_bytes(source, begin)
    else:
        last = _ZERO
        for i in range(begin, end):
            last |= np.uint64(byte(source, i)) << np.uint64(8 * (i - begin))
    return _chained(done, (last | case) & _ALL >> np.uint64(64 - 8 * (end - begin)))


@njit(nogil=True, cache=True, inline="always")
def _chained(done, eight):
    key = (done ^ eight) * _PRIME
    return key ^ key >> _SHIFT_32


@njit(nogil=True, cache=True, inline="always")
def _with_byte(state, byte):
    if state.n_pending == 8:
        return Hash(_chained(state.done, state.pending), byte, 1)
    return Hash(state.done, state.pending | byte << np.uint64(8 * state.n_pending), state.n_pending + 1)


@njit(nogil=True, cache=True, inline="always")
def mixed(key):
    """Return a key whose bits all depend on all bits of the old one; never 0, which marks free places."""
    # FNV hashes alone have high bits that hardly differ for short words, and tables use the high bits
    key ^= key >> _SHIFT_29
    key *= _MIX
    key ^= key >> _SHIFT_32
    return key | _ONE


@njit(nogil=True, cache=True, inline="always")
def holds(key, bits, keys):
    """Whether a mixed key is in the set.

    Args:
        bits: (2^m,) uint64, two bits of one word for each key; small enough for the cache.
        keys: (2^m,) uint64, the keys themselves, open addressing.
    """
    # the bits are in a near cache and answer most look-ups with no; only then the table in far memory is read
    word = bits[(key >> _SHIFT_32) & np.uint64(len(bits) - 1)]
    both = (_ONE << ((key >> _ONE) & _SIX_BITS)) | (_ONE << ((key >> np.uint64(7)) & _SIX_BITS))
    if word & both != both:
        return False
    mask = np.uint64(len(keys) - 1)
    at = (key >> np.uint64(13)) & mask
    while keys[at] != _ZERO:
        if keys[at] == key:
            return True
        at = (at + _ONE) & mask
    return False


@njit(nogil=True, cache=True, inline="always")
def rotated(key, n):
    """Return a key with its bits moved up n places, 0 to 63, the highest to the lowest."""
    return key << np.uint64(n) | key >> np.uint64(64 - n & 63)


@njit(nogil=True, cache=True)
def set_bits(key, bits):
    """Set the bits of a mixed key, as `holds` looks at them."""
    at_word = (key >> _SHIFT_32) & np.uint64(len(bits) - 1)
    bits[at_word] |= (_ONE << ((key >> _ONE) & _SIX_BITS)) | (_ONE << ((key >> np.uint64(7)) & _SIX_BITS))


@njit(nogil=True, cache=True)
def insert(key, bits, keys):
    """Put a mixed key into the set; return whether it is new. The caller sees to it that places are left."""
    set_bits(key, bits)
    mask = np.uint64(len(keys) - 1)
    at = (key >> np.uint64(13)) & mask
    while keys[at] != _ZERO:
        if keys[at] == key:
            return False
        at = (at + _ONE) & mask
    keys[at] = key
    return True


@njit(nogil=True, cache=True, inline="always")
def bit_place(key, n_words):
    """Return the bit of a key among `n_words` words of bits, a power of two."""
    return (key >> np.uint64(40)) & np.uint64(64 * n_words - 1)
