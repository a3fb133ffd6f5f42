"""`qwen2eval score`: the same scores from the samples alone, new ones where filters or metrics have changed."""

import json
import shutil

import pandas as pd
import pytest
import yaml

from qwen2eval.cli.main import main
from qwen2eval.data.mmlu import load as load_mmlu
from qwen2eval.errors import RunFolderError
from qwen2eval.rescore import rescore
from qwen2eval.run_folder.folder import load_run
from tests.local_tasks import KINDS, NUMBER, assert_same_results, rows, run_here, write_rows, write_task, write_tasks


@pytest.fixture
def tasks_dir(tmp_path):
    return write_tasks(tmp_path / "tasks")


@pytest.fixture
def kept(tmp_path):
    """Return a function that copies a run away, to compare with what becomes of it."""

    def keep(run):
        return load_run(shutil.copytree(run.path, tmp_path / "kept"))

    return keep


def assert_nothing_changed(run, before):
    """Every file is what it was: samples and scores as tables, the rest as text."""
    after = load_run(run.path)
    assert_same_results(after, before)
    assert after.info == before.info
    texts = ("results.json", "scores.csv", "report.md", *(f"samples_{n}.jsonl" for n in after.info.health))
    for name in texts:
        assert (after.path / name).read_text() == (before.path / name).read_text(), name


def test_a_run_scored_again_is_the_same_in_every_file(tmp_path, tasks_dir, kept, capsys):
    run = run_here(tasks_dir, tmp_path / "runs")
    before = kept(run)
    shown = capsys.readouterr().out
    assert main(["score", str(run.path)]) == 0
    assert capsys.readouterr().out == shown
    assert_nothing_changed(run, before)


@pytest.mark.parametrize("task", KINDS)
@pytest.mark.parametrize("faults", [{"fail_every": 2}, {"nan_every": 2}, {"fail_every": 3, "nan_every": 2}], ids=str)
def test_what_was_not_answered_stays_unscored_for_its_own_reason(tmp_path, tasks_dir, kept, task, faults):
    """Failed requests came back as NaN, and NaN without the greedy flag beside it."""
    exit_code = 0 if "fail_every" not in faults and task in ("say", "draw") else 70
    run = run_here(tasks_dir, tmp_path / "runs", tasks=task, exit_code=exit_code, **faults)
    before = kept(run)
    rescore(run.path)
    assert_nothing_changed(run, before)


def test_a_limited_clustered_run_keeps_its_scattered_docs(tmp_path, tasks_dir, kept):
    run = run_here(tasks_dir, tmp_path / "runs", "--limit", "4", tasks="demo_mmlu")
    assert run.samples("demo_mmlu")["doc_id"].tolist() != [0, 1, 2, 3]
    before = kept(run)
    rescore(run.path)
    assert_nothing_changed(run, before)


def test_a_failed_task_stays_failed(tmp_path, tasks_dir, kept):
    write_task(tasks_dir, "broken", like="say", data="gone.jsonl")
    run = run_here(tasks_dir, tmp_path / "runs", tasks="broken,say", exit_code=70)
    before = kept(run)
    assert main(["score", str(run.path)]) == 70
    assert_nothing_changed(run, before)


@pytest.mark.slow
def test_neither_model_nor_store_is_needed(tmp_path, tasks_dir, kept, tiny_model):
    """With a chat template, after which the choices follow without a space."""
    model = shutil.copytree(tiny_model, tmp_path / "model")
    run = run_here(tasks_dir, tmp_path / "runs", "--apply_chat_template", model="hf", pretrained=model)
    before = kept(run)
    shutil.rmtree(model)
    for file in (tmp_path / "runs").glob("store.sqlite*"):
        file.unlink()
    rescore(run.path)
    assert_nothing_changed(run, before)


def test_a_new_filter_gets_its_score_without_a_model(tmp_path, tasks_dir, kept):
    run = run_here(tasks_dir, tmp_path / "runs", tasks="say,read")
    before = kept(run)
    file = tasks_dir / "say.yaml"
    config = yaml.safe_load(file.read_text())
    steps = [{"function": "regex", "regex_pattern": f"it is {NUMBER}"}, {"function": "take_first"}]
    config["filter_list"] = [config["filter_list"][0], {"name": "prose", "filter": steps}]
    file.write_text(yaml.safe_dump(config))
    after = rescore(run.path)
    assert after.scores.query("task == 'say'")["filter"].tolist() == ["strict", "prose"]
    assert after.info.tasks["say"].filters == ("strict", "prose")
    assert after.info.tasks["say"].task_hash != before.info.tasks["say"].task_hash
    assert after.info.health["say"].n_extraction_failures == {"strict": 0, "prose": 0}
    samples = after.samples("say")
    prose = samples[samples["filter"] == "prose"]
    assert prose["extracted"].tolist() == [text.split("#### ")[1] for text in prose["response"]]
    assert "prose" in (run.path / "report.md").read_text()
    unchanged = [made.scores.query("task == 'read' or filter == 'strict'") for made in (after, before)]
    pd.testing.assert_frame_equal(*(frame.reset_index(drop=True) for frame in unchanged))
    assert after.info.tasks["read"] == before.info.tasks["read"]


def test_a_new_metric_gets_its_score_without_a_model(tmp_path, tasks_dir):
    run = run_here(tasks_dir, tmp_path / "runs", tasks="pick")
    write_task(tasks_dir, "pick", metric_list=[{"metric": "acc"}, {"metric": "brier_score"}])
    after = rescore(run.path)
    assert after.scores["metric"].tolist() == ["acc", "brier_score"]
    assert list(after.info.tasks["pick"].metrics) == ["acc", "brier_score"]
    assert after.scores["value"][0] == run.scores["value"][0]


CHANGES = {
    "a row changed": lambda made: [*made[:1], {**made[1], "question": "How many pencils?"}, *made[2:]],
    "a row went": lambda made: made[:5],
    "rows moved": lambda made: made[::-1],
}


@pytest.mark.parametrize("change", CHANGES)
def test_docs_that_are_not_those_that_were_asked_are_refused(tmp_path, tasks_dir, kept, capsys, change):
    run = run_here(tasks_dir, tmp_path / "runs", tasks="say")
    before = kept(run)
    write_rows(tasks_dir / "test.jsonl", CHANGES[change](rows(6)))
    with pytest.raises(RunFolderError, match="the data has changed since the run"):
        rescore(run.path)
    assert main(["score", str(run.path)]) == 3
    assert "of task 'say' is not the one that was asked" in capsys.readouterr().err
    assert_nothing_changed(run, before)


@pytest.mark.parametrize("changes", [{"doc_to_choice": ["a", "b"]}, {"output_type": "generate_until"}], ids=str)
def test_a_task_that_asks_something_else_today_is_refused(tmp_path, tasks_dir, kept, changes):
    run = run_here(tasks_dir, tmp_path / "runs", tasks="pick")
    before = kept(run)
    write_task(tasks_dir, "pick", **changes)
    with pytest.raises(RunFolderError, match="'pick' now makes other requests"):
        rescore(run.path)
    assert_nothing_changed(run, before)


def test_rows_that_were_added_behind_do_no_harm(tmp_path, tasks_dir, kept):
    run = run_here(tasks_dir, tmp_path / "runs", tasks="say")
    before = kept(run)
    write_rows(tasks_dir / "test.jsonl", [*rows(6), *rows(2, start=20)])
    assert_same_results(rescore(run.path), before)


def test_data_that_is_gone_is_missed_and_may_be_elsewhere(tmp_path, tasks_dir, kept, capsys, monkeypatch):
    monkeypatch.delenv("QWEN2EVAL_DATA", raising=False)
    demo = load_mmlu(package_data="demo/data")
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(demo.source, here / "mmlu")
    run = run_here(tasks_dir, tmp_path / "runs", "--limit", "3", "--data_dir", str(here), tasks="mmlu")
    before = kept(run)
    shutil.move(here, there)
    capsys.readouterr()
    assert main(["score", str(run.path)]) == 3
    assert str(here) in capsys.readouterr().err
    assert main(["score", str(run.path), "--data_dir", str(there)]) == 0
    assert_same_results(load_run(run.path), before)


def test_scoring_an_old_run_does_not_make_it_the_latest(tmp_path, tasks_dir):
    old = run_here(tasks_dir, tmp_path / "runs", tasks="say")
    new = run_here(tasks_dir, tmp_path / "runs", tasks="read")
    rescore(old.path)
    assert load_run(tmp_path / "runs" / "latest").path == new.path
    rescore(tmp_path / "runs" / "latest")
    assert load_run(tmp_path / "runs" / "latest").path == new.path


def test_the_run_may_be_scored_again_and_again(tmp_path, tasks_dir, kept):
    run = run_here(tasks_dir, tmp_path / "runs", tasks="pick,draw")
    before = kept(run)
    for _ in range(2):
        rescore(run.path)
    assert_nothing_changed(run, before)
    assert json.loads((run.path / "run.json").read_text()) == before.info.to_json()


def test_a_run_is_scored_again_from_any_folder(tmp_path, monkeypatch):
    """The data's folder, given relative or by QWEN2EVAL_DATA, was not found again from elsewhere."""
    folder = tmp_path / "data" / "gsm8k"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        rows = [{"question": f"{i}+1?", "answer": f"#### {i + 1}"} for i in range(8)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QWEN2EVAL_DATA", "data")
    words = ["run", "--model", "dummy", "--tasks", "gsm8k", "--limit", "3", "--offline", "--output_path", "runs"]
    assert main(words) == 0
    monkeypatch.delenv("QWEN2EVAL_DATA")
    monkeypatch.chdir("/")
    assert main(["score", str(tmp_path / "runs" / "latest")]) == 0


def test_answers_of_a_run_from_before_thoughts_are_not_cut_again(tmp_path, tasks_dir):
    """Such runs cut up to `think_end_token` when they asked: each whole answer became a thought, and 100 % 0 %."""
    run = run_here(tasks_dir, tmp_path / "runs", tasks="say")
    values = run.scores["value"].tolist()
    assert all(run.samples("say")["response"])
    info = json.loads((run.path / "run.json").read_text())
    info["config"]["model_args"] = {"think_end_token": "</think>"}
    (run.path / "run.json").write_text(json.dumps(info))
    [samples] = (run.path / "samples").glob("*.parquet")
    frame = pd.read_parquet(samples)
    frame.drop(columns=[name for name in frame.columns if "thought" in name]).to_parquet(samples, index=False)
    # The second time the samples have the column, and null in it
    for _ in range(2):
        again = rescore(run.path)
        assert again.scores["value"].tolist() == values
        assert again.samples("say")["response"].tolist() == frame["response"].tolist()
