"""Records of a corpus: their bytes, and the texts of candidates; what is wrong with them is reported, row by row."""

import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import orjson

from decontam.errors import DecontamError
from decontam.files import DAMAGED, kind_of, open_binary
from decontam.kernels.blocks import line_ends
from decontam.text_fields import text_of

CHUNK_BYTES = 4 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
RecordProblem = Literal["broken_json", "missing_field", "invalid_utf8", "line_too_long"]
FileProblem = Literal["truncated", "unreadable", "missing_column", "not_json_lines", "unknown_format", "hidden"]
ProblemKind = RecordProblem | FileProblem


class Problem(NamedTuple):
    """What is wrong with a record, or with a whole file."""

    kind: ProblemKind
    row: int
    """Within the part, from 0."""
    detail: str


class Part(NamedTuple):
    """A stretch of a file, to be read at once."""

    path: str
    begin: int
    """In bytes, row groups or rows."""
    end: int
    """One past the last."""
    n_bytes: int
    """Of the file, compressed as it is; for progress."""
    stamp: tuple[int, ...]
    """Of the file: size and time of its last change (ns)."""
    rest: tuple["Part", ...] = ()
    """Further files, small ones, that are read with this one, each from begin to end."""

    @property
    def files(self) -> tuple["Part", ...]:
        """The stretch itself, and the further files."""
        return (self, *self.rest)


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How records are read."""

    text_field: str = "text"
    """Name of the text in a record, with dots for what is inside objects; or of a list of chat messages."""
    max_line_bytes: int = 256 << 20
    """A longer line, or file of text, is left out."""


class Chunk(NamedTuple):
    """Records that lie in one buffer."""

    buffer: Bytes
    begins: Ints
    ends: Ints
    first_row: int
    """Of the part, from 0."""
    first_byte: int
    """Where the buffer begins in a plain file; -1 where records have no place in bytes."""
    is_json: bool
    """Lines of JSON; else texts."""
    n_missing: int = 0
    """Records that have no text, and lie here as empty ones."""


def json_text(line: bytes, row: int, options: ReadOptions, problems: list[Problem]) -> str | None:
    """Return the text of a line of JSON; None for a blank line, and where there is none, which goes to `problems`."""
    if not line.strip():
        return None
    report = partial(_report, problems, row)
    line = line.removeprefix(BYTE_ORDER_MARK)
    try:
        record: object = orjson.loads(line)
    except ValueError:
        try:
            # half a surrogate pair, which many writers make, is no JSON for orjson
            record = json.loads(plain_text(line, row, problems))
        except (ValueError, RecursionError) as err:
            return report("broken_json", str(err))
    try:
        return text_of(record, options.text_field)
    except DecontamError as err:
        return report("missing_field", str(err))


def plain_text(data: bytes, row: int, problems: list[Problem]) -> str:
    """Return a text's characters; bytes that are no UTF-8 are replaced, and reported."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as err:
        problems.append(Problem("invalid_utf8", row, f"byte {err.start} is no UTF-8; scanned with it replaced"))
        return data.decode("utf-8", "replace")


def _report(problems: list[Problem], row: int, kind: ProblemKind, detail: str) -> None:
    problems.append(Problem(kind, row, sys.intern(detail)))  # often the same for millions of lines


def whole_text(part: Part, options: ReadOptions, problems: list[Problem]) -> Iterator[Chunk]:
    """Yield a file of text as one record."""
    with open_binary(part.path) as stream:
        room = np.empty(options.max_line_bytes + 1, np.uint8)  # what isn't written to takes no memory
        n_bytes, error = _read_into(stream, memoryview(room.data))
    if n_bytes > options.max_line_bytes:
        problems.append(Problem("line_too_long", 0, f"a text of more than {options.max_line_bytes:,} bytes"))
    elif n_bytes:
        yield Chunk(room[:n_bytes], np.zeros(1, np.int64), np.array([n_bytes]), 0, 0, is_json=False)
    if error:
        raise error


def line_chunks(stream: BinaryIO, part: Part, options: ReadOptions, problems: list[Problem]) -> Iterator[Chunk]:
    """Yield the lines that begin in the part; those that are too long are passed over, and never in memory in full.

    A chunk's bytes are those of the next one as soon as that is asked for.
    """
    is_plain, row = not kind_of(part.path).compression, 0
    offset = _line_start(stream, part.begin, part.end) if is_plain and part.begin else 0
    room, n_pending, n_seen = np.empty(2 * CHUNK_BYTES, np.uint8), 0, 0
    while not is_plain or offset < part.end:
        if n_pending + CHUNK_BYTES > len(room):
            room = _larger(room, n_pending, min(2 * len(room), options.max_line_bytes + 2 * CHUNK_BYTES))
        n_read, error = _read_into(stream, memoryview(room.data)[n_pending : n_pending + CHUNK_BYTES])
        data = room[: n_pending + n_read]
        # a line that a damaged file cuts is no record
        ends = line_ends(data[n_seen:]) + n_seen
        stop = len(data) if not n_read and not error else int(ends[-1]) + 1 if len(ends) else 0
        if stop:
            chunk = _lines(data[:stop], ends, row, offset if is_plain else -1, part.end)
            for i in np.flatnonzero(chunk.ends - chunk.begins > options.max_line_bytes).tolist():
                _report_long_line(row + i, options, problems)
                chunk.ends[i] = chunk.begins[i]  # as if it were blank
            row += len(chunk.begins)
            yield chunk
        offset, n_pending = offset + stop, len(data) - stop
        room[:n_pending] = room[stop : stop + n_pending]
        n_seen = n_pending
        if error:
            raise error
        if not n_read:
            break
        if n_pending > options.max_line_bytes and (not is_plain or offset < part.end):
            _report_long_line(row, options, problems)
            offset, row = offset + n_pending, row + 1
            # what begins after the part belongs to the next one
            n_bytes, rest = _skip_line(stream, part.end - offset if is_plain else None)
            offset, n_pending, n_seen = offset + n_bytes, len(rest), 0
            room = _larger(np.frombuffer(rest, np.uint8), len(rest), len(rest) + 2 * CHUNK_BYTES)
            # no lines, but the row of the long one counts
            none = np.empty(0, np.int64)
            yield Chunk(np.empty(0, np.uint8), none, none, row, -1, is_json=True)


def _larger(room: Bytes, n_bytes: int, size: int) -> Bytes:
    """Return more room that begins with the same bytes; what isn't written to takes no memory."""
    larger = np.empty(max(size, n_bytes + CHUNK_BYTES), np.uint8)
    larger[:n_bytes] = room[:n_bytes]
    return larger


def _read_into(stream: BinaryIO, room: memoryview) -> tuple[int, Exception | None]:
    """Read as many bytes as there is room for; fewer at the end, and where reading fails: what came before is kept."""
    n_bytes = 0
    try:
        while n_bytes < len(room) and (n_read := cast("io.BufferedReader", stream).readinto1(room[n_bytes:])):
            n_bytes += n_read
    except (*DAMAGED, OSError) as err:
        return n_bytes, err
    return n_bytes, None


def _report_long_line(row: int, options: ReadOptions, problems: list[Problem]) -> None:
    problems.append(Problem("line_too_long", row, f"a line of more than {options.max_line_bytes:,} bytes"))


def _lines(data: Bytes, ends: Ints, row: int, offset: int, end: int) -> Chunk:
    """Return the lines of some bytes that begin before `end`; the last one may have no line feed."""
    if not len(ends) or ends[-1] + 1 < len(data):
        ends = np.append(ends, len(data))
    begins = np.concatenate(([0], ends[:-1] + 1)).astype(np.int64)
    if offset >= 0:
        n_own = int(np.searchsorted(begins + offset, end))
        begins, ends = begins[:n_own], ends[:n_own]
    return Chunk(data, begins, ends, row, offset, is_json=True)


def _line_start(stream: BinaryIO, at: int, end: int) -> int:
    """Go to the first line that begins at `at` or later, and return where it does, or some place from `end` on."""
    stream.seek(at - 1)
    n_bytes, _ = _skip_line(stream, end - at + 1)
    return stream.seek(at - 1 + n_bytes)


def _skip_line(stream: BinaryIO, limit: int | None) -> tuple[int, bytes]:
    """Read to the end of the line, or at least `limit` bytes; return its bytes, and what was read behind it."""
    n_bytes = 0
    while (limit is None or n_bytes < limit) and (block := stream.read(1 << 16)):
        stop = block.find(b"\n") + 1
        if stop:
            return n_bytes + stop, block[stop:]
        n_bytes += len(block)
    return n_bytes, b""
