"""A scan's matches with the texts they are about: what the benchmark item and the document have in common is marked.

It collects plain values; `qwen2eval decontam show` prints them or writes them as a page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from decontam.errors import DecontamError
from decontam.json_edit import widened
from decontam.kernels.words import split
from decontam.part_result import EXCERPT_CHARACTERS
from decontam.resolved import fold_resolved
from decontam.results import Results
from decontam.rule import RuleName

_MOST_CHARACTERS = 2_000
"""Of an item."""
_AROUND = 200
"""Characters of an item before what was found, and of a document after it."""
_CUT = "…"


class Segment(NamedTuple):
    """A piece of a text."""

    text: str
    is_found: bool
    """Whether item and document have it in common."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One match: a row of a scan's `matches.parquet`, with the texts of both sides in pieces."""

    reference_id: str
    """The benchmark item."""
    document_path: str
    """The file of the document."""
    document_row: int
    """Its record in the file, from 0."""
    rule: RuleName
    """The strongest rule that applies."""
    n_shared_ngrams: int
    """Distinct n-grams; 0 for an item that is too short for one."""
    longest_match: int
    """Tokens of the longest run that both have."""
    lcs_length: int | None
    """Tokens of the longest common subsequence; None: the rule did not ask for it."""
    lcs_ratio: float | None
    """Its share of the shorter sequence's tokens, 0-1."""
    min_df: int | None
    """Documents of the corpus that hold the rarest of the shared n-grams; None: there are no n-grams."""
    n_characters_cut: int
    """Characters of what was found that are behind the end of the document's pieces."""
    reference: tuple[Segment, ...]
    """The item, question and answer; a long one around what was found."""
    document: tuple[Segment, ...]
    """The document around what was found."""


def collect_evidence(
    results: Results,
    *,
    reference: str | None = None,
    document: str | None = None,
    min_df: int | None = None,
    limit: int | None = 20,
) -> list[Evidence]:
    """Return matches, those that have most in common first.

    Args:
        reference: id of an item, or the name of a benchmark; None: all.
        document: a path, or the end of one, with `:ROW` or without.
        min_df: only matches whose rarest n-gram is in at most so many documents; others are common phrases.
        limit: at most so many; None: all.

    Raises:
        DecontamError: an item or benchmark that the scan did not search for.
    """
    items = {str(item.id): item for item in results.references.itertuples()}
    if reference is not None and reference not in items and reference not in set(results.references.benchmark):
        raise DecontamError(f"{results.path} holds no item or benchmark {reference!r}")
    matches = results.matches
    if reference is not None:
        matches = matches[(matches.reference_id == reference) | (matches.benchmark == reference)]
    if document is not None:
        matches = matches[_is_at(matches, document)]
    if min_df is not None:
        matches = matches[~(matches.min_df > min_df)]  # short items have no such number: they stay
    order = ["longest_match", "document_path", "document_row", "reference_id"]
    rows = matches.sort_values(order, ascending=[False, True, True, True])[:limit].to_dict("records")
    return [_evidence(row, items[row["reference_id"]], results) for row in rows]


def _evidence(row: Any, item: Any, results: Results) -> Evidence:
    shift, excerpt = int(row["excerpt_begin"]), row["excerpt"]
    spans = [(int(span["begin"]) - shift, int(span["end"]) - shift) for span in row["spans"]]
    stop = min(len(excerpt), max(end for _, end in spans) + _AROUND)
    text = f"{item.text}\n{item.answer}" if item.answer else item.text
    shared = _shared_spans(text, [excerpt[begin:end] for begin, end in spans], rule=results.manifest["rule"])
    # an excerpt of full length is one that was cut
    is_cut = shift > 0, stop < len(excerpt) or stop >= EXCERPT_CHARACTERS
    return Evidence(
        reference_id=str(row["reference_id"]),
        document_path=str(row["document_path"]),
        document_row=int(row["document_row"]),
        rule=row["rule"],
        n_shared_ngrams=int(row["n_shared_ngrams"]),
        longest_match=int(row["longest_match"]),
        lcs_length=_known_count(row["lcs_length"]),
        lcs_ratio=_known(row["lcs_ratio"]),
        min_df=_known_count(row["min_df"]),
        n_characters_cut=sum(max(0, end - max(begin, stop)) for begin, end in spans),
        reference=_item_segments(text, shared),
        document=_segments(excerpt, spans, 0, stop, cut=is_cut),
    )


def _known(value: Any) -> float | None:
    """Return a number of a table; None where it has none, which pandas reads as NaN."""
    return None if pd.isna(value) else float(value)


def _known_count(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)


def _shared_spans(text: str, found: Sequence[str], *, rule: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Return where in an item the n-grams are that were found in the document."""
    options = {"fold_case": bool(rule["fold_case"]), "markup": bool(rule.get("markup"))}
    words, spans = _words(text, **options)
    parts = [_words(part, **options)[0] for part in found]
    # an item that is too short for an n-gram is found in full
    size = min(rule["ngram_size"], rule["ngram_size_cjk"] or rule["ngram_size"], max(map(len, parts), default=0))
    if not size:
        return []
    ngrams = {tuple(part[i : i + size]) for part in parts for i in range(len(part) - size + 1)}
    firsts = (i for i in range(len(words) - size + 1) if tuple(words[i : i + size]) in ngrams)
    return [(spans[i][0], spans[i + size - 1][1]) for i in firsts]


def _words(text: str, *, fold_case: bool, markup: bool) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the words of a text, as hashes, and where they are."""
    folded = fold_resolved(text, fold_case=fold_case, markup=markup)
    words = split(folded)
    begins, ends = folded.begins[words.begins].tolist(), folded.ends[words.ends - 1].tolist()
    return words.hashes.tolist(), list(zip(begins, ends, strict=True))


def _item_segments(text: str, shared: Sequence[tuple[int, int]]) -> tuple[Segment, ...]:
    """Return an item; of a long one the part from what was found on."""
    begin = 0
    if shared and shared[0][1] > _MOST_CHARACTERS:
        begin = max(0, shared[0][0] - _AROUND)
    end = min(len(text), begin + _MOST_CHARACTERS)
    return _segments(text, shared, begin, end, cut=(begin > 0, end < len(text)))


def _segments(
    text: str, spans: Sequence[tuple[int, int]], start: int, stop: int, *, cut: tuple[bool, bool]
) -> tuple[Segment, ...]:
    """Return a text from `start` to `stop` in pieces, with a sign where more comes before or after."""
    inside = [(max(begin, start), min(end, stop)) for begin, end in spans]
    found, done = [Segment(_CUT if cut[0] else "", is_found=False)], start
    for begin, end in widened([(begin, end) for begin, end in inside if begin < end], 0, stop):
        found += [Segment(text[done:begin], is_found=False), Segment(text[begin:end], is_found=True)]
        done = end
    found += [Segment(text[done:stop], is_found=False), Segment(_CUT if cut[1] else "", is_found=False)]
    return tuple(segment for segment in found if segment.text)


def _is_at(matches: pd.DataFrame, document: str) -> "pd.Series[bool]":
    """Return which matches are in a document: a path, or its last names, with `:ROW` or without."""

    def has_path(path: str) -> "pd.Series[bool]":
        return (matches.document_path == path) | matches.document_path.str.endswith(f"/{path}")

    path, colon, number = document.rpartition(":")
    if colon and number.isdecimal():
        return has_path(path) & (matches.document_row == int(number))
    return has_path(document)
