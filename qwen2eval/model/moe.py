"""The mixture-of-experts layer of Qwen2-57B-A14B: fine-grained routed experts and one shared expert.

y = sum over the top k of p_i E_i(x) + sigmoid(w_s x) E_shared(x), with p a softmax over all experts in float32 that is
not renormalised unless the config says so (report, section 2.2.2; the sigmoid gate is in the released code only).

Shape suffixes: N tokens, C hidden size, E experts, k experts a token visits, I width of an expert.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwen2eval.model.config import Qwen2Config
from qwen2eval.model.layers import SwiGLU


class Experts(nn.Module):
    """The routed experts' weights: gate and up in one matrix, (2I, hidden), and down, (hidden, I)."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        n_experts, width, hidden = config.num_experts, config.moe_intermediate_size, config.hidden_size
        self.gate_up_proj = nn.Parameter(torch.empty(n_experts, 2 * width, hidden))
        self.down_proj = nn.Parameter(torch.empty(n_experts, hidden, width))

    def forward(self, x_NC: Tensor, weights_Nk: Tensor, experts_Nk: Tensor) -> Tensor:
        """Return the weighted sum of what each token's experts say, (tokens, hidden)."""
        y_NC = torch.zeros_like(x_NC)
        n_chosen = experts_Nk.shape[1]
        # Sorted by expert, so that each expert reads its tokens in one matrix product
        order = experts_Nk.flatten().argsort(stable=True)
        counts = experts_Nk.flatten().bincount(minlength=self.down_proj.shape[0]).tolist()
        for expert, rows in enumerate(torch.split(order, counts)):
            if not len(rows):
                continue
            tokens = rows // n_chosen
            gate, up = F.linear(x_NC[tokens], self.gate_up_proj[expert]).chunk(2, dim=-1)
            out = F.linear(F.silu(gate) * up, self.down_proj[expert])
            y_NC.index_add_(0, tokens, out * weights_Nk.flatten()[rows, None])
        return y_NC


class SparseMoE(nn.Module):
    """Router, routed experts, shared expert."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.n_chosen, self.renormalise = config.num_experts_per_tok, config.norm_topk_prob
        self.gate = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.experts = Experts(config)
        self.shared_expert = SwiGLU(config.hidden_size, config.shared_expert_intermediate_size)
        self.shared_expert_gate = nn.Linear(config.hidden_size, 1, bias=False)

    def forward(self, x_C: Tensor) -> Tensor:
        """Return the layer's output, (…, hidden)."""
        x_NC = x_C.flatten(0, -2)
        weights_Nk, experts_Nk = self.route(x_NC)
        routed_NC = self.experts(x_NC, weights_Nk.to(x_NC.dtype), experts_Nk)
        shared_NC = torch.sigmoid(self.shared_expert_gate(x_NC)) * self.shared_expert(x_NC)
        y_C: Tensor = (routed_NC + shared_NC).view_as(x_C)
        return y_C

    def route(self, x_NC: Tensor) -> tuple[Tensor, Tensor]:
        """Return each token's weights, (tokens, k) float32, and experts, (tokens, k) int64, the likeliest first."""
        probabilities_NE = F.softmax(self.gate(x_NC), dim=-1, dtype=torch.float32)
        weights_Nk, experts_Nk = probabilities_NE.topk(self.n_chosen, dim=-1)
        if self.renormalise:
            weights_Nk = weights_Nk / weights_Nk.sum(dim=-1, keepdim=True)
        return weights_Nk, experts_Nk
