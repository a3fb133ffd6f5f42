"""What weights are read from: a checkpoint's tensors by their Hugging Face keys, whatever the files are.

`open_checkpoint.py` opens one: safetensors (`safetensors_files.py`) or GGUF (`gguf.py`).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from qwen2eval.errors import ModelError

_N_NAMED = 5
"""Keys that a message names; it counts the remaining ones."""


class Checkpoint(Protocol):
    """What weights are read from, whatever the files are."""

    path: Path
    """The folder, or the GGUF file."""
    declared_by: str
    """What declares the shapes: config.json, or a GGUF file's metadata."""

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
    # A checkpoint may lack thousands of keys
    more = f" and {len(names) - _N_NAMED} more" if len(names) > _N_NAMED else ""
    return ", ".join(names[:_N_NAMED]) + more
