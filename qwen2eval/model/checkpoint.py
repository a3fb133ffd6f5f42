"""An open checkpoint: tensors by their Hugging Face keys, from safetensors in one file or in shards, or from GGUF.

Safetensors are memory-mapped; a tensor that already has the wanted dtype stays in the map.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from qwen2eval.errors import ModelError
from qwen2eval.model.gguf_header import find_gguf

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_STORED_DTYPES = ("F64", "F32", "BF16", "F16")
_N_NAMED = 5
"""Keys that a message names; it counts the others."""


class Checkpoint(Protocol):
    """What weights are read from, whatever the files are."""

    path: Path
    """The folder, or the GGUF file."""
    declared_by: str
    """What tells the shapes: config.json, or a GGUF file's metadata."""

    @property
    def keys(self) -> Iterable[str]:
        """All keys, as a Hugging Face checkpoint names them."""

    def name_of(self, key: str) -> str:
        """Return what messages call a key: its name in the files."""

    def path_of(self, key: str) -> str:
        """Return the file that holds a key."""

    def read(self, key: str, dtype: torch.dtype, shape: Sequence[int] | None = None) -> Tensor:
        """Return a tensor on the CPU; it must have this shape, if one is given.

        Raises:
            ModelError: it has another shape, or is stored in a type that can't be read.
        """

    def release(self) -> None:
        """Unmap what no tensor needs: pages once read would count as the process's memory while the map lasts."""


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a folder of safetensors, a GGUF file, or a folder with one GGUF file and no safetensors.

    Raises:
        ModelError: there is no checkpoint, a file is broken or missing, or the gguf package is.
    """
    folder = Path(path)
    if gguf := find_gguf(folder):
        from qwen2eval.model.gguf import GgufCheckpoint

        return GgufCheckpoint(gguf)
    _check_folder(folder)
    return SafetensorsCheckpoint(folder)


class SafetensorsCheckpoint:
    """The open safetensors files of a folder, and which of them holds each key."""

    declared_by = "config.json"

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self._files: dict[str, Any] = {}
        self._file_of: dict[str, str] = {}
        declared = {} if (folder / SINGLE).is_file() else _read_index(folder / INDEX)
        for file in sorted(set(declared.values())) or [SINGLE]:
            self._file_of |= dict.fromkeys(self._open(file).keys(), file)
        if absent := sorted(key for key, file in declared.items() if self._file_of.get(key) != file):
            raise ModelError(
                f"{str(folder / INDEX)!r} names {some(absent)}, which {declared[absent[0]]} doesn't hold: "
                "get the checkpoint's files again"
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
                f"{', '.join(_STORED_DTYPES)} can be read: get the checkpoint unquantised"
            )
        tensor: Tensor = file.get_tensor(key)
        return tensor.to(dtype)

    def release(self) -> None:
        self._files.clear()

    def _open(self, file: str) -> Any:
        if file not in self._files:
            self._files[file] = _open(self.path / file)
        return self._files[file]


def check_shape(checkpoint: Checkpoint, key: str, stored: Sequence[int], wanted: Sequence[int]) -> None:
    """Refuse a tensor of another shape.

    Raises:
        ModelError: it is of another; names key, file and both.
    """
    if tuple(stored) != tuple(wanted):
        raise ModelError(
            f"{checkpoint.name_of(key)} in {checkpoint.path_of(key)!r} has shape {tuple(stored)}, but "
            f"{checkpoint.declared_by} asks for {tuple(wanted)}: the two are not of one model"
        )


def some(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are, for a message."""
    more = f" and {len(names) - _N_NAMED} more" if len(names) > _N_NAMED else ""
    return ", ".join(names[:_N_NAMED]) + more


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ModelError(f"There is no folder {str(folder)!r}: name a checkpoint's folder, or a GGUF file")
    if (folder / SINGLE).is_file() or (folder / INDEX).is_file():
        return
    others = sorted(file.name for file in folder.glob("*.bin"))
    hint = f"it holds {some(others)}: convert them to safetensors" if others else "download the checkpoint again"
    raise ModelError(f"{str(folder)!r} holds neither {SINGLE} nor {INDEX} nor a GGUF file; {hint}")


def _read_index(path: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        return {str(key): str(file) for key, file in weight_map.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise ModelError(f"{str(path)!r} is no index of safetensors files ({err!r}): get it again") from err


def _open(path: Path) -> Any:
    if not path.is_file():
        raise ModelError(f"{str(path)!r} is missing: {INDEX} names it; get the checkpoint's files again")
    try:
        return safe_open(str(path), framework="pt")
    except (SafetensorError, OSError) as err:
        raise ModelError(f"{str(path)!r} is truncated or corrupt ({err}): get it again") from err
