"""Corpus files: their format, and reading and writing them, compressed or plain."""

import bz2
import gzip
import io
import lzma
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, NamedTuple, Protocol, cast

import zstandard

from decontam.errors import DecontamError

Format = Literal["jsonl", "text", "parquet", "dataset"]
"""dataset: no file, but one of the hub's data sets."""
Compression = Literal["", "gz", "zst", "bz2", "xz"]

DATASET_PREFIX = "hf://"
_FORMATS: dict[str, Format] = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "jsonl"),
    **dict.fromkeys((".txt", ".text", ".md"), "text"),
    ".parquet": "parquet",
}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gz", ".zst": "zst", ".bz2": "bz2", ".xz": "xz"}
SUFFIXES = f"{', '.join(_FORMATS)}; all but .parquet also with .gz, .zst, .bz2 or .xz behind"
DONE_FOLDER, SUMMARIES = ".done", ("summary.json", "summary.md")
"""What a filter writes beside the files of a cleaned corpus."""
_PACKED_BYTES, _READ_BYTES = (1 << 10, 1 << 16), 1 << 20
_LARGEST_WINDOW = 1 << 31
"""Of zstd, in bytes: as `--long=31` writes it, the format's own limit for 64 bits."""


class DamagedError(Exception):
    """Compressed bytes that can't be read."""


DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstandard.ZstdError, DamagedError)
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
    suffixes, compression = Path(str(path).lower()).suffixes, compression_of(path)
    if compression:
        suffixes.pop()
    format_ = _FORMATS.get(suffixes[-1]) if suffixes else None
    if format_ is None or (compression and format_ == "parquet"):
        raise DecontamError(f"{path}: unknown kind of file; known are {SUFFIXES}")
    return Kind(format_, compression)


def compression_of(path: str | Path) -> Compression:
    """Return how a file is compressed, by the end of its name, whatever its case; "": it isn't.

    >>> compression_of("items.jsonl.GZ")
    'gz'
    """
    return _COMPRESSIONS.get(Path(str(path).lower()).suffix, "")


@contextmanager
def open_binary(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file to read what is in it, decompressed; several members, frames or streams are read as one.

    Raises:
        One of DAMAGED or OSError while reading.
    """
    with Path(path).open("rb") as file:
        match compression_of(path):
            case "gz":
                yield cast("BinaryIO", gzip.GzipFile(fileobj=file))
            case "":
                yield file
            case compression:
                yield cast("BinaryIO", io.BufferedReader(_FrameReader(file, compression), _READ_BYTES))


class _Frame(Protocol):
    """What decompresses one frame of zstd, or one stream of bz2 or xz."""

    def decompress(self, data: bytes, /) -> bytes: ...

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...


_NEW_FRAMES: dict[Compression, Callable[[], _Frame]] = {
    "zst": lambda: zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).decompressobj(),
    "bz2": bz2.BZ2Decompressor,
    "xz": lzma.LZMADecompressor,
}


class _FrameReader(io.RawIOBase):
    """Frame by frame, so that a file that is cut says so: the libraries' own streams just end there, or at garbage."""

    def __init__(self, file: BinaryIO, compression: Compression) -> None:
        self._file, self._compression, self._pending = file, compression, memoryview(b"")
        self._frame: _Frame | None = None
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
                    raise EOFError(f"it ends in the middle of a {self._compression} frame")
                return 0
            if self._frame is None and self._compression == "xz":
                packed = packed.lstrip(b"\0")  # the format allows zeros between streams
                if not packed:
                    continue
            self._frame = self._frame or _NEW_FRAMES[self._compression]()
            self._pending = memoryview(self._decompressed(self._frame, packed))
            self._set_step()
        n_bytes = min(len(buffer), len(self._pending))
        buffer[:n_bytes], self._pending = self._pending[:n_bytes], self._pending[n_bytes:]
        return n_bytes

    def _decompressed(self, frame: _Frame, packed: bytes) -> bytes:
        try:
            return frame.decompress(packed)
        except OSError as err:  # of bz2, which has no error of its own
            raise DamagedError(str(err)) from err

    def _set_step(self) -> None:
        # a step gives up to 32,000 times of what goes in, so 64 KiB could become 2 GB
        low, high = _PACKED_BYTES
        grown = self._n_packed * 2 if len(self._pending) < _READ_BYTES else self._n_packed // 2
        self._n_packed = min(max(grown, low), high)


@contextmanager
def create_binary(path: Path, *, like: str | Path | None = None) -> Iterator[IO[bytes]]:
    """Open a file to write, compressed as its name says; it is there only when all was written.

    Args:
        like: a file whose mode it gets, as `beside` gives it.
    """
    with beside(path, like=like) as scratch, scratch.open("wb") as file:
        match kind_of(path).compression:
            case "gz":
                # the name and the time in a gzip header would make equal contents differ
                with gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
                    yield cast("IO[bytes]", packed)
            case "zst":
                with zstandard.ZstdCompressor(level=3).stream_writer(file, closefd=False) as writer:
                    yield cast("IO[bytes]", writer)
            case "bz2":
                with bz2.BZ2File(file, "wb") as packed_bz2:
                    yield cast("IO[bytes]", packed_bz2)
            case "xz":
                with lzma.LZMAFile(file, "wb") as packed_xz:
                    yield cast("IO[bytes]", packed_xz)
            case _:
                yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def beside(path: Path, *, like: str | Path | None = None) -> Iterator[Path]:
    """Yield a hidden file's path, which takes the place of `path` when the block ends well, and is removed if not.

    Args:
        like: a file that it is a copy of: at no time may more users read it. None: a new file, as the umask says.
    """
    scratch = path.with_name(f".{path.name}.part")
    try:
        if like is not None:
            scratch.touch(0o600)
        yield scratch
        if like is not None:
            take_mode(scratch, Path(like).stat())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def take_mode(path: Path, info: os.stat_result, *, at_least: int = 0) -> None:
    """Give a file or folder the mode of another one, and its group; without the group, that has no rights.

    Args:
        at_least: what its owner may do, in any case.
    """
    mode = stat.S_IMODE(info.st_mode) & 0o777 | at_least
    try:
        os.chown(path, -1, info.st_gid)
    except OSError:
        mode &= 0o707
    path.chmod(mode)
