"""Corpus files: their format, reading and writing them compressed or plain, and which files some names mean."""

import glob
import gzip
import io
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, NamedTuple, cast

import zstandard

from decontam.errors import DecontamError

Format = Literal["jsonl", "text", "parquet", "dataset"]
"""dataset: no file, but one of the hub's data sets."""
Compression = Literal["", "gz", "zst"]

DATASET_PREFIX = "hf://"
_FORMATS: dict[str, Format] = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "jsonl"),
    **dict.fromkeys((".txt", ".text", ".md"), "text"),
    ".parquet": "parquet",
}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gz", ".zst": "zst"}
SUFFIXES = f"{', '.join(_FORMATS)}; all but .parquet also with .gz or .zst behind"
DONE_FOLDER, SUMMARIES = ".done", ("summary.json", "summary.md")
"""What a filter writes beside the files of a cleaned corpus."""
_PACKED_BYTES, _READ_BYTES = (1 << 10, 1 << 16), 1 << 20
DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)
"""What reading a broken or cut compressed file raises."""


class Kind(NamedTuple):
    """What a file's name says."""

    format: Format
    compression: Compression


def kind_of(path: str | Path) -> Kind:
    """Return what a file is, by its name.

    >>> kind_of("corpus/part-1.jsonl.zst")
    Kind(format='jsonl', compression='zst')

    Raises:
        DecontamError: a name that says nothing.
    """
    if str(path).startswith(DATASET_PREFIX):
        return Kind("dataset", "")
    suffixes = Path(str(path).lower()).suffixes
    compression = _COMPRESSIONS.get(suffixes[-1], "") if suffixes else ""
    if compression:
        suffixes.pop()
    format_ = _FORMATS.get(suffixes[-1]) if suffixes else None
    if format_ is None or (compression and format_ == "parquet"):
        raise DecontamError(f"{path}: unknown kind of file; known are {SUFFIXES}")
    return Kind(format_, compression)


@contextmanager
def open_binary(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file to read what is in it, decompressed; several gzip members or zstd frames are read as one.

    Raises:
        One of DAMAGED or OSError while reading.
    """
    with Path(path).open("rb") as file:
        match kind_of(path).compression:
            case "gz":
                yield cast("BinaryIO", gzip.GzipFile(fileobj=file))
            case "zst":
                yield cast("BinaryIO", io.BufferedReader(_ZstdReader(file), _READ_BYTES))
            case _:
                yield file


class _ZstdReader(io.RawIOBase):
    """Frame by frame, so that a file that is cut says so: the library's own stream just ends there."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._pending = file, memoryview(b"")
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._n_packed = _PACKED_BYTES[0]

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as one step of decompression goes; 0 at the end."""
        while not self._pending:
            packed = self._frame.unused_data if self._frame is not None and self._frame.eof else b""
            if self._frame is None or self._frame.eof:
                self._frame = None
            packed = packed or self._file.read(self._n_packed)
            if not packed:
                if self._frame is not None:
                    raise EOFError("it ends in the middle of a zstd frame")
                return 0
            self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            self._pending = memoryview(self._frame.decompress(packed))
            self._set_step()
        n_bytes = min(len(buffer), len(self._pending))
        buffer[:n_bytes], self._pending = self._pending[:n_bytes], self._pending[n_bytes:]
        return n_bytes

    def _set_step(self) -> None:
        # a step gives up to 32,000 times of what goes in, so 64 KiB could become 2 GB
        low, high = _PACKED_BYTES
        grown = self._n_packed * 2 if len(self._pending) < _READ_BYTES else self._n_packed // 2
        self._n_packed = min(max(grown, low), high)


@contextmanager
def create_binary(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to write, compressed as its name says; it is there only when all was written."""
    with beside(path) as scratch, scratch.open("wb") as file:
        match kind_of(path).compression:
            case "gz":
                # the name and the time in a gzip header would make equal contents differ
                with gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
                    yield cast("IO[bytes]", packed)
            case "zst":
                with zstandard.ZstdCompressor(level=3).stream_writer(file, closefd=False) as writer:
                    yield cast("IO[bytes]", writer)
            case _:
                yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Yield a hidden file's path, which takes the place of `path` when the block ends well, and is removed if not."""
    scratch = path.with_name(f".{path.name}.part")
    try:
        yield scratch
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


class Expanded(NamedTuple):
    """Files that some names mean."""

    files: tuple[str, ...]
    """Absolute, each once, in order."""
    ignored: tuple[str, ...]
    """Files in folders that are no corpus files by their names."""


def expand(names: Sequence[str]) -> Expanded:
    """Return the files of some names: files, folders with all that is below, or patterns as of a shell.

    Hidden files and folders are passed over, and the summaries of a filter.

    Raises:
        DecontamError: nothing of that name, or a file of an unknown kind that was named itself.
    """
    files: dict[str, None] = {}
    ignored: list[str] = []
    for name in names:
        found = _found(name)
        for path in found:
            try:
                kind_of(path)
            except DecontamError:
                if path == str(_absolute(name)):
                    raise
                ignored.append(path)
            else:
                files[path] = None
    if not files:
        raise DecontamError(f"no corpus files in {', '.join(map(repr, names)) or 'nothing'}: known are {SUFFIXES}")
    return Expanded(tuple(files), tuple(ignored))


def base_of(name: str) -> Path:
    """Return the folder below which files keep their names when they are copied.

    >>> str(base_of("/corpus/*/part-?.jsonl"))
    '/corpus'
    """
    path = _absolute(name)
    if path.is_dir():
        return path
    if path.exists():
        return path.parent
    parts = list(takewhile(lambda part: not glob.has_magic(part), path.parts))
    return Path(*(parts if len(parts) < len(path.parts) else parts[:-1]))


def _found(name: str) -> list[str]:
    if name.startswith(DATASET_PREFIX):
        return [name]
    path = _absolute(name)
    if path.is_file():
        return [str(path)]
    if path.is_dir():
        return _below(path)
    hits = list(map(_absolute, glob.glob(name, recursive=True)))  # noqa: PTH207
    if not hits:
        raise DecontamError(f"{name}: no such file, folder or pattern")
    return sorted({file for hit in hits for file in (_below(hit) if hit.is_dir() else [str(hit)])})


def _below(folder: Path) -> list[str]:
    """Return the files in a folder and in those below it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(
        str(path)
        for path in files
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not (path.name in SUMMARIES and (path.parent / DONE_FOLDER).is_dir())
    )


def _absolute(name: str) -> Path:
    # links stay as they are: the user knows the corpus by these names
    return Path(os.path.abspath(name))  # noqa: PTH100
