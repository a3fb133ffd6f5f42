"""Bytes in memory: one, eight, or 64 at once. Numba; LLVM's vector types.

Kernels are given the address of an array's bytes, not the array: numba counts references to an array wherever it is
handed on, which took two thirds of the scan's time. Who calls a kernel holds the array meanwhile.

A mask has one bit for each of 64 bytes, the first byte's lowest. LLVM makes of it what the processor has: one
instruction with AVX-512, a few with AVX2, SSE2 or NEON.
"""

import sys
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

WIDTH = 64
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_BYTE, _BITS = ir.IntType(8), ir.IntType(64)
_BLOCK, _LANES = ir.VectorType(_BYTE, WIDTH), ir.VectorType(_BITS, 8)
_PLACE = (types.uint64, types.int64)
"""What loads take: an address, and how many bytes behind it. Nobody checks that it is inside of an array."""


@njit(nogil=True, cache=True, inline="always")
def first_bits(n):
    """Return a mask of the first n bytes, 0 to 64."""
    return _ALL if n >= WIDTH else (np.uint64(1) << np.uint64(n)) - np.uint64(1)


@njit(nogil=True, cache=True)
def line_ends(buffer):
    """Return where line feeds are."""
    found, n, p, source = np.empty(1024, np.int64), 0, 0, buffer.ctypes.data
    while p < len(buffer):
        if n + WIDTH > len(found):
            found = np.concatenate((found, np.empty(len(found), np.int64)))
        if p + WIDTH <= len(buffer):
            mask = line_feeds(source, p)
            while mask:
                found[n] = p + trailing_zeros(mask)
                n += 1
                mask &= mask - np.uint64(1)
        else:
            for i in range(p, len(buffer)):
                if buffer[i] == 10:
                    found[n] = i
                    n += 1
        p += WIDTH
    return found[:n].copy()


@njit(nogil=True, cache=True)
def few_masks(source, at, n, is_json):
    """Return the masks of `json_masks` or `text_masks` for the n bytes from `at`."""
    letters, special = np.uint64(0), np.uint64(0)
    for i in range(n):
        b, bit = byte(source, at + i), np.uint64(1) << np.uint64(i)
        if 97 <= b | 32 <= 122 or 48 <= b <= 57:
            letters |= bit
        elif b > 127 or b == 92 or b == 60 or b == 38 or (is_json and (b < 32 or b == 34)):
            special |= bit
    return letters, special


@intrinsic
def text_masks(_: Any, _source: Any, _at: Any) -> Any:
    """Return two masks of the 64 bytes from `at`, which must be there.

    Letters and digits of ASCII; what must be looked at in a text: bytes over 127, and where markup may begin: a
    backslash, & and <.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        block = _loaded(builder, args, _BLOCK)
        special = _any_of(builder, block, "\\&<", builder.icmp_signed("<", block, _each(0)))
        return _pair(context, builder, signature, _letters_and_digits(builder, block), special)

    return types.UniTuple(types.uint64, 2)(*_PLACE), generate


@intrinsic
def json_masks(_: Any, _source: Any, _at: Any) -> Any:
    """Return two masks of the 64 bytes from `at`, which must be there.

    Letters and digits of ASCII; what must be looked at in a string of JSON: that of `text_masks`, quotation marks and
    control characters.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        block = _loaded(builder, args, _BLOCK)
        # as signed numbers, bytes over 127 and control characters are all that is below a space
        special = _any_of(builder, block, '\\&<"', builder.icmp_signed("<", block, _each(32)))
        return _pair(context, builder, signature, _letters_and_digits(builder, block), special)

    return types.UniTuple(types.uint64, 2)(*_PLACE), generate


@intrinsic
def line_feeds(_: Any, _source: Any, _at: Any) -> Any:
    """Return a mask of the line feeds among the 64 bytes from `at`, which must be there."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        block = _loaded(builder, args, _BLOCK)
        return builder.bitcast(builder.icmp_unsigned("==", block, _each(ord("\n"))), _BITS)

    return types.uint64(*_PLACE), generate


@intrinsic
def byte(_: Any, _source: Any, _at: Any) -> Any:
    """Return the byte at `at`."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.zext(_loaded(builder, args, _BYTE), _BITS)

    return types.int64(*_PLACE), generate


@intrinsic
def eight_bytes(_: Any, _source: Any, _at: Any) -> Any:
    """Return the 8 bytes from `at`, which must be there, as one number; the first is its lowest byte."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        loaded = _loaded(builder, args, _BITS)
        return loaded if sys.byteorder == "little" else builder.bswap(loaded)

    return types.uint64(*_PLACE), generate


@intrinsic
def trailing_zeros(_: Any, _mask: Any) -> Any:
    """Return the place of the lowest bit that is set; of a mask that has one."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@intrinsic
def ones(_: Any, _mask: Any) -> Any:
    """Return how many bits are set."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.uint64), generate


@intrinsic
def lcs_step(_: Any, _states: Any, _masks: Any, _lows: Any, _highs: Any, _t: Any) -> Any:
    """Take a text's token t into the states of eight subsequences at once; see `lcs`.

    The first four are addresses of eight 64-bit numbers each: states, where the items have the token, and the first and
    one past the last token of the text that each is compared with.
    """

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        states, masks, lows, highs = (_loaded(builder, (arg, ir.Constant(_BITS, 0)), _LANES) for arg in args[:4])
        one = builder.insert_element(ir.Constant(_LANES, ir.Undefined), args[4], ir.Constant(ir.IntType(32), 0))
        all_t = builder.shuffle_vector(
            one, ir.Constant(_LANES, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), 8), [0] * 8)
        )
        is_in = builder.and_(builder.icmp_signed("<=", lows, all_t), builder.icmp_signed(">", highs, all_t))
        masks = builder.select(is_in, masks, ir.Constant(_LANES, [0] * 8))
        both = builder.and_(states, masks)
        grown = builder.or_(builder.add(states, both), builder.and_(states, builder.not_(both)))
        stored = builder.store(grown, builder.inttoptr(args[0], _LANES.as_pointer()))
        stored.align = 1
        return ir.Constant(_BITS, 0)

    return types.int64(types.uint64, types.uint64, types.uint64, types.uint64, types.int64), generate


def _letters_and_digits(builder: Any, block: Any) -> Any:
    lower = builder.or_(block, _each(0x20))
    is_letter = builder.icmp_unsigned("<", builder.sub(lower, _each(ord("a"))), _each(26))
    is_digit = builder.icmp_unsigned("<", builder.sub(block, _each(ord("0"))), _each(10))
    return builder.or_(is_letter, is_digit)


def _any_of(builder: Any, block: Any, characters: str, found: Any) -> Any:
    for character in characters:
        found = builder.or_(found, builder.icmp_unsigned("==", block, _each(ord(character))))
    return found


def _pair(context: Any, builder: Any, signature: Any, first: Any, second: Any) -> Any:
    masks = [builder.bitcast(mask, _BITS) for mask in (first, second)]
    return context.make_tuple(builder, signature.return_type, masks)


def _each(value: int) -> Any:
    return ir.Constant(_BLOCK, [value] * WIDTH)


def _loaded(builder: Any, args: Any, kind: Any) -> Any:
    """Load a value from any place in memory."""
    source, at = args
    loaded = builder.load(builder.inttoptr(builder.add(source, at), kind.as_pointer()))
    loaded.align = 1
    return loaded
