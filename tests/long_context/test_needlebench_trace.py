"""The ancestral trace challenge: chains as the original draws them, all variants, and what their scores say."""

import random
import re
from itertools import pairwise

import pytest

from qwen2eval.errors import ConfigError, DataFileError
from qwen2eval.long_context.needlebench import texts
from qwen2eval.long_context.needlebench.docs import kinship_of
from tests.long_context.needlebench_files import write_needlebench
from tests.long_context.needlebench_scripted import planned, score_scripted, value_of

NAMES = [f"Ann Q{i}" for i in range(60)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_needlebench(tmp_path_factory.mktemp("needlebench"))


def own_task(folder, cls, metadata):
    cls = f"!function qwen2eval.long_context.needlebench.trace.{cls}"
    (folder / "traced.yaml").write_text(f"task: traced\nclass: {cls}\nmetadata: {{version: 1.0, {metadata}}}\n")
    return {"include_path": (str(folder),)}


def planned_trace(tmp_path, data, tokenizer, metadata, cls="TraceTask", **options):
    return planned("traced", data_dir=data, tokenizer=tokenizer, **own_task(tmp_path, cls, metadata), **options)


def draw_as_original(seed, n_names, forms, terms):
    """Version 1's own steps on Python's global generator: one string, cut at `*`, whose last part is empty."""
    random.seed(seed)
    names = random.sample(NAMES, n_names)
    story = ""
    for elder, younger in pairwise(names):
        form, term = random.choice(forms), random.choice(terms)
        story += form.replace("$a", elder).replace("$b", younger).replace("$term", term) + "*"
    fragments = story.split("*")
    random.shuffle(fragments)
    return names, "".join(fragments)


@pytest.mark.parametrize("seed", range(5))
def test_version_1_draws_what_the_original_draws(seed):
    kinship = texts.prompts()["kinship"]
    forms, terms = kinship["forms"]["v1"]["English"], list(kinship["terms"]["English"])
    names, story = draw_as_original(seed, 7, forms, terms)
    mine = kinship_of(random.Random(seed), NAMES, n_facts=6, version=1, language="English")
    assert list(mine.names) == names
    assert "".join(mine.sentences) == story


def test_sentences_and_generations():
    for language, names in (("English", NAMES), ("Chinese", [f"王{i}" for i in range(60)])):
        for version in (1, 2):
            made = kinship_of(random.Random(3), names, n_facts=12, version=version, language=language, shuffled=False)
            assert len(made.sentences) == 12
            assert made.eldest == made.names[0]
            assert made.youngest == made.names[-1]
            for elder, younger, sentence in zip(made.names, made.names[1:], made.sentences, strict=False):
                assert elder in sentence
                assert younger in sentence
                assert "$" not in sentence
            assert 12 <= made.n_generations <= 24


def right(doc, request):
    if "letters" in doc:
        return f"Answer: {doc['letters'][request.index]}"
    return rf"So it is \boxed{{{doc['answer']}}}."


def test_free_answers(data, tiny_model, tmp_path):
    made = planned_trace(
        tmp_path, data, tiny_model, "benchmark: 1, language: English, lengths: [2, 5, 9], n_repeats: 4"
    )
    docs = made.tasks["traced"].docs
    assert [doc["length"] for doc in docs] == [2] * 4 + [5] * 4 + [9] * 4
    assert len({doc["prompt"] for doc in docs}) == 12
    assert all(doc["answer"] in doc["prompt"] for doc in docs)
    scores, _ = score_scripted(made, right)
    assert value_of(scores, "traced", "acc") == 1
    assert value_of(scores, "traced", "traced_length") == 9
    scores, _ = score_scripted(made, lambda doc, request: right(doc, request) if doc["length"] < 9 else "¤")
    assert value_of(scores, "traced", "traced_length") == 5
    scores, _ = score_scripted(made, lambda doc, request: "¤")  # noqa: ARG005
    assert value_of(scores, "traced", "traced_length") == 0


def test_ordered_sentences_begin_with_the_eldest(data, tiny_model, tmp_path):
    metadata = "benchmark: 1, language: Chinese, lengths: [6], n_repeats: 3, ordered: true"
    for doc in planned_trace(tmp_path, data, tiny_model, metadata).tasks["traced"].docs:
        assert doc["answer"] in doc["prompt"].partition("。")[0]


def test_the_free_form_is_seeded(data, tiny_model, tmp_path):
    """The original's isn't: its score depends on what the process drew before."""
    metadata = "benchmark: 1, language: English, lengths: [5], n_repeats: 3"
    docs = [
        planned_trace(tmp_path, data, tiny_model, m).tasks["traced"].docs
        for m in (metadata, metadata, metadata + ", seed: 4")
    ]
    assert docs[0] == docs[1]
    assert docs[0] != docs[2]


@pytest.mark.parametrize("language", ["English", "Chinese"])
def test_boxed_answers_to_four_kinds_of_question(data, tiny_model, tmp_path, language):
    made = planned_trace(
        tmp_path, data, tiny_model, f"benchmark: 2, language: {language}, lengths: [2, 8], n_repeats: 3"
    )
    docs = made.tasks["traced"].docs
    assert [doc["question"] for doc in docs[::3]] == [*texts.QUESTIONS, *texts.QUESTIONS]
    assert all("\\boxed{" in doc["prompt"] for doc in docs)
    for doc in docs:
        if doc["question"] == "distance":
            assert doc["length"] <= int(doc["answer"]) <= 2 * doc["length"]
        else:
            assert doc["answer"] in doc["prompt"]
    scores, _ = score_scripted(made, lambda doc, request: right(doc, request) if doc["length"] == 2 else "no box")
    assert value_of(scores, "traced", "acc") == 0.5
    assert value_of(scores, "traced", "enl_50") == 2
    assert value_of(scores, "traced", "length_weighted_acc") == pytest.approx(0.2)


def test_version_2_draws_the_people_that_the_original_draws(data, tiny_model, tmp_path):
    made = planned_trace(tmp_path, data, tiny_model, "benchmark: 2, language: English, lengths: [8], n_repeats: 3")
    for i, doc in enumerate(made.tasks["traced"].docs):
        kind, repeat = divmod(i, 3)
        random.seed(repeat + 1 + 10_000 * kind)
        names = random.sample(NAMES, 9)
        assert all(name in doc["prompt"] for name in names)
        answers = {"eldest": names[0], "ancestor": names[0], "descendant": names[-1]}
        assert doc["answer"] == answers.get(doc["question"], doc["answer"])


def test_choices_are_asked_in_four_orders(data, tiny_model, tmp_path):
    metadata = "language: English, lengths: [2, 6], n_repeats: 2"
    made = planned_trace(tmp_path, data, tiny_model, metadata, "TraceChoiceTask")
    task = made.tasks["traced"]
    assert len(task.requests) == 4 * len(task.docs) == 16
    for request in task.requests:
        question = str(request.prompt).rpartition("Question: ")[2]
        doc = task.docs[task.doc_ids.index(request.doc_id)]
        options = dict(re.findall(r"^([A-D])\. (.*)$", question, re.MULTILINE))
        assert len(set(options.values())) == 4
        others = [str(r.prompt) for r in task.requests if r.doc_id == request.doc_id]
        assert len(set(others)) == 4
        assert (
            options[doc["letters"][request.index]]
            == dict(re.findall(r"^([A-D])\. (.*)$", doc["questions"][0], re.MULTILINE))["A"]
        )
    scores, _ = score_scripted(made, right)
    assert value_of(scores, "traced", "acc") == value_of(scores, "traced", "acc_circular") == 1
    scores, _ = score_scripted(made, lambda doc, request: "Answer: A")  # noqa: ARG005
    assert value_of(scores, "traced", "acc") == 0.25
    assert value_of(scores, "traced", "acc_circular") == 0


@pytest.mark.parametrize("reasoned", ["true", "false"])
def test_the_worked_examples_are_right(data, tiny_model, tmp_path, reasoned):
    metadata = f"language: English, lengths: [2], n_repeats: 1, reasoned: {reasoned}"
    made = planned_trace(tmp_path, data, tiny_model, metadata, "TraceChoiceTask")
    prompt = str(made.tasks["traced"].requests[0].prompt)
    *examples, question = prompt.split("Question: ")[1:]
    assert len(examples) == 4
    assert "Answer" not in question
    for example, letter in zip(examples, "ACDB", strict=True):
        told, answer = example.split("Answer: ")
        assert answer.strip().endswith(letter)
        eldest = dict(re.findall(r"^([A-D])\. (.*)$", told, re.MULTILINE))[letter]
        assert eldest in told.partition("\nGiven")[0]
        assert (f"is {eldest}. The answer is: {letter}" in answer) == (reasoned == "true")


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("A", "A"),
        ("B. Ann", "B"),
        ("Answer: C", "C"),
        ("Ann is the mother. The answer is: D", "D"),
        ("The answer is A, no, the answer is B", "B"),
        ("回答: 所以答案是：C", "C"),  # noqa: RUF001
        ("The answer is **D**", "D"),
        ("Answer: Ann", "[invalid]"),
        ("I do not know", "[invalid]"),
        ("", "[invalid]"),
    ],
)
def test_the_letter_of_an_answer(data, tiny_model, tmp_path, response, letter):
    metadata = "language: English, lengths: [2], n_repeats: 1"
    task = planned_trace(tmp_path, data, tiny_model, metadata, "TraceChoiceTask").tasks["traced"].task
    assert task.filtered([{}], [[response]]) == {"letter": [letter]}


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ("benchmark: 3, language: English", "no version 3"),
        ("benchmark: 1, language: Latin", "no language 'Latin'"),
        ("benchmark: 1, language: English, lengths: [1]", "'lengths'"),
        ("benchmark: 1, language: English, n_repeats: 0", "'n_repeats'"),
    ],
)
def test_a_variant_that_can_not_be(tmp_path, data, tiny_model, metadata, said):
    with pytest.raises(ConfigError, match=said):
        planned_trace(tmp_path, data, tiny_model, metadata)


def test_a_model_without_a_tokenizer_is_asked_the_same(data, tiny_model, tmp_path):
    """Its lengths are in people and sentences: a server whose tokenizer nobody knows will do."""
    metadata = "benchmark: 2, language: English, lengths: [4], n_repeats: 2"
    with_one, without = (
        planned_trace(tmp_path, data, tokenizer, metadata).tasks["traced"] for tokenizer in (tiny_model, None)
    )
    assert [str(r.prompt) for r in with_one.requests] == [str(r.prompt) for r in without.requests]


def test_too_few_names(tmp_path, data, tiny_model):
    with pytest.raises(DataFileError, match="60 English names; a chain of 65 people"):
        planned_trace(tmp_path, data, tiny_model, "benchmark: 2, language: English, lengths: [64]")


@pytest.mark.parametrize("name", ["needlebench_atc_zh_ordered", "needlebench_atc_choice_zh_reasoned"])
def test_shipped_tasks(tmp_path, tiny_model, name):
    data = write_needlebench(tmp_path / "data", n_names=100)
    made = planned(name, data_dir=data, tokenizer=tiny_model)
    assert made.tasks[name].preflight == "ok"
    assert made.tasks[name].n_docs_total == (18 * 10 if "choice" in name else 33 * 30)
