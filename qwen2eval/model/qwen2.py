"""The Qwen2 model: embedding, decoder layers, norm, head (report, section 2.2). To evaluate: no dropout, no gradients.

Attributes carry the names of a checkpoint's keys, so loading is nearly the identity (`load.py`).

Shape suffixes: B batch, T new tokens, C hidden size, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qwen2eval.model.attention import Attend, Attention
from qwen2eval.model.cache import KVCache, positions_of
from qwen2eval.model.config import Qwen2Config
from qwen2eval.model.layers import RMSNorm, SwiGLU
from qwen2eval.model.moe import SparseMoE
from qwen2eval.model.rope import Rope
from qwen2eval.model.row_attention import RowAttention, Span


class DecoderLayer(nn.Module):
    """Attention, then MLP or experts, each on normalised input and added to the stream."""

    def __init__(self, config: Qwen2Config, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp: nn.Module = (
            SparseMoE(config) if config.is_sparse(layer) else SwiGLU(config.hidden_size, config.intermediate_size)
        )

    def forward(self, x_C: Tensor, attend: Attend) -> Tensor:
        """Return the stream behind this layer, (…, hidden)."""
        x_C = x_C + self.self_attn(self.input_layernorm(x_C), attend)
        y_C: Tensor = x_C + self.mlp(self.post_attention_layernorm(x_C))
        return y_C


class Decoder(nn.Module):
    """Everything under the head."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Qwen2Model(nn.Module):
    """A causal language model; `load_model` makes one from a checkpoint."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = None if config.tie_word_embeddings else nn.Linear(config.hidden_size, config.vocab_size, False)
        self._rope: Rope | None = None

    @torch.inference_mode()
    def forward(self, input_ids: Tensor, cache: KVCache | None = None, *, sequence_length: int | None = None) -> Tensor:
        """Return the logits that follow each token.

        Args:
            input_ids: token ids, (batch, time), int64; with a cache, those behind the tokens it holds.
            cache: is read and extended; None: nothing is kept.
            sequence_length: as in `hidden`.

        Returns:
            (batch, time, vocab), float32.

        Raises:
            ModelError: the input is over the model's length.
        """
        return self.logits(self.hidden(input_ids, cache, sequence_length=sequence_length))

    @torch.inference_mode()
    def hidden(self, input_ids: Tensor, cache: KVCache | None = None, *, sequence_length: int | None = None) -> Tensor:
        """Return the stream under the head, (batch, time, hidden), for logits of chosen positions.

        Args:
            sequence_length: tokens of the whole sequence; matters only to DCA with score scaling, where a prompt that
                comes in pieces must be scaled as one. None: as many as there are with these, as in the released code.

        Raises:
            ModelError: the input is over the model's length.
        """
        if input_ids.dim() != 2 or input_ids.shape[1] == 0:
            raise ValueError(f"input_ids must be (batch, time) with time > 0, not {tuple(input_ids.shape)}")
        start, n_new = 0 if cache is None else cache.length, input_ids.shape[1]
        self.config.check_length(start + n_new)
        positions = positions_of(start, n_new, device=input_ids.device)
        span = Span(start, positions, sequence_length or start + n_new)
        return self.stream(input_ids, RowAttention(span, self.rope, self.config.dual_chunk, cache))

    @torch.inference_mode()
    def stream(self, input_ids: Tensor, attend: Attend) -> Tensor:
        """Return the stream under the head for token ids of any shape (…): (…, hidden).

        Args:
            attend: knows the tokens' positions, and what each of them sees.
        """
        x_C = self.model.embed_tokens(input_ids)
        for layer in self.model.layers:
            x_C = layer(x_C, attend)
        y_C: Tensor = self.model.norm(x_C)
        return y_C

    @torch.inference_mode()
    def logits(self, x_C: Tensor) -> Tensor:
        """Return the head's output for streams of any shape (…, hidden): (…, vocab), float32."""
        if self.lm_head is None:
            return F.linear(x_C, self.model.embed_tokens.weight).float()
        logits_V: Tensor = self.lm_head(x_C)
        return logits_V.float()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and computation."""
        return self.model.norm.weight.dtype

    @property
    def rope(self) -> Rope:
        """The rotary embedding, on the weights' device."""
        if self._rope is None or self._rope.frequencies_F.device != self.device:
            self._rope = Rope(self.config, device=self.device)
        return self._rope
