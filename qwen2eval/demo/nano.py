"""The demo model, qwen2-nano: this project's Qwen2 made very small, with first weights and a forward pass to train it.

Shape suffixes: B rows, T tokens, C hidden size, V vocabulary.
"""

# ruff: noqa: N803, N806, N812 - tensors carry their shape in the name, and torch.nn.functional is F

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen2eval.demo.tokenizer import save_tokenizer
from qwen2eval.model import Qwen2Config
from qwen2eval.model.qwen2 import Qwen2Model
from qwen2eval.model.rope import Rope, turn
from qwen2eval.model.save import ShardWriter, new_folder, write_config, write_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TRAINED_LENGTH = 512
"""Tokens of context in training: short, so that longer haystacks need YARN and dual chunk attention."""
DECLARED_LENGTH = 4 * TRAINED_LENGTH
"""Tokens that the checkpoint says it takes, as Qwen2's base models say 131,072 after training on 32,768."""
_VOCABULARY_STEP = 64
_STD = 0.02
_BLOCK = 128
"""Queries that attend together in training."""


def nano_config(n_tokens: int) -> Qwen2Config:
    """Return the model's shape for a tokenizer of so many tokens.

    >>> nano_config(2_200).n_parameters
    4100736
    """
    return Qwen2Config(
        vocab_size=-(-n_tokens // _VOCABULARY_STEP) * _VOCABULARY_STEP,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=5,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=DECLARED_LENGTH,
        original_max_position_embeddings=TRAINED_LENGTH,
        rope_theta=10_000.0,
        tie_word_embeddings=True,
    )


def new_model(config: Qwen2Config, *, seed: int) -> Qwen2Model:
    """Return a model with random weights, the same for the same seed; float32, on the CPU."""
    model, chance = Qwen2Model(config), torch.Generator().manual_seed(seed)
    # What is added to the stream is smaller the more layers add to it, as in GPT-2
    added = _STD / math.sqrt(2 * config.num_hidden_layers)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                std = added if name.endswith(("o_proj.weight", "down_proj.weight")) else _STD
                parameter.normal_(0.0, std, generator=chance)
            else:
                parameter.fill_(1.0 if "norm" in name else 0.0)
    return model


class TrainingAttention:
    """An `Attend` that gradients go through: rows of equal length from position 0 on, no cache.

    Queries come in blocks, each with the keys up to its end: backwards torch's own kernels take twice as long on a CPU.
    Shape suffixes: R rows times key-value heads, G query heads of a key-value head, S queries of a block, D head size.
    """

    def __init__(self, rope: Rope, length: int) -> None:
        self._turns = rope.turns(torch.arange(length))
        self._hidden_TT = torch.full((length, length), -math.inf).triu(1)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # noqa: ARG002 - has no cache to choose
        """Return what each token gathers, (rows, tokens, heads, head size)."""
        n_rows, n_tokens, n_heads, size = q.shape
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        q, k = (turn(x, self._turns).to(v.dtype) for x in (q, k))
        k_RTD, v_RTD = (x.reshape(-1, n_tokens, size) for x in (k, v))
        q_RGTD = q.reshape(len(k_RTD), -1, n_tokens, size)
        blocks = [
            self._block(q_RGTD[:, :, begin : begin + _BLOCK], k_RTD, v_RTD, begin)
            for begin in range(0, n_tokens, _BLOCK)
        ]
        return torch.cat(blocks, 2).reshape(n_rows, n_heads, n_tokens, size).transpose(1, 2)

    def _block(self, q_RGSD: Tensor, k_RTD: Tensor, v_RTD: Tensor, begin: int) -> Tensor:
        n_groups, n_queries, size = q_RGSD.shape[1:]
        end = begin + n_queries
        scores = torch.bmm(q_RGSD.reshape(len(k_RTD), -1, size), k_RTD[:, :end].transpose(1, 2)) * size**-0.5
        hidden_ST = self._hidden_TT[begin:end, :end].to(scores.dtype)
        weights = torch.softmax(scores.view(-1, n_groups, n_queries, end) + hidden_ST, -1).to(v_RTD.dtype)
        return torch.bmm(weights.view(len(k_RTD), -1, end), v_RTD[:, :end]).view(q_RGSD.shape)


def training_logits(model: Qwen2Model, ids_BT: Tensor) -> Tensor:
    """Return the logits behind each token, (rows, tokens, vocab), as `model` does, with gradients."""
    attend = TrainingAttention(model.rope, ids_BT.shape[1])
    x_BTC: Tensor = model.model.embed_tokens(ids_BT)
    for layer in model.model.layers:
        x_BTC = layer(x_BTC, attend)
    return F.linear(model.model.norm(x_BTC), model.model.embed_tokens.weight)


class Muon:
    """Momentum whose directions are made orthogonal (Jordan 2024), for the matrices of layers.

    As torch.optim.Muon with match_rms_adamw, but in float32, and matrices of a shape at once: torch computes in
    bfloat16, which takes twenty times as long on processors without instructions for it.
    """

    momentum = 0.95
    coefficients = (3.4445, -4.7750, 2.0315)
    n_iterations = 5

    def __init__(self, parameters: Iterable[torch.nn.Parameter], *, weight_decay: float) -> None:
        self._by_shape: dict[torch.Size, list[torch.nn.Parameter]] = {}
        for parameter in parameters:
            self._by_shape.setdefault(parameter.shape, []).append(parameter)
        self._means = [torch.zeros(len(group), *shape) for shape, group in self._by_shape.items()]
        self._weight_decay = weight_decay

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Change the weights by their gradients, which are dropped then."""
        for (shape, group), means in zip(self._by_shape.items(), self._means, strict=True):
            gradients = torch.stack([parameter.grad for parameter in group if parameter.grad is not None])
            means.lerp_(gradients, 1 - self.momentum)
            directions = self._orthogonal(gradients.lerp(means, self.momentum))
            for parameter, direction in zip(group, directions, strict=True):
                parameter.mul_(1 - rate * self._weight_decay)
                parameter.sub_(direction, alpha=rate * 0.2 * math.sqrt(max(shape)))
                parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state that is needed to resume."""
        return {"means": self._means}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self._means = [means.clone() for means in state["means"]]

    def _orthogonal(self, x: Tensor) -> Tensor:
        """Return about U V' of each matrix U S V' by Newton and Schulz's iteration: the singular values come near 1."""
        is_tall = x.shape[1] > x.shape[2]
        x = x.mT if is_tall else x
        x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
        a, b, c = self.coefficients
        for _ in range(self.n_iterations):
            square = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
        return x.mT if is_tall else x


class Optimizers:
    """Muon for the layers' matrices, AdamW for the embedding, biases and norms.

    Muon learns to copy, which all else here builds on, in less than half of AdamW's steps.
    """

    def __init__(self, model: Qwen2Model, *, weight_decay: float) -> None:
        layers = list(model.model.layers.parameters())
        others = [*model.model.embed_tokens.parameters(), *model.model.norm.parameters()]
        self._muon = Muon((p for p in layers if p.dim() > 1), weight_decay=weight_decay)
        flat = [*others, *(p for p in layers if p.dim() == 1)]
        self._adam = torch.optim.AdamW(flat, betas=(0.9, 0.95), weight_decay=0.0, fused=True)

    def step(self, *, muon_rate: float, adam_rate: float) -> None:
        """Change the weights by their gradients, which are dropped then."""
        self._muon.step(muon_rate)
        for group in self._adam.param_groups:
            group["lr"] = adam_rate
        self._adam.step()
        self._adam.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Return the state that is needed to resume."""
        return {"muon": self._muon.state_dict(), "adam": self._adam.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self._muon.load_state_dict(state["muon"])
        self._adam.load_state_dict(state["adam"])


def save_model(model: Qwen2Model, tokenizer: "Tokenizer", folder: Path) -> None:
    """Write a checkpoint as Hugging Face reads it: bfloat16 weights, config, tokenizer.

    Raises:
        ModelError: the folder is there already, or can't be written.
    """
    config = model.config
    with new_folder(folder, n_bytes=2 * config.n_parameters) as draft:
        writer = ShardWriter(draft)
        for name, parameter in model.named_parameters():
            writer.add(name, parameter.detach().to(torch.bfloat16))
        writer.finish()
        write_config(draft, _hf_config(config), dtype="bfloat16")
        write_json(draft / "generation_config.json", {"bos_token_id": 0, "eos_token_id": [0, 2], "pad_token_id": 0})
        save_tokenizer(tokenizer, draft)


def _hf_config(config: Qwen2Config) -> dict[str, Any]:
    names = (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "max_position_embeddings", "original_max_position_embeddings"),
        *("rms_norm_eps", "rope_theta", "tie_word_embeddings"),
    )
    fixed = {"hidden_act": "silu", "use_sliding_window": False, "bos_token_id": 0, "eos_token_id": 0}
    return {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"} | {
        name: getattr(config, name) for name in names
    } | fixed  # fmt: skip
