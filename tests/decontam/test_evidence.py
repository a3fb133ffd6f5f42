"""Evidence marks what item and document share, and no text of a corpus can act on a terminal or a page."""

import io

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


def test_a_page_escapes_everything(results, tmp_path):
    write_evidence_html(tmp_path / "evidence.html", show_matches(results))
    page = (tmp_path / "evidence.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page
    assert page.count("<section>") == 4
    assert "<mark>" in page
