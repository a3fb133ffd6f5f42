"""The text of a record: strings, nested ones, chats; whatever else is there is told by its field's name."""

import pytest

from decontam import DecontamError
from decontam.text_fields import text_of

PARTS = [{"type": "text", "text": "see"}, {"type": "image", "url": "x"}, {"type": "text", "text": "this"}]
CALL = {
    "id": "1",
    "type": "function",
    "function": {"name": "find", "arguments": {"query": "a", "more": {"k": ["b", 1]}}},
}
RESULT = {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "b"}]}


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
        ({"m": ["a", "b"]}, "m", "a\nb"),
        ({"m": [[{"content": "a"}, {"content": "b"}], ["c", ["d"]], []]}, "m", "a\nb\nc\nd"),
        ({"turns": [{"body": "a"}, {"body": ["b", "c"]}]}, "turns.body", "a\nb\nc"),
        ({"turns": []}, "turns.body", ""),
        ({"c": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}, "c", "Hi\nHo"),
        ({"m": [{"role": "user", "parts": [{"text": "a"}, {"inline_data": {"data": "x"}}]}]}, "m", "a"),
        ({"m": [{"reasoning_content": "think", "role": "x", "content": "say", "weight": 1}]}, "m", "think\nsay"),
        (
            {"m": [{"content": [{"type": "thinking", "thinking": "a"}, "b", {"type": "text", "text": "c"}]}]},
            "m",
            "a\nb\nc",
        ),
        (
            {"m": [{"content": None, "tool_calls": [CALL, {"function": {"arguments": '{"q": 1}'}}]}]},
            "m",
            'a\nb\n{"q": 1}',
        ),
        ({"m": [{"content": [{"type": "tool_use", "input": {"q": "a"}}, RESULT]}]}, "m", "a\nb"),
        ({"m": [{"content": "a", "thinking": True}]}, "m", "a"),
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
        ({"m": [1, 2]}, "m", "field 'm' is a list, but not of texts or chat messages"),
        ({"m": [None]}, "m", "field 'm' is a list, but not of texts or chat messages"),
        ({"m": [{"role": "user", "said": "x"}]}, "m", "but not of texts or chat messages .* are 'role', 'said'"),
        ({"m": [{"content": 3}]}, "m", "field 'm' is a list, but not of texts or chat messages"),
        ({"m": [{"content": "a"}, {"role": "user"}]}, "m", "field 'm' is a list, but not of texts or chat messages"),
        ({"turns": [{"body": "a"}, {"text": "b"}]}, "turns.body", "no field 'turns.body'"),
    ],
)
def test_no_texts(record, field, message):
    with pytest.raises(DecontamError, match=message):
        text_of(record, field)
