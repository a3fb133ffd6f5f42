"""What was planted, against what `decontam` finds; and that planted programs are right."""

import ast
import itertools
import re
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decontam import Reference, ReferenceIndex, Rule
from qwen2eval.demo.planting import CHINESE_PHRASES, KINDS, NGRAM_SIZE, PHRASES, NgramGuard, edit, kinds, ngrams, words
from qwen2eval.demo.world import World
from qwen2eval.sandbox import Sandbox


@pytest.fixture(scope="module")
def found(made):
    """Return the items that each rule finds in the corpus, by rule."""
    names = made.benchmarks.ids()
    references = [
        Reference(n, i.question, i.more, i.benchmark) for n, i in zip(names, made.benchmarks.items, strict=True)
    ]
    return {
        rule.name: {
            m.reference_id
            for d in made.documents
            for m in index.find_matches(d.text)
            if m.rule == rule.name or rule.name == "strict"
        }
        for rule in (Rule.strict(template_items=0), Rule())
        for index in [ReferenceIndex.build(references, rule)]
    }


@pytest.fixture(scope="module")
def by_kind(made):
    """Return the names of the items of each kind."""
    names = defaultdict(set)
    for name, item in zip(made.benchmarks.ids(), made.benchmarks.items, strict=True):
        names[item.kind].add(name)
    return names


def test_strict_rule_finds_every_exact_item(found, by_kind):
    assert by_kind["exact"] <= found["strict"]
    assert by_kind["exact"] <= found["qwen2"]


def test_unseen_items_are_found_by_no_rule(found, by_kind):
    assert by_kind["unseen"].isdisjoint(found["strict"])


def test_near_misses_are_flagged_by_ngrams_alone(found, by_kind):
    assert by_kind["near_miss"] <= found["strict"]
    assert by_kind["near_miss"].isdisjoint(found["qwen2"])


def test_lcs_rule_is_more_precise_and_edited_items_are_mostly_found(found, by_kind):
    truth = by_kind["exact"] | by_kind["edited"]
    precision = {rule: len(names & truth) / len(names) for rule, names in found.items()}
    assert precision["qwen2"] > precision["strict"] + 0.2
    assert len(by_kind["edited"] & found["qwen2"]) >= 0.9 * len(by_kind["edited"])


def test_each_benchmark_has_all_kinds(made):
    for benchmark in ("demo_mmlu", "demo_gsm8k", "demo_humaneval", "demo_niah"):
        items = made.benchmarks.of(benchmark)
        assert {item.kind for item in items} == set(KINDS)
        assert all(len(words(item.question)) >= NGRAM_SIZE for item in items), "all are testable"


def test_exact_and_edited_items_are_planted_several_times(made):
    copies = defaultdict(int)
    for document in made.documents:
        for planting in document.plantings:
            copies[planting.item] += 1
    for number, item in enumerate(made.benchmarks.items):
        if item.kind in ("exact", "edited"):
            assert 10 <= copies[number] <= 20
            assert (item.question in item.planted) == (item.kind == "exact")
        elif item.kind == "unseen":
            assert copies[number] == 0


def test_facts_of_unseen_items_are_told(made):
    """What a question asks is in the corpus as a statement; only the question with its letter is not."""
    told = "\n".join(document.text for document in made.documents if document.kind == "facts")
    facts = [fact for kind in ("people", "towns", "chinese") for fact in made.world.facts(kind)]
    # a fiftieth of the corpus tells each fact about once: 0.9 to be there, with a wide margin
    n_told = sum(
        any(s.format(who=fact.being.name, value=fact.value) in told for s in fact.relation.statements) for fact in facts
    )
    assert n_told > 0.7 * len(facts)


def test_canonical_programs_pass_and_others_fail(made):
    items = made.benchmarks.of("demo_humaneval")
    with Sandbox(workers=1) as sandbox:
        for item in items:
            row = item.row
            for body, verdict in ((row["canonical_solution"], "passed"), ("    return None\n", "failed")):
                done = sandbox.check(row["prompt"] + body, entry_point=row["entry_point"], tests=row["test"])
                assert done.verdict == verdict, (row, done)


MEANINGS = {  # of docstrings, written down once more
    r"n, adds (\d+) to it and multiplies the sum by (\d+)": lambda n, a, b: (n + int(a)) * int(b),
    r"n, multiplies it by (\d+) and adds (\d+) to the product": lambda n, a, b: n * int(a) + int(b),
    r"n, takes (\d+) away and multiplies what is left by (\d+)": lambda n, a, b: (n - int(a)) * int(b),
    r"a list of values and gives back only those over (\d+)": lambda v, a: list(filter(int(a).__lt__, v)),
    r"a list of values and counts how many of them are under (\d+)": lambda v, a: sum(x < int(a) for x in v),
    r"a list of values and adds (\d+) to each of them": lambda v, a: list(map(int(a).__add__, v)),
    r"a list of values and gives back their sum and (\d+) more": lambda v, a: sum([*v, int(a)]),
    r"a list of values and gives back the first (\d+) of them": lambda v, a: list(itertools.islice(v, int(a))),
    r"a list of values and leaves out the first (\d+) of them": lambda v, a: list(itertools.islice(v, int(a), None)),
    r"a text and puts the word (\w+) behind it": lambda s, word: f"{s} {word}",
    r"a text and gives it back (\d+) times with a dash behind each": lambda s, a: "".join([s, "-"] * int(a)),
    r"a text and puts the letter (\w) in place of each letter (\w)": lambda s, new, old: new.join(s.split(old)),
    r"a text and counts how often the letter (\w) is in it": lambda s, letter: sum(x == letter for x in s),
}


def test_docstrings_say_what_programs_do(made):
    used = set()
    for item in made.benchmarks.of("demo_humaneval"):
        sentence = re.search(r"takes (.*)\.\n\n", item.question)[1]
        [(pattern, found)] = [(p, m) for p in MEANINGS if (m := re.fullmatch(p, sentence))]
        used.add(pattern)
        for given_value, expected in re.findall(r"candidate\((.*)\) == (.*)\n", item.row["test"]):
            value = ast.literal_eval(given_value)
            assert MEANINGS[pattern](value, *found.groups()) == ast.literal_eval(expected), item.question
    assert used == set(MEANINGS), "all forms are there"


def test_words_and_ngrams_as_an_oracle_has_them():
    assert words("It's 9 a.m. in Ünn – 你好, OK?") == ["its", "9", "a", "m", "in", "nn", "你", "好", "ok"]
    text = " ".join(map(str, range(15)))
    assert ngrams(text) == {" ".join(map(str, range(i, i + 13))) for i in range(3)}
    assert ngrams("too short") == set()


@given(st.lists(st.sampled_from("abcd"), max_size=40), st.lists(st.sampled_from("abcd"), max_size=40))
def test_guard_refuses_what_shares_a_run(item, document):
    guard = NgramGuard()
    assert guard.take(" ".join(item))
    runs = {tuple(item[i : i + 13]) for i in range(len(item) - 12)}
    shares = any(tuple(document[i : i + 13]) in runs for i in range(len(document) - 12))
    assert guard.lets_pass(" ".join(document)) == (not shares)


def test_phrases_make_near_misses():
    for phrase in [p for phrases in PHRASES.values() for p in phrases] + list(CHINESE_PHRASES.values()):
        assert ngrams(phrase), phrase
        assert len(words(phrase)) <= 15, phrase


@pytest.mark.parametrize("n_items", [40, 80, 240])
def test_kinds_have_their_shares(n_items):
    drawn = kinds(n_items, World().dice("test"))
    assert len(drawn) == n_items
    assert drawn.count("exact") == round(0.25 * n_items)
    assert drawn.count("unseen") >= 0.4 * n_items


def test_edits_change_the_text(made):
    dice = World().dice("test")
    for item in made.benchmarks.of("demo_gsm8k"):
        edited = edit(item.question, dice)
        assert edited != item.question
        assert abs(len(words(edited)) - len(words(item.question))) <= 4
