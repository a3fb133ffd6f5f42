"""Filtering parquet files: schema, metadata, row groups and compression stay, rows or their texts go."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from decontam.errors import DecontamError
from decontam.files import beside
from decontam.filter_plan import FileSummary, FilterOptions, Target, count_edited, spans_to_cut
from decontam.json_edit import Span, edited_text
from decontam.text_fields import text_of


def filter_parquet(
    path: str,
    target: Path,
    targets: Mapping[int, Target],
    options: FilterOptions,
    text_field: str,
    summary: FileSummary,
) -> None:
    """Write a filtered copy of a parquet file, row group by row group; groups without a row are left out.

    Raises:
        DecontamError: a broken file, or one that has changed since the scan.
    """
    with (
        beside(target, like=path) as scratch,
        _opened(path) as file,
        pq.ParquetWriter(scratch, file.schema_arrow, **_written_as(file)) as writer,
    ):
        row = 0
        for group in range(file.num_row_groups):
            table = _row_group(file, group)
            own = {at - row: targets[at] for at in targets if row <= at < row + table.num_rows}
            row += table.num_rows
            summary.n_documents_kept += table.num_rows - len(own)
            if own:
                table = _filtered(table, own, options, text_field, summary)
            if table.num_rows:  # some readers refuse empty groups
                writer.write_table(table, row_group_size=table.num_rows)


def _opened(path: str) -> Any:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as err:
        raise DecontamError(f"not parquet, or broken: {err}: leave it out") from err


def _row_group(file: Any, group: int) -> Any:
    try:
        return file.read_row_group(group)
    except (pa.ArrowException, OSError) as err:
        raise DecontamError(f"row group {group} can't be read: {err}: leave the file out") from err


def _written_as(file: Any) -> dict[str, Any]:
    """Return how the file was written: the codec of each column, and the old kind of time stamps."""
    metadata = file.metadata
    if not metadata.num_row_groups:
        return {}
    group = metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    codecs = {column.path_in_schema: column.compression.lower().replace("uncompressed", "none") for column in columns}
    is_old = any(column.physical_type == "INT96" for column in columns)
    return {"compression": codecs, "use_deprecated_int96_timestamps": is_old}


def _filtered(
    table: Any, targets: Mapping[int, Target], options: FilterOptions, text_field: str, summary: FileSummary
) -> Any:
    """Return a table without some rows, or with their texts edited."""
    name = text_field if text_field in table.column_names else text_field.split(".", maxsplit=1)[0]
    at = table.column_names.index(name)
    names = [] if name == text_field else text_field.split(".")[1:]
    mask = options.mask if options.action == "mask" else ""
    column, edited = table.column(at), dict[int, Any]()
    for row, target in targets.items():
        value = column[row].as_py()
        spans = spans_to_cut(text_of({name: value}, text_field), target, options)
        if options.action == "drop":
            summary.n_documents_dropped += 1
        else:
            count_edited(summary, spans)
            edited[row] = _edited_value(value, names, spans, mask)
    if options.action == "drop":
        return table.filter(pa.array([row not in targets for row in range(table.num_rows)]))
    return table.set_column(at, table.schema.field(at), _with_values(column, edited))


def _with_values(column: Any, values: Mapping[int, Any]) -> Any:
    """Return a column with some values replaced; the others never leave arrow, so they stay what they are."""
    pieces, done = list[Any](), 0
    for row in sorted(values):
        pieces += [*column.slice(done, row - done).chunks, pa.array([values[row]], column.type)]
        done = row + 1
    return pa.chunked_array([*pieces, *column.slice(done).chunks], column.type).unify_dictionaries()


def _edited_value(value: Any, names: Sequence[str], spans: Sequence[Span], mask: str) -> Any:
    """Return a text, or an object or messages with their texts edited; spans count over all messages."""
    if names:
        return {**value, names[0]: _edited_value(value[names[0]], names[1:], spans, mask)}
    if isinstance(value, str):
        return edited_text(value, spans, mask=mask)
    texts = _Texts(spans, mask)
    return [{**message, "content": texts.edited_content(message["content"])} for message in value]


class _Texts:
    """Texts that follow each other, each a line of what `text_of` returns, and the spans that are cut out of it."""

    def __init__(self, spans: Sequence[Span], mask: str) -> None:
        self._spans, self._mask = spans, mask
        self._first = 0
        self._begun = set[Span]()

    def edited_content(self, content: Any) -> Any:
        """Return a message's content, which is a text or parts of which some have texts."""
        if isinstance(content, str):
            return self._edited(content)
        parts = content or []
        if not any(isinstance(part.get("text"), str) for part in parts):
            self._first += 1  # an empty line
            return content
        return [
            {**part, "text": self._edited(part["text"])} if isinstance(part.get("text"), str) else part
            for part in parts
        ]

    def _edited(self, text: str) -> str:
        out, done = "", 0
        for span in self._spans:
            begin, end = max(span[0] - self._first, 0), min(span[1] - self._first, len(text))
            if begin < end:
                # a span over two texts is masked where it begins
                out += text[done:begin] + ("" if span in self._begun else self._mask)
                self._begun.add(span)
                done = end
        self._first += len(text) + 1
        return out + text[done:]
