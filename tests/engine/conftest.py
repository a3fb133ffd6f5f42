"""Tiny random models for the engine, and the slow, obvious way to ask them."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from qwen2eval.engine.score import ScoreRequest
from qwen2eval.engine.tree import Tokens
from qwen2eval.model import DualChunk, load_model
from qwen2eval.model.qwen2 import Qwen2Model
from tests.model.tiny import DENSE, MOE, VOCAB, save_tiny

LONG_DUAL = DualChunk(chunk_size=40, local_size=10, original_max_position_embeddings=16)
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dense": (DENSE, {}),
    "tied": (DENSE | {"tie_word_embeddings": True}, {}),
    "moe": (MOE, {}),
    "yarn": (DENSE, {"yarn_factor": 4.0}),
    "dca": (DENSE, {"dual_chunk": DualChunk(chunk_size=10, local_size=4)}),
    "dca-scaled": (DENSE, {"dual_chunk": LONG_DUAL}),
}


class Asked(NamedTuple):
    """What the naive way says of a request."""

    logprob: float
    is_greedy: bool


@pytest.fixture(scope="session")
def open_tiny(tmp_path_factory):
    """Return a function that loads one of VARIANTS."""
    folders = {}

    def open_(variant: str) -> Qwen2Model:
        settings, load = VARIANTS[variant]
        if variant not in folders:
            folders[variant] = tmp_path_factory.mktemp(variant)
            save_tiny(folders[variant], **settings)
        return load_model(folders[variant], **load)

    return open_


@pytest.fixture(scope="session")
def dense(open_tiny) -> Qwen2Model:
    return open_tiny("dense")


def tokens(rng: np.random.Generator, n: int) -> Tokens:
    return rng.integers(0, VOCAB, n)


def mixed_requests(seed: int = 0) -> list[ScoreRequest]:
    """Return multiple-choice requests of several shapes: shared examples, shared contexts, long and short choices."""
    rng = np.random.default_rng(seed)
    requests = []
    for n_examples in (0, 5, 30, 90):
        examples = tokens(rng, n_examples)
        for _ in range(3):
            context = np.concatenate((examples, tokens(rng, rng.integers(1, 25))))
            requests += [ScoreRequest(context, tokens(rng, rng.choice([1, 1, 3, 6]))) for _ in range(3)]
    # a window of a rolling score: DCA scales by its whole length
    requests.append(ScoreRequest(tokens(rng, 1), tokens(rng, 60), sequence_length=60))
    return requests


def naive_score(model: Qwen2Model, request: ScoreRequest) -> Asked:
    """Score one request alone, in one forward pass over all its tokens."""
    context, continuation, length = request
    ids = torch.from_numpy(np.concatenate((context, continuation)))[None]
    logprobs = model(ids[:, :-1], sequence_length=length or len(context)).log_softmax(-1)[0, len(context) - 1 :]
    wanted = torch.from_numpy(continuation)
    own = logprobs.gather(1, wanted[:, None]).sum()
    return Asked(float(own), bool((logprobs.argmax(-1) == wanted).all()))
