"""Tensors of a checkpoint in safetensors files, one or in shards.

They are memory-mapped; a tensor that already has the wanted dtype stays in the map.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from qwen2eval.errors import ModelError
from qwen2eval.model.checkpoint import check_shape, some
from qwen2eval.model.not_a_model import check_no_adapter, check_not_pointer

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_STORED_DTYPES = ("F64", "F32", "BF16", "F16")


class SafetensorsCheckpoint:
    """The open safetensors files of a folder, and which of them holds each key."""

    declared_by = "config.json"

    def __init__(self, folder: Path) -> None:
        _check_folder(folder)
        self.path = folder
        self._files: dict[str, Any] = {}
        self._file_of: dict[str, str] = {}
        declared = {} if (folder / SINGLE).is_file() else _read_index(folder / INDEX)
        # Sorted, so that a broken checkpoint gives the same message each time
        for file in sorted(set(declared.values())) or [SINGLE]:
            self._file_of |= dict.fromkeys(self._open(file).keys(), file)
        if absent := sorted(key for key, file in declared.items() if self._file_of.get(key) != file):
            raise ModelError(
                f"{str(folder / INDEX)!r} names {some(absent)}, which {declared[absent[0]]} doesn't hold: "
                "download the checkpoint's files again"
            )

    @property
    def keys(self) -> Iterable[str]:
        return self._file_of.keys()

    def name_of(self, key: str) -> str:
        return key

    def path_of(self, key: str) -> str:
        return str(self.path / self._file_of[key])

    def read(self, key: str, dtype: torch.dtype, shape: Sequence[int] | None = None) -> Tensor:
        file = self._open(self._file_of[key])
        stored = file.get_slice(key)
        if shape is not None:
            check_shape(self, key, stored.get_shape(), shape)
        if stored.get_dtype() not in _STORED_DTYPES:
            raise ModelError(
                f"{key} in {self.path_of(key)!r} is of dtype {stored.get_dtype()}; "
                f"{', '.join(_STORED_DTYPES)} can be read: download the checkpoint unquantised"
            )
        tensor: Tensor = file.get_tensor(key)
        return tensor.to(dtype)

    def release(self) -> None:
        self._files.clear()

    def _open(self, file: str) -> Any:
        if file not in self._files:
            self._files[file] = _open(self.path / file)
        return self._files[file]


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ModelError(f"The folder {str(folder)!r} does not exist: name a checkpoint's folder, or a GGUF file")
    if (folder / SINGLE).is_file() or (folder / INDEX).is_file():
        return
    check_no_adapter(folder)
    others = sorted(file.name for file in folder.glob("*.bin"))
    hint = f"it holds {some(others)}: convert them to safetensors" if others else "download the checkpoint again"
    raise ModelError(f"{str(folder)!r} holds neither {SINGLE} nor {INDEX} nor a GGUF file; {hint}")


def _read_index(path: Path) -> dict[str, str]:
    check_not_pointer(path)
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        return {str(key): str(file) for key, file in weight_map.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise ModelError(f"{str(path)!r} is not an index of safetensors files ({err!r}): download it again") from err


def _open(path: Path) -> Any:
    if not path.is_file():
        raise ModelError(f"{str(path)!r} is missing: {INDEX} names it; download the checkpoint's files again")
    check_not_pointer(path)
    try:
        return safe_open(str(path), framework="pt")
    except (SafetensorError, OSError) as err:
        raise ModelError(f"{str(path)!r} is truncated or corrupt ({err}): download it again") from err
