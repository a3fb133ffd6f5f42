"""The demo model, qwen2-nano: this project's Qwen2 made very small, with first weights and a forward pass to train it.

Shape suffixes: B rows, T tokens, C hidden size, V vocabulary.
"""

# ruff: noqa: N803, N806, N812 - tensors carry their shape in the name, and torch.nn.functional is F

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwen2eval.demo.tokenizer import save_tokenizer
from qwen2eval.model import Qwen2Config
from qwen2eval.model.qwen2 import Qwen2Model
from qwen2eval.model.rope import Rope, turn
from qwen2eval.model.save import ShardWriter, new_folder, write_config, write_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TRAINED_LENGTH = 512
"""Tokens of context in training: short, so that longer haystacks need YARN and dual chunk attention."""
_VOCABULARY_STEP = 64
_STD = 0.02


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
        max_position_embeddings=TRAINED_LENGTH,
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
    """An `Attend` that gradients go through: rows of equal length from position 0 on, no cache."""

    def __init__(self, rope: Rope, length: int) -> None:
        self._turns = rope.turns(torch.arange(length))

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # noqa: ARG002 - has no cache to choose
        """Return what each token gathers, (rows, tokens, heads, head size)."""
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        n_groups = q.shape[1] // k.shape[1]
        q, k = (turn(x, self._turns).to(v.dtype) for x in (q, k))
        k, v = (x.repeat_interleave(n_groups, dim=1) for x in (k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


def training_logits(model: Qwen2Model, ids_BT: Tensor) -> Tensor:
    """Return the logits behind each token, (rows, tokens, vocab), as `model` does, with gradients."""
    attend = TrainingAttention(model.rope, ids_BT.shape[1])
    x_BTC: Tensor = model.model.embed_tokens(ids_BT)
    for layer in model.model.layers:
        x_BTC = layer(x_BTC, attend)
    return F.linear(model.model.norm(x_BTC), model.model.embed_tokens.weight)


def parameter_groups(model: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Return parameters for an optimizer: matrices decay, biases and norms don't."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
    ]


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
        *("num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "rope_theta", "tie_word_embeddings"),
    )
    fixed = {"hidden_act": "silu", "use_sliding_window": False, "bos_token_id": 0, "eos_token_id": 0}
    return {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"} | {
        name: getattr(config, name) for name in names
    } | fixed  # fmt: skip
