"""The main path: the same prompts however much of a task is run, resumed runs, and what a run folder holds."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest

from qwen2eval import RunConfig, load_run, run
from qwen2eval.answers.store import ResponseStore
from qwen2eval.cli.main import main
from qwen2eval.results.write import claimed_run_id
from tests.local_tasks import ALL, KINDS, assert_same_results, run_apart, run_here, write_task, write_tasks


@pytest.fixture(scope="module")
def tasks_dir(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tasks_dir):
    return run_here(tasks_dir, tmp_path_factory.mktemp("whole"))


def prompt_hashes(made, task):
    frame = made.samples(task)
    return frame[(frame["repeat"] == 0)].set_index(["filter", "doc_id"])["prompt_hash"]


@pytest.mark.parametrize("task", KINDS)
def test_a_limited_run_asks_a_part_of_the_same_prompts(tmp_path, tasks_dir, whole, task):
    part = prompt_hashes(run_here(tasks_dir, tmp_path, "--limit", "4", tasks=task), task)
    assert sorted(set(part.index.get_level_values("doc_id"))) == [0, 1, 2, 3]
    pd.testing.assert_series_equal(part, prompt_hashes(whole, task).loc[part.index])


def test_docs_that_are_picked_from_all_over_keep_their_prompts(tmp_path):
    """The docs between them draw from the same random stream, so they have to be built as well."""
    tasks_dir = write_tasks(tmp_path / "tasks")
    write_task(tasks_dir, "spread", like="pick", metadata={"version": 1.0, "cluster": "topic"})
    part = prompt_hashes(run_here(tasks_dir, tmp_path / "runs", "--limit", "3", tasks="spread"), "spread")
    assert part.index.get_level_values("doc_id").tolist() == [0, 1, 3]
    all_docs = prompt_hashes(run_here(tasks_dir, tmp_path / "runs", tasks="spread"), "spread")
    pd.testing.assert_series_equal(part, all_docs.loc[part.index])


def test_examples_are_drawn_at_random_so_that_equal_prompts_mean_something(whole):
    """Doc 5 asks what doc 0 asks; only their examples differ."""
    prompts = whole.samples("pick")["prompt"]
    assert prompts[0].splitlines()[-2:] == prompts[5].splitlines()[-2:]
    assert prompts[0] != prompts[5]


def test_a_run_after_a_limited_one_asks_only_the_rest(tmp_path, tasks_dir, whole):
    limited = run_here(tasks_dir, tmp_path, "--limit", "4")
    resumed = run_here(tasks_dir, tmp_path)
    n_limited, n_whole = (made.info.requests.n_answered for made in (limited, whole))
    # the last doc of `say`, `read` and `draw` (three repeats) asks what the first asks
    assert (n_limited, n_whole) == (4 * (3 + 1 + 1 + 3), 6 * 3 + 5 * (1 + 1 + 3))
    counts = resumed.info.requests
    assert (counts.n_total, counts.n_from_store) == (6 * (3 + 1 + 1 + 3), n_limited)
    assert (counts.n_answered, counts.n_failed) == (n_whole - n_limited, 0)
    assert_same_results(resumed, whole)


def test_a_limited_run_after_a_whole_one_asks_nothing(tmp_path, tasks_dir):
    run_here(tasks_dir, tmp_path)
    assert run_here(tasks_dir, tmp_path, "--limit", "2").info.requests.n_answered == 0


def test_tasks_share_the_answers_to_equal_requests(tmp_path):
    tasks_dir = write_tasks(tmp_path / "tasks")
    write_task(tasks_dir, "echo", like="say")
    made = run_here(tasks_dir, tmp_path / "runs", tasks="say,echo")
    counts = made.info.requests
    assert (counts.n_total, counts.n_from_store, counts.n_answered, counts.n_failed) == (12, 5, 5, 0)
    assert counts.stored_from is None  # another task of this run asked for them
    assert made.samples("say")["response"].tolist() == made.samples("echo")["response"].tolist()


def test_python_and_the_command_line_give_the_same(tmp_path, tasks_dir, whole):
    config = RunConfig(
        model="dummy",
        tasks=tuple(ALL.split(",")),
        include_path=(str(tasks_dir),),
        output_path=str(tmp_path),
        offline=True,
    )
    made = run(config, quiet=True)
    assert_same_results(made, whole)
    assert_same_results(load_run(made.path), made)


def test_a_run_folder_holds_what_the_guide_says(whole):
    files = {p.relative_to(whole.path).as_posix() for p in whole.path.rglob("*") if p.is_file()}
    per_task = [f(name) for name in KINDS for f in ("samples/{}.parquet".format, "samples_{}.jsonl".format)]
    expected = ["run.json", "scores.parquet", "scores.csv", "results.json", "report.html", "report.md", *per_task]
    assert files == set(expected)
    assert whole.info.run_id == whole.path.name
    assert (whole.path.parent / "latest").resolve() == whole.path
    assert list(whole.info.tasks) == list(KINDS)
    assert [whole.info.tasks[name].n_docs for name in KINDS] == [6] * 4
    pd.testing.assert_frame_equal(pd.read_csv(whole.path / "scores.csv"), whole.scores, check_dtype=False)
    results = json.loads((whole.path / "results.json").read_text())
    acc = whole.scores.query("task == 'pick' and metric == 'acc'")["value"].item()
    assert results["results"]["pick"]["acc,none"] == acc


def test_runs_of_one_second_get_names_of_their_own(tmp_path):
    """The second one replaced the first."""
    with claimed_run_id(tmp_path, "now") as first, claimed_run_id(tmp_path, "now") as second:
        assert (first, second) == ("now", "now-2")
        (tmp_path / first).mkdir()
    with claimed_run_id(tmp_path, "now") as third:
        assert third == "now-2"
    assert [path.name for path in tmp_path.iterdir()] == ["now"]


def test_nothing_but_runs_and_the_store_is_left(whole):
    left = {p.name for p in whole.path.parent.iterdir()} - {"store.sqlite", "latest", whole.path.name}
    assert left == set()


def test_a_tasks_hash_does_not_depend_on_the_model_or_the_place(tmp_path, tasks_dir, whole):
    """lm-eval puts the model's arguments among the task's metadata."""
    other = run_here(tasks_dir, tmp_path, "--data_dir", str(tmp_path), tasks="say", seed=1)
    assert other.info.tasks["say"].task_hash == whole.info.tasks["say"].task_hash


def test_the_store_can_be_read_while_nobody_runs(whole):
    with ResponseStore(whole.path.parent / "store.sqlite") as store:
        assert len(store) == whole.info.requests.n_answered


def test_what_a_killed_run_left_behind_is_cleared(tmp_path):
    from qwen2eval.results.write import clear_leftovers

    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    pid = dead.stdout.strip()
    for name in (
        f".a_b.c.{pid}.partial",
        f".d_e.{pid}.old",
        f".f.{pid}.old",
        "f",
        f".g.{os.getpid()}.partial",
        ".cache.d.x",
    ):
        (tmp_path / name).mkdir()
    clear_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".cache.d.x", f".g.{os.getpid()}.partial", "d_e", "f"]


def test_a_fault_of_the_report_costs_nothing_but_the_report(tmp_path):
    """A setting that matplotlib refuses lost the whole run folder, each time the command was given again."""
    command = ["run", "--tasks", "demo_niah", "--limit", "6", "--output_path", str(tmp_path)]
    done = run_apart(command, MPLBACKEND="nonsense")
    assert done.returncode == 70, done.stderr
    assert "Traceback" not in done.stderr
    made = load_run(tmp_path / "latest")
    (line,) = [line for line in done.stderr.splitlines() if "report" in line]
    assert "'nonsense' is not a valid value" in line
    assert line.endswith(f"`qwen2eval report {made.path}` does it again")
    assert len(made.samples("demo_niah")) == 6
    assert not (made.path / "figures").exists() or not list((made.path / "figures").iterdir())
    again = run_apart(["report", str(made.path)], MPLBACKEND="nonsense")
    assert (again.returncode, again.stdout.strip()) == (70, "")
    assert main(["report", str(made.path)]) == 0
    assert len(list((made.path / "figures").iterdir())) == 4


def test_a_report_that_was_never_written_is_made_by_report(tmp_path, tasks_dir):
    """As after a kill between the folder's renaming and its report."""
    made = run_here(tasks_dir, tmp_path, tasks="say")
    pages = {name: (made.path / name).read_text() for name in ("report.html", "report.md")}
    for name in pages:
        (made.path / name).unlink()
    assert main(["report", str(made.path)]) == 0
    assert {name: (made.path / name).read_text() for name in pages} == pages


def test_a_run_and_report_show_the_same_examples(tmp_path):
    """A run's own report looked at the first 50 docs of a task only."""
    tasks_dir = write_tasks(tmp_path / "tasks", n_docs=70)
    made = run_here(tasks_dir, tmp_path / "runs", tasks="read", nan_every=60, exit_code=70)
    page = (made.path / "report.md").read_text()
    assert "**doc 59: unscored**" in page
    assert main(["report", str(made.path)]) == 0
    assert (made.path / "report.md").read_text() == page
