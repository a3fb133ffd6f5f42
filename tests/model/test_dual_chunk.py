"""Dual chunk attention: positions, a naive quadratic oracle, one chunk, and prefill against decoding.

Tolerance: 2e-5, as in test_parity.py.
"""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from qwen2eval.errors import ModelError
from qwen2eval.model import DualChunk, Qwen2Config, load_model
from qwen2eval.model.cache import KVCache
from qwen2eval.model.rope import Rope, key_positions, successive_positions
from qwen2eval.model.row_attention import Span, attend_dual_chunk
from tests.model.tiny import DENSE, MOE, random_ids, save_tiny

TOLERANCE = 2e-5
PAPER = DualChunk(chunk_size=10, local_size=4, paper_cap=True)
RELEASED = DualChunk(chunk_size=10, local_size=4)
WIDE_LOCAL = DualChunk(chunk_size=10, local_size=7)  # chunks of 3: the positions of "successive" end before the cap
SCALED = DualChunk(chunk_size=10, local_size=4, original_max_position_embeddings=16)
DUALS = {"paper": PAPER, "released": RELEASED, "wide-local": WIDE_LOCAL, "scaled": SCALED}
CONFIG = Qwen2Config(
    vocab_size=97,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    rope_theta=100.0,
)


def naive_position(i: int, j: int, dual: DualChunk) -> int:
    """Return M[i][j] (DCA paper, eqs 2-9; `cap` c in the released code), pair by pair."""
    s, cap = dual.chunk_size - dual.local_size, dual.chunk_size - (1 if dual.paper_cap else 0)
    chunks_apart = i // s - j // s
    if chunks_apart == 0:
        return i % s - j % s
    if chunks_apart == 1:
        return min(s + i % s, cap) - j % s
    return (cap if dual.paper_cap else min(2 * s - 1, cap)) - j % s


def rotated(x: torch.Tensor, position: int, theta: float) -> torch.Tensor:
    """Return one head's values turned by complex multiplication."""
    half = x.shape[-1] // 2
    angles = position * theta ** (-torch.arange(half, dtype=torch.float64) / half)
    turned = torch.complex(x[:half].double(), x[half:].double()) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag])


def naive_dual_chunk(q, k, v, dual: DualChunk, theta: float, scale: float) -> torch.Tensor:
    """Attend with the whole matrix of positions: one head's q, k, v of shape (time, head size), none turned."""
    n_tokens = q.shape[0]
    scores = torch.full((n_tokens, n_tokens), -math.inf, dtype=torch.float64)
    for i in range(n_tokens):
        for j in range(i + 1):
            # a rotation depends on the difference alone
            scores[i, j] = rotated(q[i], naive_position(i, j, dual), theta) @ k[j].double() * scale
    return (scores.softmax(dim=-1) @ v.double()).float()


def test_the_papers_vector():
    """Figure 2 of the DCA paper: c = 10, s = 6, w = 4, 12 tokens."""
    positions = torch.arange(12)
    assert PAPER.chunk_length == 6
    assert key_positions(positions, PAPER).tolist() == [0, 1, 2, 3, 4, 5] * 2
    assert successive_positions(positions, PAPER).tolist() == [6, 7, 8, 9, 9, 9] * 2
    assert PAPER.inter_position == 9


def test_the_released_codes_vector():
    assert successive_positions(torch.arange(6), RELEASED).tolist() == [6, 7, 8, 9, 10, 10]
    assert RELEASED.inter_position == 10
    assert WIDE_LOCAL.inter_position == successive_positions(torch.arange(3), WIDE_LOCAL)[-1] == 5


@pytest.mark.parametrize("dual", [PAPER, RELEASED, WIDE_LOCAL], ids=["paper", "released", "wide-local"])
@pytest.mark.parametrize(("start", "n_tokens"), [(0, 31), (17, 31), (12, 18), (30, 31)])
def test_equals_the_naive_one(dual, start, n_tokens):
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(2, heads, n_tokens, 8, generator=generator) for heads in (4, 2, 2))
    rope, positions = Rope(CONFIG), torch.arange(n_tokens)
    got = attend_dual_chunk(
        q[:, :, start:],
        rope.rotate(k, key_positions(positions, dual)),
        v,
        Span(start, positions[start:], n_tokens),
        rope,
        dual,
        scale=0.7,
    )
    for row in range(2):
        for head in range(4):
            expected = naive_dual_chunk(q[row, head], k[row, head // 2], v[row, head // 2], dual, 100.0, 0.7)
            torch.testing.assert_close(got[row, head], expected[start:], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("dual", DUALS.values(), ids=DUALS)
def test_one_chunk_is_ordinary_attention(tmp_path, dual):
    save_tiny(tmp_path, **DENSE)
    plain, chunked = load_model(tmp_path), load_model(tmp_path, dual_chunk=dual)
    ids = random_ids(dual.chunk_length)
    torch.testing.assert_close(chunked(ids), plain(ids), atol=TOLERANCE, rtol=0)
    longer = random_ids(dual.chunk_length + 20)
    assert (chunked(longer) - plain(longer)).abs().max() > 0.01  # and beyond it, it isn't


@pytest.mark.parametrize("settings", [DENSE, MOE], ids=["dense", "moe"])
@pytest.mark.parametrize("dual", DUALS.values(), ids=DUALS)
def test_prefill_equals_decoding(tmp_path, dual, settings):
    """In one go, in pieces that cross chunks, and token by token; a scaled sequence is told its whole length."""
    save_tiny(tmp_path, **settings)
    model, ids = load_model(tmp_path, dual_chunk=dual), random_ids(40)
    whole = model(ids)
    for sizes in ([1] * 40, [5, 1, 20, 14]):
        cache = KVCache(model.config)
        pieces = [model(part, cache, sequence_length=40) for part in ids.split(sizes, dim=1)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=TOLERANCE, rtol=0)


def test_scores_are_scaled_by_m_squared():
    """At 131,072 tokens m is 1.1386, computed from the released code; up to the trained length nothing changes."""
    dual = DualChunk(original_max_position_embeddings=32768)
    assert dual.score_factor(131072) == pytest.approx(1.1386, abs=1e-4)
    assert dual.score_factor(262144) == pytest.approx(1.2079, abs=1e-4)
    assert dual.score_factor(32768) == dual.score_factor(100) == 1.0
    assert DualChunk().score_factor(10**6) == 1.0


def test_scaling_multiplies_keys_and_scale(tmp_path):
    """A scaled model equals an unscaled one whose key projection is m squared times as large."""
    save_tiny(tmp_path, **DENSE)
    ids = random_ids(40)
    scaled, unscaled = load_model(tmp_path, dual_chunk=SCALED), load_model(tmp_path, dual_chunk=RELEASED)
    factor = SCALED.score_factor(40) ** 2
    assert factor > 1.1
    for layer in unscaled.model.layers:
        layer.self_attn.k_proj.weight.data = layer.self_attn.k_proj.weight.data * factor
        layer.self_attn.k_proj.bias.data = layer.self_attn.k_proj.bias.data * factor
    torch.testing.assert_close(scaled(ids), unscaled(ids), atol=TOLERANCE, rtol=0)


def test_yarn_with_dual_chunk_scales_scores_only(tmp_path):
    """As in the released code: the frequencies stay plain, the trained length comes from YARN."""
    save_tiny(tmp_path, **DENSE | {"max_position_embeddings": 16})
    both, scaled = (
        load_model(tmp_path, yarn_factor=4, dual_chunk=RELEASED),
        load_model(tmp_path, dual_chunk=SCALED),
    )
    assert both.config.dual_chunk == SCALED
    assert both.config.max_length == 64
    ids = random_ids(40)
    assert torch.equal(both(ids), scaled(ids))


def test_nothing_quadratic_is_kept(tmp_path):
    """4,096 tokens: a square of scores of one head alone would be 64 MB; no tensor is over 8 MB."""
    save_tiny(tmp_path, **DENSE | {"num_hidden_layers": 1, "max_position_embeddings": 4096})
    dual = DualChunk(chunk_size=512, local_size=128)
    model = load_model(tmp_path, dual_chunk=dual)
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.untyped_storage().nbytes())
            return out

    with Watch():
        model.hidden(random_ids(4096, n_rows=1))
    assert 0 < largest < 8e6


def test_dual_chunk_off_and_bad():
    config = CONFIG.with_context(dual_chunk=True)
    assert config.dual_chunk == DualChunk()
    assert config.max_length == 131072
    assert config.with_context(dual_chunk=False).dual_chunk is None
    with pytest.raises(ModelError, match="local_size"):
        DualChunk(chunk_size=10, local_size=10)
