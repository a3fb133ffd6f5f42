"""Which choice a target means: texts are choices, numbers are places, and what could be both is said."""

import json

import pytest

from tests.local_tasks import run_here, write_rows, write_task

NUMBERS = ["3", "2", "1", "0"]
WORDS = ["red", "green", "blue"]


SETTINGS = {"doc_to_text": "{{q}}", "doc_to_choice": "c", "doc_to_target": "{{t}}", "num_fewshot": 0}


def write_items(folder, name, items, **changes):
    """Write a task over (target, choices)."""
    rows = [{"q": f"Item {i}?", "t": target, "c": choices} for i, (target, choices) in enumerate(items)]
    file = str(write_rows(folder / f"{name}.jsonl", rows))
    data = {"data_files": {"train": file, "test": file}, "cache_dir": str(folder / "cache")}
    write_task(folder, name, like="pick", **{**SETTINGS, "dataset_kwargs": data, **changes})


@pytest.fixture
def gold(tmp_path):
    """Return a function that runs a task over (target, choices) and returns the run and which choice is right."""

    def run(*items, exit_code=0, **changes):
        write_items(tmp_path, "mc", items, **changes)
        made = run_here(tmp_path, tmp_path / "runs", tasks="mc", exit_code=exit_code)
        return made, made.samples("mc")["target"].tolist()

    return run


MEANT = {
    "texts": (["2", "1", "0"], NUMBERS, ["2", "1", "0"]),
    "places": ([2, 1, 0], NUMBERS, ["1", "2", "3"]),
    "places_as_text": (["2", "1", "0"], WORDS, ["blue", "green", "red"]),
    "floats_as_text": (["2.0", "1.0", "0.0"], WORDS, ["blue", "green", "red"]),
    "floats": ([2.0, 1.0, 0.0], WORDS, ["blue", "green", "red"]),
    "texts_of_floats": (["1.0", "0.0", "1.0"], ["0.0", "1.0"], ["1.0", "0.0", "1.0"]),
    "bool": ([True, False, True], ["True", "False"], ["True", "False", "True"]),
    "bool_places": ([True, False, True], ["no", "yes"], ["yes", "no", "yes"]),
    "words": (["green", "red", "red"], WORDS, ["green", "red", "red"]),
}


def test_a_target_is_the_choice_with_its_text_else_a_place(tmp_path):
    """A bicycle had one wheel: lm-eval took every number for a place."""
    for name, (targets, choices, _) in MEANT.items():
        write_items(tmp_path, name, [(target, choices) for target in targets])
    made = run_here(tmp_path, tmp_path / "runs", tasks=",".join(MEANT))
    assert made.scores["n_unscored"].eq(0).all()
    for name, (_, choices, expected) in MEANT.items():
        samples = made.samples(name)
        assert samples["target"].tolist() == expected, name
        logprobs = [[one for one, _ in json.loads(text)] for text in samples["response"]]
        best = [choices[of_doc.index(max(of_doc))] for of_doc in logprobs]
        assert samples["acc"].tolist() == [float(one == right) for one, right in zip(best, expected, strict=True)]


@pytest.mark.parametrize(("targets", "reading"), [(("2", "0"), "choice"), ((2, 0), "place")], ids=["texts", "numbers"])
def test_what_could_be_both_is_said(gold, targets, reading):
    made, _ = gold(*((target, NUMBERS) for target in targets))
    assert "in 2 docs the target is the text of one choice and the place of another" in made.info.warnings[0]
    assert f"It is read as a {reading}" in made.info.warnings[0]


def test_places_written_as_text_stay_places_where_some_choices_are_numbers(gold):
    """As from a CSV file: most targets are no choice of their doc, so none is read as one."""
    made, found = gold(("1", WORDS), ("2", WORDS), ("1", ["2", "1", "0"][::-1]), ("0", ["1", "0", "5"]))
    assert found == ["green", "blue", "1", "1"]
    assert "It is read as a place" in made.info.warnings[0]


def test_the_value_of_an_expression_is_a_place(gold):
    """As in lm-eval's tasks that look a letter up: `choices.label.index(answer)`."""
    _, found = gold(("b", ["1", "0"]), ("a", ["1", "0"]), doc_to_target="{{ ['a', 'b'].index(t) }}")
    assert found == ["0", "1"]


@pytest.mark.parametrize("target", [7, -1, "purple", None], ids=["beyond", "negative", "word", "nothing"])
def test_a_target_that_is_no_choice_leaves_its_doc_unscored(gold, target):
    """Such a doc counted as wrong, whatever the model said."""
    made, _ = gold((0, WORDS), (target, WORDS), exit_code=70, doc_to_target="t")
    assert made.scores[["n_docs", "n_unscored"]].to_numpy().tolist()[0] == [2, 1]
    assert "is none of the 3 choices" in made.samples("mc")["error"][1]


def test_the_first_of_equal_choices_is_the_target(gold):
    """A model can't prefer the second one, so such docs could not be right."""
    made, _ = gold(*((2, ["x", f"y{i}", f"y{i}"]) for i in range(20)), doc_to_target="t")
    logprobs = [[one for one, _ in json.loads(text)] for text in made.samples("mc")["response"]]
    right = [x < y for x, y, _ in logprobs]
    assert made.samples("mc")["acc"].tolist() == right
    assert 0 < sum(right) < 20


def test_examples_show_the_choice_that_is_meant(gold):
    made, _ = gold(("2", NUMBERS), ("1", NUMBERS), ("0", NUMBERS), num_fewshot=2, fewshot_split="train")
    for prompt in made.samples("mc")["prompt"]:
        for example in prompt.split("\n\n")[:-1]:
            item, answer = example.removeprefix("Item ").split("? ")
            assert answer == str(2 - int(item))
