"""Memory that runs out at any place: what is answered is right, and what can't be answered fails alone."""

import numpy as np
import pytest
import torch

from qwen2eval.engine import Engine, EngineOptions, GenerationParams
from qwen2eval.engine.generate import GenerateRequest
from qwen2eval.engine.score import Failure, ScoreRequest
from tests.engine.conftest import mixed_requests, naive_score, tokens
from tests.engine.test_generate import EOS, mixed_generations, one_by_one
from tests.engine.test_score import TOLERANCE, collect, kv_bytes

ERRORS = [torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError()]


class Faulty:
    """A model's or a memory's method that has no memory at some of its calls."""

    def __init__(self, owner, name, is_too_much, error=ERRORS[0]):
        self.n_calls, self.n_errors = 0, 0
        self._call, self._is_too_much, self._error = getattr(owner, name), is_too_much, error
        setattr(owner, name, self)

    def __call__(self, *args, **kwargs):
        self.n_calls += 1
        if self._is_too_much(self.n_calls, args):
            self.n_errors += 1
            raise self._error
        return self._call(*args, **kwargs)


def assert_right_scores(model_of_requests, requests, answers):
    assert sorted(answers) == list(range(len(requests)))
    for index, request in enumerate(requests):
        wanted = naive_score(model_of_requests, request).logprob
        assert answers[index].logprob == pytest.approx(wanted, abs=TOLERANCE * len(request.continuation))


@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "cpu", "python"])
def test_a_pass_that_is_too_large_is_halved(open_tiny, error):
    model, requests = open_tiny("dense"), mixed_requests()
    requests.append(ScoreRequest(tokens(np.random.default_rng(5), 190), tokens(np.random.default_rng(6), 20)))
    engine = Engine(model)
    faulty = Faulty(model, "stream", lambda _n, args: args[0].numel() > 40, error)
    answers = collect(engine.score(requests))
    assert faulty.n_errors == 4  # 512, 256, 128, 64
    assert engine.memory.used_bytes == 0
    assert_right_scores(open_tiny("dense"), requests, answers)


@pytest.mark.parametrize("place", ["stream", "logits"])
@pytest.mark.parametrize("budget_tokens", [None, 130])
def test_scores_are_right_wherever_it_happens(open_tiny, place, budget_tokens):
    """One call of each place fails, whichever; a tight budget evicts at the same time."""
    requests, reference = mixed_requests(3), open_tiny("dense")
    for n_fails in range(1, 9):
        model = open_tiny("dense")
        options = EngineOptions(pass_tokens=48, kv_bytes=budget_tokens and kv_bytes(model, budget_tokens))
        engine = Engine(model, options)
        Faulty(model, place, lambda n, _args, at=n_fails: n == at)
        assert_right_scores(reference, requests, collect(engine.score(requests)))
        assert engine.memory.used_bytes == 0


@pytest.mark.parametrize("place", ["stream", "logits"])
@pytest.mark.parametrize("budget_tokens", [None, 300])
def test_texts_are_right_wherever_it_happens(open_tiny, place, budget_tokens):
    requests, reference = mixed_generations(), open_tiny("dense")
    wanted = [one_by_one(reference, request) for request in requests]
    for n_fails in (1, 2, 3, 5, 9, 20):
        model = open_tiny("dense")
        options = EngineOptions(pass_tokens=48, kv_bytes=budget_tokens and kv_bytes(model, budget_tokens))
        engine = Engine(model, options)
        Faulty(model, place, lambda n, _args, at=n_fails: n == at)
        answers = collect(engine.generate(requests))
        assert [answers[i] for i in range(len(requests))] == wanted
        assert engine.memory.used_bytes == 0


def test_room_for_keys_and_values_may_not_be_there_either(open_tiny):
    requests, reference = mixed_requests(), open_tiny("dense")
    for n_fails in (1, 3):
        model = open_tiny("dense")
        engine = Engine(model)
        Faulty(engine.memory, "_empty", lambda n, _args, at=n_fails: n == at)
        assert_right_scores(reference, requests, collect(engine.score(requests)))
        engine = Engine(model)
        Faulty(engine.memory, "_empty", lambda n, _args, at=n_fails: n == at)
        answers = collect(engine.generate(mixed_generations()))
        assert not any(isinstance(answer, Failure) for answer in answers.values())


def test_what_is_too_much_even_alone_fails_and_the_rest_goes_on_at_full_size(open_tiny):
    """No pass holds position 200: only the one long text has it."""
    model, requests = open_tiny("dense"), mixed_requests()
    engine = Engine(model)
    long = ScoreRequest(tokens(np.random.default_rng(5), 230), tokens(np.random.default_rng(6), 1))

    def has_far_positions(_n, args):
        return int(args[1]._positions_N.max()) >= 200

    Faulty(model, "stream", has_far_positions)
    answers = collect(engine.score([*requests, long]))
    assert answers.pop(len(requests)) == Failure("out of memory")
    assert_right_scores(open_tiny("dense"), requests, answers)
    assert engine.pass_tokens == 512


def test_without_any_memory_every_request_fails(open_tiny):
    model = open_tiny("dense")
    Faulty(model, "stream", lambda _n, _args: True)
    requests = mixed_requests()[:6]
    answers = collect(Engine(model, EngineOptions(max_running=2, pass_tokens=32)).score(requests))
    assert answers == dict.fromkeys(range(6), Failure("out of memory"))
    texts = mixed_generations()[:3]
    answers = collect(Engine(model, EngineOptions(max_running=2, pass_tokens=32)).generate(texts))
    assert answers == dict.fromkeys(range(3), Failure("out of memory"))


def test_a_long_text_beside_many_short_ones_is_answered(dense):
    """Alone it fits the budget; rows for the others must not take its room."""
    rng = np.random.default_rng(0)
    params = GenerationParams(max_new_tokens=5, eos_ids=EOS)
    longer = GenerationParams(max_new_tokens=60, eos_ids=EOS)
    requests = [GenerateRequest(tokens(rng, 30), longer) for _ in range(6)]
    requests += [GenerateRequest(tokens(rng, n), params) for n in (160, 165)]
    requests.append(GenerateRequest(requests[-1].prompt, params))  # the same prompt twice stays outside the rows
    answers = collect(Engine(dense, EngineOptions(kv_bytes=kv_bytes(dense, 175))).generate(requests))
    assert [answers[i] for i in range(len(requests))] == [one_by_one(dense, request) for request in requests]


def test_logits_that_are_not_finite_fail_their_text_alone(open_tiny):
    """Token 96 is NaN in this model's embedding; its row is used again by a text that must not see it."""
    model = open_tiny("dense")
    model.model.embed_tokens.weight.data = model.model.embed_tokens.weight.data.clone()
    model.model.embed_tokens.weight.data[96] = torch.nan
    rng = np.random.default_rng(2)
    good = [GenerateRequest(rng.integers(0, 90, 20), GenerationParams(max_new_tokens=4)) for _ in range(4)]
    bad = GenerateRequest(np.array([1, 96, *range(40)]), GenerationParams(max_new_tokens=4))
    requests = [bad, *good]
    alone = [collect(Engine(model).generate([request]))[0] for request in good]
    assert not any(isinstance(answer, Failure) for answer in alone if 96 not in getattr(answer, "tokens", ()))
    for n_rows in (1, 2):
        answers = collect(Engine(model, EngineOptions(max_running=n_rows)).generate(requests))
        assert "not finite" in answers[0].reason
        assert [answers[i + 1] for i in range(4)] == alone
