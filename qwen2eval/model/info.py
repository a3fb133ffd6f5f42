"""What a model is and needs, from its config alone: by the name of a released model, or from files. Needs no torch."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from qwen2eval.errors import ModelError
from qwen2eval.model.config import PRESETS, Qwen2Config

_SHORTEST = 4096
_OWNER = "Qwen/"


class ContextMemory(NamedTuple):
    """The memory that a model takes at one context length."""

    context_length: int
    """In tokens, of each row of the batch."""
    kv_bytes: int
    """Of keys and values, all rows together."""
    total_bytes: int
    """With the weights; what passes through comes on top."""
    fits: bool
    """Whether the model takes inputs of this length, with YARN or DCA as they are set."""


@dataclass(frozen=True)
class ModelInfo:
    """A model by name, and the setting in which its memory is counted."""

    name: str
    """A released model's name, or the path that was given."""
    config: Qwen2Config
    """Its shapes."""
    dtype: str = "bfloat16"
    """Of weights and cache."""
    batch_size: int = 1
    """Rows that are in the cache together."""

    def __post_init__(self) -> None:
        """Refuse what has no memory.

        Raises:
            ModelError: an unknown dtype, or no rows.
        """
        self.config.kv_bytes_per_token(dtype=self.dtype)
        if self.batch_size < 1:
            raise ModelError(f"batch_size is {self.batch_size}: it must be 1 or more")

    def memory_at(self, context_length: int) -> ContextMemory:
        """Return the memory at a context length.

        Raises:
            ModelError: the length is under 1.
        """
        if context_length < 1:
            raise ModelError(f"The context is {context_length} tokens: it must be 1 or more")
        total = self.config.memory_bytes(context_length, dtype=self.dtype, batch_size=self.batch_size)
        weights = self.config.memory_bytes(0, dtype=self.dtype)
        return ContextMemory(context_length, total - weights, total, context_length <= self.config.max_length)

    def memory(self, more_lengths: Iterable[int] = ()) -> list[ContextMemory]:
        """Return the memory at 4,096 tokens and each doubling up to the model's length, and at others asked for."""
        lengths = {self.config.max_length, *more_lengths}
        length = _SHORTEST
        while length < self.config.max_length:
            lengths.add(length)
            length *= 2
        return [self.memory_at(length) for length in sorted(lengths)]


def find_config(name: str) -> Qwen2Config:
    """Return the config of a folder, config.json or GGUF file, or else of a released model with or without "Qwen/".

    Raises:
        ModelError: nothing has this name, or the file is not of a Qwen2.
    """
    if Path(name).exists():
        return Qwen2Config.from_hf(name)
    if (short := name.removeprefix(_OWNER)) in PRESETS:
        return Qwen2Config.preset(short)
    near = difflib.get_close_matches(short, PRESETS, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise ModelError(
        f"{name!r} is neither a file, a folder nor a released model. {hint}Released models: {', '.join(PRESETS)}"
    )
