"""Longer contexts for vLLM: `yarn_factor` and `dual_chunk` of `--model_args` become its `hf_overrides`.

They are read as those of `--model qwen2`, so one argument means the same for both. vLLM applies
YARN to texts of any length, as the released models do.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from qwen2eval.backends.qwen2.args import Qwen2Args
from qwen2eval.backends.rope import rope_label
from qwen2eval.errors import ModelError
from qwen2eval.model.config import TRAINED_LENGTH, Qwen2Config
from qwen2eval.model.config_json import QUANTISED

CONTEXT_ARGS = ("yarn_factor", "dual_chunk", "chunk_size", "local_size")


class LongContext(NamedTuple):
    """vLLM's arguments for a stretched context."""

    hf_overrides: dict[str, Any]
    max_length: int
    """Tokens of prompt and answer, unless the user asks for fewer."""
    rope: str
    """As `ModelSpec.rope`."""


def stretch(args: Mapping[str, object], path: str) -> LongContext | None:
    """Return what `args` ask of the checkpoint in a folder or hub name, or None if they leave the context as it is.

    Raises:
        ModelError: as `long_context`, or the installed vLLM can't do it.
    """
    if all(args.get(key) is None for key in CONTEXT_ARGS):
        return None
    from transformers import AutoConfig

    options = {key: args[key] for key in ("revision", "trust_remote_code") if key in args}
    stretched = long_context(args, AutoConfig.from_pretrained(path, **options).to_dict())
    _check_dual_chunk(stretched.hf_overrides)
    return stretched


def stretchable_length(path: str, args: Mapping[str, object]) -> int | None:
    """Return the trained context of a checkpoint that can be stretched; None for other architectures than Qwen2's."""
    from transformers import AutoConfig

    options = {key: args[key] for key in ("revision", "trust_remote_code") if key in args}
    kind = AutoConfig.from_pretrained(path, **options).model_type
    return TRAINED_LENGTH if kind in ("qwen2", "qwen2_moe") else None


def long_context(args: Mapping[str, object], checkpoint_config: Mapping[str, object]) -> LongContext:
    """Return what `args` ask for.

    Args:
        args: `--model_args`.
        checkpoint_config: the checkpoint's config.json.

    Raises:
        ModelError: an argument of the wrong kind, or a checkpoint of another architecture.
    """
    given = Qwen2Args.read({key: args[key] for key in CONTEXT_ARGS if args.get(key) is not None})
    # how weights are stored says nothing of the context, and vLLM reads more forms than our own architecture
    config = Qwen2Config.from_hf({k: v for k, v in checkpoint_config.items() if k not in QUANTISED})
    config = config.with_context(yarn_factor=given.yarn_factor, dual_chunk=given.dual_chunk_of(config))
    overrides: dict[str, Any] = {"max_position_embeddings": config.max_length}
    if config.yarn:
        # vLLM takes the dictionary as it is: what it doesn't name is gone, rope_theta too
        overrides["rope_parameters"] = {
            "rope_type": "yarn",
            "rope_theta": config.rope_theta,
            "factor": config.yarn.factor,
            "original_max_position_embeddings": config.yarn.original_max_position_embeddings,
            "beta_fast": config.yarn.beta_fast,
            "beta_slow": config.yarn.beta_slow,
        }
        if config.yarn.attention_factor is not None:
            overrides["rope_parameters"]["attention_factor"] = config.yarn.attention_factor
    elif given.yarn_factor == 1:  # the checkpoint's own YARN is taken off
        overrides["rope_parameters"] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.dual_chunk:
        overrides["dual_chunk_attention_config"] = {
            "chunk_size": config.dual_chunk.chunk_size,
            "local_size": config.dual_chunk.local_size,
            "original_max_position_embeddings": config.dual_chunk.original_max_position_embeddings,
        }
    return LongContext(overrides, config.max_length, rope_label(config))


def _check_dual_chunk(overrides: Mapping[str, object]) -> None:
    """Refuse dual chunk attention where the installed vLLM would not compute it.

    Raises:
        ModelError: no attention backend of this vLLM knows it: it left with v0.11.0 (vllm-project/vllm#25351).
    """
    if "dual_chunk_attention_config" not in overrides:
        return
    from vllm.v1.attention.backends.registry import AttentionBackendEnum

    if not any("DUAL_CHUNK" in name for name in AttentionBackendEnum.__members__):
        raise ModelError(
            "dual_chunk: the installed vLLM computes no dual chunk attention (removed in its v0.11.0). Leave it out "
            "and stretch the context with yarn_factor=4 alone, or use --model qwen2"
        )
