"""The grammar of JSON for kernels that read a line without making objects of it. Numba.

It never takes a broken line for a right one; what it isn't sure of (deep nesting, long numbers) it gives up on, and a
parser must decide.
"""

import numpy as np
from numba import njit

from decontam.kernels.blocks import WIDTH, byte, json_masks, trailing_zeros
from decontam.kernels.utf8 import decoded

VALUE, FIRST_VALUE, KEY, FIRST_KEY, COLON, COMMA, DONE = range(7)
"""What may come next. FIRST_ means that the container may end as well; COMMA that it may end."""
GIVE_UP = -1
_MAX_DEPTH = 60
"""Containers inside each other: each has a bit of a signed 64-bit number."""
_MAX_NUMBER = 18
"""Characters of a number that any parser takes: 18 digits fit into 64 bits."""


@njit(nogil=True, cache=True, inline="always")
def punctuated(b, expected, depth, objects):
    """Return what comes next after one of , : { } [ ], and the containers around it.

    Args:
        objects: one bit for each container, the innermost lowest: 1 for an object, 0 for an array.
    """
    follows = GIVE_UP
    if b == 58 and expected == COLON:
        follows = VALUE
    elif b == 44 and expected == COMMA and depth > 0:
        follows = KEY if objects & 1 else VALUE
    elif b == 123 or b == 91:
        if (expected == VALUE or expected == FIRST_VALUE) and depth < _MAX_DEPTH and (depth > 0 or b == 123):
            depth, objects = depth + 1, objects << 1 | np.int64(b == 123)
            follows = FIRST_KEY if b == 123 else FIRST_VALUE
    elif (b == 125 or b == 93) and depth > 0 and (objects & 1) == np.int64(b == 125):
        if expected == COMMA or expected == (FIRST_KEY if b == 125 else FIRST_VALUE):
            depth, objects = depth - 1, objects >> 1
            follows = COMMA if depth else DONE
    return follows, depth, objects


@njit(nogil=True, cache=True)
def string_end(source, p, end, n_bytes):
    """Return where a string ends that begins before p, one past its quotation mark, and whether it has escapes.

    GIVE_UP instead of the place: it doesn't end, or holds what JSON forbids.
    """
    has_escape = False
    while p < end:
        if p + WIDTH <= n_bytes:
            _, special = json_masks(source, p)
            if special == np.uint64(0):
                p += WIDTH
                continue
            p += trailing_zeros(special)
            if p >= end:
                break
        b = byte(source, p)
        if b == 34:
            return p + 1, has_escape
        if b == 92:
            _, size = escaped(source, p, end)
            has_escape = True
        elif b < 32:
            break
        elif b < 128:
            size = 1
        else:
            _, size = decoded(source, p, end)
        if size < 0:
            break
        p += size
    return GIVE_UP, has_escape


@njit(nogil=True, cache=True)
def literal_end(source, p, end):
    """Return where true, false, null or a short number ends; GIVE_UP for anything else."""
    b = byte(source, p)
    if b == 116 or b == 110 or b == 102:
        word = b"true" if b == 116 else b"null" if b == 110 else b"false"
        return p + len(word) if p + len(word) <= end and is_at(source, p, word) else GIVE_UP
    begin = p
    if b == 45:
        p += 1
    first = p
    p = _digits_end(source, p, end)
    if p == first or (byte(source, first) == 48 and p > first + 1):
        return GIVE_UP
    if p < end and byte(source, p) == 46:
        first = p + 1
        p = _digits_end(source, first, end)
        if p == first:
            return GIVE_UP
    # with an exponent a number may be too large
    is_long = p - begin > _MAX_NUMBER or (p < end and (byte(source, p) | 32) == 101)
    return GIVE_UP if is_long else p


@njit(nogil=True, cache=True)
def escaped(source, p, end):
    r"""Return the code point of the escape at p, a backslash, and its bytes; two \u escapes of a pair are one.

    -1 bytes: no escape of JSON, or half a pair.
    """
    if p + 1 >= end:
        return np.int64(0), -1
    b = byte(source, p + 1)
    if b == 117:
        point = _hex(source, p + 2, end)
        if point < 0 or 0xDC00 <= point < 0xE000:
            return np.int64(0), -1
        if point < 0xD800 or point >= 0xE000:
            return point, 6
        if p + 12 > end or byte(source, p + 6) != 92 or byte(source, p + 7) != 117:
            return np.int64(0), -1
        low = _hex(source, p + 8, end)
        if low < 0xDC00 or low >= 0xE000:
            return np.int64(0), -1
        return 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00), 12
    if not is_separating(b):
        return np.int64(0), -1
    if b == 34 or b == 47 or b == 92:
        return b, 2
    return np.int64(10 if b == 110 else 9 if b == 116 else 13 if b == 114 else 8 if b == 98 else 12), 2


@njit(nogil=True, cache=True, inline="always")
def is_separating(b):
    r"""Whether a byte behind a backslash makes an escape that is no letter: n t r b f " \ /."""
    return b == 110 or b == 116 or b == 114 or b == 98 or b == 102 or b == 34 or b == 92 or b == 47


@njit(nogil=True, cache=True)
def is_at(source, p, text):
    """Whether these bytes are at p; the caller makes sure that so many bytes follow."""
    for i in range(len(text)):
        if byte(source, p + i) != text[i]:
            return False
    return True


@njit(nogil=True, cache=True, inline="always")
def _digits_end(source, p, end):
    while p < end and 48 <= byte(source, p) <= 57:
        p += 1
    return p


@njit(nogil=True, cache=True)
def _hex(source, p, end):
    """Return the value of four hexadecimal digits, or -1."""
    if p + 4 > end:
        return np.int64(-1)
    value = np.int64(0)
    for i in range(4):
        b = byte(source, p + i)
        if 48 <= b <= 57:
            digit = b - 48
        elif 97 <= (b | 32) <= 102:
            digit = (b | 32) - 87
        else:
            return np.int64(-1)
        value = value << 4 | digit
    return value
