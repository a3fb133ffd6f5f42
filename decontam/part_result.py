"""What the scan of one part found: a value, and the file that marks the part as done."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from decontam.columns import Ints, lists, numbers, strings
from decontam.files import beside
from decontam.kernels.compare import (
    ITEM,
    LCS,
    LONGEST,
    N_SHARED,
    N_SHORTER,
    PART,
    RULE,
    TEXT,
    DocumentMatches,
)
from decontam.records import Part, Problem
from decontam.rule import QWEN2, RULES, STRICT

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
PROBLEM_SCHEMA = pa.schema([("path", pa.string()), ("row", pa.int64()), ("kind", pa.string()), ("detail", pa.string())])
_SCHEMA = pa.schema(
    [
        *(MATCH_SCHEMA.field(name) for name in ("document_row", "document_begin", "document_end")),
        *(("item", pa.int32()), ("reference_part", pa.int8()), ("rule", pa.int8())),
        *(MATCH_SCHEMA.field(name) for name in ("n_shared_ngrams", "longest_match", "lcs_length", "lcs_ratio")),
        *(MATCH_SCHEMA.field("spans"), ("excerpt", pa.large_string()), MATCH_SCHEMA.field("excerpt_begin")),
        ("ngram_ids", pa.list_(pa.int32())),
    ]
)
"""The same in a part's file, where items and rules are numbers."""
FORMAT = 4
"""Of part files; another one is not read."""
_FACTS, _NGRAMS = b"qwen2eval.part", b"qwen2eval.ngrams"


COUNTED = (*RULES, "ngram")
"""By what documents are counted for each item: the rules, and an n-gram of question and answer, a template or not."""
_NGRAM = len(RULES)


class Documents(NamedTuple):
    """Documents that are searched together."""

    texts: Sequence[str]
    rows: Ints
    """Of the part."""
    begins: Ints
    """Their bytes in the file, -1 where they have none; `ends`: one past."""
    ends: Ints


class Counts(NamedTuple):
    """How many documents hold what."""

    of_ngram: Ints
    """(n-grams of the index,)"""
    of_item: Ints
    """(COUNTED, items); those of the qwen2 rule are strict, too."""


@dataclass
class PartResult:
    """What was found in a part, and what was read for it; rows count from the part's first."""

    part: Part
    counts: Counts
    n_rows: int = 0
    n_documents: int = 0
    n_documents_matched: int = 0
    n_bytes: int = 0
    """Of text and JSON that was read, decompressed."""
    tables: list[pa.Table] = field(default_factory=list)
    """Matches by documents and items: _SCHEMA."""
    problems: list[Problem] = field(default_factory=list)
    rest: list["PartResult"] = field(default_factory=list)
    """The same of the part's further files, but for the counts, which are those of all files of the part."""

    @classmethod
    def empty(cls, part: Part, *, n_items: int, n_ngrams: int) -> Self:
        """Return the result before anything is read."""
        counts = Counts(np.zeros(n_ngrams, np.int64), np.zeros((len(COUNTED), n_items), np.int64))
        return cls(part, counts, rest=[cls(one, counts) for one in part.rest])

    @property
    def files(self) -> tuple["PartResult", ...]:
        """The result of each file."""
        return (self, *self.rest)

    @property
    def n_matches(self) -> int:
        """Documents and items that have something in common."""
        return sum(len(table) for table in self.tables)

    def add(self, found: DocumentMatches, documents: Documents) -> None:
        """Keep what documents hold."""
        _, items, rules, has_ngram = found.every_item.T
        np.add.at(self.counts.of_ngram, found.every_ngram[:, 1], 1)
        np.add.at(self.counts.of_item, (np.where(rules == QWEN2, STRICT, rules), items), 1)
        np.add.at(self.counts.of_item, (QWEN2, items[rules == QWEN2]), 1)
        np.add.at(self.counts.of_item, (_NGRAM, items[has_ngram > 0]), 1)
        self.n_documents_matched += len(np.unique(found.every_item[:, 0]))
        if len(found.rows_R):
            self.tables.append(_table(found, documents))

    def write(self, path: Path) -> None:
        """Write it, whole or not at all."""
        tables = [pa.concat_tables([_SCHEMA.empty_table(), *one.tables]) for one in self.files]
        facts = {
            "files": [
                {
                    "part": one.part._replace(rest=()),
                    "counts": [one.n_rows, one.n_documents, one.n_documents_matched, one.n_bytes],
                    "n_matches": len(table),
                    "n_problems": len(one.problems),
                }
                for one, table in zip(self.files, tables, strict=True)
            ],
            "items": [_pairs(of_rule).tolist() for of_rule in self.counts.of_item],
        }
        if problems := [problem for one in self.files for problem in one.problems]:
            with beside(_problems_path(path)) as scratch:
                pq.write_table(problem_table(self.part.path, problems), scratch)
        table = pa.concat_tables(tables).replace_schema_metadata(
            {_FACTS: json.dumps(facts), _NGRAMS: _pairs(self.counts.of_ngram).astype("<i8").tobytes()}
        )
        with beside(path) as scratch:
            pq.write_table(table, scratch, use_dictionary=False)


def problem_table(path: str, problems: Sequence[Problem]) -> pa.Table:
    """Return problems of a file as a table: PROBLEM_SCHEMA. There may be one for each of millions of lines."""
    columns = [
        strings([path.encode("utf-8", "replace").decode()]).take(numbers(np.zeros(len(problems)), pa.int64())),
        numbers(np.array([problem.row for problem in problems], np.int64), pa.int64()),
        strings([problem.kind for problem in problems]),
        strings([problem.detail.encode("utf-8", "replace").decode() for problem in problems]),
    ]
    return pa.Table.from_arrays(columns, schema=PROBLEM_SCHEMA)


def _problems_path(path: Path) -> Path:
    return path.with_suffix(".problems.parquet")


def _read_problems(path: Path, facts: dict[str, Any]) -> list[Problem]:
    """Return the problems of all files of a part."""
    if not any(one["n_problems"] for one in facts["files"]):
        return []
    table = pq.read_table(_problems_path(path), columns=["kind", "row", "detail"])
    kinds, rows, details = (column.to_pylist() for column in table.columns)
    return [Problem(kind, row, sys.intern(detail)) for kind, row, detail in zip(kinds, rows, details, strict=True)]


def _table(found: DocumentMatches, documents: Documents) -> pa.Table:
    def column(name: int) -> Ints:
        return found.rows_R[:, name]

    rows, no_lcs = column(TEXT), column(LCS) < 0
    firsts = np.concatenate(([0], found.span_stops_R[:-1]))
    begins = np.maximum(found.spans[firsts, 0] - EXCERPT_BEFORE, 0)
    # half a surrogate pair can't be written
    texts = {text: documents.texts[text].encode("utf-8", "replace").decode() for text in set(rows.tolist())}
    excerpts = [
        texts[text][begin : begin + EXCERPT_CHARACTERS]
        for text, begin in zip(rows.tolist(), begins.tolist(), strict=True)
    ]
    spans = [numbers(one, pa.int64()) for one in found.spans.T]
    columns = [
        *(numbers(one[rows], pa.int64()) for one in (documents.rows, documents.begins, documents.ends)),
        *(numbers(column(ITEM), pa.int32()), numbers(column(PART), pa.int8()), numbers(column(RULE), pa.int8())),
        *(numbers(column(name), pa.int32()) for name in (N_SHARED, LONGEST)),
        numbers(column(LCS), pa.int32(), is_null=no_lcs),
        numbers(column(LCS) / column(N_SHORTER), pa.float64(), is_null=no_lcs),
        lists(found.span_stops_R, pa.StructArray.from_arrays(spans, ["begin", "end"])),
        *(strings(excerpts, is_large=True), numbers(begins, pa.int64())),
        lists(found.ngram_stops_R, numbers(found.ngrams, pa.int32())),
    ]
    return pa.Table.from_arrays(columns, schema=_SCHEMA)


def _pairs(counts: Ints) -> Ints:
    """Return (…, 2): places and numbers of what is not 0."""
    places = np.flatnonzero(counts)
    return np.stack((places, counts[places]), axis=1)


def add_ngram_counts(path: Path, total: Ints) -> None:
    """Read of a part's result only how many of its documents hold each n-gram, and add it."""
    places, numbers = _read_ngrams(pq.read_schema(path))
    total[places] += numbers


def read_problems(path: Path) -> list[Problem]:
    """Read of a part's result only its problems; a damaged file of a part raises an error."""
    return _read_problems(path, json.loads(pq.read_table(path).schema.metadata[_FACTS]))


def _read_ngrams(schema: pa.Schema) -> Ints:
    pairs: Ints = np.frombuffer(schema.metadata[_NGRAMS], "<i8").reshape(-1, 2).T
    return pairs


def read_part_result(path: Path, *, n_items: int, n_ngrams: int) -> PartResult:
    """Read what `PartResult.write` wrote."""
    # columns one after another: reading them at once takes more memory, and the tables are small
    table = pq.read_table(path, use_threads=False, pre_buffer=False)
    facts, metadata = json.loads(table.schema.metadata[_FACTS]), table.schema
    table, problems, results = table.replace_schema_metadata(), _read_problems(path, facts), list[PartResult]()
    counts = Counts(np.zeros(n_ngrams, np.int64), np.zeros((len(COUNTED), n_items), np.int64))
    for one in facts["files"]:
        name, begin, end, size, stamp, _ = one["part"]
        n_rows, n_documents, n_documents_matched, n_bytes = one["counts"]
        results.append(
            PartResult(
                Part(name, begin, end, size, tuple(stamp)),
                counts,
                n_rows=n_rows,
                n_documents=n_documents,
                n_documents_matched=n_documents_matched,
                n_bytes=n_bytes,
                tables=[table.slice(0, one["n_matches"])],
                problems=problems[: one["n_problems"]],
            )
        )
        table, problems = table.slice(one["n_matches"]), problems[one["n_problems"] :]
    places, numbers = _read_ngrams(metadata)
    counts.of_ngram[places] = numbers
    for of_rule, pairs in zip(counts.of_item, facts["items"], strict=True):
        places, numbers = np.array(pairs, np.int64).reshape(-1, 2).T
        of_rule[places] = numbers
    first, *rest = results
    return replace(first, part=first.part._replace(rest=tuple(one.part for one in rest)), rest=rest)
