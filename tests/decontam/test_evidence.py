"""Evidence marks what item and document share, and no text of a corpus can act on a terminal or a page."""

import io
from html.parser import HTMLParser

import pytest

from decontam import DecontamError, Reference, ReferenceIndex, Rule, scan
from decontam.evidence import print_evidence, show_matches, write_evidence_html
from tests.decontam.corpora import ITEMS, as_jsonl

CHINESE = Reference("zh/0", "小明有十五个苹果，他给了小红三个，又给了小刚两个，请问他还剩下多少个苹果？", "十个", "zh")
HOSTILE = "<script>alert(1)</script>\x1b[31m\x07\u202e"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evidence")
    texts = [
        f"{HOSTILE} before {ITEMS[0].text.upper()} after",
        f"{ITEMS[1].text} a",
        f"{ITEMS[1].text} b",
        CHINESE.text,
    ]
    (folder / "a.jsonl").write_bytes(as_jsonl(texts))
    return scan([folder / "a.jsonl"], ReferenceIndex.build([*ITEMS, CHINESE], Rule()), output=folder / "out")


def marked(segments):
    return [segment.text for segment in segments if segment.is_found]


def test_what_is_shared_is_marked_on_both_sides(results):
    (one,) = show_matches(results, reference=ITEMS[0].id)
    assert marked(one.document) == [ITEMS[0].text.upper()[:-1]]
    assert marked(one.reference) == [ITEMS[0].text[:-1]]
    assert "".join(segment.text for segment in one.document).endswith(" after")
    assert one.place.endswith("a.jsonl:0")
    (chinese,) = show_matches(results, reference="zh")
    assert marked(chinese.reference) == [CHINESE.text[:-1]]


def test_matches_can_be_chosen(results):
    assert len(show_matches(results)) == 4
    assert len(show_matches(results, limit=2)) == 2
    assert [one.reference_id for one in show_matches(results, min_df=1)] == ["zh/0", ITEMS[0].id]
    assert [one.place[-1] for one in show_matches(results, document="a.jsonl:2")] == ["2"]
    assert len(show_matches(results, document="a.jsonl")) == 4
    with pytest.raises(DecontamError, match="no item or benchmark 'none'"):
        show_matches(results, reference="none")


@pytest.mark.parametrize("width", ["80", "140"])
def test_a_terminal_gets_no_control_characters(results, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    file = io.StringIO()
    print_evidence(show_matches(results), file=file)
    shown = file.getvalue()
    assert not any(ord(char) < 32 and char != "\n" for char in shown)
    assert "\u202e" not in shown
    assert "rarest n-gram in 2 documents of the corpus" in " ".join(shown.split())
    assert f"⟦{' '.join(ITEMS[1].text.split()[:3])}" in " ".join(shown.split())


_TAGS = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "section", "div", "pre", "mark"}


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
    found = show_matches(results)
    write_evidence_html(tmp_path / "e.html", found)
    page = Page((tmp_path / "e.html").read_text(encoding="utf-8"))
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


def words(first, stop):
    return " ".join(f"word{i}" for i in range(first, stop))


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    text = f"{words(500, 600)} {words(0, 500)} {words(600, 700)}"
    (folder / "ba.jsonl").write_bytes(as_jsonl([text, words(450, 475)]))
    (folder / "a.jsonl").write_bytes(as_jsonl(["end " + words(430, 470) + " end"]))
    items = [Reference("long", words(0, 500))]
    return scan([folder], ReferenceIndex.build(items, Rule()), output=folder / "out")


def test_long_texts_are_cut_and_say_so(long):
    (one, *_) = show_matches(long, document="ba.jsonl:0")
    document, item = ("".join(segment.text for segment in side) for side in (one.document, one.reference))
    assert document[0] == document[-1] == item[-1] == "…"
    assert 2_000 < len(document) < 2_010
    assert item.startswith("word0 word1 ")
    n_shown = sum(map(len, marked(one.document)))
    assert f"{len(words(0, 500)) - n_shown:,} characters more of it further on" in one.facts
    assert "longest run 500 tokens" in one.facts


def test_an_item_is_shown_where_it_is_alike(long):
    (one,) = show_matches(long, document="a.jsonl")
    assert marked(one.reference) == marked(one.document) == [words(430, 470)]
    text = "".join(segment.text for segment in one.reference)
    assert text.startswith("…")
    assert text.endswith("word499")
    assert "".join(segment.text for segment in one.document) == f"end {words(430, 470)} end"
    assert not any("further on" in fact for fact in one.facts)


def test_a_document_is_named_by_whole_names(long):
    assert [one.place.rpartition("/")[2] for one in show_matches(long, document="a.jsonl")] == ["a.jsonl:0"]
    assert len(show_matches(long, document="ba.jsonl")) == 2
    assert len(show_matches(long, document="ba.jsonl:1")) == 1
    assert show_matches(long, document="jsonl") == []


def test_a_short_item_is_marked_as_a_whole(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(as_jsonl([f"so: {ITEMS[-1].text.upper()} said"]))
    results = scan([tmp_path / "a.jsonl"], ReferenceIndex.build(ITEMS, Rule()), output=tmp_path / "out")
    (one,) = show_matches(results, min_df=1)
    assert marked(one.reference) == [ITEMS[-1].text[:-1]]
    assert one.facts[0] == "whole rule"


def test_only_n_grams_of_the_document_are_marked(tmp_path):
    item = Reference("x", f"{words(0, 20)} {words(0, 6)} {words(30, 50)}")
    (tmp_path / "a.jsonl").write_bytes(as_jsonl([f"{words(0, 14)} and {words(36, 50)} {words(0, 6)}"]))
    results = scan([tmp_path / "a.jsonl"], ReferenceIndex.build([item], Rule.strict()), output=tmp_path / "out")
    (one,) = show_matches(results)
    assert marked(one.document) == [words(0, 14), words(36, 50)]
    assert marked(one.reference) == [words(0, 14), words(36, 50)]


def test_no_matches(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(as_jsonl(["x"]))
    results = scan([tmp_path / "a.jsonl"], ReferenceIndex.build(ITEMS, Rule()), output=tmp_path / "out")
    assert show_matches(results, document="a.jsonl", min_df=2) == []
    write_evidence_html(tmp_path / "e.html", [])
    assert "No matches." in (tmp_path / "e.html").read_text(encoding="utf-8")


def test_a_page_escapes_everything(results, tmp_path):
    write_evidence_html(tmp_path / "evidence.html", show_matches(results))
    page = (tmp_path / "evidence.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page
    assert page.count("<section>") == 4
    assert "<mark>" in page
