"""What texts hold: their words, the n-grams that items have, and what follows of them, for many texts at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from decontam.bpe import BpeVocabulary
from decontam.kernels.judge import (
    HOLDS,
    ITEM,
    LCS,
    LONGEST,
    N_SHARED,
    N_SHORTER,
    TEXT,
    WITH_ANSWER,
    Judged,
    Sought,
    Texts,
    judge_texts,
)
from decontam.kernels.words import UNKNOWN, Vocabulary, find_words, read_texts, split
from decontam.normalize import fold, fold_table
from decontam.rule import RuleName

if TYPE_CHECKING:
    from decontam.index import ReferenceIndex

Ints = npt.NDArray[np.int64]
Part = Literal["question", "question+answer"]
RULES: tuple[RuleName, ...] = ("strict", "qwen2", "whole")
"""By the numbers that findings have for them."""
STRICT, QWEN2, WHOLE = range(3)
_FOLDED_CHARACTERS = 1 << 20


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


class Findings(NamedTuple):
    """What texts hold: a row for each text and item, in this order. Shape suffix: R rows."""

    texts_R: Ints
    """Which text."""
    items_R: Ints
    with_answer_R: Ints
    """0: what follows is about the question alone, for which as much holds; 1: about question and answer."""
    rules_R: Ints
    """Places in RULES: the strongest that holds."""
    n_shared_R: Ints
    longest_R: Ints
    lcs_R: Ints
    """-1: the rule doesn't ask for it."""
    n_shorter_R: Ints
    span_stops_R: Ints
    """How many of the spans are the rows' up to this one."""
    spans: Ints
    """(spans, 2) characters of the text."""
    ngram_stops_R: Ints
    ngrams: Ints
    """Numbers in the index, ascending for each row."""
    every_item: Ints
    """(…, 3): text, item and rule, of all items that hold, rows or not."""
    every_ngram: Ints
    """(…, 2): text and number of all n-grams of items, once."""


def examine_texts(index: "ReferenceIndex", texts: Sequence[str], *, limit: int | None = None) -> Findings:
    """Return what texts hold.

    Args:
        limit: only so many rows of a text that share an n-gram, those for which most holds, besides one of each
            benchmark and of each set of places in the text; None: all.
    """
    read, items, rule = _read(index, texts), index.items, index.rule
    sought = Sought(
        *(items.ids_T, items.starts_I, items.question_stops_I, items.stops_I, index.benchmark_I),
        *(index.n_words, rule.min_lcs, float(rule.min_lcs_ratio), rule.sequence == "document"),
    )
    found, offset = list[Findings](), 0
    for table in index.tables:
        hits = table.find(read.ids, items.ids_T)
        if len(hits.positions):
            most = len(index.references) if limit is None else limit
            judged = Judged(*judge_texts(read, hits.positions, hits.ngrams, table, sought, most))
            found.append(_findings(judged, offset, has_lcs=rule.name == "qwen2"))
        offset += table.n_ngrams
    if index.whole is not None:
        hits = index.whole.find(read.ids, items.ids_T)
        if len(hits.positions):
            found.append(_whole_findings(index, read, index.whole.postings(hits)))
    return found[0] if len(found) == 1 else _together(found)


def matches_of(index: "ReferenceIndex", findings: Findings) -> Iterator[Match]:
    """Yield the rows as objects."""
    for row, (item, rule) in enumerate(zip(findings.items_R.tolist(), findings.rules_R.tolist(), strict=True)):
        reference = index.references[item]
        spans, ngrams = (
            slice(int(stops[row - 1]) if row else 0, int(stops[row]))
            for stops in (findings.span_stops_R, findings.ngram_stops_R)
        )
        lcs = int(findings.lcs_R[row])
        yield Match(
            reference_id=reference.id,
            benchmark=reference.benchmark,
            reference_part="question+answer" if findings.with_answer_R[row] else "question",
            rule=RULES[rule],
            n_shared_ngrams=int(findings.n_shared_R[row]),
            longest_match=int(findings.longest_R[row]),
            lcs_length=None if lcs < 0 else lcs,
            lcs_ratio=None if lcs < 0 else lcs / int(findings.n_shorter_R[row]),
            spans=tuple((begin, end) for begin, end in findings.spans[spans].tolist()),
            ngram_ids=tuple(findings.ngrams[ngrams].tolist()),
        )


def _read(index: "ReferenceIndex", texts: Sequence[str]) -> Texts:
    """Return the texts' words, or tokens."""
    if isinstance(index.vocabulary, BpeVocabulary):
        return _read_bpe(index.vocabulary, texts, fold_case=index.rule.fold_case)
    # half a surrogate pair is no UTF-8, so such a text is left out, and read as those whose characters melt
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    data, stops_D = np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([len(one) for one in encoded], dtype=np.int64)
    folds = fold_table(index.rule.fold_case)
    *columns, n_words_D = read_texts(data, stops_D, folds, index.vocabulary)
    if (n_words_D < 0).any():
        pieces, at = list[Sequence[npt.NDArray[Any]]](), 0
        for text, n_words in enumerate(n_words_D.tolist()):
            if n_words < 0:
                pieces.append(_read_melting(index.vocabulary, texts[text], fold_case=index.rule.fold_case))
                n_words_D[text] = len(pieces[-1][0])
            else:
                pieces.append([column[at : at + n_words] for column in columns])
                at += n_words
        columns = [np.concatenate(column) for column in zip(*pieces, strict=True)]
    ids, begins, ends = columns
    return Texts(ids, begins, ends, np.concatenate(([0], np.cumsum(n_words_D))).astype(np.int64))


def _read_bpe(vocabulary: BpeVocabulary, texts: Sequence[str], *, fold_case: bool) -> Texts:
    """Return the tokens of texts, which are read as one: nothing melts across a line end."""
    folded = fold("\n".join(texts), fold_case=fold_case)
    tokens = vocabulary.tokenizer.read(folded)
    sizes = np.array([len(text) for text in texts], np.int64)
    starts = np.cumsum(sizes + 1) - sizes - 1
    begins = folded.begins[tokens.begins]
    ends = folded.ends[np.maximum(tokens.ends - 1, tokens.begins)]
    stops = np.searchsorted(begins, starts + sizes)
    owners = np.repeat(np.arange(len(texts)), np.diff(stops, prepend=0))
    return Texts(
        np.insert(vocabulary.numbers[tokens.ids], stops, UNKNOWN),
        np.insert(begins - starts[owners], stops, sizes),
        np.insert(ends - starts[owners], stops, sizes),
        np.concatenate(([0], stops + np.arange(1, len(texts) + 1))).astype(np.int64),
    )


def _read_melting(vocabulary: Vocabulary, text: str, *, fold_case: bool) -> tuple[npt.NDArray[Any], ...]:
    """Return the words of a text whose NFKC is not found character by character, as `read_texts` would."""
    found, begin = list[tuple[npt.NDArray[Any], ...]](), 0
    while begin < len(text):
        # block by block, where no word goes on: what is needed to fold a text is many times as large
        end = text.find(" ", begin + _FOLDED_CHARACTERS) + 1 or len(text)
        folded = fold(text[begin:end], fold_case=fold_case)
        words = split(folded)
        ids = find_words(words.hashes, words.begins, words.ends, words.points, vocabulary)
        found.append((ids, folded.begins[words.begins] + begin, folded.ends[words.ends - 1] + begin))
        begin = end
    last = np.array([UNKNOWN], np.int32), *(np.array([len(text)], np.int64) for _ in range(2))
    return tuple(np.concatenate(column) for column in zip(*found, last, strict=True))


def _findings(judged: Judged, offset: int, *, has_lcs: bool) -> Findings:
    """Return the findings by n-grams of one size, whose numbers in the index begin at `offset`."""
    rows_R, every = judged.rows_R, judged.every_item
    if not has_lcs:
        rows_R[:, LCS], rows_R[:, HOLDS], every[:, 2] = -1, 0, 0
    columns = [rows_R[:, name] for name in (TEXT, ITEM, WITH_ANSWER, HOLDS, N_SHARED, LONGEST, LCS, N_SHORTER)]
    spans, ngrams = (judged.span_stops_R, judged.spans), (judged.ngram_stops_R, judged.ngrams + offset)
    return Findings._make([*columns, *spans, *ngrams, every, judged.every_ngram + np.array([0, offset])])


def _whole_findings(index: "ReferenceIndex", read: Texts, postings: tuple[Ints, ...]) -> Findings:
    """Return the short items that stand in texts as a whole, or at least their questions."""
    texts = np.searchsorted(read.starts_D1, postings[1], "right") - 1
    at: dict[tuple[int, int], list[int]] = {}
    for text, item, position in zip(texts.tolist(), postings[0].tolist(), postings[1].tolist(), strict=True):
        at.setdefault((text, item), []).append(position)
    rows, spans, stops = list[tuple[int, ...]](), list[tuple[int, int]](), list[int]()
    for (text, item), places in sorted(at.items()):
        if found := _whole(index, item, read.ids, places):
            with_answer, size, where = found
            runs = _runs(where, size)
            spans += [(int(read.begins[first]), int(read.ends[stop - 1])) for first, stop in runs]
            rows.append((text, item, with_answer, WHOLE, 0, size, -1, 1))
            stops.append(len(spans))
    table = np.array(rows, np.int64).reshape(-1, 8)
    none = np.empty(0, np.int64)
    of_spans = np.array(stops, np.int64), np.array(spans, np.int64).reshape(-1, 2)
    return Findings._make([*table.T, *of_spans, 0 * table[:, 0], none, table[:, [0, 1, 3]], none.reshape(0, 2)])


def _whole(
    index: "ReferenceIndex", item: int, ids: npt.NDArray[np.int32], positions: Sequence[int]
) -> tuple[bool, int, list[int]] | None:
    """Return whether a short item stands at some places with its answer, its tokens, and the places."""
    items = index.items
    start = int(items.starts_I[item])
    for with_answer, stops_I in ((True, items.stops_I), (False, items.question_stops_I)):
        size = int(stops_I[item]) - start
        tokens = items.ids_T[start : start + size]
        places = [at for at in positions if np.array_equal(ids[at : at + size], tokens)]
        if places and size >= index.rule.min_whole:
            return with_answer, size, places
    return None


def _together(found: Sequence[Findings]) -> Findings:
    """Return findings as one, in the order of texts and items."""
    none = np.empty(0, np.int64)
    if not found:
        return Findings._make([*[none] * 9, *(none.reshape(0, 2), none, none, none.reshape(0, 3), none.reshape(0, 2))])
    columns = [np.concatenate(column) for column in zip(*(one[:8] for one in found), strict=True)]
    order = np.lexsort((columns[1], columns[0]))
    spans = _ragged([one.span_stops_R for one in found], [one.spans for one in found], order)
    ngrams = _ragged([one.ngram_stops_R for one in found], [one.ngrams for one in found], order)
    every = (np.concatenate([one[i] for one in found]) for i in (-2, -1))
    return Findings._make([*(column[order] for column in columns), *spans, *ngrams, *every])


def _ragged(stops: Sequence[Ints], values: Sequence[Ints], order: Ints) -> tuple[Ints, Ints]:
    """Return the stops and values of rows in another order."""
    sizes = np.concatenate([np.diff(one, prepend=0) for one in stops])
    begins, sizes = (np.cumsum(sizes) - sizes)[order], sizes[order]
    new_stops = np.cumsum(sizes)
    places = np.repeat(begins - (new_stops - sizes), sizes) + np.arange(int(sizes.sum()))
    return new_stops.astype(np.int64), np.concatenate(values)[places]


def _runs(positions: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    """Yield [first, stop) of the tokens of n-grams that overlap or touch; positions ascend, and may repeat."""
    first = last = positions[0]
    for position in positions:
        if position > last + size:
            yield first, last + size
            first = position
        last = position
    yield first, last + size
