"""From shared n-grams to matches: spans, longest run, longest common subsequence, and the verdict."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from decontam.kernels.lcs import lcs_length
from decontam.kernels.ngrams import Hits
from decontam.rule import Rule, RuleName

if TYPE_CHECKING:
    from decontam.index import ReferenceIndex

Ints = npt.NDArray[np.int64]
Ids = npt.NDArray[np.int32]
Part = Literal["question", "question+answer"]


@dataclass(frozen=True)
class Match:
    """What a document and an item have in common."""

    reference_id: str
    benchmark: str
    reference_part: Part
    """The part of the item for which the strongest rule holds; the question if it holds for both."""
    rule: RuleName
    """The strongest rule that holds; qwen2 implies strict."""
    n_shared_ngrams: int
    """Distinct n-grams."""
    longest_match: int
    """Tokens of the longest run that both have."""
    lcs_length: int | None
    """Tokens of the longest common subsequence; None where the rule doesn't ask for it."""
    lcs_ratio: float | None
    """Its share of the shorter sequence's tokens, 0-1."""
    spans: tuple[tuple[int, int], ...]
    """Where in the document's text the shared n-grams stand, [begin, end) in characters, ascending."""
    ngram_ids: tuple[int, ...]
    """Numbers of the shared n-grams in the index."""


class _Lcs(NamedTuple):
    length: int
    n_shorter: int
    holds: bool


class _Shared(NamedTuple):
    """N-grams that the document shares with one item, each place in the document once for each place in the item."""

    positions: Ints
    """In the document, ascending."""
    places: Ints
    """In the item."""
    ngrams: Ints


class Document(NamedTuple):
    """A text as word numbers, and where the words stand in it."""

    ids: Ids
    begins: Ints
    ends: Ints

    def spans(self, positions: Ints, size: int) -> tuple[tuple[int, int], ...]:
        """Return the characters of runs of `size` tokens, those that overlap or touch made one."""
        return tuple(
            (int(self.begins[first]), int(self.ends[last + size - 1])) for first, last in _runs(positions, size)
        )


def match_items(
    index: "ReferenceIndex", ids: Ids, begins: Ints, ends: Ints, hits: Sequence[Hits], whole: Hits
) -> list[Match]:
    """Return the matches of a text, in the order of the items.

    Args:
        ids: its words' numbers; `begins` and `ends` their places in the text, in characters.
        hits: n-grams for each of the index's tables.
        whole: first words of items that are found whole.
    """
    document = Document(ids, begins, ends)
    slots = np.full(len(index.vocabulary.hashes), -1, np.int32)
    found: dict[int, Match] = {}
    offset = 0
    for table, of_table in zip(index.tables, hits, strict=True):
        for item, shared in _by_item(index, table.offsets_G1, table.starts_P, of_table):
            found[item] = _match(index, item, document, shared, table.size, offset, slots)
        offset += table.n_ngrams
    if index.whole is not None:
        for item, shared in _by_item(index, index.whole.offsets_G1, index.whole.starts_P, whole):
            if match := _whole_match(index, item, document, shared):
                found[item] = match
    return [found[item] for item in sorted(found)]


def _by_item(index: "ReferenceIndex", offsets_G1: Ints, starts_P: Ints, hits: Hits) -> Iterator[tuple[int, _Shared]]:
    """Yield each item that has some of the n-grams, with all of these."""
    if not len(hits.positions):
        return
    firsts, counts = offsets_G1[hits.ngrams], offsets_G1[hits.ngrams + 1] - offsets_G1[hits.ngrams]
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    places = starts_P[np.repeat(firsts, counts) + within]
    positions, ngrams = np.repeat(hits.positions, counts), np.repeat(hits.ngrams, counts)
    # an item without tokens begins where the next one does: the last one at or before a place is meant
    items = np.searchsorted(index.items.starts_I, places, side="right") - 1
    order = np.lexsort((places, positions, items))
    items, positions, places, ngrams = (x[order] for x in (items, positions, places, ngrams))
    borders = np.flatnonzero(np.diff(items)) + 1
    for rows in np.split(np.arange(len(items)), borders):
        item = int(items[rows[0]])
        yield item, _Shared(positions[rows], places[rows] - index.items.starts_I[item], ngrams[rows])


def _match(
    index: "ReferenceIndex", item: int, document: Document, shared: _Shared, size: int, offset: int, slots: Ids
) -> Match:
    """Judge question, and question with answer, and keep the one for which more holds."""
    items, rule = index.items, index.rule
    start, n_question = int(items.starts_I[item]), int(items.question_stops_I[item] - items.starts_I[item])
    parts: dict[Part, int] = {"question": n_question, "question+answer": int(items.n_tokens_I[item])}
    best: Match | None = None
    for part, n_tokens in parts.items():
        kept = _Shared(*(x[shared.places + size <= n_tokens] for x in shared))
        if not len(kept.positions) or (best is not None and n_tokens == n_question):
            continue
        lcs = None
        if rule.name == "qwen2":
            lcs = _lcs(document.ids, items.ids_T[start : start + n_tokens], kept.positions, size, rule, slots)
        ngrams = np.unique(kept.ngrams) + offset
        match = Match(
            reference_id=index.references[item].id,
            benchmark=index.references[item].benchmark,
            reference_part=part,
            rule="qwen2" if lcs is not None and lcs.holds else "strict",
            n_shared_ngrams=len(ngrams),
            longest_match=_longest_run(kept) + size - 1,
            lcs_length=None if lcs is None else lcs.length,
            lcs_ratio=None if lcs is None else lcs.length / lcs.n_shorter,
            spans=document.spans(kept.positions, size),
            ngram_ids=tuple(ngrams.tolist()),
        )
        if best is None or (match.rule == "qwen2" and best.rule != "qwen2"):
            best = match
    assert best is not None, "an item that shares an n-gram shares it as question and answer"
    return best


def _whole_match(index: "ReferenceIndex", item: int, document: Document, shared: _Shared) -> Match | None:
    """Return a match if a short item, or at least its question, stands at one of the places as a whole."""
    items = index.items
    start, n_question = int(items.starts_I[item]), int(items.question_stops_I[item] - items.starts_I[item])
    parts: dict[Part, int] = {"question+answer": int(items.n_tokens_I[item]), "question": n_question}
    for part, size in parts.items():
        tokens = items.ids_T[start : start + size]
        positions = [at for at in shared.positions.tolist() if np.array_equal(document.ids[at : at + size], tokens)]
        if positions and size >= index.rule.min_whole:
            return Match(
                reference_id=index.references[item].id,
                benchmark=index.references[item].benchmark,
                reference_part=part,
                rule="whole",
                n_shared_ngrams=0,
                longest_match=size,
                lcs_length=None,
                lcs_ratio=None,
                spans=document.spans(np.array(positions), size),
                ngram_ids=(),
            )
    return None


def _lcs(ids: Ids, item: Ids, positions: Ints, size: int, rule: Rule, slots: Ids) -> _Lcs:
    """Return the longest common subsequence with the document, or with the best window around shared n-grams."""
    best: _Lcs | None = None
    for low, high in _sequences(len(ids), len(item), positions, size, rule):
        text = ids[low:high]
        n_shorter = min(len(text), len(item))
        # the exact length is wanted even where the rule can't hold: it is evidence
        length = int(lcs_length(item, text, slots, 0))
        # a ratio that should be exact may come out a hair below it
        found = _Lcs(length, n_shorter, length >= rule.min_lcs and length >= rule.min_lcs_ratio * n_shorter - 1e-9)
        if best is None or (found.holds, found.length) > (best.holds, best.length):
            best = found
    assert best is not None, "there is at least one shared n-gram"
    return best


def _sequences(n_document: int, n_item: int, positions: Ints, size: int, rule: Rule) -> Iterator[tuple[int, int]]:
    """Yield what of the document is compared, as [first, stop) of its tokens."""
    if rule.sequence == "document":
        yield 0, n_document
        return
    margin = max(2 * n_item, n_item + size)
    for first, last in _runs(positions, size):
        yield max(0, first - margin), min(n_document, last + size + margin)


def _runs(positions: Ints, size: int) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of positions whose n-grams overlap or touch."""
    distinct = np.unique(positions)
    borders = np.flatnonzero(np.diff(distinct) > size) + 1
    for run in np.split(distinct, borders):
        yield int(run[0]), int(run[-1])


def _longest_run(shared: _Shared) -> int:
    """Return how many n-grams follow each other both in the document and in the item, at most."""
    diagonals = shared.positions - shared.places
    order = np.lexsort((shared.positions, diagonals))
    is_break = (np.diff(diagonals[order]) != 0) | (np.diff(shared.positions[order]) != 1)
    borders = np.concatenate(([0], np.flatnonzero(is_break) + 1, [len(order)]))
    return int(np.diff(borders).max())
