"""What the scan of one part found: a value, and the file that marks the part as done."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from decontam.files import beside
from decontam.matching import Examined
from decontam.records import Part, Problem
from decontam.rule import RuleName

EXCERPT_BEFORE, EXCERPT_CHARACTERS = 200, 2_000

SPANS = pa.list_(pa.struct([("begin", pa.int64()), ("end", pa.int64())]))
MATCH_SCHEMA = pa.schema(
    [
        ("document_path", pa.string()),
        ("document_row", pa.int64()),
        ("document_begin", pa.int64()),
        ("document_end", pa.int64()),
        ("benchmark", pa.string()),
        ("reference_id", pa.string()),
        ("reference_part", pa.string()),
        ("rule", pa.string()),
        ("n_shared_ngrams", pa.int32()),
        ("longest_match", pa.int32()),
        ("lcs_length", pa.int32()),
        ("lcs_ratio", pa.float64()),
        ("min_df", pa.int64()),
        ("spans", SPANS),
        ("excerpt", pa.string()),
        ("excerpt_begin", pa.int64()),
    ]
)
"""A scan's matches; `docs/decontamination.md` says what each column holds."""
_PART_SCHEMA = MATCH_SCHEMA.append(pa.field("ngram_ids", pa.list_(pa.int32())))
_FACTS, _NGRAMS = b"qwen2eval.part", b"qwen2eval.ngrams"


def _no_items() -> "dict[RuleName, Counter[int]]":
    return {"strict": Counter(), "qwen2": Counter(), "whole": Counter()}


@dataclass
class PartResult:
    """What was found in a part; rows count from the part's first."""

    part: Part
    n_rows: int = 0
    n_documents: int = 0
    n_documents_matched: int = 0
    n_bytes: int = 0
    """Of text and JSON that was looked at, decompressed."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Matches, as in MATCH_SCHEMA with `ngram_ids`."""
    n_documents_of: Counter[int] = field(default_factory=Counter)
    """How many documents hold each n-gram of the index."""
    n_documents_of_item: dict[RuleName, Counter[int]] = field(default_factory=_no_items)
    """How many documents hold each item, by its place among the references; those of the qwen2 rule are strict, too."""
    problems: list[Problem] = field(default_factory=list)

    def add(self, text: str, examined: Examined, row: int, place: tuple[int, int]) -> None:
        """Keep what a document holds.

        Args:
            place: the document's bytes in its file, (-1, -1) where it has none.
        """
        self.n_documents_matched += 1
        self.n_documents_of.update(examined.ngram_ids)
        self.n_documents_of_item["strict"].update(examined.strict)
        self.n_documents_of_item["qwen2"].update(examined.qwen2)
        self.n_documents_of_item["whole"].update(examined.whole)
        for match in examined.matches:
            begin = max(0, match.spans[0][0] - EXCERPT_BEFORE)
            excerpt = text[begin : begin + EXCERPT_CHARACTERS].encode("utf-8", "replace").decode()
            self.rows.append(
                {
                    "document_path": self.part.path,
                    "document_row": row,
                    "document_begin": place[0],
                    "document_end": place[1],
                    "benchmark": match.benchmark,
                    "reference_id": match.reference_id,
                    "reference_part": match.reference_part,
                    "rule": match.rule,
                    "n_shared_ngrams": match.n_shared_ngrams,
                    "longest_match": match.longest_match,
                    "lcs_length": match.lcs_length,
                    "lcs_ratio": match.lcs_ratio,
                    "min_df": None,
                    "spans": [{"begin": first, "end": stop} for first, stop in match.spans],
                    "excerpt": excerpt,
                    "excerpt_begin": begin,
                    "ngram_ids": list(match.ngram_ids),
                }
            )

    def write(self, path: Path) -> None:
        """Write it, whole or not at all."""
        facts = {
            "part": self.part,
            "counts": [self.n_rows, self.n_documents, self.n_documents_matched, self.n_bytes],
            "items": {rule: sorted(counts.items()) for rule, counts in self.n_documents_of_item.items()},
            "problems": self.problems,
        }
        ngrams = np.array(sorted(self.n_documents_of.items()), "<i8")
        table = pa.Table.from_pylist(self.rows, _PART_SCHEMA).replace_schema_metadata(
            {_FACTS: json.dumps(facts), _NGRAMS: ngrams.tobytes()}
        )
        with beside(path) as scratch:
            pq.write_table(table, scratch)


def read_ngram_counts(path: Path) -> Counter[int]:
    """Read of a part's result only how many of its documents hold each n-gram."""
    ngrams = np.frombuffer(pq.read_schema(path).metadata[_NGRAMS], "<i8").reshape(-1, 2)
    return Counter(dict(ngrams.tolist()))


def read_part_result(path: Path) -> PartResult:
    """Read what `PartResult.write` wrote."""
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[_FACTS])
    ngrams = np.frombuffer(table.schema.metadata[_NGRAMS], "<i8").reshape(-1, 2)
    name, begin, end, size, stamp = facts["part"]
    n_rows, n_documents, n_documents_matched, n_bytes = facts["counts"]
    return PartResult(
        Part(name, begin, end, size, tuple(stamp)),
        n_rows=n_rows,
        n_documents=n_documents,
        n_documents_matched=n_documents_matched,
        n_bytes=n_bytes,
        rows=table.to_pylist(),
        n_documents_of=Counter(dict(ngrams.tolist())),
        n_documents_of_item={rule: Counter(dict(counts)) for rule, counts in facts["items"].items()},
        problems=[Problem(*problem) for problem in facts["problems"]],
    )
