"""Shapes of a Qwen2 model, dense or MoE, and the numbers that follow from them without weights. Needs no torch.

Fields are named as in a checkpoint's config.json. The presets are Table 1 of the report (arXiv 2407.10671) with what
the released config.json files add: padded vocabulary, context length, and rms_norm_eps, which is 1e-05 in the 72B base
alone.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from qwen2eval.errors import ModelError
from qwen2eval.model.config_json import read_config_json

TRAINED_LENGTH = 32768
"""Tokens of context in the last phase of pre-training (report, section 3.2)."""

N_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of one value, by dtype."""


@dataclass(frozen=True, kw_only=True)
class Yarn:
    """YARN (arXiv 2309.00071) as the released models use it; the fields are those of `rope_scaling`."""

    factor: float = 4.0
    """How many times longer the context becomes."""
    original_max_position_embeddings: int = TRAINED_LENGTH
    """The length in training, in tokens."""
    beta_fast: float = 32.0
    """Dimensions that turn more often than this within the trained length keep their frequency."""
    beta_slow: float = 1.0
    """Dimensions that turn less often than this within the trained length are interpolated in full."""
    attention_factor: float | None = None
    """What cos and sin are multiplied by; None: 0.1 ln(factor) + 1."""

    def __post_init__(self) -> None:
        """Refuse what would give nonsense.

        Raises:
            ModelError: a factor under 1, a length under 1, or betas in the wrong order.
        """
        if not (self.factor >= 1 and self.original_max_position_embeddings >= 1):
            raise ModelError(f"YARN stretches a length of 1 or more by a factor of 1 or more; this is {self}")
        if not self.beta_fast > self.beta_slow > 0:
            raise ModelError(f"YARN's beta_fast must be over beta_slow, and that over 0; this is {self}")


@dataclass(frozen=True, kw_only=True)
class DualChunk:
    """Dual chunk attention (arXiv 2402.17463); the first three fields are those of `dual_chunk_attention_config`.

    The paper's c is `chunk_size`, its w is `local_size`, its chunk length s is `chunk_size - local_size`. The local
    size behind the report's long-context results is not published; Qwen2.5-1M was released with 1/32 of the chunk.
    """

    chunk_size: int = TRAINED_LENGTH
    """No two tokens are further apart than this many positions, however long the text."""
    local_size: int = TRAINED_LENGTH // 32
    """Distances up to this are exact across the border of two chunks, too."""
    original_max_position_embeddings: int = 0
    """Over this length scores are scaled up as in YARN (no frequency changes); 0: never."""
    paper_cap: bool = False
    """Cap query positions at chunk_size - 1, as in the paper; the released code caps at chunk_size."""

    def __post_init__(self) -> None:
        """Refuse what would give nonsense.

        Raises:
            ModelError: a local size that leaves no chunk.
        """
        if not 0 < self.local_size < self.chunk_size or self.original_max_position_embeddings < 0:
            raise ModelError(f"Dual chunk attention needs 0 < local_size < chunk_size; this is {self}")

    @property
    def chunk_length(self) -> int:
        """Tokens of one chunk, s."""
        return self.chunk_size - self.local_size

    @property
    def cap(self) -> int:
        """The highest position a query takes towards keys of earlier chunks."""
        return self.chunk_size - 1 if self.paper_cap else self.chunk_size

    @property
    def inter_position(self) -> int:
        """The one position of all queries towards keys two or more chunks back."""
        # The released code reads it off the end of its successive row, which local_size > s leaves under the cap
        return self.cap if self.paper_cap else min(2 * self.chunk_length - 1, self.cap)

    def score_factor(self, sequence_length: int) -> float:
        """Return m, by which keys and the softmax scale are each multiplied in a sequence of this many tokens.

        >>> round(DualChunk(original_max_position_embeddings=32768).score_factor(131072), 4)
        1.1386
        """
        if not self.original_max_position_embeddings:
            return 1.0
        return max(1.0, 0.1 * math.log(sequence_length / self.original_max_position_embeddings) + 1.0)


@dataclass(frozen=True, kw_only=True)
class Qwen2Config:
    """One Qwen2 architecture; a model is a mixture of experts if `num_experts` is over 0."""

    vocab_size: int
    """Rows of the embedding, padding included; the tokenizer uses fewer."""
    hidden_size: int
    """Width of the residual stream."""
    intermediate_size: int
    """Width of a dense MLP; a model without dense layers has no use for it."""
    num_hidden_layers: int
    """Decoder layers."""
    num_attention_heads: int
    """Query heads."""
    num_key_value_heads: int
    """Key-value heads: each serves num_attention_heads / num_key_value_heads query heads."""
    max_position_embeddings: int = TRAINED_LENGTH
    """The longest input in tokens that the checkpoint declares, before YARN or DCA."""
    original_max_position_embeddings: int | None = None
    """Tokens of context in training, where the checkpoint declares more and says so, as Phi-3's do; None: the lesser of
    `max_position_embeddings` and what the released models were trained on."""
    rms_norm_eps: float = 1e-6
    """Added to the mean square before its root."""
    rope_theta: float = 1e6
    """Base of the rotary frequencies."""
    tie_word_embeddings: bool = False
    """Whether the head is the embedding."""
    head_dim: int | None = None
    """Width of one head; None: hidden_size / num_attention_heads."""
    num_experts: int = 0
    """Routed experts of a sparse layer; 0: a dense model."""
    num_experts_per_tok: int = 0
    """Routed experts that each token visits."""
    moe_intermediate_size: int = 0
    """Width of a routed expert."""
    shared_expert_intermediate_size: int = 0
    """Width of the expert that every token visits (8 shared experts of the report in one)."""
    decoder_sparse_step: int = 1
    """Every how many layers a sparse one comes."""
    mlp_only_layers: tuple[int, ...] = ()
    """Layers, counted from 0, that are dense all the same."""
    norm_topk_prob: bool = False
    """Whether the probabilities of the chosen experts are made to sum to 1."""
    yarn: Yarn | None = None
    """Stretching by YARN (`rope_scaling` in the file); None: off."""
    dual_chunk: DualChunk | None = None
    """Dual chunk attention (`dual_chunk_attention_config` in the file); None: ordinary attention."""

    def __post_init__(self) -> None:
        """Refuse shapes that fit no model.

        Raises:
            ModelError: a size that is not a positive number, or sizes that don't divide.
        """
        for name in _sizes(self):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ModelError(f"{name} is {value!r} in the model's config: it must be a whole number of 1 or more")
        trained: Any = self.original_max_position_embeddings
        if trained is not None and not (isinstance(trained, int) and 1 <= trained <= self.max_position_embeddings):
            raise ModelError(
                f"original_max_position_embeddings is {trained!r} in the model's config: a trained length is from 1 to "
                f"max_position_embeddings ({self.max_position_embeddings:,})"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ModelError(
                f"num_attention_heads ({self.num_attention_heads}) is not a multiple of num_key_value_heads "
                f"({self.num_key_value_heads}) in the model's config"
            )
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ModelError(
                f"hidden_size ({self.hidden_size}) is not a multiple of num_attention_heads "
                f"({self.num_attention_heads}) in the model's config, and it gives no head_dim"
            )
        if self.head_size % 2:
            raise ModelError(f"Heads of {self.head_size} values can't be rotated in pairs: the size must be even")
        if self.num_experts_per_tok > self.num_experts:
            raise ModelError(
                f"num_experts_per_tok ({self.num_experts_per_tok}) is over num_experts ({self.num_experts}) "
                "in the model's config"
            )

    @classmethod
    def from_hf(cls, source: Mapping[str, object] | str | Path) -> Self:
        """Read a checkpoint's config.json, in its older form (`rope_theta`) or its newer one (`rope_parameters`).

        Args:
            source: the parsed dictionary, the file, or the checkpoint's folder.

        Raises:
            ModelError: the file can't be read, is of another architecture, or asks for what this model doesn't do.
        """
        values = read_config_json(source)
        yarn, dual = values.pop("yarn"), values.pop("dual_chunk")
        config = cls(**values, yarn=Yarn(**yarn) if yarn else None, dual_chunk=DualChunk(**dual) if dual else None)
        return config.with_context()

    @classmethod
    def preset(cls, name: str) -> Self:
        """Return the config of a released model.

        >>> Qwen2Config.preset("Qwen2-7B").n_parameters
        7615616512

        Raises:
            ModelError: no released model has this name.
        """
        if name not in PRESETS:
            raise ModelError(f"Unknown model {name!r}. Released models: {', '.join(PRESETS)}")
        return cls(**PRESETS[name])

    def with_context(self, *, yarn_factor: float | None = None, dual_chunk: DualChunk | bool | None = None) -> Self:
        """Return this config with its context stretched; YARN together with DCA scales scores and nothing else.

        Args:
            yarn_factor: how many times longer the context becomes; 1: no YARN; None: as it is.
            dual_chunk: True for chunks as long as the trained context (those of the released models), False for none;
                None: as it is.

        Raises:
            ModelError: a factor under 1.
        """
        yarn, dual = self.yarn, self.dual_chunk
        if yarn_factor is not None:
            known = yarn or Yarn(original_max_position_embeddings=self.original_max_length)
            yarn = None if yarn_factor == 1 else replace(known, factor=yarn_factor)
        if isinstance(dual_chunk, DualChunk):
            dual = dual_chunk
        elif dual_chunk is not None:
            fitting = DualChunk(chunk_size=self.original_max_length, local_size=max(self.original_max_length // 32, 1))
            dual = (dual or fitting) if dual_chunk else None
        if yarn and dual and not dual.original_max_position_embeddings:
            dual = replace(dual, original_max_position_embeddings=yarn.original_max_position_embeddings)
        return replace(self, yarn=yarn, dual_chunk=dual)

    @property
    def original_max_length(self) -> int:
        """Tokens of context in training."""
        return self.original_max_position_embeddings or min(TRAINED_LENGTH, self.max_position_embeddings)

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    def is_sparse(self, layer: int) -> bool:
        """Return whether layer `layer`, counted from 0, is a mixture of experts."""
        return (
            self.num_experts > 0
            and layer not in self.mlp_only_layers
            and (layer + 1) % max(self.decoder_sparse_step, 1) == 0
        )

    @property
    def n_sparse_layers(self) -> int:
        """Layers that are mixtures of experts."""
        return sum(self.is_sparse(layer) for layer in range(self.num_hidden_layers))

    @property
    def n_embedding_parameters(self) -> int:
        """Parameters of the embedding, and of the head where it is separate."""
        return self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)

    @property
    def n_non_embedding_parameters(self) -> int:
        """Parameters without embedding and head."""
        n_dense = self.num_hidden_layers - self.n_sparse_layers
        mlps = n_dense * 3 * self.hidden_size * self.intermediate_size
        mlps += self.n_sparse_layers * (self._n_sparse_shared + self.num_experts * self._n_expert)
        return self.num_hidden_layers * self._n_attention_and_norms + mlps + self.hidden_size

    @property
    def n_parameters(self) -> int:
        """All parameters."""
        return self.n_embedding_parameters + self.n_non_embedding_parameters

    @property
    def n_active_parameters(self) -> int:
        """Parameters that one token meets: all but the routed experts it doesn't visit."""
        idle_experts = self.num_experts - self.num_experts_per_tok
        return self.n_parameters - self.n_sparse_layers * idle_experts * self._n_expert

    @property
    def _n_attention_and_norms(self) -> int:
        query_width, kv_width = (n * self.head_size for n in (self.num_attention_heads, self.num_key_value_heads))
        weights = self.hidden_size * (2 * query_width + 2 * kv_width)  # q and o, k and v
        return weights + query_width + 2 * kv_width + 2 * self.hidden_size  # biases of q, k, v; two norms

    @property
    def _n_expert(self) -> int:
        return 3 * self.hidden_size * self.moe_intermediate_size

    @property
    def _n_sparse_shared(self) -> int:
        """Parameters of a sparse layer that all tokens meet: router, shared expert and its gate."""
        return self.hidden_size * (self.num_experts + 3 * self.shared_expert_intermediate_size + 1)

    def kv_bytes_per_token(self, *, dtype: str = "bfloat16") -> int:
        """Return the bytes that keys and values of one token take in the cache."""
        return 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_size * _n_bytes(dtype)

    def memory_bytes(self, context_length: int, *, dtype: str = "bfloat16", batch_size: int = 1) -> int:
        """Return the bytes of weights and cache at a context of this many tokens; what passes through comes on top."""
        cache = context_length * batch_size * self.kv_bytes_per_token(dtype=dtype)
        return self.n_parameters * _n_bytes(dtype) + cache

    @property
    def max_length(self) -> int:
        """The longest input in tokens, with YARN or DCA as they are set.

        DCA by itself knows no limit; it is taken to reach four chunks (131,072 tokens for the released models), the
        length that the report tested, unless the checkpoint declares more.
        """
        if self.yarn is not None:
            return max(self.max_position_embeddings, int(self.yarn.factor * self.yarn.original_max_position_embeddings))
        if self.dual_chunk is not None:
            return max(self.max_position_embeddings, 4 * self.dual_chunk.chunk_size)
        return self.max_position_embeddings

    def check_length(self, n_tokens: int) -> None:
        """Refuse an input over the model's length.

        Raises:
            ModelError: it is too long; says which setting would fit.
        """
        if n_tokens <= self.max_length:
            return
        original = self.yarn.original_max_position_embeddings if self.yarn else self.original_max_length
        original = min(original, self.max_position_embeddings)
        factor = math.ceil(n_tokens / original)
        raise ModelError(
            f"{n_tokens:,} tokens are over the model's length of {self.max_length:,}. Shorten the input, or stretch "
            f"the context: yarn_factor={factor} fits (alone, or with dual_chunk=True for dual chunk attention); "
            "the released models were tested up to a factor of 4"
        )


def _sizes(config: Qwen2Config) -> Iterator[str]:
    """Yield the names of the fields that must be positive whole numbers."""
    moe = ("num_experts_per_tok", "moe_intermediate_size", "shared_expert_intermediate_size", "decoder_sparse_step")
    for field in fields(config):
        needed = field.name not in (*moe, "num_experts", "head_dim") or (field.name in moe and config.num_experts)
        if field.type in (int, "int") and needed:
            yield field.name
    if config.head_dim is not None:
        yield "head_dim"


def _n_bytes(dtype: str) -> int:
    if dtype not in N_BYTES:
        raise ModelError(f"Unknown dtype {dtype!r}: choose one of {', '.join(N_BYTES)}")
    return N_BYTES[dtype]


# Columns: hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, num_key_value_heads, vocab_size
_COLUMNS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
)
_SHAPES = {
    "Qwen2-0.5B": (896, 4864, 24, 14, 2, 151936),
    "Qwen2-1.5B": (1536, 8960, 28, 12, 2, 151936),
    "Qwen2-7B": (3584, 18944, 28, 28, 4, 152064),
    "Qwen2-72B": (8192, 29568, 80, 64, 8, 152064),
    "Qwen2-57B-A14B": (3584, 18944, 28, 28, 4, 151936),
}
_TIED = ("Qwen2-0.5B", "Qwen2-1.5B")
_EXPERTS = {
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 2560,
    "shared_expert_intermediate_size": 20480,
}


def _presets() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, shape in _SHAPES.items():
        common = dict(zip(_COLUMNS, shape, strict=True)) | {"tie_word_embeddings": name in _TIED}
        if name == "Qwen2-57B-A14B":
            common |= _EXPERTS
        base = {"max_position_embeddings": 131072, "rms_norm_eps": 1e-5 if name == "Qwen2-72B" else 1e-6}
        yield name, common | base
        yield f"{name}-Instruct", common | {"max_position_embeddings": TRAINED_LENGTH}


PRESETS: dict[str, dict[str, Any]] = dict(_presets())
"""The ten released models, by name: what sets their config apart from the defaults."""
