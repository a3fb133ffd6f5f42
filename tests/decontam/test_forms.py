"""An item is found in whatever form it is asked, templates are set apart, and what can't be found is said."""

import json
from itertools import permutations

import pytest

from decontam import DecontamError, Reference, ReferenceIndex, Rule, read_references, scan
from decontam.item_ngrams import FoundBy

# a question of 7 tokens; with its choices 11, with a label before each 15
METAL = Reference("q/0", "Which heavy metal is liquid indoors, usually?", choices=("Tin", "Lead", "Mercury", "Zinc"))
ARABIC = Reference("q/1", "ما هو أثقل معدن سائل هنا", choices=("قصدير", "رصاص", "زئبق أحمر", "زنك"))
RUSSIAN = Reference("q/2", "Какой тяжёлый металл жидкий при комнате?", choices=("олово", "свинец", "ртуть", "цинк"))
CHINESE = Reference("q/3", "哪种重金属是液体", choices=("锡", "铅", "水银", "锌"))
HINDI = Reference("q/12", "कौन सी भारी धातु तरल होती है", choices=("सीसा", "टिन", "पारा", "जस्ता"))
BENGALI = Reference("q/13", "কোন ভারী ধাতু ঘরে তরল থাকে", choices=("সীসা", "টিন", "পারদ", "দস্তা"))
PROGRAM = Reference(
    "q/4", "Add.", "def add_all(xs): return sum(xs)", forms=("assert add_all([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]) == 55",)
)


def rules(item, text, *others, **options):
    """By which rule each item is found; by default any shared n-gram is enough."""
    index = ReferenceIndex.build([item, *others], Rule.strict(**options))
    return {match.reference_id: match.rule for match in index.find_all_matches(f"Once upon a time. {text} The end.")}


def lettered(item, label, order=(0, 1, 2, 3), between="\n"):
    return item.text + "\n" + between.join(label(i) + item.choices[choice] for i, choice in enumerate(order))


LABELS = {
    "A.": lambda i: f"{'ABCD'[i]}. ",
    "(A)": lambda i: f"({'ABCD'[i]}) ",
    "a)": lambda i: f"{'abcd'[i]}) ",
    "0.": lambda i: f"{i}. ",
    "1.": lambda i: f"{i + 1}. ",
    "①": lambda i: "①②③④"[i] + " ",
}


@pytest.mark.parametrize("label", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("between", ["\n", "  "], ids=["lines", "one line"])
def test_a_short_question_is_found_with_its_choices_in_any_order(label, between):
    assert all(
        rules(METAL, lettered(METAL, label, order, between), min_whole=9) == {"q/0": "strict"}
        for order in permutations(range(4))
    )


@pytest.mark.parametrize(
    ("item", "letters"),
    [
        *((ARABIC, "أبجد"), (ARABIC, "١٢٣٤"), (ARABIC, "۱۲۳۴"), (RUSSIAN, "АБВГ"), (HINDI, "कखगघ"), (HINDI, "१२३४")),
        *((BENGALI, "১২৩৪"), (CHINESE, "甲乙丙丁"), (CHINESE, "一二三四"), (CHINESE, "ＡＢＣＤ")),
    ],
    ids=str,
)
def test_letters_of_the_script_of_the_question(item, letters):
    """Without them no 13 tokens in a row would be shared."""
    text = lettered(item, lambda i: f"{letters[i]}、")
    assert rules(item, text, min_whole=12) == {item.id: "strict"}
    assert rules(item, lettered(item, lambda i: f"w{i} "), min_whole=12) == {}


def test_choices_with_their_labels_are_no_item():
    """Of a list of choices under another question 14 tokens are shared, and none says which item it is."""
    item = Reference("q/10", "Which of these hold?", choices=("I only", "II only", "III only", "I, II and III"))
    assert rules(item, lettered(item, LABELS["A."])) == {"q/10": "strict"}
    other = Reference("", "Which lines of the ledger are wrong?", choices=item.choices)
    assert rules(item, lettered(other, LABELS["A."])) == {}
    word = Reference("q/11", "Who was it?", "The old keeper of the lighthouse on the northern island, long ago")
    assert rules(word, f"Who was it? Answer: {word.answer}") == {"q/11": "strict"}
    assert rules(word, "Answer: The old keeper of the lighthouse on the northern island, as they say") == {}


def test_an_answer_behind_its_word():
    item = Reference("q/5", "Which metal is liquid indoors?", "Mercury, as every child with a thermometer knew")
    assert rules(item, f"Question: {item.text} Answer: {item.answer}", min_whole=12) == {"q/5": "strict"}
    for choice in METAL.choices:
        long = Reference("q/0", METAL.text, choices=tuple(f"{one}, so they say in town" for one in METAL.choices))
        assert rules(long, f"{METAL.text} Answer: {choice}, so they say in town", min_whole=12) == {"q/0": "strict"}


def test_other_texts_of_an_item_are_found_by_themselves():
    assert rules(PROGRAM, PROGRAM.forms[0]) == {"q/4": "strict"}
    (match,) = ReferenceIndex.build([PROGRAM], Rule.strict()).find_matches(PROGRAM.forms[0])
    assert match.reference_part == "other form"


def test_a_short_question_is_found_in_full_unless_other_items_hold_it():
    common = Reference("q/6", "Which metal is it?", choices=("Tin", "Lead", "a metal that nobody has seen here before"))
    other = Reference("q/7", "In the third jar is something grey. Which metal is it?", choices=("Tin", "Gold", "Iron"))
    assert rules(METAL, METAL.text) == {"q/0": "whole"}
    assert rules(common, common.text, min_whole=4) == {"q/6": "whole"}
    assert rules(common, common.text, other, min_whole=4) == {}


def test_what_an_item_is_found_by_is_said_for_each_form():
    long = Reference("q/8", "A farmer has seventeen brown sheep and nine goats, how many animals are there?", "26")
    many = Reference("q/9", "Pick one, please", choices=tuple("abcdefghi"))
    forms = ReferenceIndex.build([METAL, long, many, PROGRAM], Rule()).forms
    ngram, whole, nothing, none = FoundBy.NGRAM, FoundBy.WHOLE, FoundBy.NOTHING, FoundBy.NO_FORM
    assert forms.question.tolist() == [whole, ngram, nothing, nothing]
    assert forms.question_answer.tolist() == [whole, ngram, whole, whole]
    assert forms.lettered.tolist() == [ngram, none, ngram, none]
    assert forms.any_order.tolist() == [whole, none, nothing, none]
    assert forms.other.tolist() == [none, none, none, ngram]


SCENES = [
    f"In scene {i} I {verb} the key, the lamp and the old map of my uncle before dinner"
    for i, verb in enumerate(["hid", "sold", "lent", "burnt", "found", "kept"])
]
HEADER = "For which of these two scenes does the teller clearly do wrong by the standards of the town in 1950?"
MORAL = [Reference(f"m/{i}", f"{HEADER} {SCENES[i]}. {SCENES[(i + 1) % 6]}", "Wrong, not wrong", "m") for i in range(6)]


def test_items_of_one_template_are_not_found_by_it(tmp_path):
    """Each scene is in two items, and the header in all: only the two scenes together say which item it is."""
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": f"{MORAL[2].text} {MORAL[2].answer}"}) + "\n")
    results = scan([tmp_path / "a.jsonl"], ReferenceIndex.build(MORAL), output=tmp_path / "out")
    (counts,) = results.counts
    assert (counts["n_contaminated_strict"], counts["n_contaminated_qwen2"], counts["n_template"]) == (1, 1, 5)
    assert counts["n_any_ngram"] == 6
    assert results.references.n_documents_strict.tolist() == [0, 0, 1, 0, 0, 0]
    without = scan([tmp_path / "a.jsonl"], ReferenceIndex.build(MORAL, Rule(template_items=0)), output=tmp_path / "all")
    assert without.counts[0]["n_contaminated_strict"] == 6


def test_items_with_nothing_of_their_own_are_found_in_full():
    """The question of each is the header and scenes that others have, too."""
    items = [
        Reference("m/6", f"{HEADER} {SCENES[0]}", "", "m"),
        Reference("m/7", f"{HEADER} {SCENES[0]}", "", "m"),
        *MORAL,
    ]
    found = rules(items[0], items[0].text, *items[1:])
    assert [found[item.id] for item in items[:3]] == ["strict", "strict", "template"]


def test_benchmarks_of_one_suite_share_their_templates():
    other = [
        Reference(f"n/{i}", f"{HEADER} {SCENES[i]}. And nothing else happened on that day", "", "n") for i in range(6)
    ]
    found = rules(MORAL[0], MORAL[0].text, *MORAL[1:], *other)
    # in m, the scenes are a template; n/0 has the header and its scene alone, as m/0
    assert {name for name, rule in found.items() if rule == "strict"} == {"m/0", "n/0"}
    copy = [Reference(f"n/{i}", item.text, "", "n") for i, item in enumerate(MORAL)]
    found = rules(MORAL[0], MORAL[0].text, *MORAL[1:], *copy)
    assert {name for name, rule in found.items() if rule == "strict"} == {"m/0", "n/0"}


def test_an_item_is_found_alike_whatever_else_is_searched_for():
    """An n-gram of one item in each of two benchmarks says which items they are; before, it was a template of both."""
    other = [
        Reference(f"n/{i}", f"{HEADER} {SCENES[i]}. And nothing else happened on that day", "", "n") for i in range(6)
    ]
    text = f"{HEADER} {SCENES[3]}."
    together = rules(MORAL[0], text, *MORAL[1:], *other)
    assert together == rules(MORAL[0], text, *MORAL[1:]) | rules(other[0], text, *other[1:])
    assert {name for name, rule in together.items() if rule == "strict"} == {"m/3", "n/3"}


def test_choices_are_read_from_a_list(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"text": METAL.text, "options": list(METAL.choices)})
        + "\n"
        + json.dumps({"text": "x", "options": "y"})
    )
    first, second = read_references(tmp_path / "a.jsonl", answer_field="options")
    assert (first.choices, first.answer) == (METAL.choices, "Tin\nLead\nMercury\nZinc")
    assert (second.choices, second.answer) == ((), "y")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "x", "options": [1, 2]}))
    with pytest.raises(DecontamError, match="no text in field 'options'"):
        read_references(tmp_path / "b.jsonl", answer_field="options")
