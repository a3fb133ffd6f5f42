"""What is cut with an item's n-grams: its choices and its answer, in the forms in which corpora hold them."""

import json
import re

import pytest

from decontam import Reference, ReferenceIndex, Rule, scan
from decontam.filter import filter_corpus
from decontam.filter_plan import FilterOptions
from decontam.item_rest import with_rest_of_item

QUESTION = (
    "A gardener waters twelve tall roses and nine short tulips before noon; which of her tools does she need first?"
)
CHOICES = ["the green hose", "a small rake", "her old spade", "no tool at all"]
ITEM = Reference("quiz/0", QUESTION, "\n".join(CHOICES), "quiz")
WORD_PROBLEM = Reference(
    "sums/0",
    "Nina has thirty blue pens and gives eleven of them to her brother and his friend, so how many pens are left?",
    "She gives away eleven pens.\nThat leaves 30 - 11 = 19 pens.\n#### 19",
    "sums",
)
BEFORE, AFTER = "It was a quiet morning. ", "Then the next page began with another story of the sea."
LETTERED = "\n".join(f"{letter}. {choice}" for letter, choice in zip("ABCD", CHOICES, strict=True))
FORMS = {
    "letters": f"{QUESTION}\n{LETTERED}\nAnswer: B\n",
    "parentheses": f"Question: {QUESTION}\n(a) {CHOICES[0]}\n(b) {CHOICES[1]}\n(c) {CHOICES[2]}\n"
    f"(d) {CHOICES[3]}\nThe correct answer is (b).\n",
    "one line": f"{QUESTION} A) {CHOICES[0]} B) {CHOICES[1]} C) {CHOICES[2]} D) {CHOICES[3]} Answer: C. ",
    "shuffled": f"{QUESTION}\nA. {CHOICES[3]}\nB. {CHOICES[1]}\nC. {CHOICES[0]}\nD. {CHOICES[2]}\n**Answer:** C\n",
    "changed choice": f"{QUESTION}\nA. {CHOICES[0]}\nB. one big bucket\nC. {CHOICES[2]}\nD. {CHOICES[3]}\nAnswer: B\n",
    "answer as text": f"{QUESTION}\nAnswer: {CHOICES[1]}\n",
    "answer with its words": f"{QUESTION}\n{LETTERED}\nAnswer: B. {CHOICES[1]}\n",
    "words of the answer": f"{QUESTION}\n{LETTERED}\n答案：{CHOICES[1]}\n",
    "sentence of the answer": f"{QUESTION}\n{LETTERED}\nThe correct answer is (B) {CHOICES[1]}.\n",
    "choice again": f"{QUESTION}\n{LETTERED}\nB) {CHOICES[1]}\n",
    "changed last choice": f"{QUESTION}\n{LETTERED.replace(CHOICES[3], 'one big bucket')}\nAnswer: B\n",
    "other choices": f"{QUESTION}\nA. a net\nB. two small pots\nAnswer: B\n",
    "words of the answer in HTML": f"<p>{QUESTION}</p>"
    + "".join(f"<li>{one}</li>" for one in CHOICES)
    + f"<p><b>Answer:</b> {CHOICES[1]}</p>\n",
    "label alone": f"{QUESTION}\n{LETTERED}\nB\n",
    "no choices": f"{QUESTION}\n答案：B\n",
    "changed word": f"{QUESTION.replace('twelve', 'ten')}\n{LETTERED}\nAnswer: B\n",
    "changed begin": f"{QUESTION.replace('gardener', 'farmer')}\n{LETTERED}\nAnswer: B\n",
    "HTML": f"<p>{QUESTION}</p><ol>"
    + "".join(f"<li>{letter}) {choice}</li>\n" for letter, choice in zip("abcd", CHOICES, strict=True))
    + "</ol><p><b>Answer:</b> c</p>",
    "JSON in the text": json.dumps(f"{QUESTION}\n{LETTERED}\nAnswer: B")[1:-1] + " ",
    "JSON in JSON": json.dumps(json.dumps(f"{QUESTION}\n{LETTERED}\nAnswer: B")[1:-1])[1:-1] + " ",
    "entities": f"<p>{QUESTION}</p><ol>" + "".join(f"<li>{one}</li>" for one in CHOICES) + "</ol><p>Answer:&nbsp;B</p>",
    "escaped HTML": f"&lt;p&gt;{QUESTION}&lt;/p&gt;"
    + "".join(f"&lt;li&gt;{one}&lt;/li&gt;" for one in CHOICES)
    + "&lt;p&gt;Answer: B. ",
    "word problem": f"{WORD_PROBLEM.text}\nAnswer: 19\n",
    "solved word problem": f"{WORD_PROBLEM.text} Let us see.\n{WORD_PROBLEM.answer}\n",
}


@pytest.fixture(scope="module")
def index():
    return ReferenceIndex.build([ITEM, WORD_PROBLEM], Rule())


def cut(tmp_path, index, record, field):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(record) + "\n", encoding="utf-8")
    results = scan([path], index, output=tmp_path / "found", text_field=field)
    filter_corpus([path], results, output=tmp_path / "clean", options=FilterOptions(action="cut", rule="strict"))
    return json.loads((tmp_path / "clean" / "a.jsonl").read_text(encoding="utf-8"))[field]


@pytest.mark.parametrize("name", FORMS)
def test_choices_and_answer_go_with_the_question(tmp_path, index, name):
    """Only the question was cut: choices and the answer stayed in the text."""
    left = cut(tmp_path, index, {"text": BEFORE + FORMS[name] + AFTER}, "text")
    assert left.startswith(BEFORE)
    assert left.endswith(AFTER)
    # signs may stay, and what is no part of the item
    kept = left.removeprefix(BEFORE).removesuffix(AFTER)
    kept = re.sub(r"(?:<|&lt;)/?\w+(?:>|&gt;)", "", kept)
    for of_nobody in ("Question:", "Let us see", "A farmer"):
        kept = kept.replace(of_nobody, "", 1)
    assert not any(char.isalnum() for char in kept), kept


def test_an_answer_in_the_next_message_goes_too(tmp_path, index):
    chat = [
        {"role": "user", "content": f"Please choose.\n{QUESTION}\n{LETTERED}"},
        {"role": "assistant", "content": "B"},
        {"role": "user", "content": "Thanks."},
    ]
    left = cut(tmp_path, index, {"messages": chat}, "messages")
    assert [message["content"] for message in left] == ["Please choose.\n", "", "Thanks."]


@pytest.mark.parametrize(
    "after",
    [
        " Some harbour was empty and no ship came.",
        " His answer came late in the evening.",
        "\nA. Smith wrote this page in May.\nHe was the first.",
        "\n1. Of the green hills he wrote later.\n",
        "\nI think so.",
        " Answering letters took her 3 hours.",
        " " + "she need the of first which " * 3,
    ],
)
def test_what_is_not_of_the_item_stays(tmp_path, index, after):
    left = cut(tmp_path, index, {"text": BEFORE + QUESTION + after}, "text")
    assert left.endswith(after), left


def test_many_signs_behind_an_item_take_no_time():
    """Each may be read in one way only; in two ways, 40 of them would take years."""
    text = QUESTION + "\\\\n" * 400 + "&nbsp;" * 400
    assert with_rest_of_item(text, [(0, len(QUESTION))], QUESTION) == [(0, len(QUESTION))]
