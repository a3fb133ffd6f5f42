"""The response store: an answer is found again by exactly its own model and request, and by nobody else."""

import json
import math
import resource
import shutil
import sqlite3
import subprocess
import sys
import time

import pytest

from qwen2eval.answers.store import STORE_VERSION, AnswerKey, ResponseStore
from qwen2eval.errors import StoreError
from qwen2eval.requests import Answer
from qwen2eval.run_folder.folder import load_run
from tests.backends.openai_server import save_tiny_model
from tests.local_tasks import assert_same_results, run_here, words, write_tasks

IDENTITY = {
    "backend": "hf",
    "lm_eval": "0.4.13",
    "transformers": "5.0",
    "torch": "2.6",
    "weights": "sha256:12",
    "dtype": "float32",
    "args": "{}",
    "tokenizer": "ab",
    "chat_template": None,
    "max_length": 512,
}
KEY = AnswerKey(b"digest", seed=7, repeat=1)
ANSWER = Answer(logprob=-1.25, is_greedy=True)


@pytest.fixture
def tasks_dir(tmp_path):
    return write_tasks(tmp_path / "tasks")


@pytest.fixture
def store(tmp_path):
    with ResponseStore(tmp_path / "runs" / "store.sqlite") as opened:
        opened.add(opened.model_id(IDENTITY), "loglikelihood", [(KEY, ANSWER)])
        yield opened


def read_store(folder, query="SELECT COUNT(*) FROM answers"):
    with sqlite3.connect(folder / "store.sqlite") as db:
        found = db.execute(query).fetchall()
    db.close()
    return found


# one store


def test_the_same_model_and_request_find_the_answer(store):
    assert list(store.find(store.model_id(dict(reversed(IDENTITY.items()))), [KEY])) == [(KEY, ANSWER)]


@pytest.mark.parametrize("part", IDENTITY)
def test_a_model_that_differs_in_one_part_finds_nothing(store, part):
    assert list(store.find(store.model_id({**IDENTITY, part: "another"}), [KEY])) == []


@pytest.mark.parametrize("other", [KEY._replace(digest=b"x"), KEY._replace(seed=8), KEY._replace(repeat=0)], ids=repr)
def test_a_request_that_differs_in_one_part_finds_nothing(store, other):
    assert list(store.find(store.model_id(IDENTITY), [other])) == []


@pytest.mark.parametrize(
    "answer",
    [
        Answer(response="", finish_reason="length", n_response_tokens=0),
        Answer(response="a\0b\n¤", finish_reason=None),
        Answer(logprob=-math.inf, is_greedy=False),
        Answer(logprob=-0.1234567890123456789),
    ],
    ids=repr,
)
def test_every_answer_comes_back_as_it_was(store, answer):
    model_id = store.model_id(IDENTITY)
    key = AnswerKey(b"new", 0, 0)
    store.add(model_id, "generate_until", [(key, answer)])
    assert dict(store.find(model_id, [key, KEY])) == {key: answer, KEY: ANSWER}


def test_the_first_answer_stays(store):
    model_id = store.model_id(IDENTITY)
    store.add(model_id, "loglikelihood", [(KEY, Answer(logprob=-9.0, is_greedy=False))])
    assert dict(store.find(model_id, [KEY])) == {KEY: ANSWER}


def test_answers_outlive_the_process_that_gave_them(store):
    with ResponseStore(store.path) as other:
        assert len(other) == 1


# files that are no store of ours


def write_other_version(path):
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {STORE_VERSION + 1}")
    db.close()


def write_other_program(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE notes (text)")
    db.close()


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_other_version, f"of version {STORE_VERSION + 1}, this qwen2eval reads version {STORE_VERSION}: move"),
        (write_other_program, "of version 0"),
        (lambda path: path.write_text("not a database " * 50), "not a database.*move it away"),
        (lambda path: path.mkdir(), "can't be opened"),
    ],
    ids=["another version", "another program's", "no database", "a folder"],
)
def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path, tasks_dir, capsys, write, message):
    output = tmp_path / "runs"
    output.mkdir()
    write(output / "store.sqlite")
    before = (output / "store.sqlite").is_file() and (output / "store.sqlite").read_bytes()
    with pytest.raises(StoreError, match=message):
        ResponseStore(output / "store.sqlite")
    assert before == ((output / "store.sqlite").is_file() and (output / "store.sqlite").read_bytes())
    from qwen2eval.cli.main import main

    assert main(words(tasks_dir, output, tasks="say")) == 3
    assert capsys.readouterr().err.startswith("qwen2eval: The response store ")


def test_a_full_disk_is_one_message_and_keeps_what_was_answered(tmp_path, tasks_dir):
    """SQLite's own error used to end the run with a traceback."""
    output = tmp_path / "runs"
    command = [sys.executable, "-m", "qwen2eval", *words(tasks_dir, output, tasks="say", batch=1)]

    def limit_files_to(n_bytes):
        return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))

    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit_files_to(40_000))
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("qwen2eval: The response store ")
    assert done.stderr.count("\n") == 1
    [(n_kept,)] = read_store(output)
    assert run_here(tasks_dir, output, tasks="say").info.requests.n_from_store == n_kept


# many at once

OPEN_AT_ONCE = """
import sys, time
from pathlib import Path
from qwen2eval.requests import Answer
from qwen2eval.answers.store import AnswerKey, ResponseStore
folder, me, n_rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
begin = float(sys.stdin.readline())
for round in range(n_rounds):
    at = begin + 0.05 * round
    time.sleep(max(0, at - time.time() - 0.002))
    while time.time() < at:
        pass
    with ResponseStore(folder / f"{round}.sqlite") as store:
        model_id = store.model_id({"model": "one"})
        for i in range(10):
            store.add(model_id, "generate_until", [(AnswerKey(bytes([me, i]), 0, 0), Answer(response=f"{me} {i}"))])
"""


def test_processes_make_and_fill_one_store_at_once(tmp_path):
    """Of two processes that made the same store, one was told "version 0" or "database is locked"."""
    n_processes, n_rounds = 6, 25
    started = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_AT_ONCE, str(tmp_path), str(me), str(n_rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for me in range(n_processes)
    ]
    assert [process.stdout.readline() for process in started] == ["ready\n"] * n_processes
    begin = time.time() + 0.1
    for process in started:
        print(begin, file=process.stdin, flush=True)
    assert [process.communicate()[1] for process in started] == [""] * n_processes
    for number in range(n_rounds):
        with ResponseStore(tmp_path / f"{number}.sqlite") as store:
            assert len(store) == 10 * n_processes
            found = store.find(store.model_id({"model": "one"}), [AnswerKey(bytes([me, 3]), 0, 0) for me in range(6)])
            assert [answer.response for _, answer in found] == [f"{me} 3" for me in range(6)]


@pytest.mark.slow
def test_two_runs_at_once_share_a_store_and_keep_a_folder_each(tmp_path, tasks_dir):
    """Runs of the same second had the same folder name, and the second one replaced the first."""
    output = tmp_path / "runs"
    command = [sys.executable, "-m", "qwen2eval", *words(tasks_dir, output, batch=2, delay=0.01)]
    started = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in "12"]
    assert [(process.communicate()[1], process.returncode) for process in started] == [("", 0), ("", 0)]
    first, second = (load_run(path.parent) for path in sorted(output.glob("*_dummy_*/run.json")))
    assert_same_results(first, second)
    assert {first.info.run_id, second.info.run_id} == {first.path.name, second.path.name}


# whole runs on one store


def from_store(run):
    return run.info.requests.n_from_store


def test_the_same_run_again_asks_nothing(tmp_path, tasks_dir):
    first = run_here(tasks_dir, tmp_path / "runs")
    again = run_here(tasks_dir, tmp_path / "runs")
    assert from_store(first) == 0
    assert again.info.requests.n_answered == 0
    assert from_store(again) == first.info.requests.n_answered
    assert again.path != first.path
    assert_same_results(first, again)


@pytest.mark.parametrize(
    ("task", "change"),
    [
        ("say", {"seed": 1}),
        ("say", ["--gen_kwargs", "max_gen_toks=7"]),
        ("say", ["--gen_kwargs", "temperature=0.5"]),
        ("say", ["--system_instruction", "Count."]),
        ("pick", ["--num_fewshot", "1"]),
        ("draw", ["--seed", "0,1,2,1234"]),
    ],
    ids=str,
)
def test_another_model_protocol_or_seed_gets_none_of_the_answers(tmp_path, tasks_dir, task, change):
    more, model_args = (change, {}) if isinstance(change, list) else ([], change)
    first = run_here(tasks_dir, tmp_path / "runs", tasks=task)
    other = run_here(tasks_dir, tmp_path / "runs", *more, tasks=task, **model_args)
    assert from_store(other) == 0
    assert other.info.requests.n_answered == first.info.requests.n_answered
    alone = run_here(tasks_dir, tmp_path / "alone", *more, tasks=task, **model_args)
    assert_same_results(other, alone)


def test_a_seed_of_sampling_leaves_greedy_answers_alone(tmp_path, tasks_dir):
    first = run_here(tasks_dir, tmp_path / "runs", tasks="say")
    other = run_here(tasks_dir, tmp_path / "runs", "--seed", "0,1,2,1234", tasks="say")
    assert from_store(other) == first.info.requests.n_answered


def test_repeats_are_answers_of_their_own(tmp_path, tasks_dir):
    samples = run_here(tasks_dir, tmp_path / "runs", tasks="draw").samples("draw")
    assert samples.groupby("doc_id")["repeat"].apply(list).tolist() == [[0, 1, 2]] * 6
    assert (samples.groupby("doc_id")["response"].nunique() == 3).all()
    # 6 docs, of which the last asks what the first does
    assert read_store(tmp_path / "runs", "SELECT repeat, COUNT(*) FROM answers GROUP BY repeat") == [
        (0, 5),
        (1, 5),
        (2, 5),
    ]


@pytest.mark.parametrize("fault", ["nan_every", "fail_every"])
def test_nan_and_failures_are_asked_again(tmp_path, tasks_dir, fault):
    faulty = run_here(tasks_dir, tmp_path / "runs", tasks="pick", exit_code=70, **{fault: 3})
    assert faulty.scores["n_unscored"].tolist() == [6, 6]
    [(n_kept,)] = read_store(tmp_path / "runs")
    assert n_kept == 12  # of 18
    assert read_store(tmp_path / "runs", "SELECT COUNT(*) FROM answers WHERE logprob IS NULL") == [(0,)]
    mended = run_here(tasks_dir, tmp_path / "runs", tasks="pick")
    assert from_store(mended) == n_kept
    assert mended.info.requests.n_answered == 6
    assert_same_results(mended, run_here(tasks_dir, tmp_path / "alone", tasks="pick"))


@pytest.mark.slow
def test_a_second_checkpoint_never_gets_the_first_ones_answers(tmp_path, tasks_dir, tiny_model):
    """Not in another folder, and not in the same folder with other weights, as after more training."""
    model = shutil.copytree(tiny_model, tmp_path / "model")
    other = save_tiny_model(tmp_path / "other", seed=1)
    shared = {"tasks": "pick,say", "model": "hf"}
    first = run_here(tasks_dir, tmp_path / "runs", pretrained=model, **shared)
    second = run_here(tasks_dir, tmp_path / "runs", pretrained=other, **shared)
    assert from_store(second) == 0
    assert not second.samples("say")["response"].equals(first.samples("say")["response"])
    assert_same_results(second, run_here(tasks_dir, tmp_path / "alone", pretrained=other, **shared))
    shutil.copy(other / "model.safetensors", model / "model.safetensors")
    third = run_here(tasks_dir, tmp_path / "runs", pretrained=model, **shared)
    assert_same_results(third, second)
    identities = [json.loads(row[0]) for row in read_store(tmp_path / "runs", "SELECT identity FROM models")]
    assert all(identity.keys() == IDENTITY.keys() for identity in identities)
    assert len({identity["weights"] for identity in identities}) == 2


@pytest.mark.slow
def test_another_type_or_template_is_another_model(tmp_path, tasks_dir, tiny_model):
    shared = {"tasks": "say", "model": "hf", "pretrained": tiny_model}
    run_here(tasks_dir, tmp_path / "runs", **shared)
    for more, model_args in [([], {"dtype": "bfloat16"}), (["--apply_chat_template"], {})]:
        assert from_store(run_here(tasks_dir, tmp_path / "runs", *more, **shared, **model_args)) == 0
