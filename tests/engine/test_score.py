"""Scoring with shared prefixes against one forward pass a request; tolerance 2e-5 as for the model."""

import numpy as np
import pytest
import torch

from qwen2eval.engine import Engine, EngineOptions
from qwen2eval.engine.score import LOGIT_ROWS, Failure, ScoreRequest
from tests.engine.conftest import VARIANTS, mixed_requests, naive_score, tokens

TOLERANCE = 2e-5


def collect(batches):
    answers = {}
    for batch in batches:
        assert batch, "an empty batch is no batch"
        for index, answer in batch:
            assert index not in answers
            answers[index] = answer
    return answers


def kv_bytes(model, n_tokens):
    return n_tokens * model.config.kv_bytes_per_token(dtype="float32")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("limits", ["roomy", "short-passes", "evicting"])
def test_equals_one_request_at_a_time(open_tiny, variant, limits):
    model, requests = open_tiny(variant), mixed_requests()
    options = {
        "roomy": EngineOptions(),
        "short-passes": EngineOptions(pass_tokens=16),
        "evicting": EngineOptions(pass_tokens=64, kv_bytes=kv_bytes(model, 130)),
    }[limits]
    engine = Engine(model, options)
    answers = collect(engine.score(requests))
    assert sorted(answers) == list(range(len(requests)))
    for index, request in enumerate(requests):
        wanted = naive_score(model, request)
        assert answers[index].logprob == pytest.approx(wanted.logprob, abs=TOLERANCE * len(request.continuation))
        assert answers[index].is_greedy == wanted.is_greedy
    assert engine.memory.used_bytes == 0
    assert engine.stats.n_tokens_saved > engine.stats.n_tokens_computed


def test_greedy_continuations_are_told(dense):
    rng = np.random.default_rng(1)
    context, chosen = tokens(rng, 20), []
    for _ in range(4):
        ids = torch.from_numpy(np.concatenate((context, np.array(chosen, np.int64))))[None]
        chosen.append(int(dense(ids)[0, -1].argmax()))
    other = [*chosen[:-1], (chosen[-1] + 1) % 97]
    requests = [ScoreRequest(context, np.array(c)) for c in (chosen, other)]
    answers = collect(Engine(dense).score(requests))
    assert [answers[0].is_greedy, answers[1].is_greedy] == [True, False]


def test_shared_prefixes_are_computed_once(dense):
    rng = np.random.default_rng(2)
    examples = tokens(rng, 200)
    contexts = [np.concatenate((examples, tokens(rng, 10))) for _ in range(5)]
    requests = [ScoreRequest(context, np.array([choice])) for context in contexts for choice in range(4)]
    engine = Engine(dense)
    collect(engine.score(requests))
    assert engine.stats.n_tokens_asked == 20 * 210
    assert engine.stats.n_tokens_computed == 200 + 5 * 10


@pytest.mark.parametrize("pass_tokens", [None, 64])
def test_answers_do_not_depend_on_what_else_is_left_to_ask(open_tiny, pass_tokens):
    """A killed run that goes on gives what an unkilled one gives, but for the last bits of sums."""
    model, requests = open_tiny("dense"), mixed_requests()
    engine = Engine(model, EngineOptions(pass_tokens=pass_tokens))
    whole = collect(engine.score(requests))
    for seed in range(8):
        wanted = np.flatnonzero(np.random.default_rng(seed).random(len(requests)) < 0.3).tolist()
        some = collect(engine.score(requests, wanted=wanted))
        assert sorted(some) == wanted
        assert [some[i].logprob for i in wanted] == pytest.approx([whole[i].logprob for i in wanted], abs=5e-6)


def test_what_is_not_wanted_is_not_computed(dense):
    requests = mixed_requests()
    engine = Engine(dense)
    collect(engine.score(requests, wanted=[0]))
    assert engine.stats.n_tokens_computed <= len(requests[0].context) + len(requests[0].continuation)
    assert collect(engine.score(requests, wanted=[])) == {}


def test_long_continuations_go_through_the_head_in_blocks(dense):
    rng = np.random.default_rng(3)
    request = ScoreRequest(tokens(rng, 1), tokens(rng, 3 * LOGIT_ROWS + 5))
    for pass_tokens in (None, 50):
        answer = collect(Engine(dense, EngineOptions(pass_tokens=pass_tokens)).score([request]))[0]
        assert answer.logprob == pytest.approx(naive_score(dense, request).logprob, abs=1e-3)


def test_answers_come_as_they_finish(dense):
    """A kill loses at most a pass: each pass hands out what it finished."""
    engine = Engine(dense, EngineOptions(pass_tokens=32))
    assert sum(1 for _ in engine.score(mixed_requests())) > 10


def test_a_request_over_the_budget_says_so_and_the_others_are_answered(dense):
    rng = np.random.default_rng(4)
    long = tokens(rng, 200)
    requests = [ScoreRequest(np.concatenate((long, tokens(rng, 9))), tokens(rng, 1)) for _ in range(2)]
    requests += mixed_requests()[:6]
    answers = collect(Engine(dense, EngineOptions(kv_bytes=kv_bytes(dense, 60))).score(requests))
    assert len(answers) == len(requests)
    for index in (0, 1):
        assert isinstance(answers[index], Failure)
        assert "kv_memory_gb" in answers[index].reason
        assert "209 tokens" in answers[index].reason
    for index in range(2, len(requests)):
        assert answers[index].logprob == pytest.approx(naive_score(dense, requests[index]).logprob, abs=TOLERANCE * 6)


def test_other_errors_are_not_taken_for_it(open_tiny):
    model = open_tiny("dense")
    requests = [ScoreRequest(np.array([10_000]), np.array([1]))]
    with pytest.raises(IndexError):
        collect(Engine(model).score(requests))


def test_a_caller_that_stops_early_leaves_nothing_behind(dense):
    engine = Engine(dense, EngineOptions(pass_tokens=16))
    batches = engine.score(mixed_requests())
    next(batches)
    assert engine.memory.used_bytes > 0
    batches.close()
    assert engine.memory.used_bytes == 0
