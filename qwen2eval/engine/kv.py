"""Keys and values of the nodes of a prefix tree, within a budget of memory.

Shape suffixes: L layers, R rows (texts of a batch), K key-value heads, T tokens, D values of a head.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from qwen2eval.engine.tree import Node
from qwen2eval.model.qwen2 import Qwen2Model


class NodeKV(NamedTuple):
    """What the layers keep of a node's tokens; keys are turned by their position."""

    k_LKTD: Tensor
    v_LKTD: Tensor

    def write(self, layer: int, begin: int, k_TKD: Tensor, v_TKD: Tensor) -> None:
        """Store one layer's keys and values of some tokens, the first of them the node's `begin`-th."""
        self.k_LKTD[layer, :, begin : begin + len(k_TKD)] = k_TKD.transpose(0, 1)
        self.v_LKTD[layer, :, begin : begin + len(v_TKD)] = v_TKD.transpose(0, 1)


class Slots(NamedTuple):
    """Room for texts that grow side by side, one row each."""

    k_LRKTD: Tensor
    v_LRKTD: Tensor

    def row(self, index: int) -> NodeKV:
        """Return one row's room."""
        return NodeKV(self.k_LRKTD[:, index], self.v_LRKTD[:, index])

    def move(self, source: int, target: int, n_tokens: int) -> None:
        """Copy one row's first tokens over another row's."""
        for x_LRKTD in self:
            x_LRKTD[:, target, :, :n_tokens] = x_LRKTD[:, source, :, :n_tokens]


class OverBudgetError(Exception):
    """Keys and values that are needed at the same time don't fit the budget."""


class KVMemory:
    """Gives nodes their room, and takes it back from those that nobody needs at the moment.

    Args:
        budget_bytes: what all of them together may take.
    """

    def __init__(self, model: Qwen2Model, budget_bytes: int) -> None:
        config = model.config
        self._n_layers, self._n_heads, self._size = (
            config.num_hidden_layers,
            config.num_key_value_heads,
            config.head_size,
        )
        self._dtype, self._device = model.dtype, model.device
        self.bytes_per_token = config.kv_bytes_per_token(dtype=str(model.dtype).removeprefix("torch."))
        self.budget_bytes, self.used_bytes = budget_bytes, 0
        self._held: dict[Node, None] = {}
        """Nodes with room, the least recently used first."""

    def hold(self, nodes: Iterable[Node], *, busy: Iterable[Node] = ()) -> list[Node]:
        """Give each of `nodes` room, evicting the least recently used others where it must.

        Args:
            busy: nodes that must not be evicted; `nodes` themselves never are.

        Returns:
            The nodes that had no room before: they must be computed.

        Raises:
            OverBudgetError: there is not enough room even so; nothing was given.
        """
        wanted = list(nodes)
        missing = [node for node in wanted if node.kv is None]
        needed = sum(self._bytes_of(node) for node in missing)
        pinned = {*wanted, *busy}
        evictable = [node for node in self._held if node not in pinned]
        if needed > self.budget_bytes - self.used_bytes + sum(map(self._bytes_of, evictable)):
            raise OverBudgetError
        for node in evictable:
            if needed <= self.budget_bytes - self.used_bytes:
                break
            self.release(node)
        for node in missing:
            node.kv = NodeKV(*self._empty((self._n_heads, len(node.tokens))))
            self.used_bytes += self._bytes_of(node)
        for node in wanted:
            # Taken out and put back at the end: the dict's order is the order of last use
            self._held.pop(node, None)
            self._held[node] = None
        return missing

    def release(self, node: Node) -> None:
        """Forget a node's keys and values."""
        if node in self._held:
            del self._held[node]
            node.kv = None
            self.used_bytes -= self._bytes_of(node)

    def release_all(self) -> None:
        """Forget everything."""
        for node in list(self._held):
            self.release(node)

    def slots(self, n_rows: int, n_tokens: int) -> Slots:
        """Return room for `n_rows` texts of up to `n_tokens`; the caller gives it back with `return_slots`."""
        # zeros: a row is read up to the longest one's length, and what is masked must not be NaN
        slots = Slots(*(x.zero_() for x in self._empty((n_rows, self._n_heads, n_tokens))))
        self.used_bytes += n_rows * n_tokens * self.bytes_per_token
        return slots

    def return_slots(self, slots: Slots) -> None:
        """Count the slots' room as free again."""
        self.used_bytes -= slots.k_LRKTD.shape[1] * slots.k_LRKTD.shape[3] * self.bytes_per_token

    def _empty(self, shape: tuple[int, ...]) -> Iterable[Tensor]:
        full = (self._n_layers, *shape, self._size)
        return (torch.empty(full, dtype=self._dtype, device=self._device) for _ in range(2))

    def _bytes_of(self, node: Node) -> int:
        return len(node.tokens) * self.bytes_per_token
