"""Records in tables: parquet files, and columns of texts or chat messages in arrow's memory."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from decontam.errors import DecontamError
from decontam.records import CHUNK_BYTES, Chunk, Part, Problem, ReadOptions
from decontam.text_fields import text_of

_BATCH_ROWS = 4_096


def parquet_parts(path: str, stamp: tuple[int, ...], part_bytes: int) -> Iterator[Part]:
    """Cut a parquet file into parts of whole row groups, of about so many bytes."""
    try:
        with pq.ParquetFile(path) as file:
            sizes = [file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups)]
    except (pa.ArrowException, ValueError):
        yield Part(path, 0, 0, 0, stamp)  # reading it will report what is wrong
        return
    begin = n_bytes = 0
    for i, size in enumerate(sizes):
        n_bytes += size
        if n_bytes >= part_bytes or i + 1 == len(sizes):
            yield Part(path, begin, i + 1, stamp[0] * n_bytes // max(1, sum(sizes)), stamp)
            begin, n_bytes = i + 1, 0
    if not sizes:
        yield Part(path, 0, 0, 0, stamp)


def parquet_chunks(part: Part, options: ReadOptions, problems: list[Problem]) -> Iterator[Chunk]:
    """Yield the texts of a parquet file's row groups; one that is damaged doesn't take the others with it."""
    try:
        with pq.ParquetFile(part.path) as file:
            names = file.schema_arrow.names
            column = options.text_field if options.text_field in names else options.text_field.split(".")[0]
            if column not in names:
                known = ", ".join(map(repr, names))
                problems.append(Problem("missing_column", 0, f"no column {column!r}; there are {known}"))
                return
            row = 0
            for group in range(part.begin, part.end):
                yield from _group_chunks(file, group, column, row, options, problems)
                row += file.metadata.row_group(group).num_rows
    except (pa.ArrowException, ValueError) as err:
        problems.append(Problem("unreadable", 0, f"not parquet, or broken: {err}"))


def _group_chunks(
    file: Any, group: int, column: str, first_row: int, options: ReadOptions, problems: list[Problem]
) -> Iterator[Chunk]:
    metadata = file.metadata.row_group(group)
    row_bytes = metadata.total_byte_size // max(1, metadata.num_rows)
    n_rows = max(1, min(_BATCH_ROWS, CHUNK_BYTES // max(1, row_bytes)))
    row = first_row
    try:
        for batch in file.iter_batches(n_rows, row_groups=[group], columns=[column]):
            yield column_chunk(batch.column(0), column, row, options, problems)
            row += batch.num_rows
    except (pa.ArrowException, OSError, ValueError) as err:
        problems.append(Problem("unreadable", row, f"row group {group} is broken: {err}"))
        # the rows behind keep their numbers
        none = np.empty(0, np.int64)
        yield Chunk(np.empty(0, np.uint8), none, none, first_row + metadata.num_rows, -1, is_json=False)


def column_chunk(values: Any, column: str, first_row: int, options: ReadOptions, problems: list[Problem]) -> Chunk:
    """Return a column's texts as a chunk, without a copy where they lie in one piece; nulls go to `problems`."""
    names = options.text_field.removeprefix(column).split(".")[1:]
    while names and pa.types.is_struct(values.type) and values.type.get_field_index(names[0]) >= 0:
        values = pc.struct_field(values, names.pop(0))
    if isinstance(values.type, pa.BaseExtensionType):
        values = values.storage
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if not names and (kind := _text_kind(values.type)):
        values = values.cast(kind)
        nulls = np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False)).tolist()
        detail = f"field {options.text_field!r} is null"
        problems.extend(Problem("missing_field", first_row + row, detail) for row in nulls)
    else:
        values = _python_texts(values, names, options, first_row, problems)
    _, offsets, data = values.buffers()
    begins = np.frombuffer(offsets, np.int64)[values.offset : values.offset + len(values) + 1]
    buffer = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    is_null = values.is_null().to_numpy(zero_copy_only=False)
    # under a null may lie anything
    firsts = np.where(is_null, begins[1:], begins[:-1])
    return Chunk(buffer, firsts, begins[1:], first_row, -1, is_json=False, n_missing=values.null_count)


def _text_kind(kind: Any) -> Any:
    """Return the type with offsets of 8 bytes that a column of texts is read as; None: it is no such column.

    Binary columns hold UTF-8: older writers, such as Spark's and TFDS', don't mark text as such.
    """
    is_ = pa.types
    if is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind):
        return pa.large_string()
    is_binary = is_.is_binary(kind) or is_.is_large_binary(kind) or is_.is_binary_view(kind)
    return pa.large_binary() if is_binary or is_.is_fixed_size_binary(kind) else None


def _python_texts(
    values: Any, names: Sequence[str], options: ReadOptions, first_row: int, problems: list[Problem]
) -> Any:
    """Return the texts of chat messages, and of other values than text, as a column."""
    texts: list[str | None] = []
    for row, value in enumerate(values.to_pylist()):
        try:
            text = text_of({"value": value}, ".".join(["value", *names]))
            texts.append(text.encode("utf-8", "replace").decode())
        except DecontamError as err:
            texts.append(None)
            detail = str(err).replace(repr(".".join(["value", *names])), repr(options.text_field))
            problems.append(Problem("missing_field", first_row + row, detail))
    return pa.array(texts, pa.large_string())


def without_rows(table: Any, rows: Sequence[int]) -> Any:
    """Return a table or record batch without some rows, which ascend; arrow's own filter can't do it with views."""
    stops, begins = [*rows, table.num_rows], [0, *(row + 1 for row in rows)]
    pieces = [table.slice(begin, stop - begin) for begin, stop in zip(begins, stops, strict=True) if begin < stop]
    if not pieces:
        return table.slice(0, 0)
    return pa.concat_batches(pieces) if isinstance(table, pa.RecordBatch) else pa.concat_tables(pieces)
