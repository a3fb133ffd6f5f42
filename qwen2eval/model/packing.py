"""Weights laid out once for the matrix products of this processor (oneDNN), instead of at every call.

On the CPU a linear layer of the usual layout is rearranged by each product. For 64 rows, a step of generation, that is
a third of the time; for 512, a pass of scoring, some 4 %. The gate and the product of SwiGLU are fused into their
products as well, which saves two more passes over the widest tensor. In float32 a row's result then does not depend
on the rows beside it (measured on shapes of the released dense models, docs/decisions/2026-11-24-engine.md). Routed
experts and a head that is the embedding are not packed; `generation_head` makes a packed copy of the latter.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from qwen2eval.model.layers import SwiGLU
from qwen2eval.model.qwen2 import Qwen2Model

_ROWS = 128
"""Rows that the layout is chosen for."""


def pack_linears(model: Qwen2Model) -> None:
    """Lay out the weights of a model's linear layers anew, in place; the model works as before, only faster.

    Does nothing on other devices than a CPU, or where torch was built without oneDNN. The old layout is let go layer by
    layer. A head that is the embedding stays as it is: packed, it would be there twice.
    """
    if model.device.type != "cpu" or not _can_pack(model.dtype):
        return
    with torch.inference_mode():
        # What isn't packed may be a view into a file's map, which would keep all of the file in memory
        for name, parameter in list(model.named_parameters()):
            if not name.endswith(("_proj.weight", "lm_head.weight")) and ".experts." not in name:
                parameter.data = parameter.data.clone()
        # no list of what is replaced: it would keep all the old weights until the end
        for parent in [module for module in model.modules() if not isinstance(module, SwiGLU | nn.Linear)]:
            for name in list(parent._modules):
                parent._modules[name] = _packed_module(parent._modules[name])


def generation_head(model: Qwen2Model) -> Callable[[Tensor], Tensor]:
    """Return what gives logits to few rows at a time: `model.logits`, or the same from a packed copy of a tied head.

    The copy costs the memory of an embedding. A step of 64 texts takes 69 ms instead of 104 for 151,936 x 896, one of 8
    texts 23 instead of 60.
    """
    if model.lm_head is not None or model.device.type != "cpu" or not _can_pack(model.dtype):
        return model.logits
    with torch.inference_mode():
        head = PackedLinear(model.model.embed_tokens)
    return lambda x_C: head(x_C).float()


class PackedLinear(nn.Module):
    """A linear layer, or an embedding as a head, whose weight is laid out for this processor."""

    def __init__(self, linear: nn.Linear | nn.Embedding) -> None:
        super().__init__()
        self._weight, self._bias = _packed(linear.weight), getattr(linear, "bias", None)

    def forward(self, x_C: Tensor) -> Tensor:
        """Return the layer's output, (…, out features)."""
        return _with_a_twin(lambda x: _linear(x, self._weight, self._bias), x_C)


class PackedSwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)) in three products."""

    def __init__(self, mlp: SwiGLU) -> None:
        super().__init__()
        self._gate, self._up, self._down = (
            _packed(linear.weight) for linear in (mlp.gate_proj, mlp.up_proj, mlp.down_proj)
        )

    def forward(self, x_C: Tensor) -> Tensor:
        """Return the layer's output, of x's shape."""
        return _with_a_twin(self._mlp, x_C)

    def _mlp(self, x_C: Tensor) -> Tensor:
        gated_I = _linear(x_C, self._gate, None, "swish")
        hidden_I: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x_C, gated_I, self._up, None, "mul")
        return _linear(hidden_I, self._down, None)


def _packed_module(module: nn.Module | None) -> nn.Module | None:
    if isinstance(module, SwiGLU):
        return PackedSwiGLU(module)
    return PackedLinear(module) if isinstance(module, nn.Linear) else module


def _with_a_twin(compute: Callable[[Tensor], Tensor], x_C: Tensor) -> Tensor:
    """Compute; a row alone is given a second one, since oneDNN sums up a single row in another order."""
    if x_C.shape[:-1].numel() != 1:
        return compute(x_C)
    # The twin's result is dropped
    return compute(x_C.reshape(1, -1).repeat(2, 1))[:1].view(*x_C.shape[:-1], -1)


def _linear(x_C: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x_C, weight, bias, activation, [], "")
    return y


def _packed(weight: Tensor) -> Tensor:
    # A private operator of torch: `_can_pack` tries it first, on every build and dtype
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
    return packed


@cache
def _can_pack(dtype: torch.dtype) -> bool:
    """Try it: the operators are those that torch's own compiler uses, and not every build has them for every dtype."""
    weight, x = torch.eye(2, 3, dtype=dtype), torch.ones(2, 3, dtype=dtype)
    try:
        return torch.equal(_linear(x, _packed(weight), None), torch.ones(2, 2, dtype=dtype))
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
