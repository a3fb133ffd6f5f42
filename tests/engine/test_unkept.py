"""What a kill loses: answers come from the beginning on, however long the prompts are, and cost not one token more.

The clock counts passes, one second each, so nothing here depends on how fast a machine is.
"""

import numpy as np
import pytest

from qwen2eval.engine import Engine, EngineOptions, GenerationParams
from qwen2eval.engine.generate import MOST_UNKEPT_SECONDS, GenerateRequest
from qwen2eval.engine.score import ScoreRequest
from tests.engine.conftest import tokens
from tests.engine.test_score import collect

N_TEXTS, N_OWN_PASSES, N_NEW = 30, 4, 5
PASS_TOKENS = 16


def long_prompts(*, n_shared):
    """Return prompts that share a beginning and have some passes' tokens of their own."""
    rng = np.random.default_rng(11)
    shared = tokens(rng, n_shared)
    texts = [np.concatenate((shared, tokens(rng, N_OWN_PASSES * PASS_TOKENS))) for _ in range(N_TEXTS)]
    return [GenerateRequest(text, GenerationParams(max_new_tokens=N_NEW)) for text in texts]


def passes_at_answers(engine, requests):
    """Return the answers, and after how many passes each came."""
    answers, at = {}, []
    for batch in engine.generate(requests):
        answers |= dict(batch)
        at += [engine.stats.n_passes] * len(batch)
    return answers, at


def timed_engine(model):
    engine = Engine(model, EngineOptions(pass_tokens=PASS_TOKENS))
    engine.clock = lambda: float(engine.stats.n_passes)
    return engine


@pytest.mark.parametrize("n_shared", [0, 64])
def test_answers_come_while_other_prompts_wait_and_cost_no_token(dense, n_shared):
    """All prompts were read before the first answer: of 37 minutes the first 37 were lost at a kill."""
    requests = long_prompts(n_shared=n_shared)
    at_once = Engine(dense, EngineOptions(pass_tokens=PASS_TOKENS), clock=lambda: 0.0)
    wanted, late = passes_at_answers(at_once, requests)
    assert late[0] > N_TEXTS * N_OWN_PASSES, "a clock that stands still limits nothing"
    engine = timed_engine(dense)
    answers, at = passes_at_answers(engine, requests)
    assert answers == wanted
    assert engine.stats.n_tokens_computed == at_once.stats.n_tokens_computed
    # The shared part, two prompts of four passes (3 seconds allow a second one), their tokens
    assert at[0] <= n_shared // PASS_TOKENS + 2 * N_OWN_PASSES + N_NEW
    longest = max(later - earlier for earlier, later in zip([0, *at], at, strict=False))
    assert longest <= MOST_UNKEPT_SECONDS + N_OWN_PASSES + N_NEW


def test_short_texts_fill_their_rows_as_before(dense):
    """Where a pass holds many texts, none has to wait: as many steps as without a limit."""
    rng = np.random.default_rng(12)
    params = GenerationParams(max_new_tokens=N_NEW)
    requests = [GenerateRequest(tokens(rng, 4), params) for _ in range(12)]
    engine = Engine(dense)
    engine.clock = lambda: engine.stats.n_passes / 100
    collect(engine.generate(requests))
    assert engine.stats.n_passes == 1 + N_NEW - 1


def test_texts_in_several_windows_are_done_one_after_the_other(dense):
    """Windows were scored in the order of their tokens: the first text was done when nearly all were."""
    rng, n_windows = np.random.default_rng(13), 6
    windows = [ScoreRequest(tokens(rng, 1), tokens(rng, PASS_TOKENS)) for _ in range(N_TEXTS * n_windows)]
    order = [i // n_windows for batch in timed_engine(dense).score(windows) for i, _ in batch]
    done_at = [max(place for place, text in enumerate(order) if text == one) for one in range(N_TEXTS)]
    assert done_at[0] < 2 * n_windows
    assert done_at == sorted(done_at)
