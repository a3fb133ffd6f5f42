"""Filtering parquet files: schema, metadata, row groups and compression stay, rows or their texts go."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from decontam.errors import DecontamError
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
    """Write a filtered copy of a parquet file, row group by row group."""
    scratch = target.with_name(f".{target.name}.part")
    try:
        with pq.ParquetFile(path) as file:
            schema, compression = file.schema_arrow, _compression(file)
            with pq.ParquetWriter(scratch, schema, compression=compression) as writer:
                row = 0
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group)
                    own = {at - row: targets[at] for at in targets if row <= at < row + table.num_rows}
                    row += table.num_rows
                    writer.write_table(_filtered(table, own, options, text_field, summary) if own else table)
        scratch.replace(target)
    except pa.ArrowException as err:
        raise DecontamError(f"not parquet, or broken: {err}") from err
    finally:
        scratch.unlink(missing_ok=True)


def _filtered(
    table: Any, targets: Mapping[int, Target], options: FilterOptions, text_field: str, summary: FileSummary
) -> Any:
    if options.action == "drop":
        summary.n_documents_dropped += len(targets)
        return table.filter(pa.array([row not in targets for row in range(table.num_rows)]))
    column = text_field if text_field in table.column_names else text_field.split(".", maxsplit=1)[0]
    values = table.column(column).to_pylist()
    mask = options.mask if options.action == "mask" else ""
    for row, target in targets.items():
        record = {column: values[row]}
        spans = spans_to_cut(text_of(record, text_field), target, options)
        count_edited(summary, spans)
        names = [] if column == text_field else text_field.split(".")[1:]
        values[row] = _edited_value(values[row], names, spans, mask)
    at = table.column_names.index(column)
    return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))


def _edited_value(value: Any, names: list[str], spans: list[Span], mask: str) -> Any:
    """Return a text, or an object or messages with their texts edited; spans count over all messages."""
    if names:
        return {**value, names[0]: _edited_value(value[names[0]], names[1:], spans, mask)}
    if isinstance(value, str):
        return edited_text(value, spans, mask=mask)
    first, begun, edited = 0, set[Span](), []
    for message in value:
        content = message["content"]
        if not isinstance(content, str):
            if content:
                raise DecontamError("messages of several parts can't be edited in parquet: use action=drop")
            first += 1
            edited.append(message)
            continue
        own = [(max(a - first, 0), min(b - first, len(content)), (a, b)) for a, b in spans]
        text, done = "", 0
        for begin, end, whole in (one for one in own if one[0] < one[1]):
            text += content[done:begin] + ("" if whole in begun else mask)
            begun.add(whole)
            done = end
        edited.append({**message, "content": text + content[done:]})
        first += len(content) + 1
    return edited


def _compression(file: Any) -> dict[str, str] | str:
    """Return the codec of each column."""
    metadata = file.metadata
    if not metadata.num_row_groups:
        return "snappy"
    group = metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    return {column.path_in_schema: column.compression.lower().replace("uncompressed", "none") for column in columns}
