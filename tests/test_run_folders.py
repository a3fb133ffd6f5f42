"""Run folders of older versions, and damaged ones: what is read, what is named, and what is still shown beside them.

`run_folders/schema_1` was written by commit 8b6c8b0 (two docs a task of the demo, our own text; a task that failed; a
corpus that was searched); its report is left out, and its paths were shortened.
"""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import MISSING, fields, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qwen2eval.backends import load_spec
from qwen2eval.cli.main import main
from qwen2eval.config import RunConfig
from qwen2eval.errors import RunFolderError
from qwen2eval.planning.estimate import estimate_time
from qwen2eval.planning.plan import make_plan
from qwen2eval.run_folder.folder import find_runs, load_run
from qwen2eval.run_info import RunInfo
from tests.local_tasks import assert_same_results

OLD = Path(__file__).parent / "run_folders" / "schema_1"
FILES = sorted(path.relative_to(OLD).as_posix() for path in OLD.rglob("*") if path.is_file())
IS_READ = [name for name in FILES if name == "run.json" or name.endswith(".parquet")]


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(OLD, tmp_path / "runs" / "old"))


def changed(folder, change):
    """Change the run.json of a folder."""
    file = folder / "run.json"
    info = json.loads(file.read_text("utf-8"))
    change(info)
    file.write_text(json.dumps(info), "utf-8")


def test_run_json_is_written_back_to_the_byte():
    text = (OLD / "run.json").read_text("utf-8")
    info = load_run(OLD).info
    assert [name for name, task in info.tasks.items() if task.is_failed] == ["mmlu"]
    assert info.contamination.tasks["demo_gsm8k"].evidence
    assert json.dumps(info.to_json(), indent=1, ensure_ascii=False) + "\n" == text


def test_an_old_run_has_its_report(folder):
    assert main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text("utf-8")
    headings = re.findall(r"<h2 [^>]*>(.*?)</h2>", page)
    assert headings[:4] == ["Headline numbers", "Scores", "Contamination", "demo_niah acc by length and depth"]
    assert len(list((folder / "figures").iterdir())) == 4


def test_an_old_run_is_scored_again(folder):
    assert main(["score", str(folder)]) == 70  # mmlu had no data
    after, before = load_run(folder), load_run(OLD)
    assert_same_results(after, before)
    # What a metric is, how many thought, and what is a template, older runs did not say
    metrics = [metric for task in after.info.scored_tasks.values() for metric in task.metrics.values()]
    assert {(metric.unit, metric.low, metric.high) for metric in metrics} == {("share", 0.0, 1.0)}
    assert without_metrics(after.info) == without_metrics(before.info)


def without_metrics(info):
    health = {name: replace(one, n_thoughts=None, n_unfinished_thoughts=None) for name, one in info.health.items()}
    tasks = {name: replace(task, metrics={}) for name, task in info.tasks.items()}
    later = dict.fromkeys(("n_template", "n_with_templates", "n_questions_found_whole"))
    found = {name: replace(one, **later) for name, one in info.contamination.tasks.items()}
    contamination = replace(info.contamination, tasks=found)
    return replace(info, tasks=tasks, health=health, contamination=contamination)


def test_an_old_run_tells_how_long_a_plan_takes(folder):
    config = RunConfig(tasks=("demo_gsm8k",), limit=4)
    plan = make_plan(config, load_spec(config))
    (run,) = find_runs(folder.parent).runs
    here = replace(run, info=replace(run.info, model=replace(run.info.model, path=plan.spec.path)))
    assert estimate_time(plan, [here]).run_id == run.info.run_id


def test_keys_of_a_newer_version_are_kept():
    value = json.loads((OLD / "run.json").read_text("utf-8"))
    value["novel"] = {"a": [1]}
    value["requests"]["n_novel"] = 3
    value["tasks"]["demo_niah"]["metrics"]["acc"]["novel"] = "x"
    info = RunInfo.from_json(value)
    assert info.extra == {"novel": {"a": [1]}}
    assert info.to_json() == value


def test_what_a_metric_says_of_itself_is_kept():
    value = json.loads((OLD / "run.json").read_text("utf-8"))
    value["tasks"]["demo_niah"]["metrics"]["acc"] |= {"unit": "points", "low": 1, "high": 10.0}
    metric = RunInfo.from_json(value).tasks["demo_niah"].metrics["acc"]
    assert (metric.unit, metric.low, metric.high) == ("points", 1, 10.0)
    assert RunInfo.from_json(value).to_json() == value


@pytest.mark.parametrize(
    "key",
    [one.name for one in fields(RunInfo) if one.default is one.default_factory is MISSING and one.name != "extra"],
)
def test_a_key_that_is_missing_is_named(folder, capsys, key):
    """`report` ended in a traceback: KeyError."""
    changed(folder, lambda info: info.pop(key))
    assert main(["report", str(folder)]) == 3
    err = capsys.readouterr().err
    assert (f"`{key}` is missing" in err, str(folder / "run.json") in err, err.count("\n")) == (True, True, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda info: info["tasks"]["demo_niah"].pop("n_docs"), "`tasks.demo_niah.n_docs` is missing"),
        (lambda info: info["requests"].update(n_total="7"), "`requests.n_total` is '7', not a whole number"),
        (lambda info: info["requests"].update(n_total=True), "`requests.n_total` is True, not a whole number"),
        (lambda info: info.update(tasks=[]), "`tasks` is [], not an object"),
        # `plan` ended in a traceback: a time that is no number
        (lambda info: info["timings"].update(answer_seconds=float("nan")), "is nan, not a finite number"),
        (lambda info: info["timings"].update(total_seconds=float("inf")), "is inf, not a finite number"),
        (lambda info: info.update(command="x"), "`command` is 'x', not a list"),
        (lambda info: info.update(status="well"), "`status` is 'well', not 'finished' or 'failed_tasks'"),
        (lambda info: info["model"].update(name=None), "`model.name` is None, not a text"),
        (
            lambda info: info["contamination"]["tasks"]["demo_niah"]["scores"][0].update(delta=[1]),
            "`contamination.tasks.demo_niah.scores[0].delta` is [1], not a list of 3: value, ci_low, ci_high",
        ),
    ],
)
def test_a_value_of_the_wrong_type_is_named(folder, change, message):
    changed(folder, change)
    with pytest.raises(RunFolderError, match=re.escape(message)):
        load_run(folder)


def test_a_run_without_requests_says_nothing_of_the_time(folder):
    """`plan` divided by the number of requests."""
    changed(folder, lambda info: [task.update(n_requests=0) for task in info["tasks"].values()])
    config = RunConfig(tasks=("demo_gsm8k",), limit=4)
    plan = make_plan(config, load_spec(config))
    (run,) = find_runs(folder.parent).runs
    here = replace(run, info=replace(run.info, model=replace(run.info.model, path=plan.spec.path)))
    estimate_time(plan, [here])


@pytest.mark.parametrize("file", ["scores.parquet", "samples/demo_niah.parquet"])
def test_a_table_of_another_run_is_named(folder, capsys, file):
    """It was shown as this run's."""
    table = pq.read_table(folder / file)
    names = pa.array(["elsewhere"] * table.num_rows)
    pq.write_table(table.set_column(table.schema.get_field_index("task"), "task", names), folder / file)
    assert main(["report", str(folder)]) == 3
    err = capsys.readouterr().err
    assert f"{str(folder / file)!r} is of another run" in err
    assert "'elsewhere'" in err


def test_pages_are_not_written_without_their_figures(folder, monkeypatch):
    """report.md was written, and referred to figures that had failed."""
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    code = f"from qwen2eval.cli.main import main; raise SystemExit(main(['report', {str(folder)!r}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 70
    assert "`qwen2eval report" in done.stderr
    assert not list(folder.glob("report.*"))


@pytest.mark.parametrize("verb", ["score", "apply"])
def test_settings_of_another_version_are_named(folder, capsys, verb):
    changed(folder, lambda info: info["config"].update(novel=1))
    words = {"score": ["score"], "apply": ["decontam", "apply", "--matches", "nowhere"]}[verb]
    assert main([*words, str(folder)]) == 3
    err = capsys.readouterr().err
    assert ("novel" in err, "`config`" in err, "run.json" in err, err.count("\n")) == (True, True, True, 1)


def damage(file, kind):
    data = file.read_bytes()
    if kind == "deleted":
        file.unlink()
    elif kind == "cut in half":
        file.write_bytes(data[: len(data) // 2])
    elif kind == "emptied":
        file.write_bytes(b"")
    elif file.suffix == ".parquet":
        pq.write_table(pa.table({"other": [1]}), file)
    else:
        file.write_text('{"schema_version": 99}')


KINDS = ("deleted", "cut in half", "emptied", "of another version")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_report_names_a_damaged_file_and_shows_the_other_run(folder, capsys, name, kind):
    whole = Path(shutil.copytree(OLD, folder.parent / "whole"))
    damage(folder / name, kind)
    assert main(["report", str(folder), str(whole), "--format", "md"]) == (3 if name in IS_READ else 0)
    out, err = capsys.readouterr()
    assert f"{whole}/report.md" in out
    if name in IS_READ:
        assert_one_line(err, folder / name, kind)
    else:
        assert err == ""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["run.json", "samples/demo_gsm8k.parquet", "contamination/demo_gsm8k.parquet"])
@pytest.mark.parametrize("verb", ["score", "apply"])
def test_score_and_apply_name_a_damaged_file_and_change_nothing(folder, capsys, verb, name, kind):
    damage(folder / name, kind)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    matches = ["--matches", str(folder.parent)] if verb == "apply" else []
    code = main([*(["decontam", "apply"] if matches else ["score"]), str(folder), *matches])
    err = capsys.readouterr().err
    if verb == "apply" and name.startswith("contamination"):
        assert (code, "--matches" in err or str(folder.parent) in err) == (64, True)  # only the new scan is asked for
    else:
        assert code == 3
        assert_one_line(err, folder / name, kind)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("kind", KINDS)
def test_score_makes_damaged_scores_again(folder, kind):
    damage(folder / "scores.parquet", kind)
    assert main(["score", str(folder)]) == 70  # mmlu had no data
    assert_same_results(load_run(folder), load_run(OLD))


@pytest.mark.parametrize("kind", KINDS)
def test_runs_put_together_are_the_readable_ones(folder, tmp_path, capsys, kind):
    whole = Path(shutil.copytree(OLD, folder.parent / "whole"))
    damage(folder / "scores.parquet", kind)
    assert main(["report", str(folder), str(whole), "--together", str(tmp_path / "page")]) == 3
    assert_one_line(capsys.readouterr().err, folder / "scores.parquet", kind)
    assert "demo_gsm8k" in (tmp_path / "page" / "side_by_side.md").read_text("utf-8")


def assert_one_line(err, file, kind):
    assert (err.count("\n"), "Traceback" in err) == (1, False), err
    assert file.name in err
    assert str(file.parent) in err
    if kind == "of another version":
        assert ("no column" in err) if file.suffix == ".parquet" else ("has format 99" in err)


def test_a_run_that_is_named_twice_is_shown_once_and_in_the_formats_that_are_asked_for(folder, tmp_path):
    assert main(["report", str(folder), str(folder), "--together", str(tmp_path / "page"), "--format", "md"]) == 0
    pages = [path.name for path in (tmp_path / "page").iterdir() if path.suffix in (".md", ".html")]
    assert pages == ["side_by_side.md"]
    header = next(line for line in (tmp_path / "page" / pages[0]).read_text("utf-8").splitlines() if "Task" in line)
    assert header.count("qwen2-nano") == 1
