"""The items as numbered tokens: read once, when the index is built.

An item's question comes first, then its answer or choices, then the runs in which else it may be asked (see
`decontam.forms`). Shape suffixes: I items, T tokens of all items in a row, R runs, S segments.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from decontam.bpe import BpeTokens, BpeVocabulary
from decontam.bpe_anchors import BpeItems, count_tokens, read_items
from decontam.forms import FIRST, LABELS, Run, Segments, plan_runs
from decontam.kernels.forms import join_segments
from decontam.kernels.words import UNKNOWN, Vocabulary, VocabularyBuilder, split
from decontam.references import Reference
from decontam.resolved import BETWEEN, fold_resolved
from decontam.rule import Rule

_BATCH_CHARACTERS = 250_000
"""Text of items that is folded at once: folded text takes 20 bytes a character and more."""

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Items:
    """The items' tokens."""

    ids_T: npt.NDArray[np.int32]
    """Numbers of words in the vocabulary."""
    is_start_T: Bools
    """Whether an n-gram that is searched for begins at a token."""
    starts_I: Ints
    """Where each item begins; its question comes first, its answer after it."""
    question_stops_I: Ints
    """One past the last token of each question."""
    stops_I: Ints
    """One past the last token of each answer; the item's runs follow."""
    sizes_I: Ints
    """Tokens of the n-grams by which each item is found."""
    items_R: Ints
    """The item of each run, ascending."""
    forms_R: Ints
    """Which form each run is of, as in `forms.Run`."""
    starts_R: Ints
    """Where each run begins."""
    stops_R: Ints
    """One past the last token of each run."""

    @property
    def n_tokens_I(self) -> Ints:
        """Tokens of question and answer."""
        return self.stops_I - self.starts_I

    @property
    def n_question_I(self) -> Ints:
        """Tokens of the question."""
        return self.question_stops_I - self.starts_I

    def owners(self, places_T: Ints) -> Ints:
        """Return the item of each of some tokens."""
        # an item without tokens begins where the next one does: the last one at or before a place is meant
        return np.searchsorted(self.starts_I, places_T, "right") - 1


class ReadItems(NamedTuple):
    """All items as they were read by the rule's tokenizer."""

    items: Items
    vocabulary: Vocabulary | BpeVocabulary
    """The tokens that items have."""
    hashes_T: npt.NDArray[np.uint64]
    """Hashes of words; none where tokens are a model's."""
    bpe: BpeItems | None
    """Where tokens are a model's: what to search for in raw bytes. None: tokens are words."""


def read_tokens(references: Sequence[Reference], rule: Rule) -> ReadItems:
    """Read the items with the rule's tokenizer.

    Raises:
        DecontamError: a tokenizer that is not there, or whose tokens don't say where a word begins.
    """
    return _read_words(references, rule) if rule.tokenizer == "words" else _read_bpe(references, rule)


class _Words(NamedTuple):
    """Words of some texts, one after another."""

    hashes: npt.NDArray[np.uint64]
    ids: npt.NDArray[np.int32]
    single: Bools
    stops: Ints
    """One past the last word of each text."""


def _read_words(references: Sequence[Reference], rule: Rule) -> ReadItems:
    """Read the items as words, batch by batch."""
    builder, (texts, first_I, last_I) = VocabularyBuilder(), _segment_texts(references)
    first = _words_of(texts, builder, rule)
    begins_S = np.concatenate(([0], first.stops[:-1]))
    starts_I, question_stops_I, stops_I = begins_S[first_I], first.stops[first_I], first.stops[last_I]
    sizes_I = _ngram_sizes(first.single, starts_I, stops_I, rule)
    forms, forms_of = _other_forms(references, question_stops_I - starts_I, sizes_I, len(texts))
    more = _words_of(forms, builder, rule)
    stops_S = np.concatenate((first.stops, more.stops + len(first.ids)))
    n_tokens_S = np.diff(stops_S, prepend=0).tolist()
    runs = plan_runs(references, Segments(n_tokens_S, first_I.tolist(), forms_of), sizes_I.tolist())
    begins_S = np.concatenate(([0], stops_S[:-1]))
    items_R = _ints(run.item for run in runs)
    places, is_start, n_tokens_R = join_segments(
        _ints(segment for run in runs for segment in run.segments),
        np.cumsum(_ints(len(run.segments) for run in runs)),
        _ints(run.ngrams for run in runs),
        sizes_I[items_R],
        begins_S,
        stops_S,
        len(LABELS),
    )
    sources_T, is_start_T, shifts_I, starts_R = _placed(
        starts_I, stops_I, sizes_I, items_R, n_tokens_R, places, is_start
    )
    items = Items(
        np.concatenate((first.ids, more.ids))[sources_T],
        is_start_T,
        starts_I + shifts_I,
        question_stops_I + shifts_I,
        stops_I + shifts_I,
        sizes_I,
        items_R,
        _ints(run.form for run in runs),
        starts_R,
        starts_R + n_tokens_R,
    )
    hashes_T = np.concatenate((first.hashes, more.hashes))[sources_T]
    return ReadItems(items, builder.vocabulary(), hashes_T, None)


def _placed(
    starts_I: Ints, stops_I: Ints, sizes_I: Ints, items_R: Ints, n_tokens_R: Ints, places: Ints, is_start: Bools
) -> tuple[Ints, Bools, Ints, Ints]:
    """Return the order in which each item's runs follow it, and where its parts are then.

    Returns:
        where each token comes from; whether an n-gram begins there; by how much items move; where runs begin.
    """
    n_base_I, base = stops_I - starts_I, int(starts_I[0])
    n_runs_I = np.bincount(items_R, n_tokens_R, minlength=len(starts_I)).astype(np.int64)
    shifts_I = np.cumsum(n_runs_I) - n_runs_I - base
    owners = np.repeat(items_R, n_tokens_R)
    at_base = np.arange(int(n_base_I.sum())) + np.repeat(shifts_I + base, n_base_I)
    at_runs = np.arange(len(places)) + (stops_I - base)[owners]
    sources_T, is_start_T = np.empty(len(at_base) + len(at_runs), np.int64), np.zeros(len(at_base) + len(at_runs), bool)
    sources_T[at_base], sources_T[at_runs] = np.arange(base, base + len(at_base)), places
    is_last = np.arange(base, base + len(at_base)) <= np.repeat(stops_I - sizes_I, n_base_I)
    is_start_T[at_base], is_start_T[at_runs] = is_last, is_start
    starts_R = np.cumsum(n_tokens_R) - n_tokens_R + (stops_I - base)[items_R]
    return sources_T, is_start_T, shifts_I, starts_R


def _words_of(texts: Sequence[str], builder: VocabularyBuilder, rule: Rule) -> _Words:
    """Return the words of texts, each of which ends with `BETWEEN`."""
    parts, stops, n_words = list[tuple[npt.NDArray[np.generic], ...]](), list[Ints](), 0
    for batch in _batches(texts):
        folded = fold_resolved("".join(batch), fold_case=rule.fold_case, markup=rule.markup)
        words = split(folded)
        ends = np.cumsum([len(text) for text in batch])
        stops.append(np.searchsorted(folded.begins[words.begins], ends) + n_words)
        parts.append((words.hashes, builder.add(words), words.single))
        n_words += len(words.hashes)
    if not parts:
        return _Words(np.empty(0, np.uint64), np.empty(0, np.int32), np.empty(0, np.bool_), np.empty(0, np.int64))
    hashes, ids, single = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _Words(hashes, ids, single, np.concatenate(stops).astype(np.int64))


def _read_bpe(references: Sequence[Reference], rule: Rule) -> ReadItems:
    """Read the items as a model's tokens: first to count them, then with their runs as texts."""
    tokenizer, (texts, first_I, last_I) = BpeTokens(rule.tokenizer), _segment_texts(references)
    n_tokens_S = count_tokens(_batches(texts), tokenizer, rule)
    sizes_I = np.full(len(references), rule.ngram_size, np.int64)
    forms, forms_of = _other_forms(references, n_tokens_S[first_I], sizes_I, len(texts))
    texts += forms
    n_of_forms = count_tokens(_batches(forms), tokenizer, rule)
    counts = np.concatenate((n_tokens_S, n_of_forms)).tolist()
    runs = plan_runs(references, Segments(counts, first_I.tolist(), forms_of), sizes_I.tolist())
    pairs, pair_I, pair_R = _pairs_of_texts(texts, first_I, last_I, runs)
    read = read_items(_batches(pairs, even=True), tokenizer, fold_case=rule.fold_case, markup=rule.markup)
    starts = np.concatenate(([0], read.stops_I[:-1])).astype(np.int64)
    starts_R, stops_R = starts[pair_R], read.stops_I[pair_R]
    is_start_T = np.zeros(len(read.ids), np.bool_)
    is_first_R = np.array([run.ngrams == FIRST for run in runs], np.bool_)
    n_ngrams_I = np.maximum(read.stops_I[pair_I] - starts[pair_I] - rule.ngram_size + 1, 0)
    # those of a run begin in its first segment, mostly the question
    n_ngrams_R = np.maximum(stops_R - starts_R - rule.ngram_size + 1, 0)
    n_ngrams_R = np.minimum(n_ngrams_R, _ints(counts[run.segments[0]] for run in runs))
    n_ngrams_R[is_first_R] = np.minimum(n_ngrams_R[is_first_R], 1)
    for begins, numbers in ((starts[pair_I], n_ngrams_I), (starts_R, n_ngrams_R)):
        is_start_T[np.repeat(begins - np.cumsum(numbers) + numbers, numbers) + np.arange(int(numbers.sum()))] = True
    # only the items' own tokens get a number: what a scan counts by token then is small
    known, ids = np.unique(read.ids, return_inverse=True)
    number_of = np.full(tokenizer.n_tokens, UNKNOWN, np.int32)
    number_of[known] = np.arange(len(known))
    items = Items(
        ids.astype(np.int32),
        is_start_T,
        starts[pair_I],
        read.question_stops_I[pair_I],
        read.stops_I[pair_I],
        sizes_I,
        _ints(run.item for run in runs),
        _ints(run.form for run in runs),
        starts_R,
        stops_R,
    )
    return ReadItems(items, BpeVocabulary(tokenizer, number_of, len(known)), np.empty(0, np.uint64), read)


def _ints(values: Iterable[int]) -> Ints:
    return np.fromiter(values, np.int64)


def _pairs_of_texts(
    texts: Sequence[str], first_I: Ints, last_I: Ints, runs: Sequence[Run]
) -> tuple[list[str], Ints, Ints]:
    """Return question and answer of each item in turn, then each of its runs with no question; which pair is whose."""
    pairs, pair_I, pair_R, at = list[str](), list[int](), list[int](), 0
    for item, (first, last) in enumerate(zip(first_I.tolist(), last_I.tolist(), strict=True)):
        pair_I.append(len(pairs) // 2)
        pairs += (texts[first], "".join(texts[first + 1 : last + 1]))
        while at < len(runs) and runs[at].item == item:
            pair_R.append(len(pairs) // 2)
            pairs += ("", "".join(texts[segment] for segment in runs[at].segments))
            at += 1
    return pairs, np.array(pair_I, np.int64), np.array(pair_R, np.int64)


def _segment_texts(references: Sequence[Reference]) -> tuple[list[str], Ints, Ints]:
    """Return all segments as texts: labels, then each item's question and parts; and each item's first and last one."""
    texts, first_I, last_I = [f"{label}{BETWEEN}" for label in LABELS], list[int](), list[int]()
    for reference in references:
        first_I.append(len(texts))
        texts.append(f"{reference.text}{BETWEEN}")
        texts += (f"{part}{BETWEEN}" for part in reference.parts)
        last_I.append(len(texts) - 1)
    return texts, np.array(first_I, np.int64), np.array(last_I, np.int64)


def _other_forms(
    references: Sequence[Reference], n_question_I: Ints, sizes_I: Ints, n_segments: int
) -> tuple[list[str], list[list[int]]]:
    """Return items' other texts as segments, and which are each item's; not those in which its question is found."""
    texts, forms_of = list[str](), list[list[int]]()
    for reference, is_found in zip(references, (n_question_I >= sizes_I).tolist(), strict=True):
        forms_of.append([])
        for form in reference.forms:
            if not (is_found and reference.text.strip() in form):
                forms_of[-1].append(n_segments + len(texts))
                texts.append(f"{form}{BETWEEN}")
    return texts, forms_of


def _batches(texts: Sequence[str], *, even: bool = False) -> Iterator[list[str]]:
    """Yield texts of together about so many characters as are folded at once.

    Args:
        even: never one of two texts that belong together.
    """
    batch, size = list[str](), 0
    for number, text in enumerate(texts):
        batch.append(text)
        size += len(text)
        if size >= _BATCH_CHARACTERS and not (even and number % 2 == 0):
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _ngram_sizes(single_T: Bools, starts_I: Ints, stops_I: Ints, rule: Rule) -> Ints:
    """Return each item's n-gram size: that of single characters where these are most of its tokens."""
    n_single_T1 = np.concatenate(([0], np.cumsum(single_T)))
    is_single_I = 2 * (n_single_T1[stops_I] - n_single_T1[starts_I]) > stops_I - starts_I
    words, single = rule.sizes
    return np.where(is_single_I, single, words).astype(np.int64)
