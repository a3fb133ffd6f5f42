"""Writes a Hugging Face checkpoint folder tensor by tensor: shards of a limited size, their index, config.json.

The folder is made beside its place and renamed when it is complete, so one that was stopped leaves none.
"""

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from qwen2eval.errors import ModelError
from qwen2eval.model.safetensors_files import INDEX, SINGLE

MAX_SHARD_GB = 2.0
"""Of weights in one file, in units of 1e9 bytes. They are in memory together, and twice while they are written."""

_GB = 1_000_000_000
_COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)


@dataclass(frozen=True)
class Written:
    """A checkpoint folder that was written."""

    path: Path
    """The folder."""
    n_tensors: int
    """Tensors in all files."""
    n_bytes: int
    """Of all tensors."""
    n_files: int
    """Of safetensors."""
    has_tokenizer: bool
    """Whether the source had a tokenizer, which is then here, too."""


class ShardWriter:
    """Collects tensors and writes a file whenever the next one wouldn't fit in.

    Args:
        max_shard_gb: bytes of a file, in units of 1e9; a larger tensor has a separate file.

    Raises:
        ModelError: the limit is not over 0; `add` and `finish`: a file can't be written.
    """

    def __init__(self, folder: Path, *, max_shard_gb: float = MAX_SHARD_GB) -> None:
        if not max_shard_gb > 0:
            raise ModelError(f"max_shard_gb is {max_shard_gb}: it must be over 0, in units of 1e9 bytes")
        self._folder, self._limit = folder, max_shard_gb * _GB if math.isfinite(max_shard_gb) else math.inf
        self._pending: dict[str, Tensor] = {}
        self._n_pending_bytes = 0
        self._shard_of: dict[str, int] = {}
        self.n_bytes = 0
        """Of all tensors so far."""

    @property
    def n_tensors(self) -> int:
        """Tensors so far, written or not."""
        return len(self._shard_of) + len(self._pending)

    @property
    def n_files(self) -> int:
        """Files written."""
        return max(self._shard_of.values(), default=0)

    def add(self, key: str, tensor: Tensor) -> None:
        """Take a tensor; it must not change any more."""
        size = tensor.numel() * tensor.element_size()
        if self._pending and self._n_pending_bytes + size > self._limit:
            self._flush()
        # safetensors refuses views that are not contiguous
        self._pending[key] = tensor.contiguous()
        self._n_pending_bytes += size
        self.n_bytes += size

    def finish(self) -> None:
        """Write what is left; name the files by their number of all, and list them if there are several."""
        self._flush()
        count = self.n_files
        # Names need the number of all files, which is known only now
        names = {number: f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)}
        if count == 1:
            names[1] = SINGLE
        for number, name in names.items():
            self._path(number).rename(self._folder / name)
        if count > 1:
            weight_map = {key: names[number] for key, number in sorted(self._shard_of.items())}
            write_json(self._folder / INDEX, {"metadata": {"total_size": self.n_bytes}, "weight_map": weight_map})

    def _flush(self) -> None:
        if not self._pending:
            return
        number = self.n_files + 1
        path = self._path(number)
        try:
            # Created here first to learn the mode that the user's umask gives
            path.touch()
            mode = path.stat().st_mode
            save_file(self._pending, path, metadata={"format": "pt"})
            # safetensors writes files that nobody else can read
            path.chmod(mode)
        except (SafetensorError, OSError) as err:
            raise ModelError(f"Can't write {str(path)!r} ({err}): is the disk full?") from err
        self._shard_of |= dict.fromkeys(self._pending, number)
        self._pending, self._n_pending_bytes = {}, 0

    def _path(self, number: int) -> Path:
        return self._folder / f"part-{number}"


@contextmanager
def new_folder(out: Path, *, n_bytes: int) -> Iterator[Path]:
    """Give a folder beside `out` to write in; it takes that name when the block ends well, and goes when it doesn't.

    Args:
        n_bytes: what will be written, for which there must be room.

    Raises:
        ModelError: `out` is there already, can't be made, or the disk has too little room.
    """
    if out.exists():
        raise ModelError(f"{str(out)!r} exists already: name a new folder, or delete it first")
    partial = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # Of a process that was killed
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        n_free = shutil.disk_usage(partial).free
    except OSError as err:
        raise ModelError(f"{str(out)!r} can't be created ({err}): name a folder in which you may write") from err
    try:
        if n_free < n_bytes:
            raise ModelError(
                f"The weights take {n_bytes / _GB:.1f} GB, and the disk of {str(out)!r} has {n_free / _GB:.1f} GB left"
            )
        yield partial
        # The last step: a folder with this name is complete
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_config(folder: Path, config: Mapping[str, object], *, dtype: str) -> None:
    """Write config.json with the dtype of the weights beside it."""
    kept = {key: value for key, value in config.items() if key not in ("dtype", "torch_dtype")}
    write_json(folder / "config.json", kept | {"torch_dtype": dtype})


def copy_other_files(source: Path, folder: Path) -> bool:
    """Copy tokenizer and generation config, what there is of them; return whether there is a tokenizer."""
    for name in _COPIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    return (folder / "tokenizer.json").is_file() or (folder / "vocab.json").is_file()


def write_json(path: Path, value: object) -> None:
    """Write a value as people read it."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
