"""Loads a checkpoint: config.json and safetensors, or a GGUF file, whose weights are dequantised.

Files are memory-mapped and read layer by layer; a tensor that already has the wanted dtype stays in the map, so that
loading takes no second copy of the weights, and where it has not, a layer's part of the map is let go with the layer.
The checkpoint's keys and the model's parameters must be the same set: one missing, left over or of another shape is an
error that names it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from qwen2eval.errors import ModelError
from qwen2eval.model.checkpoint import Checkpoint, some
from qwen2eval.model.config import DualChunk, Qwen2Config
from qwen2eval.model.open_checkpoint import open_checkpoint
from qwen2eval.model.qwen2 import Qwen2Model

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

HEAD = "lm_head.weight"
_DROPPED = ("rotary_emb.inv_freq",)
"""Ends of keys that old checkpoints hold and that are computed here."""


def load_model(
    path: str | Path,
    *,
    dtype: str | torch.dtype = "float32",
    device: str | torch.device = "cpu",
    yarn_factor: float | None = None,
    dual_chunk: DualChunk | bool | None = None,
) -> Qwen2Model:
    """Return the Qwen2 model of a checkpoint folder or GGUF file, ready to evaluate.

    Args:
        path: a folder of config.json and safetensors; a GGUF file; or a folder with one GGUF file and no safetensors.
        dtype: of weights and computation: "float32", "bfloat16" or "float16", whatever the files hold.
        yarn_factor: how many times longer the context becomes; 1: not at all; None: as the checkpoint's config says.
        dual_chunk: True for dual chunk attention as set for the released models; False for none; None: as the
            checkpoint's config says. Together with YARN only scores are scaled, as in the released code.

    Raises:
        ModelError: anything that can't be loaded: what, which file or key, and what to do.
    """
    wanted_dtype, wanted_device = choose_dtype(dtype), _device(device)
    checkpoint = open_checkpoint(path)
    config = with_own_head(checkpoint, Qwen2Config.from_hf(checkpoint.path))
    config = config.with_context(yarn_factor=yarn_factor, dual_chunk=dual_chunk)
    model, sources = empty_model(checkpoint, config)
    for name, parameter in list(model.named_parameters()):
        # The first of a layer
        if name.endswith("input_layernorm.weight"):
            checkpoint.release()
        tensor = _read(checkpoint, sources[name], parameter, wanted_dtype, wanted_device)
        module = model.get_submodule(name.rpartition(".")[0])
        setattr(module, name.rpartition(".")[2], nn.Parameter(tensor, requires_grad=False))
    return model.eval()


def with_own_head(checkpoint: Checkpoint, config: Qwen2Config) -> Qwen2Config:
    """Return the config of a model with a separate head, where its checkpoint ties it and holds another than that.

    As transformers 5 does: a head that equals the embedding is a copy of it, one that differs was trained apart.
    """
    if not config.tie_word_embeddings or HEAD not in set(checkpoint.keys):
        return config
    shape = (config.vocab_size, config.hidden_size)
    head, embedding = (checkpoint.read(key, torch.float32, shape) for key in (HEAD, "model.embed_tokens.weight"))
    return config if torch.equal(head, embedding) else replace(config, tie_word_embeddings=False)


class EmptyModel(NamedTuple):
    """A model without weights, and where they come from."""

    model: Qwen2Model
    """On torch's device `meta`."""
    sources: dict[str, tuple[str, ...]]
    """The checkpoint keys of each parameter, as in `key_table`."""


def empty_model(checkpoint: Checkpoint, config: Qwen2Config) -> EmptyModel:
    """Return the model that a checkpoint is of.

    Raises:
        ModelError: a key is missing, or left over.
    """
    # A corrupt number of layers would keep us building for hours
    if config.num_hidden_layers > (n_keys := sum(1 for _ in checkpoint.keys)):
        raise ModelError(
            f"The {checkpoint.declared_by} of {str(checkpoint.path)!r} asks for {config.num_hidden_layers:,} layers, "
            f"but there are {n_keys:,} tensors: the two are not of one model"
        )
    try:
        with torch.device("meta"):
            model = Qwen2Model(config)
    except RuntimeError as err:  # the number of elements overflows
        raise ModelError(
            f"The {checkpoint.declared_by} of {str(checkpoint.path)!r} asks for sizes beyond all memory ({err}): "
            "download the checkpoint again"
        ) from err
    sources = key_table(model, checkpoint.keys)
    _check_keys(sources, checkpoint, tied=config.tie_word_embeddings)
    return EmptyModel(model, sources)


def key_table(model: nn.Module, keys: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the checkpoint keys of each parameter; several are stacked: an expert's gate over its up, then experts.

    Names are equal but for experts, which all released checkpoints and most others hold one by one.
    """
    present = set(keys)
    table: dict[str, tuple[str, ...]] = {}
    for name, parameter in model.named_parameters():
        kind = name.rpartition(".")[2]
        if ".experts." not in name or name in present:
            table[name] = (name,)
            continue
        stem = name.removesuffix(f".{kind}")
        parts = ("gate_proj", "up_proj") if kind == "gate_up_proj" else ("down_proj",)
        table[name] = tuple(f"{stem}.{expert}.{part}.weight" for expert in range(parameter.shape[0]) for part in parts)
    return table


def choose_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """Return torch's dtype of a name.

    Raises:
        ModelError: weights can't have this dtype; the message lists those they can have.
    """
    if isinstance(dtype, torch.dtype) and dtype in DTYPES.values():
        return dtype
    if isinstance(dtype, str) and dtype in DTYPES:
        return DTYPES[dtype]
    raise ModelError(f"Unknown dtype {str(dtype)!r}: choose one of {', '.join(DTYPES)}")


def _read(
    checkpoint: Checkpoint, keys: tuple[str, ...], parameter: Tensor, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return a parameter's values from its key, or from its experts' keys one after the other."""
    if len(keys) == 1:
        return checkpoint.read(keys[0], dtype, parameter.shape).to(device)
    target = torch.empty(parameter.shape, dtype=dtype, device=device)
    rows = target.flatten(0, 1)
    n_rows = rows.shape[0] // len(keys)
    for index, key in enumerate(keys):
        rows[index * n_rows : (index + 1) * n_rows] = checkpoint.read(key, dtype, (n_rows, rows.shape[1]))
    return target


def _check_keys(sources: Mapping[str, tuple[str, ...]], checkpoint: Checkpoint, *, tied: bool) -> None:
    wanted = {key for keys in sources.values() for key in keys}
    present = set(checkpoint.keys)
    if missing := sorted(wanted - present):
        hint = "; a checkpoint without a separate head sets tie_word_embeddings" if HEAD in missing else ""
        raise ModelError(
            f"The checkpoint {str(checkpoint.path)!r} lacks {some([*map(checkpoint.name_of, missing)])}, which its "
            f"{checkpoint.declared_by} asks for{hint}"
        )
    # A tied checkpoint may hold its head a second time
    known = {HEAD} if tied else set()
    if left := sorted(key for key in present - wanted - known if not key.endswith(_DROPPED)):
        raise ModelError(
            f"The checkpoint {str(checkpoint.path)!r} holds {some([*map(checkpoint.name_of, left)])}, which no part "
            f"of this model takes; its {checkpoint.declared_by} is of another model, or it isn't a plain Qwen2"
        )


def _device(device: str | torch.device) -> torch.device:
    """Return a device that works: made, and something put on it."""
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as err:
        reason = str(err).partition("\n")[0]
        raise ModelError(f"The device {str(device)!r} can't be used ({reason}); 'cpu' always can") from err
    return chosen
