"""Examples of a prompt are never the item itself: every sampler and split, copies in another split, too."""

import json
import random

import pytest
import yaml

from qwen2eval import RunConfig
from qwen2eval.backends import load_spec
from qwen2eval.errors import TaskFileError
from qwen2eval.planning.plan import make_plan

COLOURS = ("grass green", "snow white", "coal black", "blood red", "sky blue", "gold yellow")
ITEMS = [
    {"q": f"Colour of {pair.split()[0]}?", "a": pair.split()[1], "kind": "ab"[i % 2]} for i, pair in enumerate(COLOURS)
]


@pytest.fixture
def prompts(tmp_path):
    """Return a function that writes a task over the items and returns its prompts in order."""

    def make(n_shots, *, test=ITEMS, train=None, **changes):
        files = {}
        for split, items in (("test", test), ("train", train)):
            if items is not None:
                files[split] = str(tmp_path / f"{split}.jsonl")
                (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
        config = {
            "task": "colours",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": files, "cache_dir": str(tmp_path / "cache")},
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_text": "{{q}}",
            "doc_to_target": "{{a}}",
            "num_fewshot": n_shots,
        }
        (tmp_path / "colours.yaml").write_text(yaml.safe_dump(config | changes))
        asked = RunConfig(model="dummy", tasks=("colours",), include_path=(str(tmp_path),))
        return [str(request.prompt) for request in make_plan(asked, load_spec(asked)).tasks["colours"].requests]

    return make


def assert_own_question_once(prompts, n_shots):
    for item, prompt in zip(ITEMS, prompts, strict=True):
        parts = prompt.split("\n\n")
        assert len(parts) == len(set(parts)) == n_shots + 1
        assert [part.startswith(item["q"]) for part in parts] == [False] * n_shots + [True]


FIRST = {"fewshot_config": {"sampler": "first_n"}}
CLUSTERED = {"class": "!function qwen2eval.tasks.clustered.ClusteredTask", "metadata": {"cluster": "kind"}}


@pytest.mark.parametrize("n_shots", [1, 2, 5])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        FIRST,
        {"fewshot_split": "test"},
        {"fewshot_split": "test", **FIRST},
        {"test_split": None, "validation_split": "test"},
    ],
    ids=["no split", "first_n", "test split", "test split, first_n", "validation only"],
)
def test_docs_that_are_evaluated_are_examples_of_each_other_only(prompts, n_shots, changes):
    assert_own_question_once(prompts(n_shots, **changes), n_shots)


@pytest.mark.parametrize("changes", [{}, FIRST], ids=["random", "first_n"])
def test_a_copy_in_the_training_split_is_left_out_too(prompts, changes):
    """Another id and other blanks do not make it another item."""
    copies = [{**item, "q": item["q"].replace(" ", "  "), "kind": f"train-{i}"} for i, item in enumerate(ITEMS)]
    assert_own_question_once(prompts(3, train=copies, fewshot_split="train", **changes), 3)


def test_a_copy_in_other_letter_case_is_left_out_too(prompts):
    """It was among the examples, with its answer."""
    copies = [{**item, "q": item["q"].upper(), "kind": f"train-{i}"} for i, item in enumerate(ITEMS)]
    for item, prompt in zip(ITEMS, prompts(5, train=copies, fewshot_split="train"), strict=True):
        assert prompt.casefold().count(item["q"].casefold()) == 1


def test_clusters_leave_the_item_out(prompts, tmp_path):
    made = prompts(2)  # writes the files
    text = (tmp_path / "colours.yaml").read_text() + "class: !function qwen2eval.tasks.clustered.ClusteredTask\n"
    (tmp_path / "colours.yaml").write_text(text + "metadata: {cluster: kind}\n")
    asked = RunConfig(model="dummy", tasks=("colours",), include_path=(str(tmp_path),))
    made = [str(request.prompt) for request in make_plan(asked, load_spec(asked)).tasks["colours"].requests]
    assert_own_question_once(made, 2)
    assert all("grass" not in prompt for prompt in made[1::2])


def test_prompts_without_the_item_are_those_of_lm_eval(prompts):
    """An independent draw: lm-eval's sampler is `random.Random(seed).sample` from the split, doc after doc."""
    rnd = random.Random(1234)
    expected = [[item["q"] for item in rnd.sample(ITEMS, 2)] for _ in ITEMS]
    kept = 0
    for item, drawn, prompt in zip(ITEMS, expected, prompts(2), strict=True):
        shown = [part.rsplit(" ", 1)[0] for part in prompt.split("\n\n")[:-1]]
        others = [question for question in drawn if question != item["q"]]
        assert shown[: len(others)] == others
        kept += len(others) == 2
    assert 0 < kept < len(ITEMS)


@pytest.mark.parametrize(("n_shots", "n_there"), [(6, 5), (7, 6)])
def test_too_few_examples_are_counted(prompts, n_shots, n_there):
    with pytest.raises(TaskFileError, match=rf"asks for {n_shots} examples in each prompt, and there are {n_there}"):
        prompts(n_shots)


def test_one_question_for_all_is_no_reason_to_leave_all_out(prompts):
    """Items that differ in their choices only are different items."""
    items = [{"c": [f"A {i}", f"B {i}"], "k": 0} for i in range(4)]
    choice = {
        "output_type": "multiple_choice",
        "doc_to_text": "Which is true?",
        "doc_to_choice": "c",
        "doc_to_target": "k",
    }
    for i, prompt in enumerate(prompts(3, test=items, **choice)[::2]):
        assert prompt.count("Which is true?") == 4
        assert f" {i}" not in prompt
