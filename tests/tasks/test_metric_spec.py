"""What a metric measures is said once, by the task or for a standard name, and never guessed."""

import json

import pytest
import yaml

from qwen2eval import RunConfig, run
from qwen2eval.errors import TaskFileError
from qwen2eval.evaluate import plan
from qwen2eval.long_context.niah.task import NiahTask
from qwen2eval.tasks.lm_eval_task import EvalTask
from qwen2eval.tasks.metric_spec import MetricSpec, metric, spec_from_metadata, standard_metric
from tests.local_tasks import write_tasks

SHARE = MetricSpec(higher_is_better=True, unit="share", low=0.0, high=1.0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("acc", SHARE),
        ("exact_match", SHARE),
        ("pass@64", SHARE),
        ("bleu", MetricSpec(higher_is_better=True, unit="points", low=0.0, high=100.0)),
        ("ter", MetricSpec(higher_is_better=False, unit="number", low=0.0)),
        ("word_perplexity", MetricSpec(higher_is_better=False, unit="number")),
        ("mcc", MetricSpec(higher_is_better=True, unit="number", low=-1.0, high=1.0)),
        # some tasks give these as 0-1 and some as 0-100
        ("f1", MetricSpec()),
        ("rouge1", MetricSpec()),
        # words in a name prove nothing
        ("accuracy_loss", MetricSpec()),
        ("error_rate", MetricSpec()),
        ("pass@many", MetricSpec()),
    ],
)
def test_standard_names(name, expected):
    assert standard_metric(name) == expected


def test_lm_evals_own_directions_are_those_of_the_table():
    from lm_eval.api import metrics  # noqa: F401  # registers them
    from lm_eval.api.registry import higher_is_better_registry

    directions = dict(higher_is_better_registry.items())
    known = {name: standard_metric(name) for name in directions if standard_metric(name).higher_is_better is not None}
    assert {"acc", "ter", "perplexity", "mcc", "chrf"} <= set(known)
    assert {name: spec.higher_is_better for name, spec in known.items()} == {name: directions[name] for name in known}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"unit": "share"}, SHARE),
        ({"unit": "share", "higher_is_better": False}, metric("share", higher_is_better=False)),
        ({"unit": "rating", "low": 1, "high": 5}, MetricSpec(True, "rating", 1, 5)),
    ],
)
def test_what_a_yaml_says(said, expected):
    assert spec_from_metadata("m", said, task="t") == expected


@pytest.mark.parametrize(
    "said", ["share", {}, {"unit": "percent"}, {"unit": "share", "better": "low"}, {"unit": "rating", "low": "one"}]
)
def test_what_a_yaml_may_not_say(said):
    with pytest.raises(TaskFileError, match=r"'t': metadata\.metrics\.m is"):
        spec_from_metadata("m", said, task="t")


class HarmJudgedTask(NiahTask):
    """A task whose judge tells how harmful an answer is: less is better."""

    def judge_metrics(self, verdict):
        return {"harmful_rate": None if not verdict else float("harmful" in verdict)}

    def metric_specs(self):
        return {"acc": metric("share"), "harmful_rate": metric("share", higher_is_better=False)}


def test_a_judges_metric_has_the_direction_that_the_task_says():
    """F5: every metric of a judge had the arrow up, whatever it measured."""
    task = EvalTask(HarmJudgedTask({"task": "harm", "metadata": {}}))
    specs = task.metrics(("harmful_rate", "unheard_of"))
    assert [specs[name].higher_is_better for name in ("acc", "harmful_rate", "unheard_of")] == [True, False, None]
    assert "harmful_rate" not in task.metrics()
    assert task.lm_eval.higher_is_better() == {"acc": True}


def test_a_run_records_what_a_yaml_says(tmp_path):
    folder = write_tasks(tmp_path / "tasks")
    file = folder / "say.yaml"
    said = {"exact_match": {"unit": "points"}}
    task = yaml.safe_load(file.read_text())
    task["metric_list"][0]["higher_is_better"] = False
    file.write_text(yaml.safe_dump({**task, "metadata": {"version": 1, "metrics": said}}))
    config = RunConfig(
        model="dummy", tasks=("say",), include_path=(str(folder),), limit=2, output_path=str(tmp_path / "runs")
    )
    made = run(config, quiet=True)
    recorded = json.loads((made.path / "run.json").read_text())["tasks"]["say"]["metrics"]["exact_match"]
    assert recorded == {"higher_is_better": False, "unit": "points", "low": 0.0, "high": 100.0}
    assert json.loads((made.path / "results.json").read_text())["higher_is_better"]["say"] == {"exact_match": False}


def planned_task(folder, metadata, *, higher_is_better=False):
    """Return the plan of a task with one metric of its own, described by `metadata`, and where less is better."""
    file = folder / "say.yaml"
    task = yaml.safe_load(file.read_text())
    task["metric_list"][0]["higher_is_better"] = higher_is_better
    file.write_text(yaml.safe_dump({**task, "metadata": {"version": 1, "metrics": metadata}}))
    config = RunConfig(model="dummy", tasks=("say",), include_path=(str(folder),), limit=2, offline=True)
    return plan(config).tasks["say"]


def test_a_yaml_that_gives_the_unit_keeps_the_direction_of_the_metric_list(tmp_path):
    planned = planned_task(write_tasks(tmp_path / "tasks"), {"exact_match": {"unit": "number"}})
    assert planned.task.metrics()["exact_match"].higher_is_better is False


def test_two_directions_of_one_metric_are_refused(tmp_path):
    with pytest.raises(TaskFileError, match="metric_list or class says false: make them equal"):
        planned_task(write_tasks(tmp_path / "tasks"), {"exact_match": {"unit": "share", "higher_is_better": True}})


def test_a_metric_that_the_task_does_not_have_is_named_before_the_run(tmp_path):
    planned = planned_task(write_tasks(tmp_path / "tasks"), {"exact_mtch": {"unit": "share"}}, higher_is_better=True)
    assert "'exact_mtch', which is no metric of the task" in planned.preflight


def test_a_wrong_entry_of_any_metric_is_refused_before_anything_is_answered():
    """One of a judge's metric was found out when run.json was written, and the run folder with it was lost."""
    task = EvalTask(HarmJudgedTask({"task": "harm", "metadata": {"metrics": {"harmful_rate": {"unit": "percent"}}}}))
    with pytest.raises(TaskFileError, match=r"metadata\.metrics\.harmful_rate"):
        task.metrics()


class HalfDescribedTask(NiahTask):
    """A task that describes one of its two metrics, and scores a third that nobody declares."""

    def aggregation(self):
        return {"exact_match": max, "n_err": max}

    def metric_specs(self):
        return {"n_err": metric("number", higher_is_better=False)}


def test_metrics_that_a_class_leaves_out_are_still_known():
    specs = EvalTask(HalfDescribedTask({"task": "half", "metadata": {}})).metrics(("match_extra",))
    assert specs["n_err"] == metric("number", higher_is_better=False)
    assert specs["exact_match"] == SHARE
    assert specs["match_extra"] == MetricSpec()  # words in its name prove nothing
