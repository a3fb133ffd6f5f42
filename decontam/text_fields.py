"""The text of a record: a string, also one inside other objects, or the messages of a chat."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from decontam.errors import DecontamError

TEXT_KEYS = frozenset(
    {
        *("content", "value", "text"),  # OpenAI's, ShareGPT's and OpenAssistant's messages; parts of a content
        *("reasoning_content", "reasoning", "thinking", "summary"),
        *("tool_calls", "function_call", "function", "arguments", "parameters", "input", "output"),
        "parts",  # Gemini's messages
    }
)
"""What of a message is text, or holds some: all that a chat template prints, but no roles, names and numbers."""
_ALL_BELOW = frozenset({"arguments", "parameters", "input", "output"})
"""Of a tool: every string in them is text, whatever its key."""


class Place(NamedTuple):
    """Where a string is: `holder[key]`."""

    holder: Any
    """An object, or a list."""
    key: Any
    """A name, or a number."""

    @property
    def text(self) -> str:
        """The string; bytes of a table's binary column are UTF-8, and replaced where they are not."""
        value = self.holder[self.key]
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def text_of(record: object, field: str) -> str:
    r"""Return a record's text.

    Args:
        field: a name, or names with dots between ("meta.body"), also through lists ("turns.body"). A list counts as
            the texts in it, a line each: strings, or chat messages with all their texts (TEXT_KEYS).

    Raises:
        DecontamError: there is no such field, or no text in it.

    >>> text_of({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}, "messages")
    'Hi\nHo'
    """
    return "\n".join("" if place is None else place.text for place in text_places(record, field))


def text_places(record: object, field: str) -> list[Place | None]:
    """Return where the lines of a record's text are, as `text_of` joins them; None: an empty one, of no string.

    Raises:
        DecontamError: as `text_of`.
    """
    # a name with a dot in it wins over names inside each other
    names = [field] if isinstance(record, Mapping) and field in record else field.split(".")
    if not isinstance(record, Mapping):
        raise DecontamError(f"no field {field!r}")
    try:
        return list(_below(record, names, field))
    except RecursionError:
        raise DecontamError(f"field {field!r} is nested too deeply") from None


def _below(value: object, names: Sequence[str], field: str) -> Iterator[Place | None]:
    """Yield the places of what names lead to, through objects, and all elements of lists."""
    if isinstance(value, list):
        for element in value:
            yield from _below(element, names, field)
        return
    if not isinstance(value, Mapping) or names[0] not in value:
        raise DecontamError(f"no field {field!r}")
    if names[1:]:
        yield from _below(value[names[0]], names[1:], field)
    else:
        yield from _of_field(value, names[0], field)


def _of_field(holder: Any, key: Any, field: str) -> Iterator[Place | None]:
    """Yield the places of a string, or of a list's strings and messages."""
    value = holder[key]
    if isinstance(value, str | bytes):
        yield Place(holder, key)
    elif isinstance(value, list):
        for i, element in enumerate(value):
            if isinstance(element, Mapping):
                yield from _of_message(element, field)
            elif isinstance(element, str | bytes | list):
                yield from _of_field(value, i, field)
            else:
                raise DecontamError(f"field {field!r} is a list, but not of texts or chat messages")
    else:
        raise DecontamError(f"field {field!r} is {_name_of(value)} instead of text")


def _of_message(message: Mapping[str, Any], field: str) -> Iterator[Place | None]:
    """Yield the places of a message's texts; one without any, such as a picture, is an empty line."""
    keys = [key for key in message if key in TEXT_KEYS]
    places = [place for key in keys for place in _of_value(message, key)]
    may_have_none = any(message[key] is None or isinstance(message[key], list | Mapping) for key in keys)
    if not places and not may_have_none:
        known = ", ".join(map(repr, message)) or "none"
        raise DecontamError(
            f"field {field!r} is a list, but not of texts or chat messages with a content: keys of one are {known}"
        )
    if places:
        yield from places
    else:
        yield None


def _of_value(holder: Any, key: Any, *, all_below: bool = False) -> Iterator[Place]:
    """Yield the places of the texts in a message's value."""
    value, all_below = holder[key], all_below or key in _ALL_BELOW
    if isinstance(value, str | bytes):
        yield Place(holder, key)
    elif isinstance(value, list | tuple):  # a tuple is an entry of a table's map
        for i in range(len(value)):
            yield from _of_value(value, i, all_below=all_below)
    elif isinstance(value, Mapping):
        for name in value:
            if all_below or name in TEXT_KEYS:
                yield from _of_value(value, name, all_below=all_below)


def _name_of(value: object) -> str:
    return (
        "null"
        if value is None
        else {"int": "a number", "float": "a number", "bool": "true or false"}.get(type(value).__name__, "an object")
    )
