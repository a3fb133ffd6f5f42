"""What is found in a text is what the slow reading finds, by every rule, and thresholds only ever take away."""

import dataclasses
import pickle
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decontam import DecontamError, Reference, ReferenceIndex, Rule
from decontam.rule import RULES
from tests.decontam import slow
from tests.decontam.texts import WORDS, word_runs

rules = st.builds(
    Rule,
    ngram_size=st.integers(2, 6),
    ngram_size_cjk=st.none() | st.integers(2, 6),
    min_lcs=st.integers(1, 8),
    min_lcs_ratio=st.sampled_from([0.0, 0.3, 0.6, 1.0]),
    sequence=st.sampled_from(["window", "document"]),
    fold_case=st.booleans(),
    markup=st.booleans(),
    min_whole=st.integers(2, 4),
    template_items=st.integers(0, 2),
)
few_words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)
short_choices = st.lists(few_words, min_size=2, max_size=5).map(tuple)
forms = st.lists(word_runs, max_size=1).map(tuple)
references = st.lists(
    st.one_of(
        st.builds(Reference, st.just(""), word_runs, st.just("") | word_runs),
        st.builds(Reference, st.just(""), few_words, st.just(""), choices=short_choices, forms=forms),
    ),
    min_size=1,
    max_size=4,
).map(lambda items: [replace(item, id=f"r/{i}", benchmark="rsrr"[i]) for i, item in enumerate(items)])


def asked(item, label, order):
    """An item as a benchmark asks it."""
    parts = [item.parts[i] for i in order]
    return "\n".join([item.text, *(label.format("ABCDEFGH"[i], i + 1) + part for i, part in enumerate(parts))])


@st.composite
def texts_with_items(draw, items):
    """A text, and mostly an item in it in one of its forms."""
    item, text = draw(st.sampled_from(items)), draw(word_runs)
    order = draw(st.permutations(range(len(item.parts))))
    label = draw(st.sampled_from(["{0}. ", "({1}) ", "- ", "Answer: "]))
    return text + draw(st.sampled_from([asked(item, label, order), *item.forms, item.text, ""])) + draw(word_runs)


FOX = Reference(
    "a/0", "The quick brown fox jumps over the lazy dog while seven wise wizards brew potions.", "At midnight.", "a"
)
APPLES = Reference("b/0", "小明有十五个苹果，他给了小红三个，又给了小刚两个，请问他还剩下多少个苹果？", "十个", "b")
CAPITAL = Reference("c/0", "What is the capital of France?", "Paris", "c")


@settings(max_examples=250, deadline=None)
@given(data=st.data(), items=references, rule=rules)
def test_verdicts_are_those_of_the_slow_reading(data, items, rule):
    text = data.draw(texts_with_items(items))
    index = ReferenceIndex.build(items, rule)
    found = {match.reference_id: match.rule for match in index.find_all_matches(text)}
    verdicts = {item.id: slow.verdict(text, item, items, rule) for item in items}
    assert found == {name: verdict for name, verdict in verdicts.items() if verdict is not None}
    for item, is_testable in zip(items, index.testable.tolist(), strict=True):
        of_item, of_forms = slow.searched(item, rule)
        assert is_testable == bool(of_item or any(slow.is_own(ngram, item, items, rule) for ngram in of_forms))


@settings(max_examples=200, deadline=None)
@given(items=references, text=word_runs, rule=rules)
def test_evidence_is_right(items, text, rule):
    index = ReferenceIndex.build(items, rule)
    by_id = {item.id: item for item in items}
    document = slow.words(text, fold_case=rule.fold_case, markup=rule.markup)
    for match in index.find_all_matches(text):
        item = by_id[match.reference_id]
        both, size = slow.parts(item, rule)[1], slow.size_of(item, rule)
        for begin, end in match.spans:
            assert slow.words(text[begin:end], fold_case=rule.fold_case, markup=rule.markup)
        assert list(match.spans) == sorted(match.spans)
        if match.rule == "whole" or match.reference_part == "other form":
            continue
        sequence = slow.parts(item, rule)[match.reference_part == "question+answer"]
        assert match.n_shared_ngrams == len(slow.ngrams(document, size) & slow.ngrams(sequence, size))
        longest = max(n for n in range(1, len(both) + 1) if slow.ngrams(document, n) & slow.ngrams(sequence, n))
        assert match.longest_match == longest


@settings(max_examples=200, deadline=None)
@given(items=references, text=word_runs, rule=rules.map(lambda rule: replace(rule, template_items=0)), more=word_runs)
def test_one_more_reference_takes_no_match_away(items, text, rule, more):
    few = ReferenceIndex.build(items, rule).find_matches(text)
    many = ReferenceIndex.build([*items, Reference("more", more)], rule).find_matches(text)
    assert {match.reference_id for match in few} <= {match.reference_id for match in many}


@settings(max_examples=200, deadline=None)
@given(items=references, text=word_runs, rule=rules, field=st.sampled_from(["ngram_size", "min_lcs", "min_lcs_ratio"]))
def test_a_higher_threshold_adds_no_match(items, text, rule, field):
    options = rule.as_dict() | {"ngram_size_cjk": None}
    raised = options | {field: min(1.0, options[field] + 0.25) if field == "min_lcs_ratio" else options[field] + 1}
    low, high = (
        {match.reference_id for match in ReferenceIndex.build(items, Rule(**o)).find_matches(text)}
        for o in (options, raised)
    )
    assert high <= low


def test_an_item_with_other_case_and_signs_is_found_with_its_place():
    text = "Once: THE QUICK, brown fox jumps over -- the lazy dog while seven wise wizards brew potions!! The end."
    (match,) = ReferenceIndex.build([APPLES, FOX, CAPITAL], Rule()).find_matches(text)
    assert (match.reference_id, match.rule, match.reference_part) == ("a/0", "qwen2", "question")
    assert (match.n_shared_ngrams, match.longest_match, match.lcs_length, match.lcs_ratio) == (3, 15, 15, 1.0)
    assert [text[begin:end] for begin, end in match.spans] == [text[6 : text.index("!!")]]


def test_case_can_be_kept():
    text = FOX.text.upper()
    assert ReferenceIndex.build([FOX], Rule()).find_matches(text)
    assert not ReferenceIndex.build([FOX], Rule(fold_case=False)).find_matches(text)


def test_chinese_is_found_character_by_character():
    text = "前言。小明有十五个苹果,他给了小红三个,又给了小刚两个,请问他还剩下多少个苹果?好"
    (match,) = ReferenceIndex.build([FOX, APPLES], Rule()).find_matches(text)
    assert match.reference_id == "b/0"
    assert not ReferenceIndex.build([APPLES], Rule(ngram_size_cjk=40)).find_matches(text)


def test_a_short_item_is_not_testable_but_found_whole():
    index = ReferenceIndex.build([FOX, CAPITAL], Rule())
    assert index.testable.tolist() == [True, False]
    (match,) = index.find_all_matches("Q: what is the capital of FRANCE? Lyon")
    assert (match.rule, match.reference_part, match.longest_match) == ("whole", "question", 6)
    assert index.find_matches("Q: what is the capital of FRANCE? Lyon") == []
    assert index.find_all_matches("the capital of France is Paris") == []


def test_a_quote_is_strict_but_not_qwen2():
    long_item = Reference("l/0", FOX.text + " " + " ".join(f"filler{i}" for i in range(60)), "", "l")
    around = " ".join(f"other{i}" for i in range(40))
    text = f"{around} the quick brown fox jumps over the lazy dog while seven wise wizards {around}"
    index = ReferenceIndex.build([long_item], Rule())
    assert [match.rule for match in index.find_all_matches(text)] == ["strict"]
    assert index.find_matches(text) == []
    (match,) = ReferenceIndex.build([long_item], Rule.strict()).find_matches(text)
    assert (match.rule, match.lcs_length) == ("strict", None)


def test_an_index_survives_pickling_and_saving(tmp_path):
    index = ReferenceIndex.build([FOX, APPLES, CAPITAL], Rule(ngram_size_cjk=20))
    index.save(tmp_path / "index.json")
    loaded = ReferenceIndex.load(tmp_path / "index.json")
    assert loaded.fingerprint == index.fingerprint
    assert ReferenceIndex.build([FOX], index.rule).fingerprint != index.fingerprint
    for other in (pickle.loads(pickle.dumps(index)), loaded):
        assert other.find_all_matches(FOX.text + APPLES.text) == index.find_all_matches(FOX.text + APPLES.text)


def test_a_pickled_index_uses_the_same_compiled_kernels():
    """Ray and datatrove pickle it: arrays with other strides had all kernels compiled again, for half a minute."""
    lettered = Reference("d/0", "Which of these is red?", choices=("the sky", "a ripe tomato"))
    items = ReferenceIndex.build([FOX, APPLES, CAPITAL, lettered], Rule()).tables.items
    copy = pickle.loads(pickle.dumps(items))
    for field in dataclasses.fields(items):
        assert getattr(items, field.name).strides == getattr(copy, field.name).strides, field.name


@pytest.mark.parametrize(
    ("items", "message"), [([], "no references"), ([FOX, FOX], "'a/0' is there twice")], ids=["none", "twice"]
)
def test_items_that_cannot_be_indexed(items, message):
    with pytest.raises(DecontamError, match=message):
        ReferenceIndex.build(items, Rule())


@pytest.mark.parametrize(
    "options", [{"ngram_size": 1}, {"min_lcs_ratio": 1.5}, {"sequence": "page"}, {"tokenizer": "x"}]
)
def test_rules_that_make_no_sense(options):
    with pytest.raises(DecontamError, match=next(iter(options))):
        Rule(**options)


def test_what_stands_before_an_item_does_not_change_it():
    """A vowel sign of Hangul composes with what is before it, but not with a line end."""
    items = [
        Reference("b/0", "one two ﬁve \u0301"),
        Reference("c/0", "\u1161 is the sixth of these words here today", ""),
    ]
    index = ReferenceIndex.build(items, Rule(ngram_size=5))
    assert index.n_tokens.tolist() == [3, 9]
    assert [match.reference_id for match in index.find_all_matches(items[1].text)] == ["c/0"]


def test_long_texts_that_compose_are_read_in_blocks(monkeypatch):
    text = " ".join(f"e\u0301{i} ﬁ, \u0301x" for i in range(300)) + " " + FOX.text
    whole = ReferenceIndex.build([FOX], Rule()).find_matches(text)
    monkeypatch.setattr("decontam.matching._FOLDED_CHARACTERS", 50)
    assert len(whole) == 1
    assert ReferenceIndex.build([FOX], Rule()).find_matches(text) == whole


def test_empty_texts():
    index = ReferenceIndex.build([Reference("e/0", ""), FOX], Rule())
    assert index.find_all_matches("") == []
    assert index.find_all_matches("...") == []
    assert [match.reference_id for match in index.find_all_matches(FOX.text)] == ["a/0"]


@settings(max_examples=150, deadline=None)
@given(items=references, text=word_runs, rule=rules, limit=st.integers(0, 3))
def test_a_limit_leaves_out_evidence_and_changes_none(items, text, rule, limit):
    index = ReferenceIndex.build(items, rule)
    every, some = index.find_in_texts([text]), index.find_in_texts([text], limit=limit)
    assert some.every_item.tolist() == every.every_item.tolist()
    assert some.every_ngram.tolist() == every.every_ngram.tolist()
    matches = index.find_all_matches(text)
    assert all(match in matches for match in index.find_all_matches(text, limit=limit))
    of_rows = [(match.reference_id, match.rule) for match in matches]
    assert sorted((items[item].id, RULES[rule]) for _, item, rule, _ in every.every_item.tolist()) == sorted(of_rows)
