"""Matches for the rows of a table in arrow's memory: what the adapters of other engines have in common."""

import pickle
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from decontam.errors import DecontamError
from decontam.index import ReferenceIndex
from decontam.matching import Match
from decontam.part_result import MATCH_SCHEMA
from decontam.records import Problem, ReadOptions, plain_text
from decontam.scan import MOST_MATCHES
from decontam.tables import column_chunk, without_rows

IndexSource = ReferenceIndex | bytes | str | Path
"""An index, the same pickled, or a file that `ReferenceIndex.save` wrote."""

CONTAMINATED, CONTAMINATION = "contaminated", "contamination"
_SHOWN = (
    *("reference_id", "benchmark", "reference_part", "rule", "n_shared_ngrams", "longest_match"),
    *("lcs_length", "lcs_ratio", "spans"),
)
MATCH_TYPE = pa.struct([MATCH_SCHEMA.field(name) for name in _SHOWN])
"""One match: a row of a scan's `matches.parquet` without the document."""
COLUMNS = (pa.field(CONTAMINATED, pa.bool_()), pa.field(CONTAMINATION, pa.list_(MATCH_TYPE)))


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """What is searched, and what is done with what is found."""

    text_field: str = "text"
    """Column of the text, or of a list of chat messages; with dots for what is inside structs."""
    rule: Literal["qwen2", "strict"] | None = None
    """What makes a document contaminated; strict: any shared n-gram, also where the index asks for more. None: the rule
    of the index."""
    action: Literal["mark", "drop"] = "mark"
    """mark: add the columns `contaminated` and `contamination`; drop: leave the rows out, and add nothing."""


def open_index(source: IndexSource) -> ReferenceIndex:
    """Return an index, made once in each process if it must be read."""
    return source if isinstance(source, ReferenceIndex) else _open_index(source)


@lru_cache(maxsize=1)
def _open_index(source: bytes | str | Path) -> ReferenceIndex:
    if isinstance(source, bytes):
        index: ReferenceIndex = pickle.loads(source)  # noqa: S301 - what the caller's own driver packed
        return index
    return ReferenceIndex.load(Path(source))


def mark_or_drop(index: ReferenceIndex, table: Any, options: BatchOptions) -> Any:
    """Return a table or record batch with two more columns, or without the contaminated rows.

    Raises:
        DecontamError: no such column; a value in it that is neither text nor null; a rule that the index was not
            built for.
    """
    names = table.schema.names
    column = options.text_field if options.text_field in names else options.text_field.split(".")[0]
    if column not in names:
        raise DecontamError(f"no column {column!r}; there are {', '.join(map(repr, names))}")
    found = find_in_column(index, table.column(column), column, options)
    if options.action == "drop":
        return without_rows(table, [row for row, matches in enumerate(found) if matches])
    if taken := {CONTAMINATED, CONTAMINATION} & set(names):
        raise DecontamError(f"there is a column {min(taken)!r} already: rename it, or give action='drop'")
    rows = [[as_row(match) for match in matches] for matches in found]
    for field, values in zip(COLUMNS, ([bool(row) for row in rows], rows), strict=True):
        table = table.append_column(field, pa.array(values, field.type))
    return table


def find_in_column(index: ReferenceIndex, values: Any, column: str, options: BatchOptions) -> list[list[Match]]:
    """Return for each row what `ReferenceIndex.find_matches` finds in its text, the strongest where there are too many.

    A null holds nothing.

    Args:
        values: an array, plain or in chunks, whose memory is read in place, without a copy.
        column: the column's name, the first part of `options.text_field`.
    """
    wanted = ("qwen2",) if _rule(index, options) == "qwen2" else ("qwen2", "strict")
    found: list[list[Match]] = []
    for piece in values.chunks if isinstance(values, pa.ChunkedArray) else [values]:
        rows: list[list[Match]] = [[] for _ in range(len(piece))]
        for row, text in _flagged(index, piece, column, options.text_field):
            matches = index.find_all_matches(text, limit=MOST_MATCHES)
            rows[row] = [match for match in matches if match.rule in wanted]
        found.extend(rows)
    return found


def as_row(match: Match) -> dict[str, Any]:
    """Return a match as a value of MATCH_TYPE."""
    row: dict[str, Any] = {name: value for name, value in asdict(match).items() if name != "ngram_ids"}
    return row | {"spans": [{"begin": begin, "end": end} for begin, end in match.spans]}


def _flagged(index: ReferenceIndex, values: Any, column: str, text_field: str) -> Iterator[tuple[int, str]]:
    """Yield the texts that are candidates, with their rows."""
    problems: list[Problem] = []
    chunk = column_chunk(values, column, 0, ReadOptions(text_field=text_field), problems)
    inside = text_field.removeprefix(column).split(".")[1:]
    for problem in problems:
        value = values[problem.row].as_py()
        for name in inside:
            value = value.get(name) if isinstance(value, dict) else value
        if value is not None:  # else the row would pass for clean
            raise DecontamError(f"{problem.detail}: give the text_field of a text or of chat messages")
    nulls = {problem.row for problem in problems}
    flags = index.flag_texts(chunk.buffer, chunk.begins, chunk.ends)
    for row in np.flatnonzero(flags).tolist():
        if row not in nulls:  # under a null may lie anything
            yield row, plain_text(chunk.buffer[chunk.begins[row] : chunk.ends[row]].tobytes(), row, [])


def _rule(index: ReferenceIndex, options: BatchOptions) -> str:
    if options.rule == "qwen2" != index.rule.name:
        raise DecontamError("rule='qwen2' needs an index of that rule; this one was built with Rule.strict()")
    return options.rule or index.rule.name
