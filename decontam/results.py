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
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from decontam.errors import DecontamError
from decontam.index import ReferenceIndex
from decontam.part_result import MATCH_SCHEMA, PartResult

MANIFEST = "manifest.json"
_PROBLEMS = pa.schema([("path", pa.string()), ("row", pa.int64()), ("kind", pa.string()), ("detail", pa.string())])
_ORDER = ("document_path", "document_row", "reference_id")


@dataclass(frozen=True)
class Results:
    """A finished scan, read from its folder."""

    path: Path
    manifest: dict[str, Any]

    @cached_property
    def matches(self) -> pd.DataFrame:
        """One row for each document and item that share an n-gram, or where a short item was found whole."""
        return _frame(self.path / "matches.parquet")

    @cached_property
    def references(self) -> pd.DataFrame:
        """The items that were searched for."""
        return _frame(self.path / "references.parquet")

    @cached_property
    def problems(self) -> pd.DataFrame:
        """Records that could not be read, or not as they should be."""
        return _frame(self.path / "problems.parquet")

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
    told: dict[str, object],
    *,
    ignored: Sequence[str],
    seconds: float,
) -> Results:
    """Put the parts' results, in the order of the corpus, together and write the folder's files."""
    gathered = _gather(parts)
    rows = sorted(gathered.rows, key=lambda row: [row[name] for name in _ORDER])
    for row in rows:
        row["min_df"] = min((gathered.n_documents_of[ngram] for ngram in row.pop("ngram_ids")), default=None)
    counts, shards = _counts(index, rows), list(gathered.shards.values())
    _write_table(folder / "matches.parquet", pa.Table.from_pylist(rows, MATCH_SCHEMA))
    _write_table(folder / "references.parquet", _references(index))
    _write_table(folder / "problems.parquet", pa.Table.from_pylist(gathered.problems, _PROBLEMS))
    write_text(folder / "counts.json", json.dumps(counts, indent=1))
    write_text(folder / "counts.csv", as_csv(counts))
    write_text(folder / "counts.md", as_markdown(counts))
    write_text(folder / "shards.csv", as_csv(shards))
    totals = ("n_documents", "n_documents_matched", "n_bytes", "n_matches", "n_problems")
    manifest = {
        "version": _version(),
        "rule": index.rule.as_dict(),
        **told,
        "inputs": [{"path": path, "stamp": stamp} for path, stamp in sorted(gathered.stamps.items())],
        "ignored": list(ignored),
        "totals": {name: sum(int(shard[name]) for shard in shards) for name in totals},
        "problems": dict(sorted(Counter(problem["kind"] for problem in gathered.problems).items())),
        "seconds": round(seconds, 3),
    }
    write_text(folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))
    return Results(folder, manifest)


@dataclass
class _Gathered:
    rows: list[dict[str, Any]]
    n_documents_of: Counter[int]
    problems: list[dict[str, Any]]
    shards: dict[str, dict[str, Any]]
    stamps: dict[str, tuple[int, ...]]


def _gather(parts: Iterable[PartResult]) -> _Gathered:
    """Add up results; rows are counted from the beginning of their file."""
    found = _Gathered([], Counter(), [], {}, {})
    n_rows: dict[str, int] = defaultdict(int)
    for result in parts:
        path, first = result.part.path, n_rows[result.part.path]
        n_rows[path] += result.n_rows
        found.stamps[path] = result.part.stamp
        found.n_documents_of.update(result.n_documents_of)
        found.rows += [row | {"document_row": row["document_row"] + first} for row in result.rows]
        found.problems += [
            {"path": path, "row": row + first, "kind": kind, "detail": detail} for kind, row, detail in result.problems
        ]
        added = {
            "n_documents": result.n_documents,
            "n_documents_matched": result.n_documents_matched,
            "n_bytes": result.n_bytes,
            "n_matches": len(result.rows),
            "n_problems": len(result.problems),
        }
        shard = found.shards.setdefault(path, {"path": path, **dict.fromkeys(added, 0)})
        for name, number in added.items():
            shard[name] += number
    return found


def _counts(index: ReferenceIndex, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Count items and documents for each benchmark, in the order of the references."""
    found: dict[str, dict[str, Any]] = {}
    by_rule: dict[tuple[str, str], set[str]] = defaultdict(set)
    documents: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for row in rows:
        by_rule[row["benchmark"], row["rule"]].add(row["reference_id"])
        documents[row["benchmark"]].add((row["document_path"], row["document_row"]))
    for reference, testable in zip(index.references, index.testable.tolist(), strict=True):
        counts = found.setdefault(
            reference.benchmark, {"benchmark": reference.benchmark, "n_references": 0, "n_testable": 0}
        )
        counts["n_references"] += 1
        counts["n_testable"] += testable
    for name, counts in found.items():
        strict = by_rule[name, "strict"] | by_rule[name, "qwen2"]
        counts["n_contaminated_strict"] = len(strict)
        counts["n_contaminated_qwen2"] = len(by_rule[name, "qwen2"]) if index.rule.name == "qwen2" else None
        counts["n_whole"] = len(by_rule[name, "whole"])
        counts["n_documents"] = len(documents[name])
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


def _references(index: ReferenceIndex) -> pa.Table:
    items = index.references
    return pa.table(
        {
            "id": [item.id for item in items],
            "benchmark": [item.benchmark for item in items],
            "text": [item.text.encode("utf-8", "replace").decode() for item in items],
            "answer": [item.answer.encode("utf-8", "replace").decode() for item in items],
            "n_tokens": pa.array(index.n_tokens, pa.int32()),
            "testable": pa.array(index.testable),
        }
    )


def _frame(path: Path) -> pd.DataFrame:
    table: pd.DataFrame = pq.read_table(path).to_pandas()
    return table


def _write_table(path: Path, table: pa.Table) -> None:
    scratch = path.with_name(f".{path.name}.part")
    try:
        pq.write_table(table, scratch)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    scratch = path.with_name(f".{path.name}.part")
    try:
        scratch.write_text(text, encoding="utf-8", errors="surrogateescape")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _version() -> str:
    try:
        return version("qwen2eval")
    except PackageNotFoundError:
        return "unknown"
