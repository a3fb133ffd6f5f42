"""Frozen dataclasses to JSON and back: a value of the wrong type, or one that is missing, is named by its key."""

import dataclasses
import math
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
JsonObject = dict[str, Any]
"""A JSON object: any plain values, by key."""
_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", types.NoneType: "null"}


class ShapeError(ValueError):
    """JSON that doesn't have the form of a record: the message begins with the key."""


OPTIONAL: Mapping[str, bool] = {"is_optional": True}
"""Metadata of a field that older files lack: None there, and not written where it is None."""


@dataclasses.dataclass(frozen=True)
class Record:
    """A JSON object of a known form."""

    extra: Mapping[str, object] = dataclasses.field(default_factory=dict, kw_only=True)
    """Keys that this version doesn't know, as a newer one may write them; written back after the known ones."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, keys in the order of the fields."""
        # mypy doesn't accept a class as hashable
        kind: Any = type(self)
        shown = {}
        for field in _own_fields(kind):
            value = getattr(self, field.name)
            if value is not None or not field.metadata.get("is_optional"):
                shown[field.name] = _plain(value)
        return {**shown, **self.extra}


def read_json(kind: type[T], value: object, *, key: str = "") -> T:
    """Return a JSON value as a type: a record, a named tuple (a JSON list), a tuple, a mapping or a plain value.

    Args:
        kind: the type; `object` accepts any value.
        key: the path of the value, for messages.

    Raises:
        ShapeError: a key is missing, or a value has another type.
    """
    read: Any = _read(kind, value, key)
    return read  # type: ignore[no-any-return]


def _read(kind: Any, value: object, key: str) -> Any:
    if kind is object or kind is Any:
        return value
    if get_origin(kind) is not None:
        return _read_generic(kind, value, key)
    if dataclasses.is_dataclass(kind):
        return _read_record(kind, value, key)
    if issubclass(kind, tuple):
        return _read_named_tuple(kind, value, key)
    return _read_plain(kind, value, key)


def _read_generic(kind: Any, value: object, key: str) -> Any:
    """Read a type with parameters: a union with None, a literal, `tuple[T, ...]` or `Mapping[str, T]`."""
    origin, parameters = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _read_union(parameters, value, key)
    if origin is Literal:
        return value if value in parameters else _refuse(value, key, " or ".join(map(repr, parameters)))
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else _refuse(value, key, "a list")
        return tuple(_read(parameters[0], item, f"{key}[{i}]") for i, item in enumerate(items))
    mapping = value if isinstance(value, Mapping) else _refuse(value, key, "an object")
    return {name: _read(parameters[1], item, _join(key, name)) for name, item in mapping.items()}


def _read_plain(kind: type, value: object, key: str) -> Any:
    """Read a text, a number, true, false or null."""
    # JSON has one kind of number: a whole one may be written as 3.0, and a float as 3
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    # Python reads NaN and Infinity, which are no JSON, and no number that anything can be computed with
    if isinstance(value, float) and not math.isfinite(value):
        _refuse(value, key, "a finite number")
    # True and False are integers to isinstance
    if isinstance(value, bool):
        is_right = kind is bool
    else:
        is_right = isinstance(value, kind) or (kind is float and isinstance(value, int))
    return value if is_right else _refuse(value, key, _WORDS[kind])


def _read_union(kinds: tuple[Any, ...], value: object, key: str) -> Any:
    """Read what may be None; the message names the other type."""
    if value is None and types.NoneType in kinds:
        return None
    (kind,) = (each for each in kinds if each is not types.NoneType)
    return _read(kind, value, key)


def _read_record(kind: Any, value: object, key: str) -> Any:
    if not isinstance(value, Mapping):
        _refuse(value, key, "an object")
    hints, given = _hints(kind), {}
    fields = _own_fields(kind)
    for field in fields:
        if field.name in value:
            given[field.name] = _read(hints[field.name], value[field.name], _join(key, field.name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ShapeError(f"`{_join(key, field.name)}` is missing")
    known = {field.name for field in fields}
    return kind(**given, extra={name: item for name, item in value.items() if name not in known})


def _read_named_tuple(kind: type, value: object, key: str) -> Any:
    hints = _hints(kind)
    if not isinstance(value, list | tuple) or len(value) != len(hints):
        _refuse(value, key, f"a list of {len(hints)}: {', '.join(hints)}")
    parts = zip(hints.items(), value, strict=True)
    return kind(*(_read(hint, item, f"{key}[{i}]") for i, ((_, hint), item) in enumerate(parts)))


def _refuse(value: object, key: str, wanted: str) -> NoReturn:
    shown = repr(value)
    raise ShapeError(f"`{key or 'the whole'}` is {shown if len(shown) < 60 else shown[:57] + '...'}, not {wanted}")


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _plain(value: object) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


@cache
def _own_fields(kind: Any) -> tuple["dataclasses.Field[Any]", ...]:
    return tuple(field for field in dataclasses.fields(kind) if field.name != "extra")
