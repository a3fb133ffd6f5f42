"""A judge in a run: a real server that grades by a script, the model under test answering by a rule."""

import gc
import json
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator

import pandas as pd
import pytest

from qwen2eval import RunConfig, load_run, run
from qwen2eval.answers.probe import MOST_PROBES
from qwen2eval.backends import BACKENDS, BackendSpec
from qwen2eval.backends.base import Backend
from qwen2eval.cli.main import main
from qwen2eval.judges.asking import find_judge
from qwen2eval.reporting.heat_map import heat_maps
from qwen2eval.requests import Answer
from tests.backends.openai_server import serve_openai
from tests.judging.judged import (
    N_DOCS,
    TASK,
    config_of,
    found_early,
    grade,
    half_mute,
    judge_words,
    run_here,
    whole_scores,
)
from tests.killing import wait_for
from tests.long_context.scripted import always, depth_percent, never, qwen_like_tokenizer, spec_of


def test_every_answer_is_graded_and_the_grades_are_metrics(words, server):
    finished = run_here(words, *judge_words(server.chat_url))
    scores = whole_scores(finished)
    assert list(scores) == ["acc", "judge_score", "judge_found"]  # the keyword rule stays the first
    assert [scores[name]["value"] for name in scores] == [0.5, 6.5, 0.5]
    assert {row["n_unscored"] for row in scores.values()} == {0}
    rows = finished.samples(TASK)
    for row in rows.to_dict("records"):
        expected = 10 if row["target"] in row["response"] else 3
        assert (row["judge_score"], row["judge_found"]) == (expected, expected >= 7)
        assert row["judge_response"].endswith(f"Rating: [[{expected}]]")
    assert {flag.check for flag in finished.info.health[TASK].flags}.isdisjoint({"not_judged", "no_rating"})


def test_judge_is_asked_greedily_in_one_message(words, server):
    finished = run_here(words, *judge_words(server.chat_url))
    body = server.requests[0]
    assert (body["temperature"], body["max_tokens"], body["model"]) == (0, 256, "grader")
    (message,) = body["messages"]
    assert message["role"] == "user"
    assert message["content"].startswith("You are a fair judge of answers.")
    doc = json.loads((finished.path / f"samples_{TASK}.jsonl").read_text().split("\n")[0])["doc"]
    assert any(doc["question"] in server.prompt_text(body) for body in server.requests)


def test_verdicts_may_be_longer(words, server):
    run_here(words, *judge_words(server.chat_url, "max_gen_toks=2048"), "--limit", "1")
    assert [body["max_tokens"] for body in server.requests] == [2048]


def test_run_tells_who_judged(words, server):
    told = run_here(words, *judge_words(server.chat_url)).info
    judge = told.judge
    assert (judge.backend, judge.name, judge.error) == ("local-chat-completions", "grader", None)
    assert (judge.n_from_store, judge.n_answered, judge.n_not_judged) == (0, len(server.requests), 0)
    assert judge.args == {"base_url": server.chat_url, "model": "grader", "max_gen_toks": 256}
    assert len(judge.fingerprint) == len(judge.prompt_hashes[TASK]) == 64
    assert list(told.tasks[TASK].metrics) == ["acc", "judge_score", "judge_found"]
    assert RunConfig.from_dict(told.config).judge == "local-chat-completions"
    assert told.timings.judge_seconds > 0
    results = json.loads((load_run(told.config["output_path"] + "/latest").path / "results.json").read_text())
    assert results["results"][TASK]["judge_score,none"] == 6.5
    assert results["higher_is_better"][TASK] == dict.fromkeys(("acc", "judge_score", "judge_found"), True)


def test_without_judge_nothing_is_different(words, server):
    """Keyword scores, samples and order are the same with one and without."""
    plain = run_here(words)
    judged = run_here(words, *judge_words(server.chat_url))
    assert plain.path != judged.path
    assert plain.info.judge is None
    assert plain.info.timings.judge_seconds is None
    own = judged.scores[~judged.scores["metric"].str.startswith("judge")]
    pd.testing.assert_frame_equal(own.reset_index(drop=True), plain.scores, check_exact=True)
    more = [name for name in judged.samples(TASK) if name.startswith("judge")]
    assert sorted(more) == ["judge_error", "judge_found", "judge_response", "judge_score"]
    pd.testing.assert_frame_equal(judged.samples(TASK).drop(columns=more), plain.samples(TASK), check_exact=True)


@pytest.mark.parametrize("rule", [always, never, found_early])
def test_map_of_grades_has_the_judges_scale(words, server, use_rule, rule):
    use_rule(rule)
    finished = run_here(words, *judge_words(server.chat_url))
    by_keyword, by_grade, by_found = heat_maps(finished.info, finished.score_rows())
    assert (by_grade.metric, by_grade.bottom, by_grade.top) == ("judge_score", 1, 10)
    assert (by_found.metric, by_found.top) == ("judge_found", 100)
    assert by_found.cells == by_keyword.cells
    for place, cell in by_keyword.cells.items():
        assert by_grade.cells[place].value == pytest.approx(3 + 7 * cell.value / 100)
        assert by_grade.cells[place].low is None or 1 <= by_grade.cells[place].low <= by_grade.cells[place].high <= 10
    assert (finished.path / "figures" / f"{TASK}-judge_score.svg").is_file()
    assert "`judge_score` in 1 to 10, 8 cells" in (finished.path / "report.md").read_text()


def test_equal_answers_to_a_question_are_asked_about_once(words, server, use_rule):
    use_rule(never)
    finished = run_here(words, *judge_words(server.chat_url))
    assert len(server.requests) == finished.samples(TASK)["target"].nunique() < N_DOCS
    assert whole_scores(finished)["judge_score"]["value"] == 3


def test_a_second_run_asks_nothing_and_another_judge_everything(words, server):
    first = run_here(words, *judge_words(server.chat_url))
    n_asked = len(server.requests)
    second = run_here(words, *judge_words(server.chat_url))
    # A server's stored answers are checked by asking for a few of them again
    assert len(server.requests) == n_asked + MOST_PROBES
    assert (second.info.judge.n_from_store, second.info.judge.n_answered) == (n_asked, 0)
    pd.testing.assert_frame_equal(first.scores, second.scores, check_exact=True)
    third = run_here(words, *judge_words(server.chat_url, model="other"))
    assert len(server.requests) == 2 * n_asked + MOST_PROBES
    assert third.info.judge.fingerprint != first.info.judge.fingerprint


def test_another_judge_of_the_same_name_gives_its_own_verdicts_and_is_told(words, server):
    server.script = lambda _: "Rating: [[3]]"
    run_here(words, *judge_words(server.chat_url))
    server.script = lambda _: "Rating: [[7]]"
    second = run_here(words, *judge_words(server.chat_url))
    assert whole_scores(second)["judge_score"]["value"] == 7
    assert second.info.judge.n_from_store == 0
    [note] = second.info.judge.notes
    assert "it says 'Rating: [[7]]', before 'Rating: [[3]]'" in note
    assert "stored answers were not used" in (second.path / "report.html").read_text()


def test_verdicts_without_a_rating_are_unscored_and_told(words, server, capsys):
    server.script = half_mute
    finished = run_here(words, *judge_words(server.chat_url))
    scores = whole_scores(finished)
    assert [scores["judge_score"][name] for name in ("value", "n_docs", "n_unscored")] == [10, N_DOCS, N_DOCS / 2]
    assert scores["judge_found"]["n_unscored"] == N_DOCS / 2
    assert (scores["acc"]["value"], scores["acc"]["n_unscored"]) == (0.5, 0)
    rows = finished.samples(TASK)
    mute = rows[rows["judge_response"] == "It depends."]
    assert mute["judge_score"].isna().all()
    assert mute["judge_error"].isna().all()
    said = "8 of 16 verdicts of the judge have no rating: not scored"
    assert said in " ".join(capsys.readouterr().out.split())
    assert said in (finished.path / "report.md").read_text().replace("\\", "")


def test_a_judge_that_never_rates_has_metrics_without_values(words, server):
    server.script = lambda _: "Hm."
    scores = whole_scores(run_here(words, *judge_words(server.chat_url)))
    assert list(scores) == ["acc", "judge_score", "judge_found"]
    assert pd.isna(scores["judge_score"]["value"])
    assert scores["judge_score"]["n_unscored"] == N_DOCS


def test_thoughts_are_not_shown_to_the_judge_and_unfinished_ones_are_empty_answers(words, server, use_rule):
    def thinking(document: str, needle: str) -> str:
        is_early = depth_percent(document, needle) < 50
        return f"<think>Is it {needle}?</think>{needle}" if is_early else f"<think>{needle}"

    use_rule(thinking)
    finished = run_here(words, *judge_words(server.chat_url))
    assert not any("think>" in server.prompt_text(body) for body in server.requests)
    scores = whole_scores(finished)
    assert [scores["acc"][name] for name in ("value", "n_unscored")] == [0.5, 0]
    rows = finished.samples(TASK)
    assert rows[rows["acc"] == 0]["thought_unfinished"].all()
    assert (rows[rows["acc"] == 0]["response"] == "").all()


def test_the_model_is_gone_before_a_judge_is_opened(words, monkeypatch):
    """Two models in memory at once would be too many."""
    events, seen = [], []

    class Watched(Backend):
        name = "watched"

        def __init__(self, who: str) -> None:
            self.who, self.loop = who, self  # a cycle, as torch's modules have them
            events.append(f"open {who}")
            if who == "judge":
                events.append("gone" if seen[0]() is None else "still there")
            seen.append(weakref.ref(self))

        def identity(self) -> dict:
            return {"who": self.who}

        def answer(self, requests) -> Iterator:
            yield [(i, Answer(response="[[7]]", finish_reason="stop")) for i in range(len(requests))]

        def close(self) -> None:
            events.append(f"close {self.who}")

    tokenizer = qwen_like_tokenizer()
    for who in ("scripted", "judge"):
        spec = BackendSpec(lambda _: spec_of(tokenizer), lambda *_, who=who: Watched(who))
        monkeypatch.setitem(BACKENDS, who, spec)
    gc.disable()
    try:
        finished = run_here(words, "--judge", "judge")
    finally:
        gc.enable()
    assert events == ["open scripted", "close scripted", "open judge", "gone", "close judge"]
    assert whole_scores(finished)["judge_score"]["value"] == 7


def test_a_judge_with_a_chat_template_gets_it(words, monkeypatch):
    asked = []

    class Grader(Backend):
        name = "grader"

        def identity(self) -> dict:
            return {"who": "grader"}

        def answer(self, requests) -> Iterator:
            asked.extend(requests)
            yield [(i, Answer(response=grade(r.context.split("\n\nExplain")[0]))) for i, r in enumerate(requests)]

    tokenizer = qwen_like_tokenizer()
    monkeypatch.setitem(BACKENDS, "grader", BackendSpec(lambda _: spec_of(tokenizer), lambda *_: Grader()))
    finished = run_here(words, "--judge", "grader")
    assert finished.info.judge.apply_chat_template
    assert all(r.context.startswith("<|im_start|>user\nYou are a fair judge") for r in asked)
    assert all(r.context.endswith("<|im_end|>\n<|im_start|>assistant\n") for r in asked)
    assert all(r.n_context_tokens == len(tokenizer(r.context)["input_ids"]) for r in asked)
    assert not finished.info.tasks[TASK].apply_chat_template  # of the model under test


def test_dry_run_counts_the_judges_requests(words, server, capsys):
    assert main([*words, *judge_words(server.chat_url), "--dry_run", "--limit", "5"]) == 0
    assert "judge: local-chat-completions, asked about 5 answers at most" in capsys.readouterr().out
    assert main(["plan", *words[1:], *judge_words(server.chat_url), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_judge_requests"] == N_DOCS
    assert server.requests == []
    assert main(["plan", *words[1:], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_judge_requests"] == 0


def test_limit_holds_for_the_judge(words, server):
    finished = run_here(words, *judge_words(server.chat_url), "--limit", "3")
    assert len(server.requests) == len(finished.samples(TASK)) == 3


def test_tasks_that_cannot_be_judged_run_beside_those_that_can(words, server, tiny_model, tmp_path):
    """Of a mixed run only the one is judged."""
    words[words.index("--model") + 1] = "dummy"
    words[words.index("--tasks") + 1] = f"demo_gsm8k,{tmp_path / TASK}.yaml"
    more = ["--limit", "4", "--model_args", f"tokenizer={tiny_model}"]
    finished = run_here(words, *more, *judge_words(server.chat_url))
    metrics = finished.scores.groupby("task")["metric"].unique()
    assert list(metrics[TASK]) == ["acc", "judge_score", "judge_found"]
    assert not any(name.startswith("judge") for name in metrics["demo_gsm8k"])
    assert "judge_response" not in finished.samples("demo_gsm8k")


def test_no_judge_is_asked_for():
    assert find_judge(RunConfig(), {}) is None


def test_settings_of_the_judge_come_from_a_file_too(words, server, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(
        "judge: local-chat-completions\n"
        f"judge_args: {{base_url: '{server.chat_url}', model: grader, max_gen_toks: 99}}\n"
    )
    run_here(words, "--config", str(config), "--judge_args", "max_gen_toks=77", "--limit", "1")
    assert [body["max_tokens"] for body in server.requests] == [77]


@pytest.mark.slow
def test_killed_while_judging_asks_nothing_twice(words, tiny_model, tmp_path):
    """SIGKILL after some verdicts; the same command again gives the run of one that nobody killed."""
    output = tmp_path / "killed"
    task = words[words.index("--tasks") + 1]
    common = ["--model", "dummy", "--model_args", f"tokenizer={tiny_model}", "--tasks", task]
    with serve_openai(tiny_model, model="grader", script=lambda p: f"[[{10 if '7.' in p else 3}]]") as server:
        command = ["run", *common, "--output_path", str(output), *judge_words(server.chat_url)]
        n_asked = 5
        server.misbehave("timeout", at={n_asked})
        process = subprocess.Popen([sys.executable, "-m", "qwen2eval", *command], stdout=subprocess.DEVNULL)
        wait_for(lambda: len(server.requests) == n_asked or process.poll() is not None)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (output / "latest").exists()
        assert main(command) == 0
        # the one under way when the run was killed is asked again, and so are some of the others, to compare
        assert len(server.requests) == N_DOCS + 1 + MOST_PROBES
        whole = run(config_of(common, tmp_path / "whole", server), quiet=True)
    resumed = load_run(output / "latest")
    assert resumed.info.judge.n_from_store == n_asked - 1
    pd.testing.assert_frame_equal(resumed.scores, whole.scores, check_exact=True)
    pd.testing.assert_frame_equal(resumed.samples(TASK), whole.samples(TASK), check_exact=True)
