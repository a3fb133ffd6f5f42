"""The text of a record: a string, also one inside other objects, or the messages of a chat."""

from collections.abc import Mapping

from decontam.errors import DecontamError


def text_of(record: object, field: str) -> str:
    r"""Return a record's text.

    Args:
        field: a name, or names with dots between ("meta.body"). A list of chat messages counts as its messages'
            texts, a line each.

    Raises:
        DecontamError: there is no such field, or no text in it.

    >>> text_of({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}, "messages")
    'Hi\nHo'
    """
    value = record
    # a name with a dot in it wins over names inside each other
    names = [field] if isinstance(record, Mapping) and field in record else field.split(".")
    for name in names:
        if not isinstance(value, Mapping) or name not in value:
            raise DecontamError(f"no field {field!r}")
        value = value[name]
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(_message_text(message, field) for message in value)
    raise DecontamError(f"field {field!r} is {_name_of(value)} instead of text")


def _message_text(message: object, field: str) -> str:
    content = message.get("content") if isinstance(message, Mapping) else None
    if isinstance(content, str):
        return content
    if content is None and isinstance(message, Mapping) and "content" in message:
        return ""  # a message that only calls tools
    if isinstance(content, list):
        # pictures and other parts have no text
        parts = [part.get("text") for part in content if isinstance(part, Mapping)]
        return "\n".join(part for part in parts if isinstance(part, str))
    raise DecontamError(f"field {field!r} is a list, but not of chat messages with a content")


def _name_of(value: object) -> str:
    return (
        "null"
        if value is None
        else {"int": "a number", "float": "a number", "bool": "true or false"}.get(type(value).__name__, "an object")
    )
