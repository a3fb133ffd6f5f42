"""The small layers: RMSNorm and SwiGLU.

Shape suffix: C hidden size, behind any others.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Divides by the root of the mean square, in float32, and multiplies by a weight."""

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.empty(hidden_size)), eps

    def forward(self, x_C: Tensor) -> Tensor:
        """Return the normalised values, in x's dtype."""
        # Rounded to x's dtype before the weight, as in the reference: in bfloat16 the order shows
        wide_C = x_C.float()
        wide_C = wide_C * torch.rsqrt(wide_C.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide_C.to(x_C.dtype)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)), without biases."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x_C: Tensor) -> Tensor:
        """Return the layer's output, of x's shape."""
        y_C: Tensor = self.down_proj(F.silu(self.gate_proj(x_C)) * self.up_proj(x_C))
        return y_C
