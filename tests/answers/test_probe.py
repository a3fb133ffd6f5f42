"""Stored answers of a server are used while it has the same model, and refused when another one is behind its name."""

from itertools import count

import pytest

from qwen2eval.answers.probe import MOST_PROBES, is_same, pick_probes, probe
from qwen2eval.answers.store import AnswerKey
from qwen2eval.errors import BackendError
from qwen2eval.planning.planned import PlannedRequest
from qwen2eval.prompts import PromptText
from qwen2eval.requests import Answer
from tests.backends.openai_server import serve_openai
from tests.local_tasks import run_here, write_tasks

N_REQUESTS = 5
"""Distinct ones of the task `say`."""


@pytest.fixture
def tasks_dir(tmp_path):
    return write_tasks(tmp_path / "tasks")


@pytest.fixture(scope="module")
def server(tiny_model):
    with serve_openai(tiny_model) as opened:
        yield opened


@pytest.fixture
def ask(server, tasks_dir, tmp_path):
    """Return a function that runs `say` on the server, which says one thing, and returns the run and what it asked."""

    def run(says, *more, **about):
        server.requests.clear()
        server.script, server.about = says if callable(says) else lambda _prompt: says, about
        model = {"model": "local-chat-completions", "base_url": server.chat_url, "pretrained": server.model}
        made = run_here(tasks_dir, tmp_path / "runs", "--apply_chat_template", *more, tasks="say", **model)
        return made, len(server.requests)

    return run


def counts(run):
    requests = run.info.requests
    return requests.n_from_store, requests.n_answered


def test_another_model_of_the_same_name_gets_none_of_the_answers(ask):
    """Not one request was asked, and the first model's scores were reported as the second one's."""
    first, n_asked = ask("It is #### 5")
    assert (counts(first), n_asked) == ((0, N_REQUESTS), N_REQUESTS)
    second, _ = ask("It is #### 6")
    assert counts(second) == (0, N_REQUESTS)
    assert set(second.samples("say")["response"]) == {"It is #### 6"}
    [warning] = second.info.warnings
    assert "5 stored answers were not used" in warning
    assert "it says 'It is #### 6', before 'It is #### 5'" in warning
    # Answers of both are kept apart, so neither model is ever given the other one's
    for says in ("It is #### 5", "It is #### 6"):
        again, n_asked = ask(says)
        assert counts(again) == (N_REQUESTS, 0)
        assert set(again.samples("say")["response"]) == {says}
        assert n_asked <= 3 * MOST_PROBES


def test_the_same_model_is_asked_a_few_times_and_the_store_is_named(ask, capsys):
    ask("It is #### 5", root="/models/a", owned_by="vllm")
    capsys.readouterr()
    again, n_asked = ask("It is #### 5", root="/models/a", owned_by="vllm")
    assert (counts(again), n_asked) == ((N_REQUESTS, 0), MOST_PROBES)
    shown = " ".join(capsys.readouterr().out.split())
    assert f"{N_REQUESTS} of {N_REQUESTS} answers from the store (answered 20" in shown
    assert again.info.requests.stored_from <= again.info.requests.stored_to
    assert f"0 answered, {N_REQUESTS} from the store (answered 20" in (again.path / "report.md").read_text()


def test_what_a_server_says_of_its_model_tells_models_apart(ask):
    ask("It is #### 5", root="/models/a")
    other, n_asked = ask("It is #### 5", root="/models/b")
    assert (counts(other), n_asked) == ((0, N_REQUESTS), N_REQUESTS)
    assert other.info.warnings == ()


def test_fresh_asks_for_everything_and_replaces_what_was_stored(ask):
    ask("It is #### 5")
    fresh, n_asked = ask("It is #### 6", "--fresh")
    assert (counts(fresh), n_asked) == ((0, N_REQUESTS), N_REQUESTS)
    again, _ = ask("It is #### 6")
    assert counts(again) == (N_REQUESTS, 0)
    assert again.info.warnings == ()


def test_a_server_that_does_not_repeat_itself_keeps_its_answers(ask):
    number = count()
    ask(lambda _prompt: f"It is hard to say, perhaps {next(number)}")
    again, _ = ask(lambda _prompt: f"It is hard to say, perhaps {next(number)}")
    assert counts(again) == (N_REQUESTS, 0)
    other, _ = ask(lambda _prompt: f"Number {next(number)}, without a doubt")
    assert counts(other) == (0, N_REQUESTS)


# on plain values


def planned(number, *, temperature=0.0, kind="generate_until"):
    gen_kwargs = {"temperature": temperature} if kind == "generate_until" else None
    return PlannedRequest(number, 0, kind, PromptText(("x" * (number + 1),)), "", gen_kwargs, bytes([number]))


def key(number):
    return AnswerKey(bytes([number]), 0, 0)


def test_the_oldest_and_the_newest_answer_are_asked_for_again():
    """A run on another model may have filled a part of the store before it was killed."""
    stored = {key(n): Answer(response="yes", answered_at=f"2026-01-{n + 1:02}") for n in range(20)}
    requests = {key(n): planned(n) for n in range(20)}
    assert set(pick_probes(stored, requests)) >= {key(0), key(19)}


def test_sampled_answers_are_compared_only_where_there_are_no_others():
    requests = {key(0): planned(0, temperature=1.0), key(1): planned(1)}
    stored = {one: Answer(response="yes") for one in requests}
    assert pick_probes(stored, requests) == [key(1)]
    only = {key(0): requests[key(0)]}
    number = count()
    shown = probe({key(0): Answer(response="yes")}, only, lambda _key: Answer(response=str(next(number))))
    assert shown.refusal is None
    assert "sampled" in shown.doubt
    assert probe({key(0): Answer(response="yes")}, only, lambda _key: Answer(response="no")).refusal is not None


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [(-8.0, -8.1, True), (-8.0, -8.2, False), (-0.01, -0.05, True), (-0.01, -0.2, False), (-300.0, -302.0, True)],
)
def test_log_probabilities_may_differ_by_what_rounding_does(before, now, same):
    assert is_same(Answer(logprob=before), Answer(logprob=now)) == same


def test_a_probe_that_fails_uses_nothing():
    with pytest.raises(BackendError, match="--fresh"):
        probe({key(0): Answer(response="a")}, {key(0): planned(0)}, lambda _key: Answer(error="HTTP 500"))
