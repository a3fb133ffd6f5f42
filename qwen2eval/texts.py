"""Text from outside that UTF-8 can't hold: JSON may spell half of a surrogate pair, as servers that cut an emoji do."""

import re
from collections.abc import Mapping
from typing import TypeVar, cast

T = TypeVar("T")
_SURROGATE = re.compile("[\ud800-\udfff]")


def whole_text(text: str) -> str:
    r"""Return a text that every file and library takes: halves of a pair are joined, a lone one becomes U+FFFD.

    >>> whole_text("\ud83d\ude00"), whole_text("cut \ud83d")
    ('😀', 'cut �')
    """
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def whole_texts(value: T) -> T:
    """Return a value with each text in its lists, tuples and mappings made whole; the value itself if all are."""
    if _is_whole(value):
        return value
    made: object = value
    if isinstance(value, str):
        made = whole_text(value)
    elif isinstance(value, Mapping):
        made = {whole_texts(key): whole_texts(part) for key, part in value.items()}
    elif isinstance(value, list | tuple):
        made = type(value)(whole_texts(part) for part in value)
    return cast("T", made)


def _is_whole(value: object) -> bool:
    if isinstance(value, str):
        return value.isascii() or not _SURROGATE.search(value)
    if isinstance(value, Mapping):
        return all(_is_whole(key) and _is_whole(part) for key, part in value.items())
    # Not a named tuple, which takes its parts one by one
    return type(value) not in (list, tuple) or all(map(_is_whole, cast("list[object]", value)))
