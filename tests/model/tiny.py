"""Tiny random Qwen2 models, written by transformers and loaded by ours."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM, Qwen2MoeConfig, Qwen2MoeForCausalLM

from qwen2eval.model import load_model
from qwen2eval.model.qwen2 import Qwen2Model

VOCAB = 97
DENSE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
}
MOE: dict[str, Any] = DENSE | {
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,  # its rows must be multiples of 16 bytes for transformers in bfloat16
    "shared_expert_intermediate_size": 40,
}


@dataclass(frozen=True)
class Pair:
    """The same weights in both implementations."""

    ours: Qwen2Model
    theirs: PreTrainedModel
    folder: Path


def save_tiny(folder: Path, *, seed: int = 0, **settings: Any) -> PreTrainedModel:
    """Write a random checkpoint and return transformers' model of it; weights are large enough to tell mistakes."""
    kinds = (Qwen2MoeConfig, Qwen2MoeForCausalLM) if "num_experts" in settings else (Qwen2Config, Qwen2ForCausalLM)
    torch.manual_seed(seed)
    theirs = kinds[1](kinds[0](**settings)).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            # biases and norms start at 0 and 1, where leaving them out wouldn't show
            parameter.copy_(torch.randn_like(parameter) * 0.15 + (1.0 if "norm" in name else 0.0))
    theirs.save_pretrained(folder)
    return theirs


def make_pair(folder: Path, *, load: dict[str, Any] | None = None, **settings: Any) -> Pair:
    """Write a random checkpoint and load it into both implementations."""
    theirs = save_tiny(folder, **settings)
    return Pair(load_model(folder, **(load or {})), theirs, folder)


def random_ids(n_tokens: int, *, n_rows: int = 2, seed: int = 1) -> torch.Tensor:
    """Return token ids, (rows, tokens)."""
    return torch.randint(0, VOCAB, (n_rows, n_tokens), generator=torch.Generator().manual_seed(seed))
