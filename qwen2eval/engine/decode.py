"""Attention of one new token for each of many texts: the texts' own rows in one call, shared prefixes node by node.

Shape suffixes: L layers, B texts, H query heads, K key-value heads, G heads that share one, S keys, D values of a head.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from qwen2eval.engine.kv import Slots
from qwen2eval.engine.tree import Node
from qwen2eval.model.attention import Partial, attend_part
from qwen2eval.model.qwen2 import Qwen2Model
from qwen2eval.model.rope import across_heads, turn


class DecodeAttention:
    """An `Attend` for tensors of (texts, heads, head size), text b having row b of the slots.

    Args:
        positions: of the new tokens.
        lengths: tokens that each row holds before the new one.
        above: the nodes above each row, whose keys and values are kept.
    """

    def __init__(
        self,
        model: Qwen2Model,
        slots: Slots,
        positions: Sequence[int],
        lengths: Sequence[int],
        above: Sequence[Sequence[Node]],
    ) -> None:
        device, config = model.device, model.config
        self._slots, self._n_kv, self._scale = slots, config.num_key_value_heads, config.head_size**-0.5
        self._turns = across_heads(model.rope.turns(torch.tensor(positions, device=device), dtype=model.dtype))
        self._rows_B, self._lengths_B = torch.arange(len(lengths), device=device), torch.tensor(lengths, device=device)
        self._n_seen = max(lengths) + 1
        future_BS = torch.arange(self._n_seen, device=device) > self._lengths_B[:, None]
        mask_BS = torch.zeros(future_BS.shape, dtype=model.dtype, device=device).masked_fill(future_BS, -torch.inf)
        self._mask_B11S = mask_BS[:, None, None]
        rows_of: dict[Node, list[int]] = defaultdict(list)
        for row, nodes in enumerate(above):
            for node in nodes:
                rows_of[node].append(row)
        self._shared = [(node, torch.tensor(rows, device=device)) for node, rows in rows_of.items()]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return what each token gathers, (texts, heads, head size)."""
        own_k_BKSD, own_v_BKSD = (x_LRKTD[layer, : len(q)] for x_LRKTD in self._slots)
        own_k_BKSD[self._rows_B, :, self._lengths_B] = turn(k, self._turns)
        own_v_BKSD[self._rows_B, :, self._lengths_B] = v
        q_BKGD = turn(q, self._turns).view(len(q), self._n_kv, -1, q.shape[-1])
        own_k_BKSD, own_v_BKSD = own_k_BKSD[:, :, : self._n_seen], own_v_BKSD[:, :, : self._n_seen]
        gathered = attend_part(q_BKGD, own_k_BKSD, own_v_BKSD, causal=False, scale=self._scale, mask=self._mask_B11S)
        for node, rows in self._shared:
            gathered = _merged(gathered, rows, self._attend_shared(q_BKGD[rows], node, layer))
        return gathered.out_BHTD.flatten(1, 2)

    def _attend_shared(self, q_BKGD: Tensor, node: Node, layer: int) -> Partial:
        """Attend to one node: the queries of all its texts are concatenated, so its keys are read once."""
        assert node.kv is not None, "what a text sees is kept while it runs"
        n_texts, n_kv, n_groups, size = q_BKGD.shape
        q = q_BKGD.transpose(0, 1).reshape(n_kv, 1, n_texts * n_groups, size)
        out, lse = attend_part(q, *(x_LKTD[layer].unsqueeze(1) for x_LKTD in node.kv), causal=False, scale=self._scale)
        return Partial(
            out.reshape(n_kv, n_texts, n_groups, size).transpose(0, 1),
            lse.reshape(n_kv, n_texts, n_groups).transpose(0, 1),
        )


def _merged(gathered: Partial, rows: Tensor, part: Partial) -> Partial:
    """Return what was gathered, with a part merged into some rows."""
    out_BKGD, lse_BKG = gathered
    before, total = lse_BKG[rows], torch.logaddexp(lse_BKG[rows], part.lse_BHT)
    weighted = out_BKGD[rows] * (before - total).exp().unsqueeze(-1)
    weighted = weighted + part.out_BHTD * (part.lse_BHT - total).exp().unsqueeze(-1)
    return Partial(
        out_BKGD.index_copy(0, rows, weighted.to(out_BKGD.dtype)), lse_BKG.index_copy(0, rows, total.to(lse_BKG.dtype))
    )
