"""A scan's folder: what is written when all parts are done, and reading it again.

matches.parquet     a row for each document and item that share an n-gram
references.parquet  the items, and whether they could be found at all
counts.*            for each benchmark
shards.csv          for each file
problems.parquet    records that could not be read
manifest.json       what was scanned for what, and how; written last
"""

import csv
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from decontam.columns import Ints, flags, numbers, strings
from decontam.errors import DecontamError
from decontam.files import beside
from decontam.index import ReferenceIndex
from decontam.item_ngrams import FoundBy
from decontam.matching import PARTS
from decontam.normalize import TEXT_VERSION
from decontam.part_result import COUNTED, FORMAT, MATCH_SCHEMA, PROBLEM_SCHEMA, PartResult, problem_table
from decontam.records import Problem
from decontam.rule import RULES
from decontam.walk import Expanded

if TYPE_CHECKING:
    import pandas as pd

MANIFEST = "manifest.json"
_GROUP_ROWS = 1_024
"""Of matches and problems that are kept until they are written together."""


@dataclass(frozen=True)
class Results:
    """A finished scan, read from its folder."""

    path: Path
    manifest: dict[str, Any]

    @property
    def is_older(self) -> bool:
        """Whether another version of this program made it, which read some texts, and so some items, in another way."""
        return self.manifest.get("text_version") != TEXT_VERSION

    @cached_property
    def matches(self) -> "pd.DataFrame":
        """One row for each document and item that share an n-gram, or where a short item was found whole."""
        return _frame(self.path / "matches.parquet")

    @cached_property
    def references(self) -> "pd.DataFrame":
        """The items that were searched for."""
        return _frame(self.path / "references.parquet")

    @cached_property
    def problems(self) -> "pd.DataFrame":
        """Records that could not be read, or not as they should be."""
        return _frame(self.path / "problems.parquet")

    @cached_property
    def shards(self) -> dict[str, dict[str, str]]:
        """By path: documents, bytes, matches and problems of each file."""
        # names may hold line ends
        with (self.path / "shards.csv").open(encoding="utf-8", newline="") as file:
            return {row["path"]: row for row in csv.DictReader(file)}

    @cached_property
    def counts(self) -> list[dict[str, Any]]:
        """One row for each benchmark."""
        rows: list[dict[str, Any]] = json.loads((self.path / "counts.json").read_text(encoding="utf-8"))
        return rows


def load_results(folder: str | Path) -> Results:
    """Open a finished scan.

    Raises:
        DecontamError: the folder holds none, or one that was stopped.
    """
    path = Path(folder)
    try:
        return Results(path, json.loads((path / MANIFEST).read_text(encoding="utf-8")))
    except FileNotFoundError:
        why = "a scan that did not finish: run the same command again" if (path / "parts").is_dir() else "no scan"
        raise DecontamError(f"{path} holds {why}") from None
    except (OSError, ValueError) as err:
        raise DecontamError(f"{path / MANIFEST}: {err}: scan again into another folder") from err


def finish(
    folder: Path,
    index: ReferenceIndex,
    parts: Iterable[PartResult],
    n_documents_of: Ints,
    scanned: dict[str, object],
    *,
    files: Expanded,
    begin: float,
) -> Results:
    """Put the parts' results together and write the folder's files; one part is in memory at a time.

    Args:
        scanned: what was scanned for what: entries of the manifest.
        parts: the results, by path and place in the file.
        n_documents_of: in how many documents of the corpus each n-gram is.
        files: what of the corpus was read, and what was not.
        begin: when the scan began, by the clock of `time.monotonic`.
    """
    sums, names = _Sums.of(index), _Names.of(index)
    with (
        _table_writer(folder / "matches.parquet", MATCH_SCHEMA) as add_matches,
        _table_writer(folder / "problems.parquet", PROBLEM_SCHEMA) as add_problems,
    ):
        for result, first_row, problems in _with_rows_of_files(sums.counting(parts)):
            for table in result.tables:
                if len(table):
                    add_matches(_matches(table, result.part.path, first_row, n_documents_of, names))
            if problems:
                add_problems(problem_table(result.part.path, problems))
            sums.add(result, problems)
        for one in files.unread:
            add_problems(problem_table(one.path, [Problem(one.kind, 0, one.detail)]))
    sums.kinds.update(one.kind for one in files.unread)
    counts, shards = _counts(index, sums), list(sums.shards.values())
    with beside(folder / "references.parquet") as scratch:
        pq.write_table(_references(index, sums), scratch)
    write_text(folder / "counts.json", json.dumps(counts, indent=1))
    write_text(folder / "counts.csv", as_csv(counts))
    write_text(folder / "counts.md", as_markdown(counts))
    write_text(folder / "shards.csv", as_csv(shards))
    totals = ("n_documents", "n_documents_matched", "n_bytes", "n_matches", "n_problems")
    # written last: a folder with a manifest is a finished scan
    manifest = {
        "version": _version(),
        "format": FORMAT,
        "rule": index.rule.as_dict(),
        **scanned,
        "inputs": [{"path": path, "stamp": stamp} for path, stamp in sums.stamps.items()],
        "ignored": [one.path for one in files.unread if one.kind == "unknown_format"],
        "again": list(files.again),
        "totals": {name: sum(int(shard[name]) for shard in shards) for name in totals},
        "problems": dict(sorted(sums.kinds.items())),
        "seconds": round(time.monotonic() - begin, 3),
    }
    write_text(folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))
    return Results(folder, manifest)


def _with_rows_of_files(parts: Iterable[PartResult]) -> Iterator[tuple[PartResult, int, list[Problem]]]:
    """Yield results of files, the row of the file that they begin with, and their problems with rows of the file."""
    n_rows, without_column = Counter[str](), set[str]()
    for result in (one for part in parts for one in part.files):
        path, first = result.part.path, n_rows[result.part.path]
        n_rows[path] += result.n_rows
        # reported by each part, but it is the file that has no such column
        own = [one for one in result.problems if one.kind != "missing_column" or path not in without_column]
        without_column.update(path for one in own if one.kind == "missing_column")
        yield result, first, [one._replace(row=one.row + first) for one in own]


class _Names(NamedTuple):
    """What the numbers of items mean."""

    ids: pa.Array
    benchmarks: pa.Array
    ranks: Ints
    """Of ids in their order."""

    @classmethod
    def of(cls, index: ReferenceIndex) -> Self:
        ids = [item.id for item in index.references]
        ranks = np.empty(len(ids), np.int64)
        ranks[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
        return cls(strings(ids), strings([item.benchmark for item in index.references]), ranks)


_RULE_NAMES, _PARTS = strings(RULES), strings(PARTS)


def _matches(table: pa.Table, path: str, first_row: int, n_documents_of: Ints, names: _Names) -> pa.Table:
    """Return a part's rows of matches.parquet, in its order."""
    rows, item = table["document_row"].to_numpy(), table["item"].combine_chunks()
    items = item.to_numpy()
    order = np.lexsort((names.ranks[items], rows))
    changed = {
        "document_path": strings([path]).take(numbers(np.zeros(len(table)), pa.int32())),
        "document_row": numbers(rows + first_row, pa.int64()),
        "benchmark": names.benchmarks.take(item),
        "reference_id": names.ids.take(item),
        "reference_part": _PARTS.take(table["reference_part"].combine_chunks()),
        "rule": _RULE_NAMES.take(table["rule"].combine_chunks()),
        "min_df": _least(table["ngram_ids"].combine_chunks(), n_documents_of),
    }
    columns = [changed[name] if name in changed else table[name] for name in MATCH_SCHEMA.names]
    # not as in the schema yet: all excerpts together may have more than 2 GB
    return pa.Table.from_arrays(columns, names=MATCH_SCHEMA.names).take(numbers(order, pa.int64()))


def _least(ngrams: pa.ListArray, n_documents_of: Ints) -> pa.Array:
    """Return for each row in how few documents one of its n-grams is; null where it has none."""
    stops = ngrams.offsets.to_numpy()[1:]
    sizes, n_documents = np.diff(ngrams.offsets.to_numpy()), n_documents_of[ngrams.values.to_numpy()]
    least = np.full(len(ngrams), -1, np.int64)
    if has := np.flatnonzero(sizes).tolist():
        least[has] = np.minimum.reduceat(n_documents, (stops - sizes)[has])
    return numbers(least, pa.int64(), is_null=sizes == 0)


@dataclass
class _Sums:
    """What is added up over the parts."""

    benchmark_I: Ints
    n_documents_of_item: Ints
    """(COUNTED, items)"""
    n_documents: Ints
    """(benchmarks,); a document is in one part."""
    shards: dict[str, dict[str, Any]] = field(default_factory=dict)
    stamps: dict[str, tuple[int, ...]] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    """Of problems."""

    @classmethod
    def of(cls, index: ReferenceIndex) -> Self:
        """Return sums of nothing."""
        n_benchmarks = int(index.benchmark_I.max()) + 1
        of_item = np.zeros((len(COUNTED), len(index.references)), np.int64)
        return cls(index.benchmark_I, of_item, np.zeros(n_benchmarks, np.int64))

    def counting(self, parts: Iterable[PartResult]) -> Iterator[PartResult]:
        """Yield parts, and add what is counted over all files of each."""
        for part in parts:
            self.n_documents_of_item += part.counts.of_item
            yield part

    def add(self, result: PartResult, problems: Sequence[Problem]) -> None:
        """Add a file, or a stretch of one."""
        for table in filter(len, result.tables):
            benchmarks = self.benchmark_I[table["item"].to_numpy()]
            pairs = np.unique(np.stack((benchmarks, table["document_row"].to_numpy())), axis=1)
            self.n_documents += np.bincount(pairs[0], minlength=len(self.n_documents))
        self.kinds.update(problem.kind for problem in problems)
        path = result.part.path
        self.stamps[path] = result.part.stamp
        added = {
            "n_documents": result.n_documents,
            "n_documents_matched": result.n_documents_matched,
            "n_bytes": result.n_bytes,
            "n_matches": result.n_matches,
            "n_problems": len(problems),
        }
        shard = self.shards.setdefault(path, {"path": path, **dict.fromkeys(added, 0)})
        for name, number in added.items():
            shard[name] += number


def _counts(index: ReferenceIndex, sums: _Sums) -> list[dict[str, Any]]:
    """Count items and documents for each benchmark, in the order of the references."""
    found: dict[str, dict[str, Any]] = {}
    for reference, testable in zip(index.references, index.testable.tolist(), strict=True):
        counts = found.setdefault(
            reference.benchmark, {"benchmark": reference.benchmark, "n_references": 0, "n_testable": 0}
        )
        counts["n_references"] += 1
        counts["n_testable"] += testable
    strict, qwen2, whole, template, ngram = sums.n_documents_of_item > 0
    for number, counts in enumerate(found.values()):
        is_own = index.benchmark_I == number
        counts["n_contaminated_strict"] = int(strict[is_own].sum())
        counts["n_contaminated_qwen2"] = int(qwen2[is_own].sum()) if index.rule.name == "qwen2" else None
        # by what an item is found that no n-gram of its own is found of
        counts["n_whole"] = int((whole & ~strict)[is_own].sum())
        counts["n_template"] = int((template & ~strict & ~whole)[is_own].sum())
        counts["n_any_ngram"] = int(ngram[is_own].sum())
        counts["n_documents"] = int(sums.n_documents[number])
        for form, found_by in index.forms._asdict().items():
            counts[f"n_testable_{form}"] = int((found_by[is_own] > FoundBy.NOTHING).sum())
        counts["n_testable_whole_question"] = int((index.forms.question[is_own] == FoundBy.WHOLE).sum())
    return list(found.values())


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as CSV; None is an empty field."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as a table of markdown."""
    names = list(rows[0]) if rows else []
    lines = [names, ["---"] * len(names), *(["" if row[n] is None else str(row[n]) for n in names] for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"


def _references(index: ReferenceIndex, sums: _Sums) -> pa.Table:
    items = index.references
    columns = {name: [getattr(item, name) for item in items] for name in ("id", "benchmark", "text", "answer")}
    # half a surrogate pair can't be written
    texts = {
        name: strings([one.encode("utf-8", "replace").decode() for one in column]) for name, column in columns.items()
    }
    found = zip(COUNTED, sums.n_documents_of_item, strict=True)
    words: dict[int, str | None] = {-1: None, 0: "nothing", 1: "whole", 2: "ngram"}  # of FoundBy
    return pa.Table.from_pydict(
        {
            **texts,
            "n_tokens": numbers(index.n_tokens, pa.int32()),
            "testable": flags(index.testable),
            **{
                f"found_by_{form}": pa.array([words[value] for value in found_by.tolist()], pa.string())
                for form, found_by in index.forms._asdict().items()
            },
            **{f"n_documents_{rule}": numbers(of_rule, pa.int64()) for rule, of_rule in found},
        }
    )


def _frame(path: Path) -> "pd.DataFrame":
    table: pd.DataFrame = pq.read_table(path).to_pandas()
    return table


@contextmanager
def _table_writer(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Write a table as its rows come, whole or not at all; where one addition ends leaves no trace in the file."""
    pending: list[pa.Table] = []
    with beside(path) as scratch, pq.ParquetWriter(scratch, schema) as writer:

        def write_groups(n_rows: int) -> None:
            while sum(map(len, pending)) >= n_rows:
                table = pa.concat_tables(pending)
                # all rows together may be too long for the schema's types
                writer.write_table(table[:_GROUP_ROWS].combine_chunks().cast(schema))
                pending[:] = [table[_GROUP_ROWS:]]

        def add(table: pa.Table) -> None:
            pending.append(table)
            write_groups(_GROUP_ROWS)

        yield add
        write_groups(1)


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    with beside(path) as scratch:
        scratch.write_text(text, encoding="utf-8", errors="surrogateescape")


def _version() -> str:
    try:
        return version("qwen2eval")
    except PackageNotFoundError:
        return "unknown"
