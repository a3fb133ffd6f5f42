"""Spans are cut out of a raw JSON line as out of its parsed text, and no other byte changes."""

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decontam import DecontamError
from decontam.json_edit import edited_bytes, edited_line, edited_text, widened
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
call = st.fixed_dictionaries(
    {
        "function": st.fixed_dictionaries(
            {"name": st.just("f"), "arguments": st.dictionaries(hard_texts, hard_texts, max_size=2)}
        )
    }
)
rich_message = st.fixed_dictionaries(
    {
        "tool_calls": st.lists(call | st.just({"id": 1}), max_size=2),
        "reasoning_content": hard_texts,
        "n": st.just([1.5]),
        "content": hard_texts,
    }
)
share_gpt = st.fixed_dictionaries({"from": st.just("human"), "value": hard_texts})
values = st.one_of(
    st.lists(rich_message | share_gpt | hard_texts | st.lists(hard_texts, max_size=2), max_size=3).map(
        lambda messages: ("messages", messages)
    ),
    st.lists(st.fixed_dictionaries({"n": st.just(1), "body": hard_texts}), max_size=3).map(
        lambda turns: ("meta.body", turns)
    ),
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


def _written_character(char):
    """Draw one of the ways in which JSON may spell a character."""
    escapes = {"\n": "\\n", "\t": "\\t", '"': '\\"', "\\": "\\\\", "/": "\\/", "\r": "\\r", "\b": "\\b"}
    units = char.encode("utf-16-be", "surrogatepass")
    escaped = "".join(f"\\u{units[i]:02x}{units[i + 1]:02X}" for i in range(0, len(units), 2))
    ways = [escaped.encode(), *([escapes[char].encode()] if char in escapes else [])]
    if char >= " " and char not in '"\\' and not "\ud800" <= char <= "\udfff":
        ways.append(char.encode())
    return st.sampled_from(ways).map(lambda raw: (char, raw))


one_character = st.one_of(
    st.one_of(hard_texts.filter(bool).map(lambda text: text[0]), st.sampled_from('\n\t"\\/\b😀\x00')).flatmap(
        _written_character
    ),
    # bytes that are no UTF-8, each so many replaced characters
    st.sampled_from(
        [("\ufffd", b"\xff"), ("\ufffd", b"\xe4\xb8"), ("\ufffd", b"\xf0\x9f\x98"), ("\ufffd" * 2, b"\xc3\xc3")]
    ),
    st.just(("\ud83d", b"\\ud83d ")).map(lambda _: ("\ud83d ", b"\\ud83d ")),  # half a pair
)


@settings(max_examples=500)
@given(
    written=st.lists(one_character, max_size=30),
    frame=st.sampled_from(
        [(b'{"text": "', b'"}'), (b' {"id":1.50,"text2":"\xfe\\u0041" ,"text":\t"', b'" , "z": "\xfe"} \r')]
    ),
    mask=st.sampled_from(["", "[X]", 'é"\n']),
    data=st.data(),
)
def test_every_byte_outside_of_the_spans_stays(written, frame, mask, data):
    # a cut sequence would go on in what is written behind it, so an ASCII character ends each
    written = [one for pair in written for one in (pair, ("|", b"|"))]
    line = frame[0] + b"".join(raw for _, raw in written) + frame[1]
    text = "".join(char for char, _ in written)
    assert text_of(json.loads(line.decode("utf-8", "replace")), "text") == text
    cut = data.draw(st.lists(st.booleans(), min_size=len(written), max_size=len(written)))
    firsts = [sum(len(char) for char, _ in written[:i]) for i in range(len(written) + 1)]
    spans = widened([(firsts[i], firsts[i + 1]) for i, is_cut in enumerate(cut) if is_cut], 0, len(text))
    shown = json.dumps(mask, ensure_ascii=False)[1:-1].encode()
    pieces = [
        raw if not is_cut else b"" if i and cut[i - 1] else shown
        for i, ((_, raw), is_cut) in enumerate(zip(written, cut, strict=True))
    ]
    assert edited_line(line, "text", spans, mask=mask) == frame[0] + b"".join(pieces) + frame[1]


@given(pieces=st.lists(st.binary(max_size=4) | hard_texts.map(str.encode), max_size=20), data=st.data())
def test_texts_of_any_bytes(pieces, data):
    raw = b"".join(pieces)
    text = raw.decode("utf-8", "replace")
    assert edited_bytes(raw, [], mask="#") == raw
    cut = data.draw(st.integers(0, len(text)))
    head, tail = edited_bytes(raw, [(cut, len(text))], mask=""), edited_bytes(raw, [(0, cut)], mask="")
    assert head + tail == raw
    assert (head.decode("utf-8", "replace"), tail.decode("utf-8", "replace")) == (text[:cut], text[cut:])


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


@pytest.mark.parametrize("line", [b'{"text": ', b"[]", b'{"body": "x"}', b'{"text": ' + b"[" * 5000, b""])
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
