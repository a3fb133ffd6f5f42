"""The parts that a corpus is read in, and the records of each.

A part is a stretch of one file: bytes of plain jsonl (a line belongs to where it begins), row groups of parquet, rows
of a data set, or all of a file that is compressed or plain text. Small files are read together. What is wrong with a
record is reported with its row, and the rest is read.
"""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from decontam.file_heads import file_fault
from decontam.files import DAMAGED, kind_of, open_binary
from decontam.hub import dataset_chunks, dataset_parts
from decontam.records import Chunk, Part, Problem, ReadOptions, line_chunks, whole_text
from decontam.tables import parquet_chunks, parquet_parts

_SMALL = 256
"""A file of so small a share of a part is a small one: the result of a part takes time and a file of its own."""
_FILES_TOGETHER = 64
"""Small files that are read together, on average; at most eight times as many."""


def list_parts(paths: Sequence[str], *, part_bytes: int) -> list[Part]:
    """Cut files into parts of about so many bytes, and put small files together.

    Whether a part ends with a small file depends on the file's name alone: after files were added, most parts are the
    same.
    """
    found, together = list[Part](), list[Part]()

    def close() -> None:
        if together:
            found.append(together[0]._replace(rest=tuple(together[1:])))
            together.clear()

    for path in paths:
        parts = list(_parts_of(path, part_bytes))
        if kind_of(path).format == "dataset" or len(parts) > 1 or parts[0].n_bytes * _SMALL > part_bytes:
            close()
            found += parts
            continue
        together += parts
        ends_here = zlib.crc32(path.encode()) % _FILES_TOGETHER == 0
        if ends_here or len(together) == 8 * _FILES_TOGETHER or sum(part.n_bytes for part in together) > part_bytes:
            close()
    close()
    return found


def chunks(part: Part, options: ReadOptions, problems: list[Problem]) -> Iterator[Chunk]:
    """Yield a part's records; what can't be read goes to `problems`."""
    row = 0
    try:
        kind = kind_of(part.path)
        if kind.format != "dataset" and (fault := file_fault(part.path, kind, part.stamp[0])):
            problems.extend([fault] * (part.begin == 0))  # once, though each part of the file meets it
        elif kind.format == "parquet":
            yield from parquet_chunks(part, options, problems)
        elif kind.format == "dataset":
            yield from dataset_chunks(part, options, problems)
        elif kind.format == "text":
            yield from whole_text(part, options, problems)
        else:
            with open_binary(part.path) as stream:
                for chunk in line_chunks(stream, part, options, problems):
                    row = chunk.first_row + len(chunk.begins)
                    yield chunk
    except DAMAGED as err:
        problems.append(Problem("truncated", row, f"broken or cut compressed file: {err}"))
    except OSError as err:
        problems.append(Problem("unreadable", row, err.strerror or str(err)))


def _parts_of(path: str, part_bytes: int) -> Iterator[Part]:
    kind = kind_of(path)
    if kind.format == "dataset":
        yield from dataset_parts(path)
        return
    try:
        info = Path(path).stat()
        stamp = info.st_size, info.st_mtime_ns
        if kind.format == "parquet":
            yield from parquet_parts(path, stamp, part_bytes)
        elif kind.format == "jsonl" and not kind.compression:
            for begin in range(0, max(info.st_size, 1), part_bytes):
                end = min(begin + part_bytes, info.st_size)
                yield Part(path, begin, end, end - begin, stamp)
        else:
            yield Part(path, 0, info.st_size, info.st_size, stamp)
    except OSError:
        yield Part(path, 0, 0, 0, (0, 0))  # reading it will report what is wrong
