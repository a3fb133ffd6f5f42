"""datatrove: a filter step that writes what it found into the documents' metadata.

LocalPipelineExecutor(pipeline=[JsonlReader("corpus"), DecontaminationFilter(index), JsonlWriter("clean")]).run()
"""

from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter

from decontam.batches import CONTAMINATED, CONTAMINATION, BatchOptions, as_row, find_in_column, open_index
from decontam.index import ReferenceIndex


class DecontaminationFilter(BaseFilter):
    """Drops contaminated documents, or keeps all and marks them."""

    name = "🧪 Benchmark decontamination"

    def __init__(
        self,
        index: ReferenceIndex | str | Path,
        *,
        text_field: str = "text",
        rule: Literal["qwen2", "strict"] | None = None,
        action: Literal["mark", "drop"] = "drop",
        exclusion_writer: Any = None,
        batch_size: int = 1_000,
    ) -> None:
        """Make a step.

        Args:
            index: an index, or a file that `ReferenceIndex.save` wrote and every task sees.
            text_field: "text", or the name of another text, in the metadata.
            exclusion_writer: where dropped documents go, with the matches in their metadata.
        """
        super().__init__(exclusion_writer, batch_size)
        self._index = index
        self._options = BatchOptions(text_field=text_field, rule=rule, action=action)

    def filter_batch(self, batch: list[Document]) -> list[bool | tuple[bool, str]]:
        """Say for each document whether it stays; a dropped one with the reason."""
        name, is_marking = self._options.text_field, self._options.action == "mark"
        texts = [document.text if name == "text" else document.metadata.get(name) for document in batch]
        # half a surrogate pair is no UTF-8, and no token either
        packed = [None if text is None else text.encode("utf-8", "replace") for text in texts]
        column = pa.array(packed, pa.large_binary()).cast(pa.large_string())
        found = find_in_column(open_index(self._index), column, name, self._options)
        for document, matches in zip(batch, found, strict=True):
            if matches or is_marking:
                document.metadata[CONTAMINATED] = bool(matches)
                document.metadata[CONTAMINATION] = [as_row(match) for match in matches]
        return [True if is_marking or not matches else (False, CONTAMINATED) for matches in found]

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Say whether one document stays."""
        return self.filter_batch([doc])[0]
