"""What texts hold: their tokens, the n-grams that items have, and what follows from them, for many texts at once.

find_in_texts   texts to columns: read tokens, find n-grams, compare, and find short items in full
as_matches      columns to objects
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from decontam.bpe import BpeVocabulary
from decontam.items import Items
from decontam.kernels.compare import (
    ITEM,
    LCS,
    LONGEST,
    N_COLUMNS,
    N_ITEM_COLUMNS,
    N_SHARED,
    N_SHORTER,
    PART,
    RULE,
    RULE_OF_ITEM,
    TEXT,
    DocumentMatches,
    Targets,
    Texts,
    compare_texts,
)
from decontam.kernels.ngrams import Hits, NgramTable
from decontam.kernels.words import UNKNOWN, Vocabulary, number_words, read_texts, split
from decontam.normalize import fold, fold_table
from decontam.references import Reference
from decontam.resolved import BETWEEN, fold_resolved, resolve
from decontam.rule import RULES, WHOLE, Rule, RuleName
from decontam.short_items import ShortItems

Ints = npt.NDArray[np.int64]
ReferencePart = Literal["question", "question+answer", "other form"]
PARTS: tuple[ReferencePart, ...] = ("question", "question+answer", "other form")
"""Parts of an item by the numbers that rows have for them."""
_FOLDED_CHARACTERS = 1 << 20
"""Of a text that is folded by NFKC at once."""


@dataclass(frozen=True)
class Match:
    """What a document and an item have in common."""

    reference_id: str
    benchmark: str
    reference_part: ReferencePart
    """The part of the item for which the strongest rule applies; the question if it applies to both. Another form has
    lettered choices, say; what is compared then is question and answer."""
    rule: RuleName
    """The strongest rule that applies; qwen2 implies strict."""
    n_shared_ngrams: int
    """Distinct n-grams."""
    longest_match: int
    """Tokens of the longest run that both have."""
    lcs_length: int | None
    """Tokens of the longest common subsequence; None where the rule doesn't ask for it."""
    lcs_ratio: float | None
    """Its share of the shorter sequence's tokens, 0-1."""
    spans: tuple[tuple[int, int], ...]
    """Where shared n-grams are in the text, the answer's too: [begin, end) in characters, in order."""
    ngram_ids: tuple[int, ...]
    """Numbers of the shared n-grams in the index."""


@dataclass(frozen=True, eq=False)
class SearchTables:
    """What a search looks up: the items' tokens and n-grams under one rule."""

    rule: Rule
    """What decides what matches."""
    items: Items
    """The items' tokens."""
    benchmark_I: Ints
    """A number for the benchmark of each item."""
    vocabulary: Vocabulary | BpeVocabulary
    """The numbers of the tokens that items have."""
    ngrams: tuple[NgramTable, ...]
    """The items' n-grams, a table for each size."""
    short_items: ShortItems | None
    """Questions and items that are found in full; None: there are none."""

    @property
    def targets(self) -> Targets:
        """The items and the rule's numbers, as the kernels take them."""
        items, rule, vocabulary = self.items, self.rule, self.vocabulary
        return Targets(
            ids_T=items.ids_T,
            starts_I=items.starts_I,
            question_stops_I=items.question_stops_I,
            stops_I=items.stops_I,
            benchmark_I=self.benchmark_I,
            n_words=vocabulary.n_known if isinstance(vocabulary, BpeVocabulary) else len(vocabulary.hashes),
            min_lcs=rule.min_lcs,
            min_lcs_ratio=float(rule.min_lcs_ratio),
            whole_document=rule.sequence == "document",
        )


def find_in_texts(tables: SearchTables, texts: Sequence[str], *, limit: int | None = None) -> DocumentMatches:
    """Return what texts have in common with items.

    Args:
        limit: keep only so many rows of a text that share an n-gram, the strongest ones, besides one of each benchmark
            and of each set of places in the text; None: all.
    """
    read, ids_T = _read_texts(tables, texts), tables.items.ids_T
    found, n_ngrams = list[DocumentMatches](), 0
    for table in tables.ngrams:
        hits = table.find(read.ids, ids_T)
        if len(hits.positions):
            most = len(tables.items.starts_I) if limit is None else limit
            compared = compare_texts(read, hits.positions, hits.ngrams, table, tables.targets, most)
            found.append(_renumbered(compared, n_ngrams))
        n_ngrams += table.n_ngrams
    if tables.short_items is not None:
        hits = tables.short_items.windows.find(read.ids, ids_T)
        if len(hits.positions):
            found.append(_find_short_items(tables, read, tables.short_items, hits))
    return found[0] if len(found) == 1 else _merged(found)


def as_matches(found: DocumentMatches, references: Sequence[Reference]) -> Iterator[Match]:
    """Yield the rows as objects."""
    span_begins, ngram_begins = (np.concatenate(([0], stops)) for stops in (found.span_stops_R, found.ngram_stops_R))
    for i, row in enumerate(found.rows_R.tolist()):
        reference, lcs = references[row[ITEM]], row[LCS]
        spans = found.spans[span_begins[i] : span_begins[i + 1]].tolist()
        yield Match(
            reference_id=reference.id,
            benchmark=reference.benchmark,
            reference_part=PARTS[row[PART]],
            rule=RULES[row[RULE]],
            n_shared_ngrams=row[N_SHARED],
            longest_match=row[LONGEST],
            lcs_length=None if lcs < 0 else lcs,
            lcs_ratio=None if lcs < 0 else lcs / row[N_SHORTER],
            spans=tuple((begin, end) for begin, end in spans),
            ngram_ids=tuple(found.ngrams[ngram_begins[i] : ngram_begins[i + 1]].tolist()),
        )


def _read_texts(tables: SearchTables, texts: Sequence[str]) -> Texts:
    """Return the texts' words, or tokens."""
    vocabulary, rule = tables.vocabulary, tables.rule
    if isinstance(vocabulary, BpeVocabulary):
        return _read_bpe(vocabulary, texts, rule)
    # half a surrogate pair is no UTF-8, so the kernel leaves such a text out, and it is read as those that compose
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    data, stops_D = np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([len(one) for one in encoded], dtype=np.int64)
    *columns, n_words_D = read_texts(data, stops_D, fold_table(rule.fold_case), vocabulary, rule.markup)
    if (n_words_D < 0).any():
        columns = _with_left_out(columns, n_words_D, vocabulary, texts, rule)
    ids, begins, ends = columns
    return Texts(ids, begins, ends, np.concatenate(([0], np.cumsum(n_words_D))).astype(np.int64))


def _with_left_out(
    columns: Sequence[npt.NDArray[Any]],
    n_words_D: Ints,
    vocabulary: Vocabulary,
    texts: Sequence[str],
    rule: Rule,
) -> list[npt.NDArray[Any]]:
    """Return the columns with the words of texts that the kernel left out, in order; counts go to `n_words_D`."""
    pieces, at = list[Sequence[npt.NDArray[Any]]](), 0
    for text, n_words in enumerate(n_words_D.tolist()):
        if n_words < 0:
            pieces.append(_read_composed(vocabulary, texts[text], rule))
            n_words_D[text] = len(pieces[-1][0])
        else:
            pieces.append([column[at : at + n_words] for column in columns])
            at += n_words
    return [np.concatenate(column) for column in zip(*pieces, strict=True)]


def _read_bpe(vocabulary: BpeVocabulary, texts: Sequence[str], rule: Rule) -> Texts:
    """Return the tokens of texts, which are read as one text."""
    folded = fold_resolved(BETWEEN.join(texts), fold_case=rule.fold_case, markup=rule.markup)
    tokens = vocabulary.tokenizer.read(folded)
    sizes = np.array([len(text) for text in texts], np.int64)
    starts = np.cumsum(sizes + len(BETWEEN)) - sizes - len(BETWEEN)
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


def _read_composed(vocabulary: Vocabulary, given: str, rule: Rule) -> tuple[npt.NDArray[Any], ...]:
    """Return the words of a text whose NFKC is not found character by character, as `read_texts` would."""
    resolved = resolve(given, markup=rule.markup)
    found, text, begin = list[tuple[npt.NDArray[Any], ...]](), resolved.text, 0
    while begin < len(text):
        # block by block, cut where a word ends: folded text takes 20 bytes a character and more
        end = text.find(" ", begin + _FOLDED_CHARACTERS) + 1 or len(text)
        folded = fold(text[begin:end], fold_case=rule.fold_case)
        words = split(folded)
        ids = number_words(words.hashes, words.begins, words.ends, words.points, vocabulary)
        begins, ends = folded.begins[words.begins] + begin, folded.ends[words.ends - 1] + begin
        found.append((ids, *resolved.original(begins, ends)))
        begin = end
    last = np.array([UNKNOWN], np.int32), *(np.array([len(given)], np.int64) for _ in range(2))
    return tuple(np.concatenate(column) for column in zip(*found, last, strict=True))


def _renumbered(found: DocumentMatches, n_before: int) -> DocumentMatches:
    """Return matches whose n-grams have their numbers in the index: those of the tables before come first."""
    return found._replace(ngrams=found.ngrams + n_before, every_ngram=found.every_ngram + np.array([0, n_before]))


def _find_short_items(tables: SearchTables, read: Texts, short: ShortItems, hits: Hits) -> DocumentMatches:
    """Return the short questions and items that occur in texts in full."""
    found_items, at, places, _ = short.windows.postings(hits)
    firsts = at - places
    texts = np.searchsorted(read.starts_D1, at, "right") - 1
    candidates: dict[tuple[int, int], list[int]] = {}
    for text, item, first in zip(texts.tolist(), found_items.tolist(), firsts.tolist(), strict=True):
        candidates.setdefault((text, item), []).append(first)
    rows, spans, stops = list[list[int]](), list[tuple[int, int]](), list[int]()
    for (text, item), positions in sorted(candidates.items()):
        if found := _find_in_full(tables.items, short, item, read.ids, positions):
            runs = _runs(found.positions, found.n_tokens)
            spans += [(int(read.begins[first]), int(read.ends[stop - 1])) for first, stop in runs]
            rows.append(_row_of_short_item(text, item, found))
            stops.append(len(spans))
    table, none = np.array(rows, np.int64).reshape(-1, N_COLUMNS), np.empty(0, np.int64)
    every = np.zeros((len(table), N_ITEM_COLUMNS), np.int64)
    every[:, :RULE_OF_ITEM], every[:, RULE_OF_ITEM] = table[:, [TEXT, ITEM]], table[:, RULE]
    return DocumentMatches(
        rows_R=table,
        span_stops_R=np.array(stops, np.int64),
        spans=np.array(spans, np.int64).reshape(-1, 2),
        ngram_stops_R=np.zeros(len(table), np.int64),
        ngrams=none,
        every_item=every,
        every_ngram=none.reshape(0, 2),
    )


class _InFull(NamedTuple):
    """A short item that occurs in a text."""

    with_answer: bool
    """Whether its answer follows it there."""
    n_tokens: int
    """Of the part that occurs."""
    positions: list[int]
    """Where it begins, in tokens of all texts."""


def _find_in_full(
    items: Items, short: ShortItems, item: int, ids: npt.NDArray[np.int32], positions: Sequence[int]
) -> _InFull | None:
    """Return where a short item occurs with its answer, else where its question does; None: nowhere."""
    start = int(items.starts_I[item])
    both, question = (True, items.stops_I, short.is_item_I), (False, items.question_stops_I, short.is_question_I)
    for with_answer, stops_I, is_searched_I in (both, question):
        size = int(stops_I[item]) - start
        if not is_searched_I[item]:
            continue
        tokens = items.ids_T[start : start + size]
        if found := [at for at in positions if at >= 0 and np.array_equal(ids[at : at + size], tokens)]:
            return _InFull(with_answer, size, found)
    return None


def _row_of_short_item(text: int, item: int, found: _InFull) -> list[int]:
    row = [0] * N_COLUMNS
    row[TEXT], row[ITEM], row[PART], row[RULE] = text, item, int(found.with_answer), WHOLE
    row[LONGEST], row[LCS], row[N_SHORTER] = found.n_tokens, -1, 1
    return row


def _merged(found: Sequence[DocumentMatches]) -> DocumentMatches:
    """Return several matches as one, in the order of texts and items."""
    none = np.empty(0, np.int64)
    if not found:
        rows, pairs = none.reshape(0, N_COLUMNS), none.reshape(0, 2)
        return DocumentMatches(rows, none, pairs, none, none, none.reshape(0, N_ITEM_COLUMNS), pairs)
    rows = np.concatenate([one.rows_R for one in found])
    order = _strongest_of_each(rows, RULE)
    spans = _ragged([one.span_stops_R for one in found], [one.spans for one in found], order)
    ngrams = _ragged([one.ngram_stops_R for one in found], [one.ngrams for one in found], order)
    every_item, every_ngram = (np.concatenate([one[i] for one in found]) for i in (-2, -1))
    every_item = every_item[_strongest_of_each(every_item, RULE_OF_ITEM)]
    return DocumentMatches(rows[order], *spans, *ngrams, every_item, every_ngram)


def _strongest_of_each(rows: Ints, column: int) -> Ints:
    """Return which rows to keep, in the order of texts and items: the one with the strongest rule, where there are two.

    A short question may stand in a text in full that shares an n-gram with the item, too.
    """
    strength = np.array([RULES.index(rule) for rule in ("qwen2", "strict", "whole", "template")]).argsort()
    order = np.lexsort((strength[rows[:, column]], rows[:, ITEM], rows[:, TEXT]))
    pairs = rows[order][:, [TEXT, ITEM]]
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    return order[is_first]


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
