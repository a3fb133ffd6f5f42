"""The score of a NeedleBench setting: its error where docs come in clusters, and when there is none."""

import pytest

from qwen2eval import RunConfig, run
from qwen2eval.long_context.needlebench.scoring import WEIGHTS
from qwen2eval.rescore import rescore
from qwen2eval.results.group_scores import group_scores
from qwen2eval.results.scores import Score
from qwen2eval.tasks.registry import load_tasks
from tests.long_context.needlebench_files import write_needlebench
from tests.long_context.needlebench_scripted import planned, score_scripted

GROUP = "!function qwen2eval.long_context.needlebench.task.NeedleBenchGroup"
SMALL = "lengths: [1500, 2500], depths: [0, 100], n_repeats: 2"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_needlebench(tmp_path_factory.mktemp("needlebench"))


def own_task(folder, more=SMALL):
    metadata = f"{{version: 1.0, benchmark: 1, setting: 4k, {more}}}"
    (folder / "small.yaml").write_text(f"task: small\nclass: {GROUP}\nmetadata: {metadata}\n")
    return {"include_path": (str(folder),)}


def part_score(part, value, stderr, naive, *, metric="acc"):
    return Score(f"small_{part}", metric, "none", "original", 40, value, stderr, None, None, 0, naive)


def groups_of(folder, data):
    return load_tasks(RunConfig(model="dummy", tasks=("small",), data_dir=str(data), **own_task(folder))).groups


def test_the_error_of_a_group_is_made_of_its_tasks_clustered_errors(data, tmp_path):
    """It was made of the plain ones: ten questions about one needle counted as ten needles."""
    errors = {"single": 0.03, "reasoning": 0.06, "retrieval": 0.09}
    scores = [part_score(part, 0.5, error, error / 3) for part, error in errors.items()]
    (row,) = group_scores(scores, groups_of(tmp_path, data))
    expected = sum((WEIGHTS[1][part] * error) ** 2 for part, error in errors.items()) ** 0.5
    assert row.stderr == pytest.approx(expected)
    assert row.naive_stderr == pytest.approx(expected / 3)
    assert (row.ci_low, row.ci_high) == pytest.approx((0.5 - 1.96 * expected, 0.5 + 1.96 * expected))
    assert (row.task, row.n_docs) == ("small", 120)


def test_a_part_without_an_error_leaves_its_group_without_one(data, tmp_path):
    scores = [part_score("single", 0.5, None, 0.1)]
    scores += [part_score(part, 0.5, 0.1, 0.1) for part in ("reasoning", "retrieval")]
    (row,) = group_scores(scores, groups_of(tmp_path, data))
    assert row.value == pytest.approx(0.5)
    assert (row.stderr, row.ci_low, row.ci_high) == (None, None, None)


def test_a_part_without_a_score_leaves_its_group_without_one(data, tmp_path):
    scores = [part_score("single", None, None, None)]
    scores += [part_score(part, 0.5, 0.1, 0.1) for part in ("reasoning", "retrieval")]
    assert all(row.value is None for row in group_scores(scores, groups_of(tmp_path, data)))


def test_scores_by_depth_are_no_scores_of_the_group(data, tmp_path):
    scores = [part_score(part, 0.5, 0.1, 0.1) for part in WEIGHTS[1]]
    scores.append(part_score("retrieval", 1.0, 0.1, 0.1, metric="acc_depth_21"))
    assert [row.metric for row in group_scores(scores, groups_of(tmp_path, data))] == ["acc"]


def test_clusters_widen_the_error_of_a_real_plan(data, tiny_model, tmp_path):
    made = planned("small", data_dir=data, tokenizer=tiny_model, **own_task(tmp_path))
    right = {"English/0"}  # of one needle all, of the others none
    scores, _ = score_scripted(
        made, lambda doc, _: ", ".join(doc["keywords"]) if doc["cluster"] in right else "\u00a4" * 99
    )
    (group,) = scores[scores.task == "small"].to_dict("records")
    # 16 docs of 4 needles: by themselves the single retrievals would have an error of sqrt(0.25 * 0.75 / 15) = 0.11
    assert group["stderr"] > 0.4 * 0.2


def test_lengths_that_are_left_out_leave_no_overall(data, tiny_model, tmp_path):
    """Part of a setting is not the setting; the parts keep their scores."""
    made = planned("small", data_dir=data, tokenizer=tiny_model, max_length=2100, **own_task(tmp_path))
    tasks = [made.tasks[f"small_{part}"] for part in WEIGHTS[1]]
    assert all(task.task.missing_lengths == (2500,) for task in tasks)
    scores, _ = score_scripted(made, lambda doc, _: ", ".join(doc["keywords"]))
    assert scores[scores.task == "small"].value.isna().all()
    assert scores[(scores.task != "small") & (scores.metric == "acc")].value.eq(1).all()


def test_a_run_that_is_scored_again_has_the_same_lengths(data, tiny_model, tmp_path):
    """Without the model's length a second scoring would miss docs, or give the overall that there was none of."""
    config = RunConfig(
        model="dummy",
        model_args={"tokenizer": str(tiny_model), "max_length": 2100},
        tasks=("small",),
        data_dir=str(data),
        offline=True,
        output_path=str(tmp_path / "runs"),
        **own_task(tmp_path),
    )
    finished = run(config, quiet=True)
    again = rescore(finished.path)
    for one in (finished, again):
        overall = one.scores[one.scores.task == "small"]
        assert overall.value.isna().all()
        assert one.scores[one.scores.task == "small_single"].n_docs.max() == 1 * 2 * 2 * 2
        assert set(one.samples("small_single").n_prompt_tokens) == {1500}
