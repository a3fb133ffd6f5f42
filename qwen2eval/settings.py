"""A setting of a run, described once: where the field of a dataclass is declared with `setting`.

The flag with its help, type and default, the check of values and the reading of files all derive from the field.

>>> @dataclass(frozen=True)
... class Config:
...     limit: float | None = setting(None, Flag("maximum docs per task", group="data", metavar="N", unset="all"))
>>> settings_of(Config)["limit"].help
'maximum docs per task [default: all]'
>>> check_types(Config(limit="few"))
Traceback (most recent call last):
    ...
qwen2eval.errors.ConfigError: Setting 'limit' is 'few'; it must be an integer, a number or nothing
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, cast, get_args, get_origin

from qwen2eval.errors import ConfigError
from qwen2eval.key_values import parse_key_values
from qwen2eval.redact import redacted

T = TypeVar("T")
_KEY = "flag"
_WORDS: dict[type, str] = {
    str: "text",
    bool: "true or false",
    int: "an integer",
    float: "a number",
    tuple: "a list of names",
    Mapping: "names with values",
    NoneType: "nothing",
}


@dataclass(frozen=True)
class Flag:
    """What the command line says of a setting in addition to its type and default."""

    help: str
    """One sentence with the unit, for a reader who has read no other help; the default is appended."""
    group: str
    """The heading of `--help` under which the flag is listed."""
    metavar: str | None = None
    """The placeholder of the value; None: a switch."""
    unset: str | None = None
    """The default in words, where its value doesn't say what happens."""
    name: str | None = None
    """The flag, and the key in a YAML file; None: the field's name."""
    old_names: tuple[str, ...] = ()
    """Former names: accepted as flag and as key, shown in no help."""
    choices: tuple[str, ...] = ()
    """All values that are accepted; empty: any of the type."""
    replaces: tuple[str, ...] = ()
    """Settings of the YAML file that are dropped when this one is given as a flag."""
    is_repeated: bool = False
    """Of a list: each use of the flag adds one value. Otherwise one use takes several."""
    has_commas: bool = False
    """Of a list: commas separate values, too."""
    is_public: bool = False
    """Of k=v pairs: none is a secret, so that files and reports show all of them."""
    read: Callable[[Any], Any] | None = None
    """Turns a plain value (of the flag, YAML or JSON) into the field's; None: by the field's type."""


def setting(default: T, flag: Flag) -> T:
    """Declare a field of a dataclass that is also a flag and a key of the YAML file; a dict is copied."""
    made: Any = (
        field(default_factory=default.copy, metadata={_KEY: flag})
        if isinstance(default, dict)
        else field(default=default, metadata={_KEY: flag})
    )
    # Typed as the default, as `dataclasses.field` is: a class body then type-checks
    declared: T = made
    return declared


@dataclass(frozen=True)
class Setting:
    """All that is known of one setting."""

    field_name: str
    default: Any
    accepted: tuple[type, ...]
    """The types of its values."""
    about: Flag

    @property
    def name(self) -> str:
        """The flag without its dashes, and the key in a YAML file."""
        return self.about.name or self.field_name

    @property
    def is_list(self) -> bool:
        """Whether it holds several values."""
        return tuple in self.accepted

    @property
    def is_mapping(self) -> bool:
        """Whether it holds k=v pairs."""
        return Mapping in self.accepted

    @property
    def help(self) -> str:
        """The sentence for `--help`, with the default unless that is nothing."""
        says_nothing = self.default is None or self.default is False or self.default in ((), {})
        shown = self.about.unset or ("" if says_nothing else str(self.default).removeprefix("True") or "true")
        return f"{self.about.help} [default: {shown}]" if shown else self.about.help


def settings_of(config: type) -> Mapping[str, Setting]:
    """Return the settings of a dataclass by field name, in order."""
    # mypy doesn't accept a class as hashable
    key: Any = config
    return _settings_of(key)


def check_types(config: object) -> None:
    """Refuse a value that is not of its field's type, or not one of the choices.

    Raises:
        ConfigError: the first such value, and what the setting accepts.
    """
    for name, known in settings_of(type(config)).items():
        value: Any = getattr(config, name)
        if not _fits(value, known.accepted):
            raise ConfigError(f"Setting {name!r} is {value!r}; it must be {_in_words(known.accepted)}")
        if known.is_list and not all(isinstance(item, str) and item for item in value):
            raise ConfigError(f"Setting {name!r} must be a list of names, not {list(value)!r}")
        if known.about.choices and value not in known.about.choices:
            raise ConfigError(f"--{known.name} {value!r}: give one of {', '.join(known.about.choices)}")


def by_field(config: type, values: Mapping[str, T]) -> dict[str, T]:
    """Return plain values by field name, from any of the settings' names, with `-` or `_`.

    Raises:
        ConfigError: a key that is not a setting; the message suggests the nearest one.
    """
    fields_by_name = {
        name: known.field_name
        for known in settings_of(config).values()
        for name in (known.field_name, known.name, *known.about.old_names)
    }
    found = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in fields_by_name:
            import difflib

            near = difflib.get_close_matches(name, [known.name for known in settings_of(config).values()], n=1)
            raise ConfigError(f"Unknown setting {key!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        found[fields_by_name[name]] = value
    return found


def read_value(known: Setting, value: object) -> Any:
    """Turn a plain value of YAML, JSON or a flag into the field's; one of a wrong type is left to `check_types`."""
    if known.about.read is not None:
        return known.about.read(value)
    if known.is_list:
        listed = value.split(",") if isinstance(value, str) else value
        return tuple(listed) if isinstance(listed, list | tuple) else listed
    if known.is_mapping and isinstance(value, str):
        return parse_key_values(value, flag=f"--{known.name}")
    return value


def plain_values(config: object) -> dict[str, Any]:
    """Return plain JSON values by field name, without secrets; `by_field` and `read_value` read them back."""
    return {name: _plain(known, getattr(config, name)) for name, known in settings_of(type(config)).items()}


def _fits(value: object, types: tuple[type, ...]) -> bool:
    # True and False are integers to isinstance
    return isinstance(value, types) and (bool in types or not isinstance(value, bool))


def _plain(known: Setting, value: object) -> Any:
    if known.is_mapping:
        return dict(cast(Mapping[str, Any], value)) if known.about.is_public else redacted(value)
    if known.is_list:
        return list(cast(tuple[str, ...], value))
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


@cache
def _settings_of(config: type) -> Mapping[str, Setting]:
    return {declared.name: _setting(declared) for declared in fields(config)}


def _setting(declared: "Field[Any]") -> Setting:
    factory = declared.default_factory
    default = declared.default if factory is MISSING else factory()
    return Setting(declared.name, default, tuple(_accepted(declared.type)), declared.metadata[_KEY])


def _accepted(annotation: object) -> Iterator[type]:
    """Yield the types of an annotation's values: `float` accepts an int, too, and `tuple[str, ...]` a tuple."""
    if isinstance(annotation, UnionType):
        for part in get_args(annotation):
            yield from _accepted(part)
    elif annotation is float:
        yield from (int, float)
    else:
        yield cast(type, get_origin(annotation) or annotation)


def _in_words(types: tuple[type, ...]) -> str:
    words = [_WORDS.get(one, one.__name__) for one in types]
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
