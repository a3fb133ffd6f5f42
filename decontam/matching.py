"""From shared n-grams to matches: spans, longest run, longest common subsequence, and the verdict."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from decontam.kernels.judge import Judged, best_lcs, judge
from decontam.kernels.ngrams import Hits, NgramTable
from decontam.rule import RuleName

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


class Examined(NamedTuple):
    """All that a text holds."""

    matches: list[Match]
    """In the order of the items; the strongest ones where there are too many."""
    strict: list[int]
    """Places of all items that share an n-gram, among the references."""
    qwen2: list[int]
    """Of these the ones for which the longest common subsequence is long enough, too."""
    whole: list[int]
    """Items too short for an n-gram that were found whole."""
    ngram_ids: list[int]
    """N-grams of items that the text has."""


def examine_items(
    index: "ReferenceIndex", document: Document, hits: Sequence[Hits], whole: Hits, *, limit: int | None = None
) -> Examined:
    """Return what a text holds.

    Args:
        hits: n-grams for each of the index's tables.
        whole: first words of items that are found whole.
        limit: only so many matches that share an n-gram, those for which most holds, and one of each benchmark.
    """
    found: dict[int, Match] = {}
    every = Examined([], [], [], [], [])
    offset = 0
    for table, of_table in zip(index.tables, hits, strict=True):
        if len(of_table.positions):
            judged = judge_items(index, document, table, of_table, limit=limit)
            every.strict.extend(judged.items.tolist())
            if index.rule.name == "qwen2":
                every.qwen2.extend(judged.items[judged.holds].tolist())
            every.ngram_ids.extend((np.unique(of_table.ngrams) + offset).tolist())
            for row in _strongest(judged, index.benchmark_I, limit):
                found[int(judged.items[row])] = _match(index, document, judged, row, table.size, offset)
        offset += table.n_ngrams
    if index.whole is not None and len(whole.positions):
        items, positions, *_ = index.whole.postings(whole)
        at: dict[int, list[int]] = {}
        for item, position in zip(items.tolist(), positions.tolist(), strict=True):
            at.setdefault(item, []).append(position)
        for item, places in at.items():
            if match := _whole_match(index, item, document, places):
                found[item] = match
                every.whole.append(item)
    return every._replace(matches=[found[item] for item in sorted(found)])


def judge_items(
    index: "ReferenceIndex", document: Document, table: NgramTable, hits: Hits, *, limit: int | None = None
) -> Judged:
    """Return what the document has in common with each item that shares one of these n-grams.

    Args:
        limit: with more items than these, subsequences that are surely too short count as 0.
    """
    items, rule = index.items, index.rule
    return Judged(
        *judge(
            document.ids,
            hits.positions,
            hits.ngrams,
            table.size,
            table.offsets_G1,
            table.items_P,
            table.places_P,
            items.ids_T,
            items.starts_I,
            items.question_stops_I,
            items.stops_I,
            len(index.vocabulary.hashes),
            rule.min_lcs,
            float(rule.min_lcs_ratio),
            rule.sequence == "document",
            len(index.references) if limit is None else limit,
        )
    )


def _strongest(judged: Judged, benchmark_I: Ints, limit: int | None) -> list[int]:
    """Return the rows for which most holds, the best one of each benchmark, and of each set of places in the document.

    What is cut out of a document depends on no other row: one with the same places has the same spans and n-grams.
    """
    if limit is None or len(judged.items) <= limit:
        return list(range(len(judged.items)))
    # the last key counts first; rows that are equal stay in the order of the items
    order = np.lexsort((-judged.n_shared, ~judged.holds))
    firsts = np.unique(benchmark_I[judged.items[order]], return_index=True)[1]
    offsets, seen, chosen = judged.offsets.tolist(), set[bytes](), list[int]()
    wanted = set(order[np.union1d(firsts, np.arange(limit))].tolist())
    for row in order.tolist():
        places = judged.positions[offsets[row] : offsets[row + 1]].tobytes()
        if row in wanted or places not in seen:
            chosen.append(row)
        seen.add(places)
    return chosen


def _match(index: "ReferenceIndex", document: Document, judged: Judged, row: int, size: int, offset: int) -> Match:
    reference = index.references[int(judged.items[row])]
    has_lcs, holds = index.rule.name == "qwen2", bool(judged.holds[row])
    lcs, n_shorter = int(judged.lcs[row]), int(judged.n_shorter[row])
    if has_lcs and not lcs:
        lcs, n_shorter = _exact_lcs(index, document, judged, row, size)
    own = slice(int(judged.offsets[row]), int(judged.offsets[row + 1]))
    return Match(
        reference_id=reference.id,
        benchmark=reference.benchmark,
        reference_part="question+answer" if judged.with_answer[row] else "question",
        rule="qwen2" if has_lcs and holds else "strict",
        n_shared_ngrams=int(judged.n_shared[row]),
        longest_match=int(judged.longest[row]),
        lcs_length=lcs if has_lcs else None,
        lcs_ratio=lcs / n_shorter if has_lcs else None,
        spans=document.spans(judged.positions[own].tolist(), size),
        ngram_ids=tuple(sorted({ngram + offset for ngram in judged.ngrams[own].tolist()})),
    )


def _exact_lcs(index: "ReferenceIndex", document: Document, judged: Judged, row: int, size: int) -> tuple[int, int]:
    """Return the length that was not computed, since it is surely too short, and the tokens of the shorter sequence."""
    items, rule, item = index.items, index.rule, int(judged.items[row])
    start, stops = int(items.starts_I[item]), items.stops_I if judged.with_answer[row] else items.question_stops_I
    tokens = items.ids_T[start : int(stops[item])]
    own = slice(int(judged.offsets[row]), int(judged.offsets[row + 1]))
    positions = judged.positions[own][judged.places[own] + size <= len(tokens)]
    slots = np.full(len(index.vocabulary.hashes), -1, np.int32)
    ratio, is_whole = float(rule.min_lcs_ratio), rule.sequence == "document"
    length, shorter, _ = best_lcs(document.ids, tokens, positions, size, rule.min_lcs, ratio, is_whole, slots, True)
    return int(length), int(shorter)


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


def _runs(positions: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    """Yield [first, stop) of the tokens of n-grams that overlap or touch; positions ascend, and may repeat."""
    first = last = positions[0]
    for position in positions:
        if position > last + size:
            yield first, last + size
            first = position
        last = position
    yield first, last + size
