"""Reads a checkpoint's config.json into plain values, and refuses what the model of this package doesn't do.

Two forms are met: transformers before 5 wrote `rope_theta` and `rope_scaling`, later ones `rope_parameters` with both.
A GGUF file's metadata is brought into the older form and goes the same way.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen2eval.errors import ModelError
from qwen2eval.model.gguf_header import find_gguf, hf_config, read_header
from qwen2eval.model.not_a_model import check_not_pointer

MODEL_TYPES = ("qwen2", "qwen2_moe")
DEFAULT_ROPE_THETA = 10_000.0
"""What transformers takes when a Qwen2 config has no base at all."""

_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
)
_OPTIONAL = ("rms_norm_eps", "tie_word_embeddings", "head_dim", "original_max_position_embeddings")
_MOE_REQUIRED = ("num_experts", "num_experts_per_tok", "moe_intermediate_size", "shared_expert_intermediate_size")
_MOE_OPTIONAL = ("decoder_sparse_step", "norm_topk_prob")
_YARN_NUMBERS = ("factor", "beta_fast", "beta_slow", "attention_factor")
_ROPE_KEYS = {"rope_type", "type", "rope_theta", "original_max_position_embeddings", *_YARN_NUMBERS}
QUANTISED = ("quantization_config", "compression_config", "quantization")
"""Of transformers, of older compressed-tensors, of MLX."""
_BIDIRECTIONAL = ("use_bidirectional_attention", "bidirectional", "is_bidirectional")
NOT_CAUSAL = (
    "its config sets is_causal = false (or bidirectional attention), as embedding models do. Its tokens see what comes "
    "after them, so log-probabilities mean nothing"
)
_MAX_WINDOW_LAYERS = 28
"""What transformers takes where a Qwen2 config does not say it."""


def read_config_json(source: Mapping[str, object] | str | Path) -> dict[str, Any]:
    """Return the values for `Qwen2Config`, with `yarn` and `dual_chunk` as dictionaries or None.

    Raises:
        ModelError: the file can't be read, is of another architecture, or asks for what this model doesn't do.
    """
    raw, where = load_config_json(source)
    moe = _check_architecture(raw, where) == "qwen2_moe"
    _check_features(raw, where)
    required = _REQUIRED + (_MOE_REQUIRED if moe else ())
    if raw.get("num_key_value_heads", 0) is None:
        # As transformers reads it: each head has its own
        raw = {**raw, "num_key_value_heads": raw.get("num_attention_heads")}
    if missing := [name for name in required if raw.get(name) is None]:
        raise ModelError(f"{where} lacks {', '.join(missing)}: it is not a complete config of a Qwen2 model")
    names = required + _OPTIONAL + (_MOE_OPTIONAL if moe else ())
    values = {name: raw[name] for name in names if raw.get(name) is not None}
    if moe:
        values["mlp_only_layers"] = _dense_layers(raw, where)
    _check_numbers(values, where)
    return values | _rope(raw, where) | {"dual_chunk": _dual_chunk(raw, where)}


def load_config_json(source: Mapping[str, object] | str | Path) -> tuple[Mapping[str, Any], str]:
    """Return the dictionary as it is, of a GGUF file what it would be, and what messages call it.

    Raises:
        ModelError: the file can't be read.
    """
    if isinstance(source, Mapping):
        return source, "The model's config"
    path = Path(source)
    if gguf := find_gguf(path):
        return hf_config(read_header(gguf)), repr(str(gguf))
    if path.is_dir():
        path = path / "config.json"
    check_not_pointer(path)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise ModelError(f"There is no {str(path)!r}: name a checkpoint's folder, or its config.json") from err
    except (OSError, ValueError) as err:
        raise ModelError(
            f"{str(path)!r} can't be read as JSON ({err}): download the checkpoint's config.json again"
        ) from err
    if not isinstance(raw, dict):
        raise ModelError(f"{str(path)!r} holds no JSON object: download the checkpoint's config.json again")
    return raw, repr(str(path))


def _check_architecture(raw: Mapping[str, Any], where: str) -> str:
    kind = raw.get("model_type")
    if kind not in MODEL_TYPES:
        name = ", ".join(map(str, raw.get("architectures") or ())) or "no architecture named"
        raise ModelError(
            f"{where} is of model_type {kind!r} ({name}). This model reads {' and '.join(MODEL_TYPES)}; "
            "run others with --model hf"
        )
    return str(kind)


def _check_features(raw: Mapping[str, Any], where: str) -> None:
    """Refuse settings that would silently give other logits."""
    layer_types = raw.get("layer_types") or ()
    refused = {
        "use_sliding_window": _slides(raw),
        "layer_types": any(kind != "full_attention" for kind in layer_types),
        "hidden_act": raw.get("hidden_act", "silu") not in ("silu", "swish"),
        **{name: raw.get(name) is not None for name in QUANTISED},
        "qkv_bias": raw.get("qkv_bias") is False,
        "partial_rotary_factor": raw.get("partial_rotary_factor") not in (None, 1, 1.0),
    }
    if raw.get("is_causal") not in (None, True) or any(raw.get(name) for name in _BIDIRECTIONAL):
        raise ModelError(f"{where} is not of a language model: {NOT_CAUSAL}")
    if found := [name for name, is_found in refused.items() if is_found]:
        settings = ", ".join(f"{name} = {str(raw[name])[:80]}" for name in found)
        raise ModelError(f"{where} sets {settings}, which --model qwen2 does not support; use --model hf")


def _slides(raw: Mapping[str, Any]) -> bool:
    """Whether any layer attends to the last tokens only; transformers begins with layer `max_window_layers`."""
    if not raw.get("use_sliding_window") or raw.get("layer_types") or raw.get("sliding_window", 4096) is None:
        return False
    first, n_layers = raw.get("max_window_layers", _MAX_WINDOW_LAYERS), raw.get("num_hidden_layers")
    return not (isinstance(first, int) and isinstance(n_layers, int) and first >= n_layers)


def _check_numbers(values: Mapping[str, object], where: str) -> None:
    for name in ("rms_norm_eps",):
        if name in values and not _is_number(values[name]):
            raise ModelError(f"{where}: {name} is {values[name]!r}, not a number")
    for name in ("tie_word_embeddings", "norm_topk_prob"):
        if name in values and not isinstance(values[name], bool):
            raise ModelError(f"{where}: {name} is {values[name]!r}, neither true nor false")


def _dense_layers(raw: Mapping[str, Any], where: str) -> tuple[int, ...]:
    layers = raw.get("mlp_only_layers") or ()
    if not isinstance(layers, list | tuple) or any(type(layer) is not int for layer in layers):
        raise ModelError(f"{where}: mlp_only_layers is {layers!r}, not a list of layer numbers")
    return tuple(layers)


def _rope(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return `rope_theta` and `yarn` from either form."""
    rope = raw.get("rope_scaling") or raw.get("rope_parameters") or {}
    if not isinstance(rope, Mapping):
        raise ModelError(f"{where}: rope_scaling or rope_parameters is {rope!r}, not an object")
    if conflict := rope_conflict(raw):
        raise ModelError(f"{where} {conflict}")
    # transformers 5 writes `rope_parameters` with the base in it; older ones write `rope_theta` beside `rope_scaling`
    theta = rope.get("rope_theta") or raw.get("rope_theta") or DEFAULT_ROPE_THETA
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in ("default", "yarn"):
        raise ModelError(f"{where}: unsupported rope type {kind!r} (supported: default, yarn)")
    set_keys = {key for key, value in rope.items() if value is not None}
    neutral = {key for key, value in (("truncate", True), ("partial_rotary_factor", 1)) if rope.get(key) == value}
    if unknown := sorted(set_keys - _ROPE_KEYS - neutral):
        raise ModelError(f"{where}: --model qwen2 does not support {', '.join(unknown)} of rope; use --model hf")
    if not _is_number(theta):
        raise ModelError(f"{where}: rope_theta is {theta!r}, not a number over 0")
    return {"rope_theta": float(theta), "yarn": _yarn(rope, raw, where) if kind == "yarn" else None}


def rope_conflict(raw: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a config that has rope in both forms; None: nothing.

    transformers takes `rope_scaling` then, without anything of `rope_parameters`: its `rope_theta` is lost.
    """
    older, newer = raw.get("rope_scaling"), raw.get("rope_parameters")
    if not (isinstance(older, Mapping) and isinstance(newer, Mapping) and older and newer):
        return None
    taken, told = ({"rope_type": rope.get("type", "default"), **rope} for rope in (older, newer))
    taken.setdefault("rope_theta", raw.get("rope_theta") or DEFAULT_ROPE_THETA)
    for rope in (taken, told):
        rope.pop("type", None)
    names = sorted(name for name in {*taken, *told} if name in told and taken.get(name) != told[name])
    names += sorted(taken.keys() - told.keys() - {"rope_theta"})
    if not names:
        return None
    return (
        f"has both rope_scaling and rope_parameters, which differ in {', '.join(names)}: transformers 5 takes only "
        f"rope_scaling, with rope_theta {taken['rope_theta']}. Put all into rope_parameters and delete rope_scaling"
    )


def _yarn(rope: Mapping[str, Any], raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    yarn = {name: rope[name] for name in _YARN_NUMBERS if rope.get(name) is not None}
    # In transformers' order
    places = (raw.get("original_max_position_embeddings"), rope.get("original_max_position_embeddings"))
    yarn["original_max_position_embeddings"] = places[0] or places[1] or raw["max_position_embeddings"]
    if wrong := [name for name, value in yarn.items() if not _is_number(value)]:
        raise ModelError(f"{where}: {wrong[0]} of rope is {yarn[wrong[0]]!r}, not a number over 0")
    if "factor" not in yarn:
        raise ModelError(f"{where}: rope type 'yarn' without a factor")
    return yarn


def _dual_chunk(raw: Mapping[str, object], where: str) -> dict[str, Any] | None:
    dual = raw.get("dual_chunk_attention_config")
    if dual is None:
        return None
    names = ("chunk_size", "local_size", "original_max_position_embeddings")
    if not isinstance(dual, Mapping) or "sparse_attention_config" in dual:
        raise ModelError(f"{where}: dual_chunk_attention_config must be an object of {', '.join(names)}")
    chosen = {name: dual[name] for name in names if dual.get(name) is not None}
    if any(isinstance(value, bool) or not isinstance(value, int) for value in chosen.values()):
        raise ModelError(f"{where}: dual_chunk_attention_config holds {chosen}: whole numbers are needed")
    # The released code's own defaults, which a config that leaves a key out relies on
    return {"chunk_size": 8192, "local_size": 1024} | chosen


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
