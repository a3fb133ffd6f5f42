"""The key-value cache: what the layers keep of tokens they have seen.

Shape suffixes: B batch, K key-value heads, T new tokens, S all tokens so far, D values of a head.
"""

import torch
from torch import Tensor

from qwen2eval.model.config import Qwen2Config

_FIRST_CAPACITY = 64


class LayerCache:
    """Keys and values of one layer, in buffers that double when they are full."""

    def __init__(self, *, capacity: int = 0) -> None:
        self.length = 0
        """Tokens held."""
        self._capacity = capacity
        self._k_BKSD: Tensor | None = None
        self._v_BKSD: Tensor | None = None

    def extend(self, k_BKTD: Tensor, v_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Add new tokens and return views of keys and values of all tokens so far, (batch, KV heads, S, head size)."""
        end = self.length + k_BKTD.shape[2]
        k_BKSD, v_BKSD = self._reserve(self._k_BKSD, k_BKTD, end), self._reserve(self._v_BKSD, v_BKTD, end)
        k_BKSD[:, :, self.length : end] = k_BKTD
        v_BKSD[:, :, self.length : end] = v_BKTD
        self._k_BKSD, self._v_BKSD, self.length = k_BKSD, v_BKSD, end
        return k_BKSD[:, :, :end], v_BKSD[:, :, :end]

    def truncate(self, length: int) -> None:
        """Forget all tokens from position `length` on."""
        self.length = min(self.length, length)

    def _reserve(self, buffer: Tensor | None, new: Tensor, end: int) -> Tensor:
        if buffer is not None and end <= buffer.shape[2]:
            return buffer
        held = 0 if buffer is None else buffer.shape[2]
        n_batch, n_heads, _, size = new.shape
        larger = new.new_empty(n_batch, n_heads, max(end, 2 * held, self._capacity, _FIRST_CAPACITY), size)
        if buffer is not None:
            larger[:, :, : self.length] = buffer[:, :, : self.length]
        return larger


class KVCache:
    """The caches of all layers; all rows of a batch have the same length."""

    def __init__(self, config: Qwen2Config, *, capacity: int = 0) -> None:
        self.layers = [LayerCache(capacity=capacity) for _ in range(config.num_hidden_layers)]

    @property
    def length(self) -> int:
        """Tokens held."""
        return self.layers[0].length

    def truncate(self, length: int) -> None:
        """Forget all tokens from position `length` on, so that another continuation can follow."""
        for layer in self.layers:
            layer.truncate(length)


def positions_of(start: int, n_new: int, *, device: torch.device) -> Tensor:
    """Return the positions of `n_new` tokens behind `start` others, (n_new,), int64."""
    return torch.arange(start, start + n_new, device=device)
