"""Filtering parquet files: schema, metadata, row groups and compression stay, rows or their texts go."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from decontam.errors import DecontamError
from decontam.files import beside
from decontam.filter_plan import FileSummary, FilterOptions, Target, count_edited, spans_to_cut
from decontam.json_edit import Span, edited_bytes, edited_text
from decontam.tables import without_rows
from decontam.text_fields import text_of, text_places


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
    mask = options.mask if options.action == "mask" else ""
    column, edited = table.column(at), dict[int, Any]()
    for row, target in targets.items():
        value = column[row].as_py()
        spans = spans_to_cut(text_of({name: value}, text_field), target, options)
        if options.action == "drop":
            summary.n_documents_dropped += 1
        else:
            count_edited(summary, spans)
            edited[row] = _edited_value(value, name, text_field, spans, mask)
    if options.action == "drop":
        return without_rows(table, sorted(targets))
    return table.set_column(at, table.schema.field(at), _with_values(column, edited))


def _with_values(column: Any, values: Mapping[int, Any]) -> Any:
    """Return a column with some values replaced; the others never leave arrow, so they stay what they are."""
    pieces, done = list[Any](), 0
    for row in sorted(values):
        pieces += [*column.slice(done, row - done).chunks, pa.array([values[row]], column.type)]
        done = row + 1
    return pa.chunked_array([*pieces, *column.slice(done).chunks], column.type).unify_dictionaries()


def _edited_value(value: Any, name: str, text_field: str, spans: Sequence[Span], mask: str) -> Any:
    """Return a column's value with its texts edited; spans count over all of them, a line each."""
    record, first, begun = {name: _copied(value)}, 0, set[Span]()
    for place in text_places(record, text_field):
        if place is not None:
            n_characters, old = len(place.text), place.holder[place.key]
            own = [(max(a - first, 0), min(b - first, n_characters), (a, b)) for a, b in spans]
            own = [(a, b, whole) for a, b, whole in own if a < b]
            for a, b, whole in reversed(own):
                # a span over two texts is masked where it begins
                shown = "" if whole in begun else mask
                edit: Any = edited_bytes if isinstance(old, bytes) else edited_text
                place.holder[place.key] = edit(place.holder[place.key], [(a, b)], mask=shown)
            begun.update(whole for _, _, whole in own)
            first += n_characters
        first += 1
    return _with_pairs(record[name], value)


def _copied(value: Any) -> Any:
    """Return a value whose objects and lists can be changed; the entries of maps, which are pairs, become lists."""
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    return [_copied(one) for one in value] if isinstance(value, list | tuple) else value


def _with_pairs(value: Any, before: Any) -> Any:
    """Return a value that `_copied` made, with pairs where they were before."""
    if isinstance(value, dict):
        return {key: _with_pairs(one, before[key]) for key, one in value.items()}
    if not isinstance(value, list):
        return value
    elements = (_with_pairs(one, old) for one, old in zip(value, before, strict=True))
    return tuple(elements) if isinstance(before, tuple) else list(elements)
