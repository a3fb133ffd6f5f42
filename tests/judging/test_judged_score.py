"""`qwen2eval score`: a judge is asked about a finished run, and verdicts outlive a new scoring."""

from dataclasses import replace

import pandas as pd
import pytest

from qwen2eval import load_run
from qwen2eval.answers.probe import MOST_PROBES
from qwen2eval.backends import BACKENDS, BackendSpec
from qwen2eval.backends.base import Backend
from qwen2eval.cli.main import main
from qwen2eval.errors import BackendError
from qwen2eval.rescore import rescore
from tests.judging.judged import N_DOCS, TASK, half_mute, judge_words, nobody_at_home, run_here, whole_scores


def test_a_finished_run_is_judged_without_its_model(words, server, monkeypatch):
    plain = run_here(words)
    judged = run_here(words, *judge_words(server.chat_url))
    server.reset()

    def refuse(*_: object) -> Backend:
        raise AssertionError("the model under test was opened")

    spec = BACKENDS["scripted"]
    monkeypatch.setitem(BACKENDS, "scripted", BackendSpec(spec.load_spec, refuse))
    assert main(["score", str(plain.path), *judge_words(server.chat_url)]) == 0
    scored = load_run(plain.path)
    assert len(server.requests) <= MOST_PROBES  # the other run's verdicts are in the store that both share
    pd.testing.assert_frame_equal(scored.scores, judged.scores, check_exact=True)
    pd.testing.assert_frame_equal(scored.samples(TASK), judged.samples(TASK), check_exact=True)
    assert scored.info.judge == replace(judged.info.judge, n_answered=0, n_from_store=N_DOCS)
    assert scored.info.config["judge_args"] == judged.info.config["judge_args"]
    assert scored.info.health == judged.info.health


def test_verdicts_survive_a_new_scoring_without_a_judge(words, server):
    server.script = half_mute
    server.misbehave("null_content", at=[3])
    before = run_here(words, *judge_words(server.chat_url), exit_code=70)
    info, scores, rows = before.info, before.scores, before.samples(TASK)
    server.reset()
    after = rescore(before.path, quiet=True)
    assert server.requests == []
    assert after.info == info
    pd.testing.assert_frame_equal(after.scores, scores, check_exact=True)
    pd.testing.assert_frame_equal(after.samples(TASK), rows, check_exact=True)


def test_verdicts_on_answers_that_are_read_otherwise_today_are_dropped(words, server, tmp_path):
    finished = run_here(words, *judge_words(server.chat_url))
    path = tmp_path / f"{TASK}.yaml"
    steps = "[{function: regex, regex_pattern: '(don.t)', fallback: nothing}, {function: take_first}]"
    path.write_text(path.read_text() + f"filter_list: [{{name: none, filter: {steps}}}]\n")
    scored = rescore(finished.path, quiet=True)
    assert whole_scores(scored)["judge_score"]["n_unscored"] == N_DOCS
    assert scored.samples(TASK)["judge_error"].str.contains("extracts another answer").all()
    assert scored.exit_code == 70


def test_a_judge_that_gives_up_leaves_a_finished_run_as_it_was(words, server, tiny_model, capsys):
    finished = run_here(words, *judge_words(server.chat_url))
    files = {path: path.read_bytes() for path in finished.path.rglob("*") if path.is_file()}
    with nobody_at_home(tiny_model) as url:
        assert main(["score", str(finished.path), *judge_words(url)]) == 70
    assert "The judge: No answer from the server" in capsys.readouterr().err
    log = finished.path.parent / "asked"
    judge = {"batch": 1, "log": str(log)}
    with pytest.raises(
        BackendError, match="to die after 4 answers The run is unchanged; the same command asks only what is left"
    ):
        rescore(finished.path, judge="dummy", judge_args={**judge, "die_after": 4}, quiet=True)
    assert {path: path.read_bytes() for path in finished.path.rglob("*") if path.is_file()} == files
    rescore(finished.path, judge="dummy", judge_args=judge, quiet=True)
    assert len(log.read_text().split()) == N_DOCS  # four of them before it died
