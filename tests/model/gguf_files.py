"""Writes GGUF files of tiny checkpoints with the gguf package: its writer, its table of names, its quantisation."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import load_file, save_file

# Rows of whole blocks of 32; experts' too
SIZES: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96}
EXPERT_SIZES: dict[str, Any] = {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 64}


def gguf_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a safetensors folder under their GGUF names, experts stacked."""
    config = json.loads((folder / "config.json").read_text())
    arch = gguf.MODEL_ARCH.QWEN2MOE if config.get("num_experts") else gguf.MODEL_ARCH.QWEN2
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    tensors = {key: tensor.float().numpy() for key, tensor in load_file(folder / "model.safetensors").items()}
    found: dict[str, np.ndarray] = {}
    stacks: dict[str, list[np.ndarray]] = {}
    for key in sorted(tensors, key=lambda key: [int(p) if p.isdigit() else -1 for p in key.split(".")]):
        layer, _, rest = key.partition(".experts.")
        if rest:
            stacks.setdefault(f"{layer}.experts.{rest.split('.', 1)[1]}", []).append(tensors[key])
        else:
            found[key] = tensors[key]
    found |= {key: np.stack(parts) for key, parts in stacks.items()}
    return {names.get_name(key, try_suffixes=(".weight", ".bias")): values for key, values in found.items()}


def write_gguf(
    path: Path,
    folder: Path,
    *,
    kind: Kind = Kind.F32,
    tensors: Mapping[str, np.ndarray] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write the GGUF file of a folder: matrices in `kind`, the rest in float32, as llama.cpp's converter does.

    Args:
        tensors: instead of the folder's own.
        metadata: text, whole and other numbers, or lists, beside the folder's own; None takes a key out.
    """
    config = json.loads((folder / "config.json").read_text())
    arch = "qwen2moe" if config.get("num_experts") else "qwen2"
    values = {"general.architecture": arch} | _metadata(config, arch) | dict(metadata or {})
    writer = gguf.GGUFWriter(path, values.pop("general.architecture"))
    for key, value in values.items():
        _add(writer, key, value)
    for name, array in (tensors or gguf_tensors(folder)).items():
        if array.ndim == 1:
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def dequantised(folder: Path, out: Path, kind: Kind) -> Path:
    """Write the safetensors folder whose matrices are those of `folder`, quantised to `kind` and back."""
    tensors = load_file(folder / "model.safetensors")
    for key, tensor in tensors.items():
        if tensor.dim() > 1:
            there = gguf.quants.quantize(tensor.float().numpy(), kind)
            tensors[key] = torch.from_numpy(gguf.quants.dequantize(there, kind).copy())
    out.mkdir()
    (out / "config.json").write_text((folder / "config.json").read_text())
    save_file(tensors, out / "model.safetensors")
    return out


def _metadata(config: Mapping[str, Any], arch: str) -> dict[str, Any]:
    rope = config["rope_parameters"]
    values = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.freq_base": rope["rope_theta"],
    }
    if rope["rope_type"] == "yarn":
        values |= {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": rope["factor"],
            "rope.scaling.original_context_length": rope["original_max_position_embeddings"],
        }
    if arch == "qwen2moe":
        values |= {
            "expert_count": config["num_experts"],
            "expert_used_count": config["num_experts_per_tok"],
            "expert_feed_forward_length": config["moe_intermediate_size"],
            "expert_shared_feed_forward_length": config["shared_expert_intermediate_size"],
        }
    return {f"{arch}.{key}": value for key, value in values.items()}


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    else:
        writer.add_float32(key, value)
