"""From shared n-grams to matches: spans, longest run, longest common subsequence, and the verdict."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from decontam.kernels.lcs import lcs_length
from decontam.kernels.ngrams import Hits, NgramTable
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
    """Where shared n-grams stand in the text, the answer's too: [begin, end) in characters, in order."""
    ngram_ids: tuple[int, ...]
    """Numbers of the shared n-grams in the index."""


class Document(NamedTuple):
    """A text as word numbers, and where the words stand in it."""

    ids: Ids
    begins: Ints
    """In characters."""
    ends: Ints

    def spans(self, positions: Sequence[int], size: int) -> tuple[tuple[int, int], ...]:
        """Return the characters of runs of `size` tokens, those that overlap or touch made one."""
        return tuple((int(self.begins[first]), int(self.ends[stop - 1])) for first, stop in _runs(positions, size))


_Shared = tuple[int, int, int]
"""An n-gram that the document shares with an item: its position in the document, its place in the item, in tokens, and
its number. A plain tuple: there are as many as shared tokens."""


class _Lcs(NamedTuple):
    length: int
    n_shorter: int
    holds: bool


def match_items(index: "ReferenceIndex", document: Document, hits: Sequence[Hits], whole: Hits) -> list[Match]:
    """Return the matches of a text, in the order of the items.

    Args:
        hits: n-grams for each of the index's tables.
        whole: first words of items that are found whole.
    """
    slots = np.full(len(index.vocabulary.hashes), -1, np.int32)
    found: dict[int, Match] = {}
    offset = 0
    for table, of_table in zip(index.tables, hits, strict=True):
        for item, shared in _by_item(table, of_table).items():
            found[item] = _match(index, item, document, shared, table.size, offset, slots)
        offset += table.n_ngrams
    if index.whole is not None:
        for item, shared in _by_item(index.whole, whole).items():
            if match := _whole_match(index, item, document, [position for position, _, _ in shared]):
                found[item] = match
    return [found[item] for item in sorted(found)]


def _by_item(table: NgramTable, hits: Hits) -> dict[int, list[_Shared]]:
    """Return all that each item shares, in the document's order. Lists, since most documents share a few n-grams."""
    found: dict[int, list[_Shared]] = {}
    if len(hits.positions):
        items, *columns = (column.tolist() for column in table.postings(hits))
        for item, shared in zip(items, zip(*columns, strict=True), strict=True):
            found.setdefault(item, []).append(shared)
    return found


def _match(
    index: "ReferenceIndex",
    item: int,
    document: Document,
    shared: Sequence[_Shared],
    size: int,
    offset: int,
    slots: Ids,
) -> Match:
    """Judge the question, then question with answer, and keep the one for which more holds."""
    items, rule = index.items, index.rule
    start, n_question = int(items.starts_I[item]), int(items.question_stops_I[item] - items.starts_I[item])
    parts: dict[Part, int] = {"question": n_question, "question+answer": int(items.stops_I[item]) - start}
    best: Match | None = None
    for part, n_tokens in parts.items():
        kept = [one for one in shared if one[1] + size <= n_tokens]
        if not kept or (best is not None and (best.rule == rule.name or n_tokens == n_question)):
            continue
        positions, lcs = [position for position, _, _ in kept], None
        if rule.name == "qwen2":
            lcs = _lcs(document.ids, items.ids_T[start : start + n_tokens], positions, size, rule, slots)
        ngrams = sorted({ngram + offset for _, _, ngram in kept})
        match = Match(
            reference_id=index.references[item].id,
            benchmark=index.references[item].benchmark,
            reference_part=part,
            rule="qwen2" if lcs is not None and lcs.holds else "strict",
            n_shared_ngrams=len(ngrams),
            longest_match=_longest_run(kept) + size - 1,
            lcs_length=None if lcs is None else lcs.length,
            lcs_ratio=None if lcs is None else lcs.length / lcs.n_shorter,
            spans=document.spans([position for position, _, _ in shared], size),
            ngram_ids=tuple(ngrams),
        )
        if best is None or (match.rule == "qwen2" and best.rule != "qwen2"):
            best = match
    assert best is not None, "an item that shares an n-gram shares it as question and answer"
    return best


def _whole_match(index: "ReferenceIndex", item: int, document: Document, positions: Sequence[int]) -> Match | None:
    """Return a match if a short item, or at least its question, stands at one of the places as a whole."""
    items = index.items
    start, n_question = int(items.starts_I[item]), int(items.question_stops_I[item] - items.starts_I[item])
    parts: dict[Part, int] = {"question+answer": int(items.stops_I[item]) - start, "question": n_question}
    for part, size in parts.items():
        tokens = items.ids_T[start : start + size]
        places = [at for at in positions if np.array_equal(document.ids[at : at + size], tokens)]
        if places and size >= index.rule.min_whole:
            return Match(
                reference_id=index.references[item].id,
                benchmark=index.references[item].benchmark,
                reference_part=part,
                rule="whole",
                n_shared_ngrams=0,
                longest_match=size,
                lcs_length=None,
                lcs_ratio=None,
                spans=document.spans(places, size),
                ngram_ids=(),
            )
    return None


def _lcs(ids: Ids, item: Ids, positions: Sequence[int], size: int, rule: Rule, slots: Ids) -> _Lcs:
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


def _sequences(
    n_document: int, n_item: int, positions: Sequence[int], size: int, rule: Rule
) -> Iterator[tuple[int, int]]:
    """Yield what of the document is compared, as [first, stop) of its tokens."""
    if rule.sequence == "document":
        yield 0, n_document
        return
    margin = max(2 * n_item, n_item + size)
    for first, stop in _runs(positions, size):
        yield max(0, first - margin), min(n_document, stop + margin)


def _runs(positions: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    """Yield [first, stop) of the tokens of n-grams that overlap or touch; positions ascend, and may repeat."""
    first = last = positions[0]
    for position in positions:
        if position > last + size:
            yield first, last + size
            first = position
        last = position
    yield first, last + size


def _longest_run(shared: Sequence[_Shared]) -> int:
    """Return how many n-grams follow each other both in the document and in the item, at most."""
    ends_at: dict[tuple[int, int], int] = {}
    for position, place, _ in shared:
        ends_at[position, place] = ends_at.get((position - 1, place - 1), 0) + 1
    return max(ends_at.values())
