"""Spans are cut out of a raw JSON line as out of its parsed text, and no other byte changes."""

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decontam import DecontamError
from decontam.json_edit import edited_line, edited_text, widened
from decontam.text_fields import text_of
from tests.decontam.texts import hard_texts

others = st.dictionaries(
    hard_texts.filter(lambda key: key not in ("text", "meta", "messages")),
    st.none() | st.integers() | hard_texts | st.lists(st.floats(allow_nan=False), max_size=2),
    max_size=2,
)
message = st.fixed_dictionaries({"role": st.just("user"), "content": hard_texts | st.none()})
parts = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": hard_texts}), max_size=2)
part_message = st.fixed_dictionaries({"content": parts, "x": st.just([1, {"content": "no"}])})
values = st.one_of(
    hard_texts.map(lambda text: ("text", text)),
    hard_texts.map(lambda text: ("meta.body", {"a": [{}], "body": text})),
    st.lists(message | part_message, max_size=4).map(lambda messages: ("messages", messages)),
)


def written(record, *, ascii_, spaces):
    separators = (" , ", "\t: ") if spaces else None
    return json.dumps(record, ensure_ascii=ascii_, separators=separators).encode()


@settings(max_examples=600)
@given(value=values, before=others, after=others, ascii_=st.booleans(), spaces=st.booleans(), data=st.data())
def test_a_line_is_edited_as_its_text(value, before, after, ascii_, spaces, data):
    field, content = value
    record = {**before, field.split(".")[0]: content, **{f"{key}2": v for key, v in after.items()}}
    text = text_of(record, field)
    cuts = data.draw(st.lists(st.tuples(st.integers(0, len(text)), st.integers(0, len(text))), max_size=3))
    spans = widened([(min(pair), max(pair)) for pair in cuts], 0, len(text))
    line = written(record, ascii_=ascii_, spaces=spaces)
    edited = json.loads(edited_line(line, field, spans, mask=""))
    keep = [char for i, char in enumerate(text) if not any(a <= i < b for a, b in spans)]
    # line ends between messages are in no message, so they can't be cut
    assert text_of(edited, field).replace("\n", "") == "".join(keep).replace("\n", "")
    assert {k: v for k, v in edited.items() if k != field.split(".")[0]} == {
        k: v for k, v in record.items() if k != field.split(".")[0]
    }
    if not spans:
        assert edited_line(line, field, spans, mask="") == line
    if field == "text":
        # what is left stands as it stood, escapes and all
        left = edited_line(line, field, spans, mask="")
        assert is_subsequence(left, line)


def is_subsequence(short, long):
    rest = iter(long)
    return all(byte in rest for byte in short)


def test_escapes_outside_of_a_span_stay_as_they_are():
    line = b'{"id": 1.50, "text": "\\u0041b\\ud83d\\ude00c \\/ d\\n\xc3\xa9", "text2": "\\u0041"}\r'
    assert edited_line(line, "text", [(1, 3)], mask="") == line.replace(b"b\\ud83d\\ude00", b"")
    assert edited_line(line, "text", [(7, 8)], mask='<"é>') == line.replace(b" d", b' <\\"\xc3\xa9>')
    assert json.loads(edited_line(line, "text", [(0, 1)], mask='"\n'))["text"].startswith('"\nb')


def test_a_span_over_two_messages_is_masked_once():
    record = {"messages": [{"content": "one two"}, {"content": "three four"}]}
    line = json.dumps(record).encode()
    edited = json.loads(edited_line(line, "messages", [(4, 13)], mask="#"))
    assert [message["content"] for message in edited["messages"]] == ["one #", " four"]


def test_the_last_of_equal_keys_is_edited():
    line = b'{"text": "first", "text": "second"}'
    assert edited_line(line, "text", [(0, 3)], mask="") == b'{"text": "first", "text": "ond"}'


@pytest.mark.parametrize("line", [b'{"text": "\xff"}', b'{"text": ', b"[]"])
def test_lines_that_cannot_be_edited(line):
    with pytest.raises(DecontamError):
        edited_line(line, "text", [(0, 1)], mask="")


@given(text=hard_texts, margin=st.integers(0, 5), data=st.data())
def test_widened_spans_cover_what_they_should(text, margin, data):
    n = len(text)
    span = st.tuples(st.integers(0, n), st.integers(0, n)).map(lambda pair: (min(pair), max(pair)))
    cuts = data.draw(st.lists(span.filter(lambda pair: pair[0] < pair[1]), max_size=4))
    spans = widened(cuts, margin, n)
    wanted = {i for a, b in cuts for i in range(max(0, a - margin), min(n, b + margin))}
    assert {i for a, b in spans for i in range(a, b)} == wanted
    assert all(a[1] < b[0] for a, b in pairwise(spans))
    assert len(edited_text(text, spans, mask="")) == n - len(wanted)
