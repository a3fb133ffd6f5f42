"""Values as bytes, to cross between a program that nobody trusts and the tests that judge it. Never pickle.

One byte says what follows. `encode` looks at the type of a value and at nothing that the value's own class could
override: a subclass becomes its base value, read with the base class's methods, so that no lying `__eq__` crosses.
`decode` makes exact built-in types only. Lists, dicts, sets, deques and bytearrays that are met twice are the same
object on the other side, too. What cannot be carried becomes an `Opaque`, which equals nothing.

>>> decode(encode([1, float("inf"), {"a": (None, b"x")}]))
[1, inf, {'a': (None, b'x')}]
"""

import builtins
import contextlib
import struct
import sys
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from types import ModuleType
from typing import Any

MAX_BYTES = 16 << 20
MAX_DEPTH = 400
MAX_NODES = 2_000_000
MAX_DRAINED, MAX_DRAINED_BYTES = 100_000, 4 << 20  # items taken from an iterator, and about their size
STACK_FRAMES = 5 * MAX_DEPTH  # that coding and merging of a value of this depth may need

_LENGTH = struct.Struct("<I")
_FLOAT = struct.Struct("<d")
_COMPLEX = struct.Struct("<dd")
_TYPES = {
    name: value for name, value in vars(builtins).items() if isinstance(value, type) and value.__module__ == "builtins"
}
_TYPE_NAMES = {value: name for name, value in _TYPES.items()}
_SCALARS = (bool, int, float, complex, str, bytes, bytearray)
# In the order in which base classes are looked for
_GROUPS: dict[type, bytes] = {
    list: b"l",
    tuple: b"t",
    set: b"s",
    frozenset: b"z",
    Counter: b"C",
    OrderedDict: b"O",
    dict: b"d",
    deque: b"q",
}
_ITERATE: dict[type, Callable[[Any], Iterator[Any]]] = {
    kind: kind.__iter__ for kind in (list, tuple, set, frozenset, deque)
}
_DAY, _TIME = ("year", "month", "day"), ("hour", "minute", "second", "microsecond", "fold")
_DATES: dict[type, tuple[bytes, tuple[str, ...]]] = {
    datetime: (b"@", _DAY + _TIME),
    date: (b"#", _DAY),
    time: (b":", _TIME),
}
# Changeable: met twice, they are one object
_SHARED = (list, set, dict, deque)
_ITERATORS = (Iterator, map, filter, zip)
CARRIED_TYPES: tuple[type, ...] = (
    *_SCALARS,
    *_GROUPS,
    *_DATES,
    *(type(None), range, slice, Fraction, Decimal, timedelta, type, BaseException, type({}.keys())),
)
"""Types of what crosses; an attribute that none of them has is of an object of the program's own."""
# A class can't override these
_MRO, _NAME = type.__dict__["__mro__"], type.__dict__["__name__"]
_REAL, _IMAG = complex.__dict__["real"], complex.__dict__["imag"]


class UncarriedError(Exception):
    """A value that cannot be carried: of a type that the program defines, or too deep, too long, too many parts."""

    def __init__(self, reason: str, *, own_type: bool = False) -> None:
        super().__init__(reason)
        self.own_type = own_type


class BrokenValueError(Exception):
    """Bytes that `encode` never wrote."""


class Opaque:
    """Stands for an object that cannot be carried. It equals nothing, itself neither."""

    __slots__ = ("type_name",)

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return True

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<object of type {self.type_name!r}, which is not carried>"


@contextlib.contextmanager
def room_on_the_stack() -> Iterator[None]:
    """Allow the recursion that a deep value needs, whatever limit a program has set, which then holds again."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, STACK_FRAMES))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def encode(value: Any, *, exact: bool = False) -> bytes:
    """Return `value` as bytes.

    Args:
        exact: refuse what would arrive changed (subclasses, objects of other types) instead of reducing it.

    Raises:
        UncarriedError: it is too large or too deep; with `exact`, also of a type that is not carried.
    """
    return _Encoder(exact=exact).encode(value)


def decode(data: bytes, *, seen_opaque: Callable[[str], None] | None = None) -> Any:
    """Return the value that `encode` made these bytes of.

    `seen_opaque` is called with the type of each value that was not carried.

    Raises:
        BrokenValueError: no `encode` wrote them.
    """
    decoder = _Decoder(data, seen_opaque or (lambda _name: None))
    try:
        value = decoder.value(0)
    except BrokenValueError:
        raise
    except Exception as err:  # noqa: BLE001  # a hostile writer: unhashable keys, days of month 13, cut text …
        raise BrokenValueError(f"{type(err).__name__}: {err}") from None
    if decoder.at != len(data):
        raise BrokenValueError("bytes are left over")
    return value


class _Encoder:
    def __init__(self, *, exact: bool) -> None:
        self.exact = exact
        self.parts: list[bytes] = []
        self.n_bytes = self.n_nodes = 0
        self.numbers: dict[int, int] = {}  # id of a shared container -> its number
        self.alive: list[Any] = []  # keeps what has an id in `numbers`

    def encode(self, value: Any) -> bytes:
        self.value(value, 0)
        return b"".join(self.parts)

    def put(self, part: bytes) -> None:
        self.n_bytes += len(part)
        if self.n_bytes > MAX_BYTES:
            raise UncarriedError(f"a value of more than {MAX_BYTES >> 20} MB")
        self.parts.append(part)

    def text(self, tag: bytes, data: bytes) -> None:
        self.put(tag + _LENGTH.pack(len(data)))
        self.put(data)

    def value(self, value: object, depth: int) -> None:
        self.n_nodes += 1
        if depth > MAX_DEPTH:
            raise UncarriedError(f"a value nested deeper than {MAX_DEPTH}")
        if self.n_nodes > MAX_NODES:
            raise UncarriedError(f"a value of more than {MAX_NODES} parts")
        kind = type(value)
        if value is None or value is True or value is False or value is Ellipsis or value is NotImplemented:
            self.put({None: b"N", True: b"T", False: b"F", Ellipsis: b"E"}.get(value, b"n"))
        elif (base := _base(kind, _SCALARS)) is not None:
            self.refuse_if_changed(kind, base)
            self.scalar(base, value)
        elif (base := _base(kind, tuple(_GROUPS))) is not None:
            self.refuse_if_changed(kind, base)
            self.group(base, value, depth)
        else:
            self.other(kind, value, depth)

    def refuse_if_changed(self, kind: type, base: type) -> None:
        if self.exact and kind is not base:
            raise UncarriedError(f"a value of type {_name(kind)!r}", own_type=True)

    def scalar(self, base: type, value: Any) -> None:
        if base is int:
            n_bytes = int.bit_length(value) // 8 + 1
            if n_bytes > MAX_BYTES:
                raise UncarriedError(f"a value of more than {MAX_BYTES >> 20} MB")
            self.text(b"i", int.to_bytes(value, n_bytes, "little", signed=True))
        elif base is float:
            self.put(b"f" + _FLOAT.pack(float.__float__(value)))
        elif base is complex:
            self.put(b"c" + _COMPLEX.pack(_REAL.__get__(value), _IMAG.__get__(value)))
        elif base is str:
            self.text(b"u", str.encode(value, "utf-8", "surrogatepass"))
        elif base is bytes:
            self.text(b"b", bytes.__getitem__(value, slice(None)))
        elif not self.is_repeated(value):
            self.text(b"a", bytes(bytearray.__getitem__(value, slice(None))))

    def group(self, base: type, value: object, depth: int) -> None:
        if issubclass(base, _SHARED) and self.is_repeated(value):
            return
        if issubclass(base, dict):
            items: Any = OrderedDict.items if base is OrderedDict else dict.items
            flat = [part for item in items(value) for part in item]
        else:
            flat = list(_ITERATE[base](value))
        tag = _GROUPS[base]
        if base is deque:
            maxlen = deque.maxlen.__get__(value)
            self.put(tag + _LENGTH.pack(len(flat)) + (_LENGTH.pack(0) if maxlen is None else _LENGTH.pack(maxlen + 1)))
        else:
            self.put(tag + _LENGTH.pack(len(flat)))
        for part in flat:
            self.value(part, depth + 1)

    def is_repeated(self, value: object) -> bool:
        number = self.numbers.setdefault(id(value), len(self.numbers))
        if number < len(self.alive):
            self.put(b"R" + _LENGTH.pack(number))
            return True
        self.alive.append(value)
        return False

    def other(self, kind: type, value: object, depth: int) -> None:
        state = _plain_state(kind, value)
        if state is not None and not (self.exact and state[0] == b"P"):
            self.put(state[0])
            self.value(state[1], depth + 1)
        elif self.exact and not issubclass(kind, _ITERATORS):
            # An opaque came from the program: it may not decide where the tests run
            own = kind is not Opaque
            raise UncarriedError(f"a value of type {_name(kind)!r}", own_type=own)
        elif issubclass(kind, _ITERATORS):
            items, is_cut = _drain(value)
            self.put(b"J" if is_cut else b"I")
            self.value(items, depth + 1)
        else:
            self.text(b"?", _name(kind).encode("utf-8", "replace")[:200])


def _base(kind: type, bases: tuple[type, ...]) -> type | None:
    for base in bases:
        if kind is base:
            return base
    # By the slot of `type` itself: a metaclass of the program could define its own `__mro__`
    mro = _MRO.__get__(kind)
    return next((base for base in bases if base in mro), None)


def _plain_state(kind: type, value: Any) -> tuple[bytes, Any] | None:
    """Return tag and a carried value for types that are neither scalars nor groups; `None` for all others."""
    if kind is range:
        return b"r", (value.start, value.stop, value.step)
    if kind is slice:
        return b"S", (value.start, value.stop, value.step)
    if kind is Fraction:
        return b"/", (value.numerator, value.denominator)
    if kind is Decimal:
        return b"D", Decimal.__str__(value)
    if kind is timedelta:
        return b"-", (value.days, value.seconds, value.microseconds)
    if kind in (datetime, date, time) and getattr(value, "tzinfo", None) is None:
        tag, names = _DATES[kind]
        return tag, tuple(getattr(value, name) for name in names)
    if kind in (type({}.keys()), type({}.values()), type({}.items())):
        return b"V" if kind is type({}.values()) else b"K", list(value)
    if kind is type and value in _TYPE_NAMES:
        return b"y", _TYPE_NAMES[value]
    numpy = sys.modules.get("numpy")
    if isinstance(numpy, ModuleType) and issubclass(kind, numpy.generic):
        item = value.item()
        return (b"P", item) if type(item) in _SCALARS else None
    return None


def _drain(iterator: Any) -> tuple[list[Any], bool]:
    """Return the items of an iterator, and whether it was left before its end, for their number or their size."""
    items: list[Any] = []
    n_bytes = 0
    for item in iterator:
        # Asked with one more item in hand: an iterator of exactly so many items is not cut
        if len(items) == MAX_DRAINED or n_bytes > MAX_DRAINED_BYTES:
            return items, True
        items.append(item)
        n_bytes += _rough_size(item)
    return items, False


def _rough_size(value: Any) -> int:
    kind = type(value)
    if kind is int:
        return int.bit_length(value) // 8
    return len(value) if kind in (str, bytes, list, tuple, dict, set, frozenset) else 1


def _cut_iterator(items: list[object]) -> Iterator[Any]:
    """Yield what was carried of an iterator, and then say that there was more."""
    yield from items
    raise TypeError(f"of the program's iterator no more than its first {len(items)} items are carried")


def _name(kind: type) -> str:
    return str(_NAME.__get__(kind))


class _Decoder:
    def __init__(self, data: bytes, seen_opaque: Callable[[str], None]) -> None:
        self.data = data
        self.at = 0
        self.shared: list[Any] = []
        self.seen_opaque = seen_opaque

    def take(self, n_bytes: int) -> bytes:
        if n_bytes > len(self.data) - self.at:
            raise BrokenValueError("bytes are missing")
        self.at += n_bytes
        return self.data[self.at - n_bytes : self.at]

    def length(self) -> int:
        return int(_LENGTH.unpack(self.take(4))[0])

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise BrokenValueError(f"nested deeper than {MAX_DEPTH}")
        tag = self.take(1)
        if tag in _CONSTANTS:
            return _CONSTANTS[tag]
        if tag in b"iubaf?c":
            return self.scalar(tag)
        if tag in b"ltszdCOq":
            return self.group(tag, depth)
        if tag == b"R":
            return self.shared[self.length()]
        make = _MAKERS.get(tag)
        if make is None:
            raise BrokenValueError(f"unknown tag {tag!r}")
        return make(self.value(depth + 1))

    def scalar(self, tag: bytes) -> Any:
        if tag == b"f":
            return _FLOAT.unpack(self.take(8))[0]
        if tag == b"c":
            return complex(*_COMPLEX.unpack(self.take(16)))
        data = self.take(self.length())
        if tag == b"i":
            return int.from_bytes(data, "little", signed=True)
        if tag == b"u":
            return data.decode("utf-8", "surrogatepass")
        if tag == b"b":
            return data
        if tag == b"a":
            self.shared.append(bytearray(data))
            return self.shared[-1]
        name = data.decode("utf-8", "replace")
        self.seen_opaque(name)
        return Opaque(name)

    def group(self, tag: bytes, depth: int) -> Any:
        n_parts = self.length()
        if n_parts > len(self.data) - self.at:
            raise BrokenValueError("bytes are missing")
        if tag in b"tz":
            parts = [self.value(depth + 1) for _ in range(n_parts)]
            return tuple(parts) if tag == b"t" else frozenset(parts)
        group: Any = deque(maxlen=self.maxlen()) if tag == b"q" else _EMPTY[tag]()
        # Before its parts: it may hold itself
        self.shared.append(group)
        if tag in b"lq":
            for _ in range(n_parts):
                group.append(self.value(depth + 1))
        elif tag == b"s":
            for _ in range(n_parts):
                group.add(self.value(depth + 1))
        else:
            for _ in range(n_parts // 2):
                key = self.value(depth + 1)
                group[key] = self.value(depth + 1)
        return group

    def maxlen(self) -> int | None:
        length = self.length()
        return length - 1 if length else None


_CONSTANTS: dict[bytes, Any] = {b"N": None, b"T": True, b"F": False, b"E": Ellipsis, b"n": NotImplemented}
_EMPTY: dict[bytes, Callable[[], Any]] = {b"l": list, b"s": set, b"d": dict, b"C": Counter, b"O": OrderedDict}
_MAKERS: dict[bytes, Callable[[Any], Any]] = {
    b"r": lambda parts: range(*parts),
    b"S": lambda parts: slice(*parts),
    b"/": lambda parts: Fraction(*parts),
    b"D": Decimal,
    b"-": lambda parts: timedelta(*parts),
    b"@": lambda parts: datetime(*parts[:7], fold=parts[7]),  # noqa: DTZ001  # only those without a zone are carried
    b"#": lambda parts: date(*parts),
    b":": lambda parts: time(*parts[:4], fold=parts[4]),
    b"K": lambda parts: dict.fromkeys(parts).keys(),
    b"V": lambda parts: dict(enumerate(parts)).values(),
    b"y": _TYPES.__getitem__,
    b"I": iter,
    b"J": _cut_iterator,
    b"P": lambda item: item,
}
