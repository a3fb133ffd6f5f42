"""A table's columns as values: rows, arrow schema and documentation are made from one list of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

if TYPE_CHECKING:
    import pyarrow as pa

ArrowType = Literal["string", "int64", "float64", "bool"]
Value = str | int | float | bool | None
"""What a cell holds; None is a null."""
Row = Mapping[str, Any]
"""One row read from a table: cells by column name; columns of older files may be missing."""
Source = TypeVar("Source")


@dataclass(frozen=True)
class Column(Generic[Source]):
    """One column of a table."""

    name: str
    """In the file."""
    type: ArrowType
    """Its arrow type."""
    doc: str
    """What it holds and what a null means, in a sentence for docs/run-folder.md."""
    get: Callable[[Source], Value]
    """How a row's value is made."""


def row_of(columns: Sequence[Column[Source]], source: Source) -> dict[str, Value]:
    """Return one row by column name."""
    return {column.name: column.get(source) for column in columns}


def schema_of(columns: Sequence[Column[Source]]) -> "pa.Schema":
    """Return the arrow schema of columns."""
    import pyarrow as pa

    types = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
    return pa.schema([(column.name, types[column.type]) for column in columns])


def describe_columns(columns: Sequence[Column[Source]]) -> str:
    """Return columns as a markdown table, as docs/run-folder.md has it."""
    rows = [f"| `{column.name}` | {column.type} | {column.doc.replace('|', chr(92) + '|')} |" for column in columns]
    return "\n".join(["| column | type | what it holds |", "| --- | --- | --- |", *rows])
