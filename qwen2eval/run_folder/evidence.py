"""Where a doc occurs in a corpus: rows of contamination/<task>.parquet, and what of them a report shows.

Plain values only, so that a report needs neither tasks nor the engine that found them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from qwen2eval.columns import Row
from qwen2eval.contamination_info import ShownMatch

MATCH_COLUMNS = (
    *("document_path", "document_row", "reference_id", "reference_part", "rule", "n_shared_ngrams", "longest_match"),
    *("lcs_length", "lcs_ratio", "min_df", "spans", "excerpt", "excerpt_begin"),
)
N_EVIDENCE, CONTEXT_CHARACTERS, FOUND_CHARACTERS = 5, 120, 600
"""Matches of a task that are shown below the table, and how much of their text."""


def match_rows(matches: Mapping[int, Sequence[Row]]) -> list[dict[str, Any]]:
    """Return the rows of contamination/<task>.parquet: one a match.

    Args:
        matches: by doc_id, rows of a scan's matches.
    """
    return [
        {"doc_id": doc_id, **{name: row[name] for name in MATCH_COLUMNS}}
        for doc_id, rows in sorted(matches.items())
        for row in rows
    ]


def most_telling(rows: Iterable[Row]) -> tuple[ShownMatch, ...]:
    """Return the longest matches of the docs that have most in common with the corpus, by an n-gram rule.

    Args:
        rows: as `match_rows` makes them.
    """
    found = (row for row in _longest(rows).values() if row["rule"] not in ("whole", "template"))
    longest = sorted(found, key=lambda row: (-row["longest_match"], row["doc_id"]))
    return tuple(shown_match(row) for row in longest[:N_EVIDENCE])


def with_evidence(samples: Iterable[Row], rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """Yield samples with their doc's longest match as `evidence`, None where the corpus doesn't hold it.

    Args:
        samples: rows as in samples/<task>.parquet.
        rows: as `match_rows` makes them.
    """
    longest = _longest(rows)
    for sample in samples:
        match = longest.get(sample["doc_id"])
        yield {**sample, "evidence": None if match is None else shown_match(match)}


def shown_match(match: Row) -> ShownMatch:
    """Return a match with the text around what was found, short enough for a report."""
    first = match["spans"][0]
    begin, end = (int(first[name]) - int(match["excerpt_begin"]) for name in ("begin", "end"))
    text = match["excerpt"]
    return ShownMatch(
        doc_id=match["doc_id"],
        document_path=match["document_path"],
        document_row=match["document_row"],
        rule=match["rule"],
        n_shared_ngrams=_count(match["n_shared_ngrams"]),
        longest_match=match["longest_match"],
        lcs_length=_count(match["lcs_length"]),
        lcs_ratio=match["lcs_ratio"],
        min_df=_count(match["min_df"]),
        before=text[max(0, begin - CONTEXT_CHARACTERS) : begin],
        found=text[begin:end][:FOUND_CHARACTERS],
        after=text[end : end + CONTEXT_CHARACTERS],
    )


def _longest(rows: Iterable[Row]) -> dict[int, Row]:
    """Return each doc's match with the longest run: of its own n-grams, else of a short item, else of a template."""
    found: dict[int, Row] = {}
    for row in rows:
        before = found.get(row["doc_id"])
        if before is None or _rank(row) > _rank(before):
            found[row["doc_id"]] = row
    return found


def _rank(row: Row) -> tuple[int, int]:
    strength = {"template": 0, "whole": 1}.get(row["rule"], 2)
    return strength, int(row["longest_match"])


def _count(value: float | None) -> int | None:
    """Return a count: where some rows have none, pandas has converted all others to floats."""
    return None if value is None else int(value)
