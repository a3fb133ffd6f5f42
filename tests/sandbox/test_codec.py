"""The typed value codec: what goes in comes out, nothing else comes out, and no bytes do harm."""

import math
import struct
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from itertools import chain, count, cycle, islice, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen2eval.sandbox.inside.codec import (
    MAX_DEPTH,
    BrokenValueError,
    Opaque,
    UncarriedError,
    decode,
    encode,
)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**300), 2**300)
    | st.floats()
    | st.complex_numbers(allow_nan=True)
    | st.text(st.characters(exclude_categories=()))  # with lone surrogates
    | st.binary()
    | st.fractions()
    | st.decimals(allow_nan=False)
    | st.dates()
    | st.datetimes()
    | st.times()
    | st.timedeltas()
    | st.sampled_from([int, str, dict, ValueError, Ellipsis, range(3), range(5, 1, -2)])
)
HASHABLE = st.recursive(SCALARS, lambda part: st.tuples(part, part) | st.frozensets(part), max_leaves=8)
VALUES = st.recursive(
    HASHABLE | st.binary().map(bytearray),
    lambda part: (
        st.lists(part)
        | st.tuples(part, part)
        | st.dictionaries(HASHABLE, part)
        | st.dictionaries(HASHABLE, part).map(OrderedDict)
        | st.lists(part).map(lambda parts: deque(parts, maxlen=9))
        | st.sets(HASHABLE)
        | st.lists(HASHABLE).map(Counter)
    ),
    max_leaves=20,
)


def shape(value):
    """A value with its exact types, where NaN is itself and -0.0 is not 0.0."""
    kind = type(value)
    if kind is float:
        return kind, struct.pack("<d", value)
    if kind is complex:
        return kind, struct.pack("<dd", value.real, value.imag)
    if kind in (set, frozenset):
        return kind, sorted(map(repr, map(shape, value)))
    if issubclass(kind, dict):
        return kind, [(shape(key), shape(part)) for key, part in value.items()]
    if kind in (list, tuple):
        return kind, [shape(part) for part in value]
    if kind is deque:
        return kind, value.maxlen, [shape(part) for part in value]
    return kind, value


@given(VALUES)
def test_what_goes_in_comes_out(value):
    assert shape(decode(encode(value))) == shape(value)
    assert shape(decode(encode(value, exact=True))) == shape(value)


@given(st.binary(max_size=200))
def test_foreign_bytes_are_refused_or_harmless(data):
    with suppress(BrokenValueError):
        decode(data)


@given(VALUES, st.integers(0, 10_000), st.integers(0, 255))
def test_changed_bytes_are_refused_or_harmless(value, place, byte):
    data = bytearray(encode(value))
    data[place % len(data)] = byte
    with suppress(BrokenValueError):
        decode(bytes(data))


@given(VALUES)
def test_cut_bytes_are_refused(value):
    data = encode(value)
    with pytest.raises(BrokenValueError):
        decode(data[:-1])
    with pytest.raises(BrokenValueError, match="left over"):
        decode(data + b"N")


class Colour(IntEnum):
    RED = 7


class LyingInt(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__

    def __index__(self):
        return 99

    def to_bytes(self, *_):
        return b"lie"

    def bit_length(self):
        return 1


class LyingStr(str):
    __slots__ = ()

    def encode(self, *_):
        return b"lie"

    def __str__(self):
        return "lie"


class LyingList(list):
    def __iter__(self):
        return iter(["lie"])

    def __len__(self):
        return 1


class LyingDict(dict):
    def items(self):
        return [("lie", 1)]

    keys = __iter__ = items


class LyingFloat(float):
    def __float__(self):
        return 99.0


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Colour.RED, 7),
        (LyingInt(7), 7),
        (LyingStr("truth"), "truth"),
        (LyingList([1, 2]), [1, 2]),
        (LyingDict(a=1), {"a": 1}),
        (LyingFloat(1.5), 1.5),
        (defaultdict(list, {1: [2]}), {1: [2]}),
        (namedtuple("Pair", "a b")(1, 2), (1, 2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_subclass_becomes_its_base_value(value, plain):
    carried = decode(encode(value))
    assert type(carried) is type(plain)
    assert carried == plain
    with pytest.raises(UncarriedError) as told:
        encode(value, exact=True)
    assert told.value.own_type


def test_an_object_becomes_opaque_and_equals_nothing():
    names = []
    carried = decode(encode([object()]), seen_opaque=names.append)[0]
    assert isinstance(carried, Opaque)
    assert carried != carried  # nothing equals it
    assert names == ["object"]


def test_an_opaque_does_not_decide_where_the_tests_run():
    with pytest.raises(UncarriedError) as told:
        encode([decode(encode(object()))], exact=True)
    assert not told.value.own_type


def test_iterators_arrive_as_iterators():
    carried = decode(encode(x * x for x in range(3)))
    assert carried != [0, 1, 4]
    assert list(carried) == [0, 1, 4]


def fibonacci():
    a, b = 0, 1
    while True:
        yield a
        a, b = b, a + b


@pytest.mark.parametrize("endless", [count(), fibonacci(), cycle(["x" * 10_000]), repeat(None)])
def test_the_beginning_of_an_endless_iterator_arrives(endless):
    first = list(islice(endless, 3))
    carried = decode(encode(chain(first, endless)))
    assert list(islice(carried, 3)) == first
    with pytest.raises(TypeError, match="no more than its first"):
        list(carried)


def test_large_values_are_told():
    for value, words in (("x" * (17 << 20), "16 MB"), (1 << (17 << 23), "16 MB")):
        with pytest.raises(UncarriedError, match=words):
            encode(value)


def test_depth_has_a_limit():
    value = []
    for _ in range(MAX_DEPTH):
        value = [value]
    assert decode(encode(value)) == value
    with pytest.raises(UncarriedError, match="deeper"):
        encode([value])
    with pytest.raises(BrokenValueError, match="deeper"):
        decode(b"l\x01\x00\x00\x00" * 5000 + b"N")


def test_one_object_met_twice_stays_one():
    row = [0]
    grid = decode(encode([row, row]))
    grid[0].append(1)
    assert grid == [[0, 1], [0, 1]]
    loop = []
    loop.append(loop)
    carried = decode(encode(loop))
    assert carried[0] is carried


def test_not_a_number_keeps_its_bits():
    assert math.isnan(decode(encode(float("nan"))))
    assert str(decode(encode(-0.0))) == "-0.0"


@pytest.mark.parametrize(
    "value",
    [date(2026, 1, 2), datetime(2026, 1, 2, 3), time(4, 5), timedelta(days=-1), Decimal("NaN"), Fraction(1, 3)],  # noqa: DTZ001
    ids=repr,
)
def test_values_of_the_standard_library(value):
    assert repr(decode(encode(value))) == repr(value)
