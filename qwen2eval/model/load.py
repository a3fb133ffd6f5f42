"""Loads a checkpoint folder: config.json and safetensors, in one file or in shards.

The files are memory-mapped and read layer by layer; a tensor that already has the wanted dtype stays in the map, so
that loading takes no second copy of the weights, and where it has not, a layer's part of the map is let go with the
layer. The checkpoint's keys and the model's parameters must be the same set: one missing, left over or of another shape
is an error that names it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from qwen2eval.errors import ModelError
from qwen2eval.model.config import DualChunk, Qwen2Config
from qwen2eval.model.qwen2 import Qwen2Model

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_STORED_DTYPES = ("F64", "F32", "BF16", "F16")

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_DROPPED = ("rotary_emb.inv_freq",)
"""Ends of keys that old checkpoints hold and that are computed here."""
_N_NAMED = 5
"""Keys that a message names; it counts the others."""


def load_model(
    path: str | Path,
    *,
    dtype: str | torch.dtype = "float32",
    device: str | torch.device = "cpu",
    yarn_factor: float | None = None,
    dual_chunk: DualChunk | bool | None = None,
) -> Qwen2Model:
    """Return the Qwen2 model of a checkpoint folder, ready to evaluate.

    Args:
        dtype: of weights and computation: "float32", "bfloat16" or "float16", whatever the files hold.
        yarn_factor: how many times longer the context becomes; 1: not at all; None: as config.json says.
        dual_chunk: True for dual chunk attention as set for the released models; False for none; None: as config.json
            says. Together with YARN only scores are scaled, as in the released code.

    Raises:
        ModelError: anything that can't be loaded: what, which file or key, and what to do.
    """
    wanted_dtype, wanted_device = _dtype(dtype), _device(device)
    folder = Path(path)
    _check_folder(folder)
    config = Qwen2Config.from_hf(folder).with_context(yarn_factor=yarn_factor, dual_chunk=dual_chunk)
    checkpoint = _Checkpoint(folder)
    with torch.device("meta"):
        model = Qwen2Model(config)
    sources = key_table(model, checkpoint.keys)
    _check_keys(sources, checkpoint, tied=config.tie_word_embeddings)
    for name, parameter in list(model.named_parameters()):
        if name.endswith("input_layernorm.weight"):  # the first of a layer
            checkpoint.release()
        tensor = _read(checkpoint, sources[name], parameter, wanted_dtype, wanted_device)
        module = model.get_submodule(name.rpartition(".")[0])
        setattr(module, name.rpartition(".")[2], nn.Parameter(tensor, requires_grad=False))
    return model.eval()


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


class _Checkpoint:
    """The open safetensors files of a folder, and which of them holds each key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, Any] = {}
        self._file_of: dict[str, str] = {}
        declared = {} if (folder / _SINGLE).is_file() else _read_index(folder / _INDEX)
        for file in sorted(set(declared.values())) or [_SINGLE]:
            self._file_of |= dict.fromkeys(self._open(file).keys(), file)
        if absent := sorted(key for key, file in declared.items() if self._file_of.get(key) != file):
            raise ModelError(
                f"{str(folder / _INDEX)!r} names {_some(absent)}, which {declared[absent[0]]} doesn't hold: "
                "get the checkpoint's files again"
            )

    @property
    def keys(self) -> Iterable[str]:
        return self._file_of.keys()

    def path_of(self, key: str) -> str:
        return str(self.folder / self._file_of[key])

    def release(self) -> None:
        """Unmap what no tensor needs: pages once read would count as the process's memory while the map lasts."""
        self._files.clear()

    def _open(self, file: str) -> Any:
        if file not in self._files:
            self._files[file] = _open(self.folder / file)
        return self._files[file]

    def read(self, key: str, shape: Sequence[int]) -> Tensor:
        """Return the tensor of a key, in the map; it must have this shape."""
        file = self._open(self._file_of[key])
        stored = file.get_slice(key)
        if tuple(stored.get_shape()) != tuple(shape):
            raise ModelError(
                f"{key} in {self.path_of(key)!r} has shape {tuple(stored.get_shape())}, but config.json asks for "
                f"{tuple(shape)}: the two are not of one model"
            )
        if stored.get_dtype() not in _STORED_DTYPES:
            raise ModelError(
                f"{key} in {self.path_of(key)!r} is of dtype {stored.get_dtype()}; "
                f"{', '.join(_STORED_DTYPES)} can be read: get the checkpoint unquantised"
            )
        tensor: Tensor = file.get_tensor(key)
        return tensor


def _read(
    checkpoint: _Checkpoint, keys: tuple[str, ...], parameter: Tensor, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return a parameter's values from its key, or from its experts' keys one after the other."""
    if len(keys) == 1:
        return checkpoint.read(keys[0], parameter.shape).to(device=device, dtype=dtype)
    target = torch.empty(parameter.shape, dtype=dtype, device=device)
    rows = target.flatten(0, 1)
    n_rows = rows.shape[0] // len(keys)
    for index, key in enumerate(keys):
        rows[index * n_rows : (index + 1) * n_rows] = checkpoint.read(key, (n_rows, rows.shape[1]))
    return target


def _check_keys(sources: Mapping[str, tuple[str, ...]], checkpoint: _Checkpoint, *, tied: bool) -> None:
    wanted = {key for keys in sources.values() for key in keys}
    present = set(checkpoint.keys)
    if missing := sorted(wanted - present):
        hint = (
            "; a checkpoint without a head of its own says tie_word_embeddings" if "lm_head.weight" in missing else ""
        )
        raise ModelError(
            f"The checkpoint {str(checkpoint.folder)!r} lacks {_some(missing)}, which its config.json asks for{hint}"
        )
    # A tied checkpoint may hold its head a second time
    known = {"lm_head.weight"} if tied else set()
    if left := sorted(key for key in present - wanted - known if not key.endswith(_DROPPED)):
        raise ModelError(
            f"The checkpoint {str(checkpoint.folder)!r} holds {_some(left)}, which no part of this model takes; "
            "its config.json is of another model, or it isn't a plain Qwen2"
        )


def _check_folder(folder: Path) -> None:
    if folder.suffix == ".gguf":
        raise ModelError(f"{str(folder)!r}: GGUF files can't be read yet; name a folder with safetensors")
    if not folder.is_dir():
        raise ModelError(f"There is no folder {str(folder)!r}: name a checkpoint's folder with its config.json")
    if (folder / _SINGLE).is_file() or (folder / _INDEX).is_file():
        return
    others = sorted(file.name for file in folder.glob("*.bin"))
    hint = f"it holds {_some(others)}: convert them to safetensors" if others else "download the checkpoint again"
    raise ModelError(f"{str(folder)!r} holds neither {_SINGLE} nor {_INDEX}; {hint}")


def _read_index(path: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        return {str(key): str(file) for key, file in weight_map.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise ModelError(f"{str(path)!r} is no index of safetensors files ({err!r}): get it again") from err


def _open(path: Path) -> Any:
    if not path.is_file():
        raise ModelError(f"{str(path)!r} is missing: {_INDEX} names it; get the checkpoint's files again")
    try:
        return safe_open(str(path), framework="pt")
    except (SafetensorError, OSError) as err:
        raise ModelError(f"{str(path)!r} is truncated or corrupt ({err}): get it again") from err


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _N_NAMED} more" if len(names) > _N_NAMED else ""
    return ", ".join(names[:_N_NAMED]) + more


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    if isinstance(dtype, torch.dtype) and dtype in DTYPES.values():
        return dtype
    if isinstance(dtype, str) and dtype in DTYPES:
        return DTYPES[dtype]
    raise ModelError(f"Unknown dtype {str(dtype)!r}: choose one of {', '.join(DTYPES)}")


def _device(device: str | torch.device) -> torch.device:
    """Return a device that works: made, and something put on it."""
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as err:
        reason = str(err).partition("\n")[0]
        raise ModelError(f"The device {str(device)!r} can't be used ({reason}); 'cpu' always can") from err
    return chosen
