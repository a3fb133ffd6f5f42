"""Bad input of every kind: one clear message, its exit code, no traceback; what was finished is kept."""

import csv
import json
import re
import socket

import pytest

from qwen2eval.cli.main import main
from qwen2eval.run_folder.folder import load_run
from tests.backends.openai_server import serve_openai
from tests.local_tasks import rows, run_apart, run_here, words, write_rows, write_task, write_tasks


@pytest.fixture
def tasks_dir(tmp_path):
    return write_tasks(tmp_path / "tasks")


@pytest.fixture
def refused(capsys):
    """Return a function that runs a command, checks its exit code and returns its one message."""

    def run(command, exit_code):
        capsys.readouterr()
        try:
            code = main(command)
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        assert (code, out) == (exit_code, ""), err
        assert err.startswith("qwen2eval")
        assert "Traceback" not in err
        return err

    return run


def requests(run):
    """Return the counts; when stored answers were given is left out."""
    return {key: value for key, value in run.info.requests.to_json().items() if key.startswith("n_")}


# what was asked for is not there


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": "pikc"}, "Unknown task 'pikc'. Did you mean 'pick'?"),
        ({"model": "dumy"}, "Unknown model 'dumy'. Did you mean 'dummy'?"),
        ({"speed": 3}, "--model dummy has no argument 'speed'; it takes batch, delay"),
        ({"tokenizer": "/nowhere"}, "'/nowhere'"),
        ({"model": "hf"}, "--model hf needs a checkpoint: --model_args pretrained="),
        ({"model": "hf", "pretrained": "/nowhere"}, "Model folder '/nowhere' does not exist"),
    ],
    ids=["task", "model", "model argument", "tokenizer", "no checkpoint", "checkpoint"],
)
def test_an_unknown_name_is_answered_with_what_there_is(tmp_path, tasks_dir, refused, change, message):
    assert message in refused(words(tasks_dir, tmp_path / "runs", **change), 64)


def test_an_unknown_flag_is_answered_with_the_nearest():
    done = run_apart(["run", "--limt", "3"])
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr == (
        "qwen2eval run: unrecognized arguments: --limt 3. Did you mean --limit? See `qwen2eval run --help`.\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--limit", "0"], "--limit 0 would leave no docs"),
        (["--limit", "x"], "argument --limit: invalid float value: 'x'. See"),
        (["--batch_size", "many"], "'many' is neither auto nor a number. See"),
        (["--model_args", "pretrained"], "'pretrained' is not key=value"),
        (["--config", "/nowhere.yaml"], "--config '/nowhere.yaml' can't be read: No such file"),
        (["--include_path", "/nowhere"], "--include_path '/nowhere' is not a folder"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_flag_that_cannot_be_used_is_named(tmp_path, refused, words, message):
    assert message in refused(["run", "--model", "dummy", "--output_path", str(tmp_path), *words], 64)


@pytest.mark.parametrize("verb", ["score", "report"])
@pytest.mark.parametrize(
    ("run_json", "message"),
    [
        (None, "is not a run folder (no run.json in it)"),
        ("{", "is not JSON"),
        ('{"schema_version": 99, "qwen2eval_version": "9.9"}', "has format 99, this qwen2eval reads 1"),
    ],
    ids=["no run", "broken", "another version"],
)
def test_a_folder_that_is_no_run_is_refused(tmp_path, refused, verb, run_json, message):
    if run_json:
        (tmp_path / "run.json").write_text(run_json)
    assert message in refused([verb, str(tmp_path)], 3)


FOREIGN = {
    "empty object": b"{}",
    "no JSON": b"not json",
    "binary": bytes(range(256)),
    "no object": b"[]",
}


@pytest.mark.parametrize("kind", [*FOREIGN, "folder"])
def test_foreign_folders_among_the_runs_are_named_once_and_passed_over(tmp_path, tasks_dir, capsys, kind):
    """Each of them made `plan` fail with a traceback."""
    output = tmp_path / "runs"
    made = run_here(tasks_dir, output, tasks="say")
    (output / "xx").mkdir()
    if kind == "folder":
        (output / "xx" / "run.json").mkdir()
    else:
        (output / "xx" / "run.json").write_bytes(FOREIGN[kind])
    capsys.readouterr()
    assert main(["plan", *words(tasks_dir, output, tasks="say")[1:]]) == 0
    err = capsys.readouterr().err
    assert err.startswith("qwen2eval: ignored a run: ")
    assert (err.count("\n"), "xx" in err) == (1, True)
    run_here(tasks_dir, output, tasks="say")
    assert main(["report", str(output / "xx"), str(made.path)]) == 3
    out, err = capsys.readouterr()
    assert (err.count("\n"), "xx" in err) == (1, True)
    assert f"{made.path}/report.html" in out


# data and task files


@pytest.mark.parametrize("data_dir", ["nowhere", "tasks"])
def test_a_benchmark_without_data_names_the_ways_to_get_it(tmp_path, tasks_dir, refused, monkeypatch, data_dir):
    monkeypatch.delenv("QWEN2EVAL_DATA", raising=False)
    err = refused(
        words(tasks_dir, tmp_path / "runs", "--data_dir", str(tmp_path / data_dir), tasks="mmlu"), exit_code=3
    )
    assert str(tmp_path / data_dir) in err
    assert "--data_dir" in err


BROKEN_ROWS = {
    "missing": (None, "is not there: Unable to find"),
    "cut off": ('{"question": "A box", "cho', "line 3: not JSON (Unterminated string"),
    "empty": ("", "holds no rows"),
}


@pytest.mark.parametrize("what", BROKEN_ROWS)
def test_a_broken_file_of_a_users_task_is_named_with_the_line(tmp_path, tasks_dir, refused, what):
    last_line, message = BROKEN_ROWS[what]
    file = tasks_dir / "other.jsonl"
    if last_line is not None:
        write_rows(file, rows(2) if last_line else [])
        file.write_text(file.read_text() + last_line)
    write_task(tasks_dir, "broken", like="say", data="other.jsonl")
    err = refused(words(tasks_dir, tmp_path / "runs", tasks="broken"), exit_code=3)
    assert "The data of task 'broken'" in err
    assert str(file) in err
    assert message in err
    assert err.count("\n") == 1


def write_mmlu(folder, last_line):
    """Write one subject in the published form, ending in a line as given."""
    for split in ("dev", "test"):
        (folder / "mmlu" / split).mkdir(parents=True, exist_ok=True)
        with (folder / "mmlu" / split / f"boxes_{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([row["question"], "1", "2", "3", "4", "A"] for row in rows(2))
            if split == "test":
                file.write(last_line)
    return folder


def write_gsm8k(folder, last_line):
    for split in ("train", "test"):
        file = write_rows(
            folder / "gsm8k" / f"{split}.jsonl", [{"question": r["question"], "answer": "#### 1"} for r in rows(6)]
        )
    file.write_text(file.read_text() + last_line)
    return folder


BROKEN_BENCHMARKS = [
    ("mmlu", write_mmlu, "How many pens?,1,2,3,A\n", "boxes_test.csv, line 3: 5 cells"),
    ("mmlu", write_mmlu, '"How many pe', "boxes_test.csv, line 3: not csv"),
    ("gsm8k", write_gsm8k, '{"question": "How many pens?"}\n', "test.jsonl, line 7: no column 'answer'"),
    ("gsm8k", write_gsm8k, '{"question": "How many pe', "test.jsonl, line 7: not JSON"),
]


@pytest.mark.parametrize(
    ("name", "write", "line", "message"),
    BROKEN_BENCHMARKS,
    ids=["csv column", "csv line", "jsonl column", "jsonl line"],
)
def test_a_broken_benchmark_file_is_named_and_the_other_task_finishes(
    tmp_path, tasks_dir, refused, capsys, name, write, line, message
):
    data = ["--data_dir", str(write(tmp_path / "data", line))]
    assert message in refused(words(tasks_dir, tmp_path / "runs", *data, tasks=name), exit_code=3)
    made = run_here(tasks_dir, tmp_path / "runs", *data, tasks=f"{name},say", exit_code=70)
    out, err = capsys.readouterr()
    assert message in err
    assert "Traceback" not in err
    assert "failed" in out
    assert made.info.status == "failed_tasks"
    assert {task: entry.status for task, entry in made.info.tasks.items()} == {name: "failed", "say": "scored"}
    assert message in made.info.tasks[name].error
    assert made.scores["task"].unique().tolist() == ["say"]
    assert main(["report", str(made.path)]) == 0
    assert message.split(": ", 1)[1] in (made.path / "report.md").read_text().replace("\\", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: mine\ndoc_to_text: [a\ndoc_to_target: b\n", "mine.yaml is not valid YAML.*line 3"),
        ("just words\n", "mine.yaml must hold `key: value` lines"),
        ("include: gone.yaml\ntask: mine\n", "gone.yaml can't be read: No such file"),
    ],
    ids=["broken", "no mapping", "include"],
)
def test_a_broken_task_file_is_named_with_the_line(tmp_path, tasks_dir, refused, text, message):
    (tasks_dir / "mine.yaml").write_text(text)
    err = refused(words(tasks_dir, tmp_path / "runs", tasks="mine"), exit_code=64)
    assert re.search(message, err, re.DOTALL), err
    made = run_here(tasks_dir, tmp_path / "runs", tasks="mine,say", exit_code=70)
    assert re.search(message, made.failed_tasks["mine"], re.DOTALL)
    assert made.info.tasks["say"].status == "scored"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"doc_to_text": "{{quesstion}}"}, "'quesstion' is undefined"),
        ({"doc_to_text": "{{question"}, "TemplateSyntaxError"),
        ({"test_split": "exam"}, "asks for the split 'exam' of its data, which has: train, test."),
        (
            {"num_fewshot": 7, "fewshot_split": "train"},
            "asks for 7 examples in each prompt, and there are 5 in the split",
        ),
        ({"metric_list": [{"metric": "exactmatch"}]}, "an unknown metric 'exactmatch'; did you mean 'exact_match'?"),
        (
            {"metric_list": [{"metric": "exactmatch", "aggregation": "mean", "higher_is_better": True}]},
            "an unknown metric 'exactmatch'; did you mean 'exact_match'?",
        ),
        (
            {"metric_list": [{"metric": "exact_match", "aggregation": "meen", "higher_is_better": True}]},
            "metric 'exact_match': an unknown aggregation 'meen'; did you mean 'mean'?",
        ),
    ],
    ids=["column", "template", "split", "examples", "metric", "metric with its aggregation", "aggregation"],
)
def test_a_task_that_does_not_fit_its_data_is_named_and_the_other_finishes(tmp_path, tasks_dir, changes, message):
    write_task(tasks_dir, "unfit", like="say", **changes)
    made = run_here(tasks_dir, tmp_path / "runs", tasks="unfit,say", exit_code=70)
    error = made.info.tasks["unfit"].error
    assert "Task 'unfit'" in error
    assert message in error
    assert made.info.tasks["say"].status == "scored"


# places


@pytest.mark.parametrize("place", ["file", "inside a file", "/proc"])
def test_an_output_folder_that_cannot_be_written_is_named(tmp_path, tasks_dir, refused, place):
    (tmp_path / "taken").write_text("")
    output = {"file": tmp_path / "taken", "inside a file": tmp_path / "taken" / "runs", "/proc": "/proc/qwen2eval"}[
        place
    ]
    err = refused(words(tasks_dir, output), exit_code=64)
    why = {"file": "it is a file", "inside a file": "Not a directory", "/proc": "No such file or directory"}[place]
    assert err == f"qwen2eval: --output_path {str(output)!r} can't be written: {why}\n"


# models that fail


def test_a_model_that_returns_only_nan_has_no_score(tmp_path, tasks_dir, capsys):
    made = run_here(tasks_dir, tmp_path / "runs", tasks="pick", nan_every=1, exit_code=70)
    assert "the model returned NaN for 6 of 6 docs: check its" in " ".join(capsys.readouterr().out.split())
    assert made.scores["value"].isna().all()
    assert made.scores["n_unscored"].tolist() == [6, 6]


def test_a_model_that_returns_some_nan_is_scored_on_the_rest(tmp_path, tasks_dir):
    made = run_here(tasks_dir, tmp_path / "runs", tasks="read", nan_every=3, exit_code=70)
    assert made.scores["n_unscored"].unique().tolist() == [1]  # of 5 distinct requests one
    assert made.scores["n_docs"].unique().tolist() == [6]
    assert made.scores["value"].notna().all()
    assert made.info.health["read"].n_nan == 1
    assert [flag.check for flag in made.info.health["read"].flags] == ["nan"]
    samples = made.samples("read")
    assert samples["error"].value_counts().to_dict() == {"the model returned NaN": 1}
    assert samples.loc[samples["error"].notna(), "word_perplexity"].isna().all()


def test_a_model_that_answers_nothing_is_a_failed_task(tmp_path, tasks_dir, refused):
    err = refused(words(tasks_dir, tmp_path / "runs", tasks="say", fail_every=1), exit_code=70)
    assert "None of the 5 requests of task 'say' was answered; the first: the dummy was set to fail" in err


def test_a_model_that_dies_midway_leaves_the_first_score_and_all_answers(tmp_path, tasks_dir, capsys):
    made = run_here(tasks_dir, tmp_path / "runs", tasks="pick,say,read", batch=2, die_after=18 + 3, exit_code=70)
    assert "qwen2eval: 2 tasks (say, read) failed: The dummy was set to die" in capsys.readouterr().err
    assert list(made.failed_tasks) == ["say", "read"]
    assert made.scores["task"].unique().tolist() == ["pick"]
    again = run_here(tasks_dir, tmp_path / "runs", tasks="pick,say,read")
    assert requests(again) == {"n_total": 30, "n_from_store": 18 + 2, "n_answered": 3 + 5, "n_failed": 0}
    assert again.scores["task"].unique().tolist() == ["pick", "say", "read"]


# servers that fail


@pytest.fixture(scope="module")
def server(tiny_model):
    with serve_openai(tiny_model) as running:
        yield running


@pytest.fixture
def served(server, tiny_model):
    server.reset()
    return {
        "model": "local-completions",
        "base_url": server.completions_url,
        "pretrained": tiny_model,
        "tokenizer": tiny_model,
        "max_retries": 0,
        "timeout": 1,
        "num_concurrent": 2,
    }


def test_a_server_that_is_not_there_is_one_message(tmp_path, tasks_dir, refused, served):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        served["base_url"] = f"http://127.0.0.1:{free.getsockname()[1]}/v1/completions"
    err = refused(words(tasks_dir, tmp_path / "runs", tasks="say", **served), exit_code=70)
    assert err.startswith(
        f"qwen2eval: No answer from the server at {served['base_url']}: connection failed: Connection"
    )
    assert err.count("\n") == 1


def test_a_server_that_never_answers_is_one_message(tmp_path, tasks_dir, refused, served, tiny_model):
    with serve_openai(tiny_model) as silent:
        silent.misbehave("timeout")
        served["base_url"] = silent.completions_url
        err = refused(words(tasks_dir, tmp_path / "runs", tasks="say", **served), exit_code=70)
    assert "no answer within 1 seconds" in err
    assert err.count("\n") == 1


# 5 distinct prompts: docs 0 and 5 are one, doc 1 is "3 red pens and 5 blue"
ONE_DOC = "3 red pens"


@pytest.mark.parametrize("fault", [500, "null_content", "closed_connection", "bad_json"])
def test_requests_that_a_server_fails_are_unscored_and_asked_again(tmp_path, tasks_dir, server, served, fault):
    server.misbehave(fault, prompt_contains=ONE_DOC)
    faulty = run_here(tasks_dir, tmp_path / "runs", tasks="say", exit_code=70, **served)
    assert requests(faulty) == {"n_total": 6, "n_from_store": 0, "n_answered": 4, "n_failed": 1}
    assert faulty.scores["n_unscored"].unique().tolist() == [1]
    assert faulty.samples("say").query("error.notna()")["doc_id"].unique().tolist() == [1]
    assert [flag.check for flag in faulty.info.health["say"].flags].count("failed_requests") == 1
    server.reset()
    mended = run_here(tasks_dir, tmp_path / "runs", tasks="say", **served)
    assert requests(mended) == {"n_total": 6, "n_from_store": 4, "n_answered": 1, "n_failed": 0}
    # before stored answers are used, three of them are asked for again
    assert [ONE_DOC in server.prompt_text(body) for body in server.requests] == [False, False, False, True]
    assert mended.scores["n_unscored"].unique().tolist() == [0]


def test_a_server_that_is_slow_with_one_request_loses_only_that(tmp_path, tasks_dir, tiny_model, served):
    with serve_openai(tiny_model) as slow:
        slow.misbehave("timeout", prompt_contains=ONE_DOC)
        served["base_url"] = slow.completions_url
        made = run_here(tasks_dir, tmp_path / "runs", tasks="say", exit_code=70, **served)
    assert requests(made)["n_failed"] == 1
    assert made.scores["n_unscored"].unique().tolist() == [1]


def test_empty_answers_are_answers_that_are_counted(tmp_path, tasks_dir, server, served):
    server.misbehave("empty_text", prompt_contains=ONE_DOC)
    made = run_here(tasks_dir, tmp_path / "runs", tasks="say", **served)
    assert made.info.health["say"].n_empty == 1
    assert "empty" in [flag.check for flag in made.info.health["say"].flags]
    assert made.scores["n_unscored"].unique().tolist() == [0]
    assert requests(run_here(tasks_dir, tmp_path / "runs", tasks="say", **served))["n_from_store"] == 5


@pytest.mark.parametrize("fault", ["zeros", "no_echo"])
def test_a_server_that_scores_no_prompts_fails_that_task_only(tmp_path, tasks_dir, server, served, fault):
    server.misbehave(fault, prompt_contains="Three apples")  # what the backend tries first
    made = run_here(tasks_dir, tmp_path / "runs", tasks="say,pick", exit_code=70, **served)
    assert {name: task.status for name, task in made.info.tasks.items()} == {"say": "scored", "pick": "failed"}


def test_nan_from_a_server_is_unscored_and_asked_again(tmp_path, tasks_dir, server, served):
    server.misbehave("nan", prompt_contains="How many pens?\nAnswer: 8")
    faulty = run_here(tasks_dir, tmp_path / "runs", tasks="pick", exit_code=70, **served)
    assert faulty.info.health["pick"].n_nan >= 1
    n_kept = requests(faulty)["n_answered"] - sum("null" in response for response in faulty.samples("pick")["response"])
    server.reset()
    mended = run_here(tasks_dir, tmp_path / "runs", tasks="pick", **served)
    assert requests(mended)["n_from_store"] == n_kept
    assert mended.scores["n_unscored"].unique().tolist() == [0]


def test_the_key_of_a_server_is_in_no_file(tmp_path, tasks_dir, served):
    made = run_here(tasks_dir, tmp_path / "runs", tasks="say", auth_token="s3cr3t-t0ken", **served)
    texts = [path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert not any(b"s3cr3t-t0ken" in text for text in texts)
    assert json.loads((made.path / "run.json").read_text())["config"]["model_args"]["auth_token"] == "***"
    assert load_run(made.path).info.model.backend == "local-completions"


def test_a_metric_named_like_a_column_of_every_task_loses_nothing(tmp_path, tasks_dir):
    """A metric called `response` once lost the whole run while its samples were written."""
    (tasks_dir / "odd_metric.py").write_text("def score(doc, results):\n    return {'response': 1.0}\n")
    task = (tasks_dir / "say.yaml").read_text().replace("task: say", "task: odd")
    (tasks_dir / "odd.yaml").write_text(task + "process_results: !function odd_metric.score\n")
    code = main(words(tasks_dir, tmp_path / "runs", tasks="odd"))
    samples = load_run(tmp_path / "runs" / "latest").samples("odd")
    assert code in (0, 70)
    assert samples["metric_response"].dropna().eq(1.0).all()
    assert samples["response"].map(type).eq(str).all()
