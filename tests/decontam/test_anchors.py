"""The quick look at raw bytes misses nothing, and never takes a broken line for a right one."""

import json
import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from decontam import Reference, ReferenceIndex, Rule
from tests.decontam.test_index import APPLES, CAPITAL, FOX, references, rules
from tests.decontam.texts import hard_texts, word_runs


def rows(lines):
    """Return a buffer, and where the lines begin and end in it."""
    buffer = np.frombuffer(b"\n".join(lines) + b"\n", np.uint8)
    sizes = np.array([len(line) for line in lines], np.int64)
    ends = np.cumsum(sizes + 1) - 1
    return buffer, ends - sizes, ends


def flag_lines(index, lines, field=b"text"):
    return index.flag_json_lines(*rows(lines), field).tolist()


def as_lines(text):
    """The same document as JSON lines written in three ways."""
    yield json.dumps({"id": 1, "text": text}).encode()
    yield json.dumps({"text": text, "meta": {"text": [1, "x"]}}, ensure_ascii=False).encode()
    yield ('{ "text" : "' + "".join(f"\\u{ord(c):04x}" if ord(c) < 0xD800 else c for c in text) + '" }\r').encode()


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(items=references, text=word_runs, rule=rules, before=hard_texts)
def test_no_match_is_missed(items, text, rule, before):
    index = ReferenceIndex.build(items, rule)
    whole = before + " " + text
    if index.find_all_matches(whole):
        assert flag_lines(index, list(as_lines(whole))) == [1, 1, 1]
        assert index.flag_texts(*rows([whole.encode()])).tolist() == [1]


@settings(max_examples=200, deadline=None)
@given(n_before=st.integers(0, 140), separator=st.sampled_from([" ", ". ", "\n", "中"]))
def test_an_item_is_found_at_any_place_of_a_long_text(n_before, separator):
    index = ReferenceIndex.build([FOX, CAPITAL], Rule())
    text = separator.join(["word"] * (4_096 - n_before)) + separator + FOX.text
    short = separator.join(["word"] * (4_096 - n_before)) + separator + CAPITAL.text
    assert flag_lines(index, list(as_lines(text))) == [1, 1, 1]
    assert index.flag_texts(*rows([text.encode(), short.encode()])).tolist() == [1, 1]


@pytest.mark.parametrize("short_items", [[], [CAPITAL]], ids=["without", "with short items"])
@pytest.mark.parametrize("size", [16, 20, 50, 600, 5_000])
def test_long_ngrams_neither_flag_other_texts_nor_miss_any(size, short_items):
    """Anchors lie further apart than they are long, and further than words are kept."""
    rng = random.Random(size)
    words = [f"w{rng.randrange(5_000)}" for _ in range(size + 50)]
    index = ReferenceIndex.build([Reference("a/0", " ".join(words)), *short_items], Rule(ngram_size=size, min_whole=4))
    others = [" ".join(f"v{i}" for i in range(n)) for n in (0, 1, 15, 40, 99, 200, 4_100, 12_000)]
    assert index.flag_texts(*rows([text.encode() for text in others])).tolist() == [0] * len(others)
    for n_before in (0, 1, 7, 30, 511, 4_090):
        text = " ".join(["v"] * n_before + words[20 : 20 + size] + ["v"] * 9)
        assert index.flag_texts(*rows([text.encode()])).tolist() == [1]


def test_other_texts_are_passed_over():
    index = ReferenceIndex.build([FOX, APPLES, CAPITAL], Rule())
    texts = [
        "nothing of it",
        "Überall schöne Wörter",
        "你好，世界",
        "Привет мир",
        "😀 emoji \U0001f680",
        'tab\tnew\nline \\ / "',
    ]
    assert flag_lines(index, [line for text in texts for line in as_lines(text)]) == [0] * 18
    assert index.flag_texts(*rows([text.encode() for text in texts])).tolist() == [0] * 6


@settings(max_examples=500, deadline=None)
@given(data=st.data())
@example(data=None)
def test_no_broken_line_is_taken_for_a_right_one(data):
    """Right lines with some bytes changed, cut or doubled: what passes is JSON with that text."""
    index = ReferenceIndex.build([FOX], Rule())
    line = b'{"id": -12.5, "text": "a \\"b\\" \\u00e9 \\ud83d\\ude00 c\xc3\xa9", '
    line += b'"m": [true, null, {"k": [0, {}]}], "z": {}}'
    if data is not None:
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(line)))
            what = data.draw(st.sampled_from(sorted({*line, 0, 10, 255, 0xC0, 0xE2, 0xED, 48, 101})))
            cut = data.draw(st.integers(0, 2))
            line = line[:at] + bytes([what] * data.draw(st.integers(0, 2))) + line[at + cut :]
    if flag_lines(index, [line]) == [0]:
        row = json.loads(line)
        assert isinstance(row["text"], str)
        row["text"].encode()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b'"text"',
        b'{"txt": "a"}',
        b'{"text": 3}',
        b'{"text": null}',
        b'{"text": ["a"]}',
        b'{"meta": {"text": "a"}}',
        b'{"text": "a"',
        b'{"text": "a',
        b'{"text": "a"} x',
        b'{"text": "a",}',
        b'{"text": "a", "n": [1,]}',
        b'{"text": "a", "n": 01}',
        b'{"text": "a", "n": tru}',
        b'{"text": "a", "n": -}',
        b'{"text": "a", "n": 1.}',
        b'{"text": "a" "n": 1}',
        b'{"text": "a\tb"}',
        b'{"text": "\\x"}',
        b'{"text": "\\u12g4"}',
        b'{"text": "\\ud83d"}',
        b'{"text": "\\ude00"}',
        b'{"text": "a\xff"}',
        b'{"text": "\xed\xa0\x80"}',
        b'{"text": "\xc0\x80"}',
        b'{"other": "\xff", "text": "a"}',
        b'{"text": "a", "text": "b"}',
        b'{"te\\u0078t": "b", "text": "a"}',
        b"\xef\xbb\xbf" + b'{"text": "a"}',
    ],
)
def test_lines_that_a_parser_must_look_at(line):
    assert flag_lines(ReferenceIndex.build([FOX], Rule()), [line]) == [1]


def test_texts_that_are_not_utf8_are_looked_at():
    index = ReferenceIndex.build([FOX], Rule())
    assert index.flag_texts(*rows([b"ok", b"a\xff", b"\xe2\x82", b"\xf4\x90\x80\x80"])).tolist() == [0, 1, 1, 1]


def test_the_field_may_have_any_name():
    index = ReferenceIndex.build([FOX], Rule())
    lines = [json.dumps({"inhalt": FOX.text}).encode(), json.dumps({"inhalt": "x", "text": FOX.text}).encode()]
    assert flag_lines(index, lines, b"inhalt") == [1, 0]


def test_only_the_text_is_searched():
    index = ReferenceIndex.build(
        [Reference("k/0", "text meta id text meta id text meta id text meta id text", "", "k")], Rule()
    )
    assert flag_lines(
        index, [b'{"meta": "text meta id text meta id text meta id text meta id text", "text": "a"}']
    ) == [0]
