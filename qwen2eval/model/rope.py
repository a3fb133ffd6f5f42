"""Rotary position embedding, plain and with YARN (arXiv 2309.00071), and the positions of dual chunk attention.

YARN is computed as transformers does for the released models: frequencies blended over a linear ramp, and cos and sin
multiplied by 0.1 ln(factor) + 1. With dual chunk attention the frequencies stay plain: the released code only scales
scores then (`DualChunk.score_factor`).

Shape suffixes: B batch, H heads, T time, D values of a head, F = D / 2 frequencies.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from qwen2eval.model.config import DualChunk, Qwen2Config, Yarn


class Rope:
    """Turns queries and keys by their positions; holds the frequencies of one model."""

    def __init__(self, config: Qwen2Config, *, device: torch.device | str = "cpu") -> None:
        yarn = None if config.dual_chunk else config.yarn
        # On the CPU, whatever the device: the powers of other devices differ in the last bit
        self.frequencies_F = frequencies(config.head_size, config.rope_theta, yarn).to(device)
        self.factor = attention_factor(yarn) if yarn else 1.0

    def turns(
        self, positions_T: Tensor, *, factor: Tensor | float = 1.0, dtype: torch.dtype = torch.float32
    ) -> "Turns":
        """Return how vectors at these positions, (time,) int64, are turned; angles are computed in float32.

        Args:
            factor: multiplies what is turned; a number, or (time, 1).
        """
        angles_TF = positions_T[:, None].float() * self.frequencies_F
        return Turns(*((part * (self.factor * factor)).to(dtype) for part in (angles_TF.cos(), angles_TF.sin())))

    def rotate(self, x_BHTD: Tensor, positions_T: Tensor) -> Tensor:
        """Return queries or keys turned by their positions.

        Args:
            x_BHTD: (batch, heads, time, head size), any float dtype.
            positions_T: (time,), int64; or (1,) for one position of them all.
        """
        return turn(x_BHTD, self.turns(positions_T, dtype=x_BHTD.dtype))


class Turns(NamedTuple):
    """Cosines and sines of the angles of some positions."""

    cos_TF: Tensor
    sin_TF: Tensor


def turn(x_TD: Tensor, turns: Turns) -> Tensor:
    """Return vectors turned, the two halves of each being the coordinates of its planes.

    Args:
        x_TD: (…, time, head size); if the heads are between them, `turns` needs an axis for them (`across_heads`).
    """
    first, second = x_TD.chunk(2, dim=-1)
    cos, sin = turns
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def across_heads(turns: Turns) -> Turns:
    """Return the turns for vectors of shape (time, heads, head size)."""
    return Turns(turns.cos_TF.unsqueeze(1), turns.sin_TF.unsqueeze(1))


def frequencies(head_size: int, theta: float, yarn: Yarn | None = None) -> Tensor:
    """Return the angles per position, (head_size / 2,), float32."""
    powers_F = theta ** (torch.arange(0, head_size, 2, dtype=torch.float32) / head_size)
    plain_F = 1.0 / powers_F
    if yarn is None:
        return plain_F
    low, high = _ramp_bounds(head_size, theta, yarn)
    ramp_F = ((torch.arange(head_size // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    keep_F = 1 - ramp_F
    return 1.0 / (yarn.factor * powers_F) * (1 - keep_F) + plain_F * keep_F


def attention_factor(yarn: Yarn) -> float:
    """Return what cos and sin are multiplied by: 0.1 ln(factor) + 1 (YARN paper, eq. 22) unless the config says."""
    return yarn.attention_factor if yarn.attention_factor is not None else 0.1 * math.log(yarn.factor) + 1.0


def _ramp_bounds(head_size: int, theta: float, yarn: Yarn) -> tuple[float, float]:
    """Return between which frequency indices the blend goes from plain to interpolated."""

    def index_of(n_turns: float) -> float:
        period = yarn.original_max_position_embeddings / (n_turns * 2 * math.pi)
        return head_size * math.log(period) / (2 * math.log(theta))

    low = max(math.floor(index_of(yarn.beta_fast)), 0)
    high = min(math.ceil(index_of(yarn.beta_slow)), head_size - 1)
    # As transformers does, against a division by zero
    return low, high if high != low else high + 0.001


def key_positions(positions_T: Tensor, dual: DualChunk) -> Tensor:
    """Return the positions of keys, and of queries towards their own chunk (DCA paper, eq. 2)."""
    return positions_T % dual.chunk_length


def successive_positions(positions_T: Tensor, dual: DualChunk) -> Tensor:
    """Return the positions of queries towards the chunk before theirs (DCA paper, eq. 7)."""
    return (positions_T % dual.chunk_length + dual.chunk_length).clamp(max=dual.cap)
