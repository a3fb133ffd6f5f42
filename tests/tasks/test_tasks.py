"""The registry: finding tasks by name, glob, tag and suite, and refusing what can't be run."""

import re

import pytest

from qwen2eval.config import RunConfig
from qwen2eval.errors import ConfigError, TaskFileError, TaskNotFoundError
from qwen2eval.tasks.index import lm_eval_entries, read_task_yaml, shipped_entries
from qwen2eval.tasks.registry import find_tasks, load_tasks, search_tasks, suites

TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""


@pytest.fixture
def own_tasks(tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text('{"question": "1+1=", "answer": "2"}\n')
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "sums.yaml").write_text(TASK.format(name="sums", data=data))
    return folder


def test_the_index_holds_what_lm_evals_own_task_manager_finds():
    from lm_eval.tasks import TaskManager

    theirs, ours = TaskManager().task_index, lm_eval_entries()
    assert set(ours) == set(theirs)
    kinds = {"TASK": "task", "PY_TASK": "task", "GROUP": "group", "TAG": "tag"}
    for name, entry in theirs.items():
        assert ours[name].kind == kinds[entry.kind.name], name
        assert ours[name].path == (None if entry.yaml_path is None else str(entry.yaml_path)), name
        if ours[name].kind == "tag":
            assert set(ours[name].members) == entry.tags, name


@pytest.mark.parametrize(
    ("typed", "meant"), [("gsm9k", "gsm8k"), ("mmul", "mmlu"), ("suite:dmo", "demo"), ("arc_chalenge", "arc_challenge")]
)
def test_a_misspelt_name_is_answered_with_the_nearest(typed, meant):
    with pytest.raises(TaskNotFoundError, match=f"'{meant}'"):
        find_tasks([typed])


def test_ours_win_over_lm_evals_and_the_prefix_goes_past_them():
    assert [e.origin for e in find_tasks(["gsm8k"])] == ["qwen2eval"]
    assert [e.origin for e in find_tasks(["lm_eval:gsm8k"])] == ["lm-eval"]


def test_the_users_folder_wins_over_everything(own_tasks):
    (own_tasks / "gsm8k.yaml").write_text((own_tasks / "sums.yaml").read_text().replace("sums", "gsm8k"))
    assert find_tasks(["gsm8k"], include_path=[str(own_tasks)])[0].origin == str(own_tasks)


def test_globs_and_yaml_files_name_tasks(own_tasks):
    assert [e.name for e in find_tasks(["demo_[gm]*"])] == ["demo_gsm8k", "demo_mmlu"]
    assert [e.name for e in find_tasks([str(own_tasks / "sums.yaml")])] == ["sums"]


def test_every_suite_names_tasks_that_exist():
    for suite in suites().values():
        assert len(find_tasks([f"suite:{suite.name}"])) == len(suite.tasks)


def test_every_shipped_task_says_what_it_is():
    for entry in shipped_entries().values():
        assert entry.summary, entry.name
        assert "version" in read_task_yaml_of(entry)["metadata"], entry.name


def read_task_yaml_of(entry):
    from pathlib import Path

    return read_task_yaml(Path(entry.path))


def test_search_puts_ours_and_the_exact_name_first():
    names = [entry.name for entry in search_tasks("gsm8k")]
    assert names[0] == "gsm8k"
    assert "gsm8k_cot" in names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: [a\n", "not valid YAML"),
        ("- a\n", "key: value"),
        ("include: nowhere.yaml\ntask: x\n", "nowhere.yaml"),
        ("include: broken.yaml\ntask: x\n", "includes itself"),
    ],
)
def test_a_broken_task_file_is_named(tmp_path, text, message):
    (tmp_path / "broken.yaml").write_text(text)
    with pytest.raises(TaskFileError, match=message):
        find_tasks(["x"], include_path=[str(tmp_path)])


def test_an_include_path_that_is_no_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere"):
        find_tasks(["gsm8k"], include_path=[str(tmp_path / "nowhere")])


def test_flags_override_the_task_as_in_lm_eval(own_tasks):
    config = RunConfig(tasks=("sums",), include_path=(str(own_tasks),), num_fewshot=0, gen_kwargs={"max_gen_toks": 7})
    task = load_tasks(config).tasks["sums"]
    assert task.num_fewshot == 0
    assert task.generation_kwargs["max_gen_toks"] == 7


@pytest.mark.parametrize("line", ["num_fewshot: 0", "output_type: loglikelihood_rolling"])
def test_examples_that_lm_eval_would_not_give_are_refused(own_tasks, line):
    """The flag was passed over in silence, and run.json said that there were examples."""
    file = own_tasks / "sums.yaml"
    file.write_text(re.sub(r"output_type.*\n", "", file.read_text()) + f"{line}\n")
    loaded = load_tasks(RunConfig(tasks=("sums",), include_path=(str(own_tasks),), num_fewshot=3))
    assert loaded.tasks == {}
    assert "--num_fewshot 3: task 'sums'" in str(loaded.failures["sums"])
    assert list(load_tasks(RunConfig(tasks=("sums",), include_path=(str(own_tasks),), num_fewshot=0)).tasks) == ["sums"]


def test_a_broken_file_in_the_users_folder_stops_no_other_task(own_tasks):
    (own_tasks / "broken.yaml").write_text("task: [a\n")
    loaded = load_tasks(RunConfig(tasks=("sums", str(own_tasks / "broken.yaml")), include_path=(str(own_tasks),)))
    assert list(loaded.tasks) == ["sums"]
    assert list(loaded.failures) == [str(own_tasks / "broken.yaml")]
    assert "broken.yaml" in loaded.warnings[0]


def test_a_tasks_hash_is_the_same_in_every_process(own_tasks):
    """A filter that is a function was hashed with its address in memory, which no other process has."""

    def loaded():
        def extract(*arguments):
            return arguments[0]

        task = load_tasks(RunConfig(tasks=("sums",), include_path=(str(own_tasks),))).tasks["sums"]
        chain = [{"name": "own", "filter": [{"function": "custom", "filter_fn": extract}]}]
        task.lm_eval.set_config(key="filter_list", value=chain)
        return task

    first, again = loaded(), loaded()
    assert first.hash() == again.hash()
