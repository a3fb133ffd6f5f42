"""No text of a corpus can act on a terminal or on the page that shows it, and what is marked is seen."""

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import pytest

from decontam import Reference, ReferenceIndex, Rule, scan
from decontam.evidence import Evidence, Segment, collect_evidence
from qwen2eval.errors import ConfigError
from qwen2eval.reporting.decontam_evidence import as_json, facts, print_evidence, write_evidence_html
from tests.decontam.corpora import ITEMS, as_jsonl

HOSTILE = "<script>alert(1)</script>\x1b[31m\x07\u202e"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evidence")
    texts = [
        f"{HOSTILE} before {ITEMS[0].text.upper()} after",
        f"{ITEMS[1].text} a",
        f"{ITEMS[1].text} b",
        ITEMS[2].text,
    ]
    (folder / "a.jsonl").write_bytes(as_jsonl(texts))
    return scan([folder / "a.jsonl"], ReferenceIndex.build(ITEMS, Rule()), output=folder / "out")


def shown_page(tmp_path, found):
    write_evidence_html(tmp_path / "evidence.html", found)
    return (tmp_path / "evidence.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", ["80", "140"])
def test_a_terminal_gets_no_control_characters(results, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    file = io.StringIO()
    print_evidence(collect_evidence(results), file=file)
    shown = file.getvalue()
    assert not any(ord(char) < 32 and char != "\n" for char in shown)
    assert "\u202e" not in shown
    assert "rarest n-gram in 2 documents of the corpus" in " ".join(shown.split())
    assert f"⟦{' '.join(ITEMS[1].text.split()[:3])}" in " ".join(shown.split())


_TAGS = {"html", "head", "meta", "title", "style", "body", "main", "header", "section", "div", "pre", "mark"}
_TAGS |= {"h1", "h2", "h3", "p", "ul", "li"}


class Page(HTMLParser):
    """What a browser makes of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.texts, self.stack = set(), set(), [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        if tag != "meta":
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_no_text_is_taken_for_the_page_itself(tmp_path):
    hostile = (
        "</pre></mark><script>x</script><img src=x onerror=y>&lt; {style} \"' \x00\x1b]0;\x9b\u202e\u2028\U000e0041"
    )
    path = tmp_path / "<b>&amp; '\".jsonl"
    item = Reference(hostile, ITEMS[0].text + hostile, hostile, hostile)
    path.write_bytes(as_jsonl([hostile + ITEMS[0].text + hostile]))
    results = scan([path], ReferenceIndex.build([item], Rule()), output=tmp_path / "out")
    found = collect_evidence(results)
    page = Page(shown_page(tmp_path, found))
    assert page.tags == _TAGS
    assert page.attributes == {"lang", "charset", "name", "content", "http-equiv", "class", "tabindex"}
    assert page.stack == []
    shown = "".join(page.texts)
    assert shown.count("</pre></mark><script>x</script><img src=x onerror=y>&lt; {style}") == 5
    assert str(path) in shown
    assert not set(shown) & set("\x00\x1b\x9b\u202e\u2028\U000e0041")
    file = io.StringIO()
    print_evidence(found, file=file)
    assert not set(file.getvalue()) & set("\x00\x1b\x9b\u202e\u2028\U000e0041")


def test_a_page_escapes_everything(results, tmp_path):
    page = shown_page(tmp_path, collect_evidence(results))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page
    assert page.count("<section ") == 4
    assert f"<mark>{ITEMS[0].text.upper()[:-1]}</mark>" in page


def test_a_page_allows_its_style_and_nothing_else(tmp_path):
    page = shown_page(tmp_path, [])
    style = re.search("<style>(.*)</style>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in page
    assert ".pair" in style
    assert "No matches." in page


def test_a_page_that_cannot_be_written(tmp_path):
    with pytest.raises(ConfigError, match="give --html another file"):
        write_evidence_html(tmp_path / "none" / "evidence.html", [])


def evidence(**values):
    fixed = {"reference_id": "a/0", "document_path": "/c/a.jsonl", "document_row": 7, "rule": "qwen2"}
    counts = {"n_shared_ngrams": 1, "longest_match": 13, "lcs_length": 1_200, "lcs_ratio": 0.625, "min_df": 2}
    texts = {"reference": (Segment("\none", is_found=True),), "document": (Segment("two", is_found=False),)}
    return Evidence(**fixed | counts | {"n_characters_cut": 0} | texts | values)


def test_facts_are_short_and_leave_out_what_is_not_known():
    assert facts(evidence()) == [
        "qwen2 rule",
        "1 shared n-gram",
        "longest run 13 tokens",
        "common subsequence 1,200 tokens, 62%",
        "rarest n-gram in 2 documents of the corpus",
    ]
    short = evidence(rule="whole", n_shared_ngrams=0, lcs_length=None, lcs_ratio=None, min_df=None, n_characters_cut=1)
    assert facts(short) == [
        "whole rule",
        "0 shared n-grams",
        "longest run 13 tokens",
        "1 character more of it further on",
    ]


def test_json_has_the_same_fields_as_ever():
    (one,) = json.loads(json.dumps(as_json([evidence()])))
    assert list(one) == ["reference_id", "place", "facts", "reference", "document"]
    assert one["place"] == "/c/a.jsonl:7"
    assert (one["reference"], one["document"]) == ([["\none", True]], [["two", False]])


def test_a_line_end_at_the_begin_of_a_text_stays(tmp_path):
    assert '<pre tabindex="0">\n<mark>\none</mark></pre>' in shown_page(tmp_path, [evidence()])
