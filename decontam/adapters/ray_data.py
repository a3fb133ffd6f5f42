"""Ray Data: an actor for `Dataset.map_batches`.

dataset.map_batches(
    Decontaminate,
    fn_constructor_kwargs={"index": share(index), "action": "drop"},
    batch_format="pyarrow",
    concurrency=2,
)
"""

import pickle
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import ray

from decontam.batches import BatchOptions, IndexSource, mark_or_drop, open_index
from decontam.index import ReferenceIndex


def share(index: ReferenceIndex) -> "ray.ObjectRef[bytes]":
    """Put an index where all actors find it, sent once to each node.

    Pickled: arrays that lie in Ray's memory can't be written to, and for them every kernel would be compiled again.
    """
    return ray.put(pickle.dumps(index))


class Decontaminate:
    """Marks or drops the contaminated rows of pyarrow batches."""

    def __init__(
        self,
        index: "ray.ObjectRef[bytes] | bytes | str | Path",
        *,
        text_field: str = "text",
        rule: Literal["qwen2", "strict"] | None = None,
        action: Literal["mark", "drop"] = "mark",
    ) -> None:
        """Make an actor.

        Args:
            index: what `share` returned, or a file that `ReferenceIndex.save` wrote and every node sees.
        """
        source: IndexSource = ray.get(index) if isinstance(index, ray.ObjectRef) else index
        self._index = open_index(source)
        self._options = BatchOptions(text_field=text_field, rule=rule, action=action)

    def __call__(self, batch: pa.Table) -> Any:
        """Return the batch with the columns `contaminated` and `contamination`, or without its contaminated rows."""
        return mark_or_drop(self._index, batch, self._options)
