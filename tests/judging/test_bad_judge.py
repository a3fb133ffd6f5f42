"""What is no judge, what befalls one, and what must not leak: the keyword scores stand through all of it."""

import sys
from dataclasses import replace

import pandas as pd
import pyarrow.parquet as pq
import pytest

from qwen2eval import RunConfig
from qwen2eval.answers.probe import MOST_PROBES
from qwen2eval.backends import BACKENDS, BackendSpec
from qwen2eval.backends.base import Backend
from qwen2eval.cli.main import main
from qwen2eval.errors import ConfigError, ModelError, TaskFileError
from qwen2eval.judges.asking import find_judge
from qwen2eval.long_context.niah.task import NiahTask
from qwen2eval.long_context.task import LongContextTask
from qwen2eval.requests import Answer
from qwen2eval.rescore import rescore
from qwen2eval.tasks.lm_eval_task import EvalTask
from tests.backends.openai_server import serve_openai
from tests.judging.judged import (
    N_DOCS,
    TASK,
    ClashingTask,
    grade,
    judge_args,
    judge_words,
    nobody_at_home,
    run_here,
    whole_scores,
)
from tests.long_context.scripted import qwen_like_tokenizer, spec_of

KEY = "sk-judge-0123456789"


@pytest.mark.slow
def test_a_server_that_is_not_there_leaves_the_keyword_scores(words, server, tiny_model, capsys):
    with nobody_at_home(tiny_model) as url:
        finished = run_here(words, *judge_words(url), exit_code=70)
    scores = whole_scores(finished)
    assert scores["acc"]["value"] == 0.5
    assert (pd.isna(scores["judge_score"]["value"]), scores["judge_score"]["n_unscored"]) == (True, N_DOCS)
    assert finished.samples(TASK)["judge_error"].str.contains("No answer from the server").all()
    (flag,) = (flag for flag in finished.info.health[TASK].flags if flag.check == "not_judged")
    assert flag.level == "error"
    assert flag.message.startswith("16 of 16 answers have no verdict of the judge (the first: The judge: No answer")
    assert finished.info.judge.error is not None
    assert any("is tried again when all answers are finished" in text for text in finished.info.warnings)
    assert "not judged" in capsys.readouterr().out
    healed = rescore(finished.path, judge="local-chat-completions", judge_args=judge_args(server), quiet=True)
    assert (whole_scores(healed)["judge_score"]["value"], healed.exit_code) == (6.5, 0)


@pytest.mark.slow
def test_a_server_that_dies_leaves_what_it_said(words, server):
    server.misbehave(503, at=range(6, 1000))
    finished = run_here(words, *judge_words(server.chat_url, "max_retries=0"), exit_code=70)
    rows = finished.samples(TASK)
    assert (rows["judge_response"].notna().sum(), rows["judge_score"].notna().sum()) == (5, 5)
    assert rows["judge_error"].notna().sum() == N_DOCS - 5
    assert finished.info.judge.n_answered == 5
    assert finished.info.judge.n_not_judged == N_DOCS - 5
    assert whole_scores(finished)["acc"]["n_unscored"] == 0
    server.reset()
    whole = run_here(words, *judge_words(server.chat_url, "max_retries=0"))
    assert len(server.requests) == MOST_PROBES + N_DOCS - 5
    assert whole_scores(whole)["judge_score"]["value"] == 6.5


def test_a_judge_that_gives_up_leaves_what_it_said(words, capsys):
    finished = run_here(words, "--judge", "dummy", "--judge_args", "die_after=5,batch=1", exit_code=70)
    rows = finished.samples(TASK)
    assert rows["judge_response"].notna().sum() == 5  # without a rating, as the dummy says
    assert set(rows["judge_error"].dropna()) == {"The judge: The dummy was set to die after 5 answers"}
    assert (finished.info.judge.n_answered, finished.info.judge.n_not_judged) == (5, N_DOCS - 5)
    shown = " ".join(capsys.readouterr().out.split())
    assert "11 of 16 answers have no verdict of the judge" in shown
    assert "5 of 16 verdicts of the judge have no rating" in shown
    assert whole_scores(finished)["acc"]["n_unscored"] == 0


def test_one_refused_request_leaves_one_answer_unjudged(words, server):
    server.misbehave("null_content", at=[3])
    finished = run_here(words, *judge_words(server.chat_url), exit_code=70)
    assert whole_scores(finished)["judge_score"]["n_unscored"] == 1
    assert finished.samples(TASK)["judge_error"].dropna().str.contains("returned no text").sum() == 1


def test_keys_reach_no_file(words, tiny_model, tmp_path, monkeypatch):
    with serve_openai(tiny_model, model="grader", script=grade, api_key=KEY) as server:
        command = [*words, *judge_words(server.chat_url, f"auth_token={KEY}")]
        monkeypatch.setattr(sys, "argv", ["qwen2eval", *command])
        finished = run_here(words, *judge_words(server.chat_url, f"auth_token={KEY}"))
        assert server.requests
        rescore(
            finished.path, judge="local-chat-completions", judge_args=judge_args(server, auth_token=KEY), quiet=True
        )
        wrong = f"auth_token={KEY}-wrong"  # the server repeats it in its refusal
        refused = run_here(words, *judge_words(server.chat_url, wrong, model="third"), exit_code=70)
    assert refused.info.judge.error is not None
    assert finished.info.config["judge_args"]["auth_token"] == "***"
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        text = (
            pq.read_table(path).to_pandas().to_csv()
            if path.suffix == ".parquet"
            else path.read_bytes().decode("latin-1")
        )
        assert KEY not in text, path


@pytest.mark.slow
def test_prompts_over_the_judges_context_are_told_not_cut(words, tiny_model):
    finished = run_here(words, "--judge", "hf", "--judge_args", f"pretrained={tiny_model}", exit_code=70)
    assert finished.samples(TASK)["judge_error"].str.contains("are over the judge's 512").all()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--judge", "hff"], "The judge: Unknown model 'hff'. Did you mean 'hf'? --judge takes: demo, "),
        (["--judge", "hf"], "The judge: --judge hf needs a checkpoint: --judge_args pretrained="),
        (
            ["--judge", "local-chat-completions", "--judge_args", "modl=m,base_url=http://h"],
            "The judge: Unknown model argument 'modl' for --judge local-chat-completions. Did you mean 'model'?",
        ),
        (["--judge", "local-chat-completions"], "The judge: --judge local-chat-completions needs base_url="),
        (["--judge", ""], "--judge names no backend"),
        (["--judge_args", "model=m"], "--judge names no backend"),
        (["--judge", "dummy", "--judge_args", "max_gen_toks=0"], "--judge_args: max_gen_toks is 0"),
        (["--judge", "dummy", "--judge_args", "seed"], "--judge_args 'seed'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_no_judge_is_refused_before_anything_is_answered(words, tmp_path, capsys, more, message):
    for command in (words, ["plan", *words[1:]]):
        assert main([*command, *more]) == 64
        assert message in capsys.readouterr().err
    assert not list((tmp_path / "runs").glob("store*"))


def test_tasks_that_cannot_be_judged_are_refused_with_those_that_can(tmp_path, capsys):
    words = ["run", "--model", "dummy", "--tasks", "demo_gsm8k", "--output_path", str(tmp_path), "--judge", "dummy"]
    assert main(words) == 64
    assert (
        "--judge: no answers of demo_gsm8k can be judged. A judge is supported by needle in a haystack"
        in capsys.readouterr().err
    )
    assert main(words[:-2]) == 0
    assert main(["score", str(tmp_path / "latest"), "--judge", "dummy"]) == 64


def test_a_task_authors_methods_may_fail_on_one_answer(words, server, tmp_path):
    path = tmp_path / f"{TASK}.yaml"
    path.write_text(
        path.read_text().replace("qwen2eval.long_context.niah.task.NiahTask", "tests.judging.judged.OddTask")
    )
    finished = run_here(words, *judge_words(server.chat_url), exit_code=70)
    scores = whole_scores(finished)
    assert [scores["grade"][name] for name in ("value", "n_unscored")] == [10, 12]
    errors = finished.samples(TASK)["judge_error"].value_counts().to_dict()
    assert errors == {
        "judge_prompt failed: KeyError: 'shallow'": 4,
        "judge_metrics failed: ZeroDivisionError: three": 8,
    }


def test_metrics_that_would_overwrite_the_tasks_own_are_refused():
    task = ClashingTask({"task": TASK, "metadata": {}})
    with pytest.raises(TaskFileError, match="has the task's own metric 'acc'"):
        find_judge(RunConfig(judge="dummy"), {TASK: EvalTask(task)})


def test_a_judge_whose_weights_cannot_be_loaded_leaves_the_keyword_scores(words, monkeypatch):
    def fail(*_: object) -> Backend:
        raise ModelError("--model grader: its weights are broken")

    spec = BackendSpec(lambda _: spec_of(qwen_like_tokenizer()), fail)
    monkeypatch.setitem(BACKENDS, "grader", spec)
    finished = run_here(words, "--judge", "grader", exit_code=70)
    assert finished.info.judge.error == "The judge: --judge grader: its weights are broken"
    assert finished.info.judge.name is None
    assert whole_scores(finished)["acc"]["value"] == 0.5


@pytest.mark.parametrize("where", ["opening", "answering", "rendering"])
def test_whatever_a_judges_library_raises_leaves_the_keyword_scores(words, monkeypatch, where):
    """Only errors of ours were caught: a CUDA error of the judge ended the run in a traceback, without any score."""

    class Breaking(Backend):
        name = "grader"

        def identity(self) -> dict:
            return {"who": "grader"}

        def answer(self, requests):
            yield [(i, Answer(response="[[7]]", finish_reason="stop")) for i, _ in enumerate(requests[:1])]
            raise RuntimeError("CUDA error: an illegal memory access")

    def open_breaking(*_: object) -> Backend:
        if where == "opening":
            raise RuntimeError("CUDA error: an illegal memory access")
        return Breaking()

    def no_template(*_: object, **__: object) -> str:
        raise RuntimeError("CUDA error: an illegal memory access")

    spec = spec_of(qwen_like_tokenizer())
    spec = replace(spec, chat_template=no_template) if where == "rendering" else spec
    monkeypatch.setitem(BACKENDS, "grader", BackendSpec(lambda _: spec, open_breaking))
    finished = run_here(words, "--judge", "grader", exit_code=70)
    assert finished.info.judge.error == "The judge: RuntimeError: CUDA error: an illegal memory access"
    assert whole_scores(finished)["acc"]["value"] == 0.5
    n_judged = finished.samples(TASK)["judge_response"].notna().sum()
    assert n_judged == (1 if where == "answering" else 0)


def test_a_task_that_could_be_judged_but_names_no_metric_is_refused():
    class Mute(NiahTask):
        def judge_metrics(self, verdict: str) -> dict[str, float | None]:  # noqa: ARG002
            return {}

    with pytest.raises(TaskFileError, match="names no metric"):
        find_judge(RunConfig(judge="dummy"), {TASK: EvalTask(Mute({"task": TASK, "metadata": {}}))})
    with pytest.raises(ConfigError, match="no answers of x can be judged"):
        find_judge(RunConfig(judge="dummy"), {"x": EvalTask(LongContextTask({"task": "x", "metadata": {}}))})
