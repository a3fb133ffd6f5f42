r"""Markup is no word of a text: a text in another format is read as the text itself, with the places of its words.

Python's own writers of JSON and HTML, and its parser of HTML, say what is expected.
"""

import html
import json
import re
import textwrap
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decontam import Reference, ReferenceIndex, Rule
from decontam.kernels.markup import BLOCK, INLINE, LATEX
from decontam.kernels.words import split
from decontam.resolved import fold_resolved, resolve
from tests.decontam.test_anchors import as_lines, flag_lines, rows
from tests.decontam.texts import hard_texts, word_runs

COMPOSED = " \u0301"
"""Behind a text: it has to be folded by Python, since an accent may compose with what stands before it."""
plain_texts = hard_texts.map(lambda text: re.sub(r"[\\&<]", "?", text))


def words(text):
    folded = fold_resolved(text, fold_case=True, markup=True)
    found = split(folded)
    return ["".join(map(chr, found.points[b:e])) for b, e in zip(found.begins, found.ends, strict=True)]


@settings(max_examples=300, deadline=None)
@given(text=plain_texts)
def test_a_text_in_another_format_has_the_same_words(text):
    expected = words(text)
    assert words(json.dumps(text)) == expected
    assert words(json.dumps(json.dumps({"a": text}))[7:]) == ["a", *expected][1:]
    assert words(html.escape(text)) == words(html.escape(json.dumps(text))) == expected
    assert words(text.encode("ascii", "xmlcharrefreplace").decode()) == expected
    assert words(json.dumps(html.escape(text)).replace("&", "\\u0026")) == expected


class Displayed(HTMLParser):
    """What a page says: elements of blocks divide words, those within a line don't."""

    def __init__(self, page):
        super().__init__()
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, _):
        self.text += " " if tag in BLOCK else ""

    handle_endtag = lambda self, tag: self.handle_starttag(tag, [])  # noqa: E731

    def handle_data(self, data):
        self.text += data


TAGS = st.builds(
    "<{0}{1}{2}{3}>".format,
    st.sampled_from(["", "/"]),
    st.sampled_from([*INLINE, *BLOCK]).flatmap(lambda name: st.sampled_from([name, name.upper()])),
    st.just(""),
    st.just(""),
) | st.builds(
    "<{0} {1}{2}>".format,
    st.sampled_from([*INLINE, *BLOCK]),
    st.lists(
        st.sampled_from(['class="a b"', "href='/x?a=1&amp;b'", "width=3", 'style="a: b; c: d; e: f; g: h"', "hidden"])
    ).map(" ".join),
    st.sampled_from(["", " /", "\n", "\t"]),
)


@settings(max_examples=300, deadline=None)
@given(
    pieces=st.lists(
        TAGS | st.sampled_from(["one", "two", " ", "\n", "&eacute;", "&#39;", "&lt; ", "7 < 9 ", "&#x4e2d;"])
    )
)
def test_the_words_of_a_page_are_those_that_are_displayed(pieces):
    page = "".join(pieces)
    assert words(page) == words(Displayed(page).text)
    assert words(json.dumps(page)) == words(page)
    assert words(html.escape(page)) == words(page)


@pytest.mark.parametrize(
    "text",
    [
        "if a < b and c > d: vector<int> List<String> Map<Key, Value> x<y>z i<p && q>r a<b and c>d",
        "<question>one</question> <think> <T> <1> < p > <> </> <p <br",
        "AT&T R&D; &nosuch; &#; &#x; &#0; &#1114112; &#55296; a&b;",
        '<a title="one two three four five six">seven</i <img alt="中文">',
        "#include <vector> std::map<std::string, object>",
    ],
)
def test_what_is_no_markup_keeps_its_words(text):
    plain = fold_resolved(text, fold_case=True, markup=False)
    assert words(text) == [
        "".join(map(chr, split(plain).points[b:e])) for b, e in zip(split(plain).begins, split(plain).ends, strict=True)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"def f():\n\treturn \"a\\nb\"\r\n", "def f return a b"),
        (r"caf\u00e9 na\u00EFve \ud83d\ude00x \\u4e2d\\u6587 \xa0y \ud83d z", "café naïve x 中 文 y z"),
        (r"\nu = \theta + \\theta", "u heta heta"),
        (r"\frac{1}{2}\,\quad \dfrac12\;\text{if } 3 \times 4 \left( x \right)~\textbf{y}", "1 2 12 if 3 4 x y"),
        (r"\text = \ttext \tfrac = \tfrac{1}2", "ext text frac 1 2"),
        ("<b>w</b>ord<sup>2</sup> sen<wbr>tence<br>next</p><p class='x'>one<BR/>two", "word2 sentence next one two"),
        ("don&#39;t&nbsp;stop&hellip; &eacute;t&#xE9; &amp;amp;lt;p&amp;gt;x &lt;br /&gt;y", "don t stop été x y"),
        (r"\u003cp class=\"a\"\u003eone\u003c\/p\u003e<\/td>two", "one two"),
        ("<![CDATA[one]]> <!-- two --> <a\nhref='x'\n>three</a>", "one two three"),
        ("**one** two_three [four](x) `five` $six$", "one two three four x five six"),
        ("a\\\n\nb <a\n\nhref=c>", "a b a href c"),
    ],
)  # fmt: skip
def test_markup_and_the_words_between(text, expected):
    assert words(text) == words(expected) == expected.split(" ")


@settings(max_examples=300, deadline=None)
@given(text=word_runs, more=word_runs)
def test_places_are_those_in_the_text_as_it_is_given(text, more):
    """The kernel's and Python's, which find what a filter cuts."""
    item = Reference("r/0", text)
    index = ReferenceIndex.build([item], Rule.strict(ngram_size=2))
    whole = f"{more}<p>{text}</p>"
    found = [(one.rule, one.spans) for one in index.find_all_matches(whole)]
    assert found == [(one.rule, one.spans) for one in index.find_all_matches(whole + COMPOSED)]
    assert index.find_all_matches(whole) or len(words(text)) < 2
    if found:
        assert flag_lines(index, list(as_lines(whole))) == [1, 1, 1]
        assert index.flag_texts(*rows([whole.encode()])).tolist() == [1]


def test_a_place_is_cut_without_the_tags_around_it():
    item = "seven wise wizards brew potions at midnight in the old tower of the mill"
    written = "<p>seven w<b>is</b>e wizards<br />brew po&shy;tions at&nbsp;midnight</p>"
    written += "<p>in the <i>old</i> tower of the mi&#108;l</p>"
    text = f"<div>before</div>{written}<p>behind"
    for one in (text, text + COMPOSED):
        (match,) = ReferenceIndex.build([Reference("r/0", item)], Rule()).find_matches(one)
        assert [text[begin:end] for begin, end in match.spans] == [written[3:-4]]
    assert ReferenceIndex.build([Reference("r/0", item)], Rule(markup=False)).find_matches(text) == []


def test_texts_that_are_read_together_stay_apart():
    """An item that ends within a tag, and one that begins as its rest."""
    items = [Reference("r/0", "one two three <a", "four"), Reference("r/1", "href='x'> five six seven eight", "")]
    index = ReferenceIndex.build(items, Rule(ngram_size=4))
    assert index.n_tokens.tolist() == [5, 6]
    found = index.find_in_texts([items[0].text + " four", items[1].text])
    assert found.rows_R[:, :2].tolist() == [[0, 0], [1, 1]]


def test_markup_without_end_takes_no_longer_than_its_size():
    for text in (
        "<a x='" * 20_000,
        "\\" * 200_000,
        "&amp;" * 50_000,
        "<a " * 50_000,
        "&#" * 50_000,
        "<p" + " " * 90_000,
    ):
        assert len(resolve(text).text) <= len(text)


@pytest.mark.parametrize(
    "write", [html.escape, json.dumps, lambda text: json.dumps({"cells": [text.splitlines(True)]}, indent=1)]
)
def test_latex_and_code_are_equal_to_themselves_in_another_format(write):
    names = " ".join(
        f"\\{name}" for name in [*LATEX, "nu", "theta", "rho", "beta", "phi", "nabla", "frac12", "xi", "upsilon"]
    )
    for text in (
        names,
        r"$\frac{\nu}{\theta}\\ \text{a \& b}$",
        "print('a\\tb\\n', x<y, \"\\\\n\")\nfor i in a[1:]:\n\tpass",
    ):
        assert " ".join(words(write(text))).removeprefix("cells ") == " ".join(words(text))


def test_wrapped_lines_are_one_text():
    text = "A forty-two year old <em>miller</em> has seventeen well-known &amp; brown sheep"
    assert words("<br />\n".join(textwrap.wrap(text, 20))) == words(text)
