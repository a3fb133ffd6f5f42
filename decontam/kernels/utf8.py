"""Decoding UTF-8 in kernels: one code point, or the fact that it is none. Numba."""

import numpy as np
from numba import njit

from decontam.kernels.blocks import byte


@njit(nogil=True, cache=True, inline="always")
def decoded(source, p, end):
    """Return the code point at p, where a byte over 127 is, and its number of bytes; -1 bytes: invalid."""
    b = byte(source, p)
    if b < 0xC2 or b > 0xF4:
        return np.int64(0), -1
    size = 2 if b < 0xE0 else 3 if b < 0xF0 else 4
    if p + size > end:
        return np.int64(0), -1
    point = b & (0x7F >> size)
    for i in range(1, size):
        following = byte(source, p + i)
        if following & 0xC0 != 0x80:
            return np.int64(0), -1
        point = point << 6 | following & 0x3F
    # longer than needed, a surrogate, or beyond Unicode
    if (size == 3 and (point < 0x800 or 0xD800 <= point < 0xE000)) or (size == 4 and not 0x10000 <= point < 0x110000):
        return np.int64(0), -1
    return point, size
