"""Spark: a function for `DataFrame.mapInArrow`, and the schema of what it returns.

search = decontaminate(spark.sparkContext.broadcast(index), action="mark")
marked = frame.mapInArrow(search, output_schema(frame.schema))
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pyspark import Broadcast
from pyspark.sql.pandas.types import from_arrow_type
from pyspark.sql.types import StructType

from decontam.batches import COLUMNS, BatchOptions, mark_or_drop, open_index
from decontam.index import ReferenceIndex

Batches = Iterator[pa.RecordBatch]


def decontaminate(
    index: "Broadcast[ReferenceIndex] | str | Path",
    *,
    text_field: str = "text",
    rule: Literal["qwen2", "strict"] | None = None,
    action: Literal["mark", "drop"] = "mark",
) -> Callable[[Batches], Batches]:
    """Return the function that marks or drops the contaminated rows of batches, on the executors.

    Args:
        index: a broadcast index, or a file that `ReferenceIndex.save` wrote and every executor sees, the way for Spark
            Connect, which has no broadcasts.
    """
    options = BatchOptions(text_field=text_field, rule=rule, action=action)

    def search(batches: Batches) -> Batches:
        opened = open_index(index.value if isinstance(index, Broadcast) else index)
        for batch in batches:
            yield mark_or_drop(opened, batch, options)

    return search


def output_schema(schema: StructType, *, action: Literal["mark", "drop"] = "mark") -> StructType:
    """Return the schema of the marked frame, or of the one without contaminated rows, which is the same."""
    added: list[Any] = list(COLUMNS) if action == "mark" else []
    out = StructType(list(schema.fields))
    for field in added:
        out = out.add(field.name, from_arrow_type(field.type))
    return out
