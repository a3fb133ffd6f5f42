"""Evidence marks what item and document have in common, and no more."""

import pytest

from decontam import DecontamError, Reference, ReferenceIndex, Rule, scan
from decontam.evidence import collect_evidence
from tests.decontam.corpora import ITEMS, as_jsonl

CHINESE = Reference("zh/0", "小明有十五个苹果，他给了小红三个，又给了小刚两个，请问他还剩下多少个苹果？", "十个", "zh")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evidence")
    texts = [
        f"before {ITEMS[0].text.upper()} after",
        f"{ITEMS[1].text} a",
        f"{ITEMS[1].text} b",
        CHINESE.text,
    ]
    (folder / "a.jsonl").write_bytes(as_jsonl(texts))
    return scan([folder / "a.jsonl"], ReferenceIndex.build([*ITEMS, CHINESE], Rule()), output=folder / "out")


def marked(segments):
    return [segment.text for segment in segments if segment.is_found]


def test_what_is_shared_is_marked_on_both_sides(results):
    (one,) = collect_evidence(results, reference=ITEMS[0].id)
    assert marked(one.document) == [ITEMS[0].text.upper()[:-1]]
    assert marked(one.reference) == [ITEMS[0].text[:-1]]
    assert "".join(segment.text for segment in one.document).endswith(" after")
    assert one.document_path.endswith("/a.jsonl")
    assert one.document_row == 0
    (chinese,) = collect_evidence(results, reference="zh")
    assert marked(chinese.reference) == [CHINESE.text[:-1]]


def test_matches_can_be_chosen(results):
    assert len(collect_evidence(results)) == 4
    assert len(collect_evidence(results, limit=2)) == 2
    assert [one.reference_id for one in collect_evidence(results, min_df=1)] == ["zh/0", ITEMS[0].id]
    assert [one.document_row for one in collect_evidence(results, document="a.jsonl:2")] == [2]
    assert len(collect_evidence(results, document="a.jsonl")) == 4
    with pytest.raises(DecontamError, match="no item or benchmark 'none'"):
        collect_evidence(results, reference="none")


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
    (one, *_) = collect_evidence(long, document="ba.jsonl:0")
    document, item = ("".join(segment.text for segment in side) for side in (one.document, one.reference))
    assert document[0] == document[-1] == item[-1] == "…"
    assert 2_000 < len(document) < 2_010
    assert item.startswith("word0 word1 ")
    n_shown = sum(map(len, marked(one.document)))
    assert one.n_characters_cut == len(words(0, 500)) - n_shown
    assert one.longest_match == 500


def test_an_item_is_shown_where_it_was_found(long):
    (one,) = collect_evidence(long, document="a.jsonl")
    assert marked(one.reference) == marked(one.document) == [words(430, 470)]
    text = "".join(segment.text for segment in one.reference)
    assert text.startswith("…")
    assert text.endswith("word499")
    assert "".join(segment.text for segment in one.document) == f"end {words(430, 470)} end"
    assert one.n_characters_cut == 0


def test_a_document_is_named_by_whole_names(long):
    assert [one.document_path.rpartition("/")[2] for one in collect_evidence(long, document="a.jsonl")] == ["a.jsonl"]
    assert len(collect_evidence(long, document="ba.jsonl")) == 2
    assert len(collect_evidence(long, document="ba.jsonl:1")) == 1
    assert collect_evidence(long, document="jsonl") == []


def test_a_short_item_is_marked_in_full(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(as_jsonl([f"so: {ITEMS[-1].text.upper()} said"]))
    results = scan([tmp_path / "a.jsonl"], ReferenceIndex.build(ITEMS, Rule()), output=tmp_path / "out")
    (one,) = collect_evidence(results, min_df=1)
    assert marked(one.reference) == [ITEMS[-1].text[:-1]]
    assert (one.rule, one.n_shared_ngrams, one.lcs_length, one.min_df) == ("whole", 0, None, None)


def test_only_n_grams_of_the_document_are_marked(tmp_path):
    item = Reference("x", f"{words(0, 20)} {words(0, 6)} {words(30, 50)}")
    (tmp_path / "a.jsonl").write_bytes(as_jsonl([f"{words(0, 14)} and {words(36, 50)} {words(0, 6)}"]))
    results = scan([tmp_path / "a.jsonl"], ReferenceIndex.build([item], Rule.strict()), output=tmp_path / "out")
    (one,) = collect_evidence(results)
    assert marked(one.document) == [words(0, 14), words(36, 50)]
    assert marked(one.reference) == [words(0, 14), words(36, 50)]


def test_no_matches(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(as_jsonl(["x"]))
    results = scan([tmp_path / "a.jsonl"], ReferenceIndex.build(ITEMS, Rule()), output=tmp_path / "out")
    assert collect_evidence(results, document="a.jsonl", min_df=2) == []


def test_an_item_of_very_long_words_begins_with_its_begin(tmp_path):
    """A shared n-gram that began among the first 200 characters, and ended after 2,000, showed the item's end."""
    item = Reference("x", "start " + " ".join(f"{i}{'x' * 200}" for i in range(15)))
    (tmp_path / "a.jsonl").write_bytes(as_jsonl([item.text.removeprefix("start ")]))
    results = scan([tmp_path / "a.jsonl"], ReferenceIndex.build([item], Rule()), output=tmp_path / "out")
    (one,) = collect_evidence(results)
    assert "".join(segment.text for segment in one.reference).startswith("start 0x")
