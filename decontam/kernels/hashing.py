"""Hashes of words and of runs of words, and the set of keys that a scan looks into. Numba; imported by other kernels.

A word's hash is FNV-1a over its folded code points, 64 bits. A run of words has a polynomial of their hashes as its
key. Hashes only find candidates: whatever is reported was compared token by token.
"""

import numpy as np
from numba import njit

SEED, PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
BASE = np.uint64(0x9E3779B97F4A7C15)
WHOLE_SALT = np.uint64(0x5851F42D4C957F2D)
"""Keeps keys of whole short items apart from those of anchors."""
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_ZERO, _ONE, _SHIFT_29, _SHIFT_32, _SIX_BITS = (np.uint64(x) for x in (0, 1, 29, 32, 63))


@njit(nogil=True, cache=True, inline="always")
def mixed(key):
    """Return a key whose bits all depend on all bits of the old one; never 0, which marks free places."""
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


@njit(nogil=True, cache=True)
def insert(key, bits, keys):
    """Put a mixed key into the set; return whether it is new. The caller sees to it that places are left."""
    at_word = (key >> _SHIFT_32) & np.uint64(len(bits) - 1)
    bits[at_word] |= (_ONE << ((key >> _ONE) & _SIX_BITS)) | (_ONE << ((key >> np.uint64(7)) & _SIX_BITS))
    mask = np.uint64(len(keys) - 1)
    at = (key >> np.uint64(13)) & mask
    while keys[at] != _ZERO:
        if keys[at] == key:
            return False
        at = (at + _ONE) & mask
    keys[at] = key
    return True
