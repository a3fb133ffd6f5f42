"""Markdown that we wrote is read back by a real parser: the text must come back, and nothing else."""

import html
import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from qwen2eval.reporting.markup import clip, md_block, md_code, md_prose, visible

_PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
# Mostly what means something in markdown, HTML or on GitHub.
_NASTY = st.text(st.sampled_from("ab1 \n\t|`\\*_~[]()<>!#&;:=+-.@$\"'/{}^\r\x0b\x1b\u2028\u202e\ud800é中"), max_size=40)
_LINKED = ["https://a.bc/d", "www.a.bc", "x@y.org", "@someone", "a/b#12", "#12", "GH-12", "d3adb33f", "$x$"]


def _words(text: str) -> str:
    return " ".join(visible(text).split())


def _text_of(rendered: str) -> str:
    return html.unescape(re.sub(r"</?code>", "", rendered))


@given(_NASTY)
def test_prose_comes_back_as_the_same_text_with_no_other_element_than_code(text):
    rendered = _PARSER.render(f"x {md_prose(text)} y").strip()
    assert _text_of(rendered).split() == f"<p>x {_words(text)} y</p>".split()


@given(_NASTY)
def test_prose_that_starts_a_line_starts_no_block(text):
    assume(_words(text))
    rendered = _PARSER.render(f"before\n{md_prose(text)}\nafter").strip()
    assert _text_of(rendered).split() == f"<p>before\n{_words(text)}\nafter</p>".split()


@given(_NASTY, _NASTY)
@example(prose="", code="| 1 |")  # one space at each end of a code span is lost, unless there are two
def test_a_table_row_keeps_its_cells(prose, code):
    row = f"| {md_prose(prose)} | {md_code(code)} | end |"
    rendered = _PARSER.render(f"| a | b | c |\n|--|--|--|\n{row}\n")
    cells = re.findall(r"<td>(.*?)</td>", rendered, re.DOTALL)
    assert [_text_of(cell).split() for cell in cells] == [_words(prose).split(), (_words(code) or "—").split(), ["end"]]


@given(_NASTY)
def test_a_block_holds_its_text_exactly(text):
    tokens = _PARSER.parse(f"<details>\n\n{md_block(text)}\n\n</details>\n")
    fences = [token.content for token in tokens if token.type == "fence"]
    assert fences == [visible(text) + "\n"]


@pytest.mark.parametrize("word", _LINKED)
def test_words_that_readers_make_into_links_are_code(word):
    assert md_prose(f"see {word}, please") == f"see `{word}`, please"


def test_an_emoji_name_is_broken_up():
    assert md_prose(":tada: done") == "`:tada`: done"


@pytest.mark.parametrize("text", ["0.26 is near chance (0.25), n = 100", "e.g. 51.3% ± 1.2", "-0.05 – 0.31", "3 of 4"])
def test_plain_prose_stays_readable(text):
    assert md_prose(text) == text


@pytest.mark.parametrize("text", ["# a", "- a", "+ a", "1. a", "12) a", "---", "===", ":--", "-", "#"])
def test_a_block_sign_at_the_start_is_escaped(text):
    assert "\\" in md_prose(text)


def test_no_control_character_is_left():
    every = "".join(map(chr, range(0xA0))) + "\u202e\u2066\u2028\ud800"
    shown = visible(every)
    assert [char for char in shown if not char.isprintable() and char not in "\n\t"] == []
    assert shown.encode()  # no lone surrogate


def test_clip_keeps_both_ends_and_says_what_is_missing():
    text = "a" * 1000 + "b" * 1000
    assert clip(text, limit=300) == "a" * 100 + "\n[… 1,700 characters left out …]\n" + "b" * 200
    assert clip("short", limit=5) == "short"
