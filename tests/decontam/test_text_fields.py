"""The text of a record: strings, nested ones, chats; whatever else is there is told by its field's name."""

import pytest

from decontam import DecontamError
from decontam.text_fields import text_of

PARTS = [{"type": "text", "text": "see"}, {"type": "image", "url": "x"}, {"type": "text", "text": "this"}]


@pytest.mark.parametrize(
    ("record", "field", "text"),
    [
        ({"text": "a"}, "text", "a"),
        ({"text": ""}, "text", ""),
        ({"a": {"b": {"c": "deep"}}}, "a.b.c", "deep"),
        ({"a.b": "dotted", "a": {"b": "nested"}}, "a.b", "dotted"),
        ({"m": [{"role": "user", "content": "Hi"}, {"content": "Ho"}]}, "m", "Hi\nHo"),
        ({"m": [{"content": PARTS}, {"content": "yes"}]}, "m", "see\nthis\nyes"),
        ({"m": [{"content": None, "tool_calls": [1]}, {"content": "yes"}]}, "m", "\nyes"),
        ({"m": [{"content": []}, {"content": [{"type": "image"}]}, {"content": "yes"}]}, "m", "\n\nyes"),
        ({"m": []}, "m", ""),
        ({"a": {"m": [{"content": "in"}]}}, "a.m", "in"),
    ],
)
def test_texts(record, field, text):
    assert text_of(record, field) == text


@pytest.mark.parametrize(
    ("record", "field", "message"),
    [
        ({"body": "a"}, "text", "no field 'text'"),
        ({"a": {"c": "x"}}, "a.b", "no field 'a.b'"),
        ({"a": "x"}, "a.b", "no field 'a.b'"),
        ([], "text", "no field 'text'"),
        ("text", "text", "no field 'text'"),
        (None, "text", "no field 'text'"),
        ({"text": None}, "text", "field 'text' is null instead of text"),
        ({"text": 1.5}, "text", "field 'text' is a number instead of text"),
        ({"text": True}, "text", "field 'text' is true or false instead of text"),
        ({"text": {"x": 1}}, "text", "field 'text' is an object instead of text"),
        ({"m": ["a", "b"]}, "m", "field 'm' is a list, but not of chat messages"),
        ({"m": [{"role": "user"}]}, "m", "field 'm' is a list, but not of chat messages"),
        ({"m": [{"content": 3}]}, "m", "field 'm' is a list, but not of chat messages"),
    ],
)
def test_no_texts(record, field, message):
    with pytest.raises(DecontamError, match=message):
        text_of(record, field)
