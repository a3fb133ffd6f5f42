"""Continuous batching against one text at a time, and against transformers' generate."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from qwen2eval.engine import Engine, EngineOptions, GenerationParams
from qwen2eval.engine.generate import ROW_PROMPT_TOKENS, Generated, GenerateRequest
from qwen2eval.engine.sampling import filtered
from qwen2eval.engine.score import Failure
from tests.engine.conftest import VARIANTS, mixed_requests, tokens
from tests.engine.test_score import collect, kv_bytes
from tests.model.tiny import DENSE, VOCAB, save_tiny

EOS = frozenset({3, 4, 5})


def prompts():
    return [request.context for request in mixed_requests()[::3]]


def mixed_generations(**params):
    """Return requests of different lengths; among them one prompt twice, and one that begins another."""
    texts = prompts()
    texts += [texts[0], texts[-1][:40]]
    lengths = np.random.default_rng(7).choice([1, 4, 20], len(texts))
    return [
        GenerateRequest(text, GenerationParams(max_new_tokens=int(n), eos_ids=EOS, **params))
        for text, n in zip(texts, lengths, strict=True)
    ]


def one_by_one(model, request):
    """Generate greedily, computing the whole text again for each token."""
    chosen = []
    while True:
        ids = torch.from_numpy(np.concatenate((request.prompt, np.array(chosen, np.int64))))[None]
        chosen.append(int(model(ids, sequence_length=len(request.prompt))[0, -1].argmax()))
        if chosen[-1] in EOS:
            return Generated(tuple(chosen), "stop")
        if len(chosen) == request.params.max_new_tokens:
            return Generated(tuple(chosen), "length")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("limits", ["roomy", "few-rows", "short-passes", "tight"])
def test_equals_one_text_at_a_time(open_tiny, variant, limits):
    model, requests = open_tiny(variant), mixed_generations()
    options = {
        "roomy": EngineOptions(),
        "few-rows": EngineOptions(max_running=3),
        "short-passes": EngineOptions(pass_tokens=16),
        "tight": EngineOptions(kv_bytes=kv_bytes(model, 300)),
    }[limits]
    engine = Engine(model, options)
    answers = collect(engine.generate(requests))
    assert [answers[i] for i in range(len(requests))] == [one_by_one(model, request) for request in requests]
    assert "length" in {answer.finish_reason for answer in answers.values()}
    assert engine.memory.used_bytes == 0


def test_long_own_parts_stay_outside_the_rows(tmp_path):
    save_tiny(tmp_path, **DENSE | {"max_position_embeddings": 4096})
    from qwen2eval.model import load_model

    model, rng = load_model(tmp_path), np.random.default_rng(8)
    shared = tokens(rng, 600)
    texts = [np.concatenate((shared, tokens(rng, n))) for n in (3, ROW_PROMPT_TOKENS + 40, ROW_PROMPT_TOKENS + 900)]
    requests = [GenerateRequest(text, GenerationParams(max_new_tokens=5, eos_ids=EOS)) for text in texts]
    answers = collect(Engine(model).generate(requests))
    assert [answers[i] for i in range(3)] == [one_by_one(model, request) for request in requests]


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_equals_transformers(tmp_path, penalty):
    save_tiny(tmp_path, **DENSE)
    from qwen2eval.model import load_model

    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    params = GenerationParams(max_new_tokens=24, eos_ids=EOS, repetition_penalty=penalty)
    requests = [GenerateRequest(prompt, params) for prompt in prompts()]
    answers = collect(Engine(load_model(tmp_path)).generate(requests))
    for index, request in enumerate(requests):
        ids = torch.from_numpy(request.prompt)[None]
        got = theirs.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=24,
            do_sample=False,
            eos_token_id=sorted(EOS),
            pad_token_id=3,
            repetition_penalty=penalty,
        )
        assert answers[index].tokens == tuple(got[0, ids.shape[1] :].tolist())


def test_prompts_that_share_are_computed_once(dense):
    rng = np.random.default_rng(9)
    examples = tokens(rng, 150)
    texts = [np.concatenate((examples, tokens(rng, 10))) for _ in range(4)]
    requests = [GenerateRequest(text, GenerationParams(max_new_tokens=1)) for text in (*texts, texts[0])]
    engine = Engine(dense)
    collect(engine.generate(requests))
    assert engine.stats.n_tokens_computed == 150 + 4 * 10
    assert engine.stats.n_tokens_asked == 5 * 160


def test_a_finished_text_leaves_and_a_waiting_one_enters(dense):
    """One long text and seven short ones in two rows: no more steps than the long one takes."""
    texts = sorted(prompts()[:8], key=lambda text: text.tolist())  # the order in which they enter
    lengths = [30, *[4] * 7]
    requests = [
        GenerateRequest(text, GenerationParams(max_new_tokens=n)) for text, n in zip(texts, lengths, strict=True)
    ]
    engine = Engine(dense, EngineOptions(max_running=2))
    collect(engine.generate(requests))
    n_prefills, n_steps = len(texts), max(lengths) - 1
    assert engine.stats.n_passes <= n_prefills + n_steps


def test_a_stop_test_ends_a_text(dense):
    seen = []

    def is_complete(tokens):
        seen.append(tuple(tokens))
        return len(tokens) == 3

    request = GenerateRequest(prompts()[0], GenerationParams(max_new_tokens=20), is_complete)
    answer = collect(Engine(dense).generate([request]))[0]
    assert (len(answer.tokens), answer.finish_reason) == (3, "stop")
    assert seen == [answer.tokens[:n] for n in (1, 2, 3)]


def test_sampled_texts_depend_on_their_seed_alone(dense):
    def sampled(texts, *, seeds, **options):
        requests = [
            GenerateRequest(t, GenerationParams(max_new_tokens=12, do_sample=True, seed=seed))
            for t, seed in zip(texts, seeds, strict=True)
        ]
        answers = collect(Engine(dense, EngineOptions(**options)).generate(requests))
        return [answers[i].tokens for i in range(len(texts))]

    texts = prompts()[:6]
    together = sampled(texts, seeds=range(6))
    assert sampled(texts, seeds=range(6), max_running=1) == together
    assert sampled(texts[3:], seeds=range(3, 6)) == together[3:]
    assert sampled(texts, seeds=range(10, 16)) != together


def test_draws_follow_the_probabilities(dense):
    """4,000 first tokens of one prompt against the model's own distribution.

    Chance of failing: each count is within 5 standard deviations but for about one run in 20,000 (97 tokens).
    """
    n, prompt = 4_000, prompts()[1]
    requests = [
        GenerateRequest(prompt, GenerationParams(max_new_tokens=1, do_sample=True, temperature=1.5, seed=seed))
        for seed in range(n)
    ]
    counts = Counter(answer.tokens[0] for answer in collect(Engine(dense).generate(requests)).values())
    wanted = (dense(torch.from_numpy(prompt)[None])[0, -1] / 1.5).softmax(-1).tolist()
    for token in range(VOCAB):
        p = wanted[token]
        assert abs(counts[token] - n * p) <= 5 * math.sqrt(n * p * (1 - p)) + 1


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0.7},
        {"top_k": 5},
        {"top_p": 0.8},
        {"min_p": 0.1},
        {"temperature": 1.8, "top_k": 30, "top_p": 0.9, "min_p": 0.05},
        {"top_p": 0.0001},
        {"top_k": 1},
    ],
    ids=str,
)
def test_filters_equal_transformers(params):
    from transformers.generation import logits_process as processors

    logits = torch.randn(7, 200, generator=torch.Generator().manual_seed(0)) * 3
    chain = processors.LogitsProcessorList()
    chain.append(processors.TemperatureLogitsWarper(float(params.get("temperature", 1.0))))
    if "top_k" in params:
        chain.append(processors.TopKLogitsWarper(params["top_k"]))
    if "top_p" in params:
        chain.append(processors.TopPLogitsWarper(params["top_p"]))
    if "min_p" in params:
        chain.append(processors.MinPLogitsWarper(params["min_p"]))
    theirs = chain(None, logits.clone())
    ours = torch.stack([filtered(row, GenerationParams(max_new_tokens=1, do_sample=True, **params)) for row in logits])
    torch.testing.assert_close(ours, theirs)


def test_a_text_over_the_budget_says_so_and_the_others_are_answered(dense):
    requests = mixed_generations()
    requests.insert(2, GenerateRequest(tokens(np.random.default_rng(1), 200), GenerationParams(max_new_tokens=50)))
    answers = collect(Engine(dense, EngineOptions(kv_bytes=kv_bytes(dense, 240))).generate(requests))
    assert len(answers) == len(requests)
    assert isinstance(answers[2], Failure)
    assert "250 tokens" in answers[2].reason
    assert not any(isinstance(answers[i], Failure) for i in answers if i != 2)


def test_nothing_fits(dense):
    answers = collect(Engine(dense, EngineOptions(kv_bytes=0)).generate(mixed_generations()))
    assert all(isinstance(answer, Failure) for answer in answers.values())
