"""What texts and each item have in common, once their shared n-grams are known. Numba.

A text may share n-grams with a thousand items that are made from one template, so all of it is computed here, for many
texts at once, and objects are made of the results only. The order of the work, for each text:

    group_by_item    all places where an item and the text share an n-gram, item by item
    _compare_item    for the question, and for question and answer: the longest common subsequence and the longest run
    _strongest       which items get a row, where there are too many

Shape suffixes: D texts, R rows of results, I items.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from decontam.kernels.hits import (
    add_spans,
    group_by_item,
    has_new_places,
    has_same_hits,
    is_template,
    longest_in_a_row,
    n_inside_part,
    only_run,
)
from decontam.kernels.lcs import LANES, lcs_length, lcs_lengths
from decontam.rule import QWEN2, STRICT, TEMPLATE

Ints = npt.NDArray[np.int64]

# Columns of a row; the first two are those of `every_item`, too.
TEXT = 0
"""Which of the texts."""
ITEM = 1
"""Which of the items."""
PART = 2
"""0: the row is about the question alone, for which the same rule applies; 1: about question and answer; 2: another
form of the item was found, and question and answer are compared."""
RULE = 3
"""The strongest rule that applies, a place in `rule.RULES`."""
N_SHARED = 4
"""Distinct shared n-grams."""
LONGEST = 5
"""Tokens of the longest run that both have."""
LCS = 6
"""Tokens of the longest common subsequence; -1: the rule does not ask for it."""
N_SHORTER = 7
"""Tokens of the shorter one of the two sequences that were compared."""
N_COLUMNS = 8
RULE_OF_ITEM = 2
"""Third column of `every_item`: the strongest rule that applies, as RULE."""
HAS_NGRAM = 3
"""Fourth column: whether question and answer have an n-gram of the text, be it a template or not."""
N_ITEM_COLUMNS = 4
OTHER_FORM = 2
"""Value of PART."""

_ROUNDING = 1e-9
"""A threshold that is a whole number may be computed a little above it (0.55 * 20 is 11.000000000000002)."""


class Texts(NamedTuple):
    """Texts as word numbers, one after another, each followed by UNKNOWN."""

    ids: npt.NDArray[np.int32]
    begins: Ints
    """Where each word begins in its text, in characters."""
    ends: Ints
    """One past the word's last character."""
    starts_D1: Ints
    """Where each text begins among the words; one more for the end of the last."""


class Targets(NamedTuple):
    """The items that texts are compared with, and the rule's numbers."""

    ids_T: npt.NDArray[np.int32]
    """Word numbers of all items in a row."""
    starts_I: Ints
    """Where each item begins among them; its question comes first, its answer after it."""
    question_stops_I: Ints
    """One past the question's last."""
    stops_I: Ints
    """One past the item's last."""
    benchmark_I: Ints
    """The number of each item's benchmark."""
    n_words: int
    """Distinct words of all items."""
    min_lcs: int
    """Tokens of the longest common subsequence, at least; 0 and min_lcs_ratio 0: no subsequences are computed."""
    min_lcs_ratio: float
    """Its share of the shorter sequence's tokens, at least."""
    whole_document: bool
    """Compare all of a text, not only what is around shared n-grams."""


class DocumentMatches(NamedTuple):
    """What texts have in common with items: a row for each text and item, in this order.

    Where a text has too many items, only its strongest ones have a row; `every_item` and `every_ngram` are complete.
    """

    rows_R: Ints
    """(rows, 8): see the columns above."""
    span_stops_R: Ints
    """How many of the spans belong to the rows up to this one."""
    spans: Ints
    """(spans, 2): [begin, end) of shared n-grams in the text, in characters; what overlaps or touches is one."""
    ngram_stops_R: Ints
    """How many of the n-grams belong to the rows up to this one."""
    ngrams: Ints
    """Numbers of the shared n-grams, ascending for each row."""
    every_item: Ints
    """(…, 4): text, item, rule and HAS_NGRAM, for all items for which a rule applies, with a row or without."""
    every_ngram: Ints
    """(…, 2): text and n-gram, for all n-grams of items that a text has, once."""

    @property
    def texts_R(self) -> Ints:
        """Which text each row is about."""
        return self.rows_R[:, TEXT]

    @property
    def items_R(self) -> Ints:
        """Which item each row is about."""
        return self.rows_R[:, ITEM]


class _Bag(NamedTuple):
    """How often each word is in a stretch of the text; an upper bound of subsequences that costs little."""

    ids: npt.NDArray[np.int32]
    """The text."""
    margin: int
    """Tokens before and after the stretch's shared n-grams that are counted, too."""
    stretch: Ints
    """(2,): the first and last n-gram of the stretch; -1: the bag is empty."""
    counts: npt.NDArray[np.int32]
    """(vocabulary,): 0 but for words of the stretch."""


class _Runs(NamedTuple):
    """What the last item's three parts have in n-grams: items made from one template mostly have the same."""

    n_inside: Ints
    """(3,): n-grams of the part; -1: nothing is known."""
    n_shared: Ints
    """(3,): distinct ones."""
    longest: Ints
    """(3,): tokens of the longest run."""


class _Lcs(NamedTuple):
    """A longest common subsequence."""

    length: int
    n_shorter: int
    """Tokens of the shorter sequence."""
    is_enough: bool
    """Whether it is as long as the qwen2 rule asks."""


class _Scratch(NamedTuple):
    """Arrays that are made once for all texts: whoever uses them leaves them as they were."""

    counts_I: Ints
    """(items,) 0"""
    cursors_I: Ints
    """(items,) 0"""
    slots: npt.NDArray[np.int32]
    """(vocabulary + 1,) 0"""
    bag: npt.NDArray[np.int32]
    """(vocabulary,) 0"""
    masks: npt.NDArray[np.uint64]
    """(513, 8) 0"""


@njit(nogil=True, cache=True)
def compare_texts(texts, positions, ngrams, table, targets, limit):
    """Return the `DocumentMatches` of texts, by the n-grams of one table.

    Args:
        texts: a `Texts`.
        positions: where n-grams of items begin among the texts' words, ascending.
        ngrams: their numbers in the table.
        table: the `NgramTable`.
        targets: a `Targets`.
        limit: keep only so many rows of a text, the strongest ones, besides the best one of each benchmark and of each
            set of places in the text: what a filter cuts out of the text then depends on no other row.
    """
    rows, spans, grams = np.empty((64, N_COLUMNS), np.int64), np.empty((64, 2), np.int64), np.empty((256, 1), np.int64)
    items, every = np.empty((64, N_ITEM_COLUMNS), np.int64), np.empty((256, 2), np.int64)
    n_rows, n_spans, n_grams, n_items, n_every, first = 0, 0, 0, 0, 0, 0
    span_stops, gram_stops = np.empty((64, 1), np.int64), np.empty((64, 1), np.int64)
    scratch = _scratch(len(targets.starts_I), targets.n_words)
    for text in range(len(texts.starts_D1) - 1):
        low, high, last = texts.starts_D1[text], texts.starts_D1[text + 1], first
        while last < len(positions) and positions[last] < high:
            last += 1
        if last == first:
            continue
        # without the UNKNOWN at its end
        ids = texts.ids[low : high - 1]
        hits, facts = _compare_text(
            ids, positions[first:last] - low, ngrams[first:last], table, targets, limit, scratch
        )
        items, every = _with_room(items, n_items + len(hits.items)), _with_room(every, n_every + last - first)
        for i in range(len(hits.items)):
            items[n_items, TEXT], items[n_items, ITEM] = text, facts[i, ITEM]
            items[n_items, RULE_OF_ITEM] = facts[i, RULE]
            last_place = targets.stops_I[hits.items[i]] - targets.starts_I[hits.items[i]] - table.size
            of_item = slice(hits.offsets[i], hits.offsets[i + 1])
            items[n_items, HAS_NGRAM] = hits.places[of_item].min() <= last_place
            n_items += 1
        for number in np.unique(ngrams[first:last]):
            every[n_every, 0], every[n_every, 1] = text, number
            n_every += 1
        for i in _strongest(hits, facts, targets.benchmark_I, limit):
            if len(hits.items) > limit and facts[i, RULE] != QWEN2:
                _compute_left_out_lcs(ids, hits, facts, i, table.size, targets, scratch.slots)
            of_item = slice(hits.offsets[i], hits.offsets[i + 1])
            rows, spans = _with_room(rows, n_rows + 1), _with_room(spans, n_spans + len(hits.positions[of_item]))
            grams = _with_room(grams, n_grams + len(hits.numbers[of_item]))
            span_stops, gram_stops = _with_room(span_stops, n_rows + 1), _with_room(gram_stops, n_rows + 1)
            rows[n_rows] = facts[i]
            rows[n_rows, TEXT] = text
            n_spans = add_spans(hits.positions[of_item] + low, table.size, texts.begins, texts.ends, spans, n_spans)
            for number in np.unique(hits.numbers[of_item]):
                grams[n_grams, 0] = number
                n_grams += 1
            span_stops[n_rows, 0], gram_stops[n_rows, 0] = n_spans, n_grams
            n_rows += 1
        first = last
    # copies, so that the buffers, up to twice as large, are freed
    return DocumentMatches(
        rows[:n_rows].copy(),
        span_stops[:n_rows, 0].copy(),
        spans[:n_spans].copy(),
        gram_stops[:n_rows, 0].copy(),
        grams[:n_grams, 0].copy(),
        items[:n_items].copy(),
        every[:n_every].copy(),
    )


@njit(nogil=True, cache=True)
def _scratch(n_items, n_words):
    return _Scratch(
        np.zeros(n_items, np.int64),
        np.zeros(n_items, np.int64),
        # one more, for UNKNOWN: -1 is the last place
        np.zeros(n_words + 1, np.int32),
        np.zeros(n_words, np.int32),
        np.zeros((64 * LANES + 1, LANES), np.uint64),
    )


@njit(nogil=True, cache=True)
def _with_room(table, n):
    """Return a table of at least n rows that begins as the old one."""
    if n <= len(table):
        return table
    return np.concatenate((table, np.empty((max(n, 2 * len(table)) - len(table), table.shape[1]), np.int64)))


@njit(nogil=True, cache=True)
def _compare_text(ids, positions, ngrams, table, targets, limit, scratch):
    """Return the hits of a text by item, and (items, 8) what it has in common with each of these."""
    hits, size = group_by_item(positions, ngrams, table, scratch), table.size
    facts = np.zeros((len(hits.items), N_COLUMNS), np.int64)
    # few items: all of them get a row, so all numbers are needed; many: a bound spares most of the subsequences
    is_exact = len(hits.items) <= limit
    known = _question_lcs(ids, hits, size, targets, scratch, is_exact)
    bag = _Bag(ids, _widest(hits.items, targets, size), np.full(2, -1, np.int64), scratch.bag)
    runs = _Runs(np.full(3, -1, np.int64), np.zeros(3, np.int64), np.zeros(3, np.int64))
    for i in range(len(hits.items)):
        if not (i and has_same_hits(hits.offsets, hits.positions, hits.places, i)):
            runs.n_inside[:] = -1
        _compare_item(i, ids, hits, facts, known, bag, runs, size, targets, scratch.slots, is_exact)
        item, start = hits.items[i], targets.starts_I[hits.items[i]]
        n_question, n_tokens = targets.question_stops_I[item] - start, targets.stops_I[item] - start
        if is_template(hits, i, runs.longest, n_question, n_tokens, size):
            facts[i, RULE] = TEMPLATE
    _empty_bag(bag)
    return hits, facts


@njit(nogil=True, cache=True, inline="always")
def _compare_item(i, ids, hits, facts, known, bag, runs, size, targets, slots, is_exact):
    """Write the row of one item: of the first of its parts that fulfils the rule, else of the first that is there."""
    item, has_lcs, is_found = hits.items[i], targets.min_lcs > 0 or targets.min_lcs_ratio > 0, False
    start, n_question = targets.starts_I[item], targets.question_stops_I[item] - targets.starts_I[item]
    low, high = hits.offsets[i], hits.offsets[i + 1]
    facts[i, ITEM], facts[i, N_SHORTER], n_inside = item, 1, np.int64(0)
    for part in range(3):
        n_tokens, n_before = targets.stops_I[item] - start if part else n_question, n_inside
        n_inside = high - low if part == OTHER_FORM else n_inside_part(hits.places, low, high, n_tokens - size)
        is_same = n_inside == n_before if part == OTHER_FORM else n_tokens == n_question
        if not n_inside or (is_found and (facts[i, RULE] == QWEN2 or is_same)):
            continue
        lcs = _Lcs(-1, min(len(ids), n_tokens), False)
        wanted = max(targets.min_lcs, int(np.ceil(targets.min_lcs_ratio * lcs.n_shorter - _ROUNDING)))
        if has_lcs and not part and known[i, 0] >= 0:
            lcs = _Lcs(
                known[i, 0], known[i, 1], _is_enough(known[i, 0], known[i, 1], targets.min_lcs, targets.min_lcs_ratio)
            )
        elif has_lcs and (
            is_exact
            or _may_be_enough(
                bag, hits.positions[low], hits.positions[high - 1], targets.ids_T, start, n_tokens, wanted
            )
        ):
            lcs = _best_lcs(ids, hits, i, n_tokens, part, size, targets, slots)
        elif has_lcs:
            lcs = _Lcs(0, lcs.n_shorter, False)
        if is_found and not lcs.is_enough:
            continue
        if n_inside != runs.n_inside[part]:
            _count_runs(hits, i, n_tokens, size, runs, part)
            runs.n_inside[part] = n_inside
        facts[i, PART] = part
        facts[i, RULE] = QWEN2 if lcs.is_enough else STRICT
        facts[i, LCS], facts[i, N_SHORTER] = lcs.length, lcs.n_shorter
        facts[i, N_SHARED], facts[i, LONGEST] = runs.n_shared[part], runs.longest[part]
        is_found = True
        if not has_lcs:
            break


@njit(nogil=True, cache=True, inline="always")
def _is_enough(length, n_shorter, min_lcs, min_lcs_ratio):
    """Whether a subsequence is as long as the rule asks."""
    return length >= min_lcs and length >= min_lcs_ratio * n_shorter - _ROUNDING


@njit(nogil=True, cache=True, inline="always")
def _may_be_enough(bag, first, last, ids_T, start, n_tokens, wanted):
    """Whether an item has enough words in common with a stretch of the text, in any order, for a subsequence."""
    if bag.stretch[0] != first or bag.stretch[1] != last:
        # items made from one template share the same stretch, so the bag is filled once for all of them
        _empty_bag(bag)
        _fill_bag(bag, first, last)
    return _n_in_common(bag.counts, ids_T, start, start + n_tokens) >= wanted


@njit(nogil=True, cache=True)
def _count_runs(hits, i, n_tokens, size, runs, part):
    """Count the distinct n-grams of a part of an item, and the tokens of its longest run."""
    of_item = slice(hits.offsets[i], hits.offsets[i + 1])
    is_inside = (hits.places[of_item] + size <= n_tokens) | (part == OTHER_FORM)
    runs.n_shared[part] = len(np.unique(hits.numbers[of_item][is_inside]))
    n_in_a_row = longest_in_a_row(hits.positions[of_item][is_inside], hits.places[of_item][is_inside])
    runs.longest[part] = n_in_a_row + size - 1


@njit(nogil=True, cache=True)
def _question_lcs(ids, hits, size, targets, scratch, is_exact):
    """Return (items, 2) lengths, and tokens of the shorter sequence, for short questions; a length of -1 for the rest.

    Short are those that fit into one 64-bit word and are compared with one stretch of the text. Eight are computed at
    once, which is worth it only where items are many.
    """
    known = np.full((len(hits.items), 2), -1, np.int64)
    if is_exact or (targets.min_lcs == 0 and targets.min_lcs_ratio == 0):
        return known
    chosen, starts, sizes = np.empty(LANES, np.int64), np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    lows, highs, n = np.zeros(LANES, np.int64), np.zeros(LANES, np.int64), 0
    # arrays taken out of their tuples once: numba counts references each time
    items, offsets, positions, places, _, _ = hits
    ids_T, starts_I, stops_I = targets.ids_T, targets.starts_I, targets.question_stops_I
    for i in range(len(items)):
        start = starts_I[items[i]]
        n_tokens = stops_I[items[i]] - start
        first, last = only_run(positions, places, offsets[i], offsets[i + 1], n_tokens - size, size)
        if first >= 0 and n_tokens <= 64:
            lows[n], highs[n] = _window(len(ids), first, last, n_tokens, size, targets.whole_document)
            chosen[n], starts[n], sizes[n] = i, start, n_tokens
            n += 1
        if n == LANES or (n and i + 1 == len(items)):
            found = lcs_lengths(ids_T, starts[:n], sizes[:n], ids, lows, highs, scratch.slots, scratch.masks)
            for lane in range(n):
                known[chosen[lane], 0] = found[lane]
                known[chosen[lane], 1] = min(highs[lane] - lows[lane], sizes[lane])
            # lanes without an item are compared with nothing
            lows[:], highs[:], n = 0, 0, 0
    return known


@njit(nogil=True, cache=True, inline="always")
def _window(n_ids, first, last, n_tokens, size, whole_document):
    """Return [low, high) of the text that an item is compared with, around the n-grams from `first` to `last`."""
    # so wide that asking for longer n-grams never adds a match: docs/decisions/2026-11-24-decontamination.md
    margin = max(2 * n_tokens, n_tokens + size)
    if whole_document:
        return 0, n_ids
    return max(0, first - margin), min(n_ids, last + size + margin)


@njit(nogil=True, cache=True)
def _widest(items, targets, size):
    """Return how many tokens before and after shared n-grams are compared with any of the items, at most."""
    longest = 0
    for item in items:
        longest = max(longest, targets.stops_I[item] - targets.starts_I[item])
    return 1 << 60 if targets.whole_document else max(2 * longest, longest + size) + size


@njit(nogil=True, cache=True)
def _fill_bag(bag, first, last):
    bag.stretch[0], bag.stretch[1] = first, last
    for i in range(max(0, first - bag.margin), min(len(bag.ids), last + bag.margin)):
        if bag.ids[i] >= 0:
            bag.counts[bag.ids[i]] += 1


@njit(nogil=True, cache=True)
def _empty_bag(bag):
    # word by word of the stretch: setting all of the vocabulary to 0 would cost more than the comparison
    first, last = bag.stretch[0], bag.stretch[1]
    if first >= 0:
        for i in range(max(0, first - bag.margin), min(len(bag.ids), last + bag.margin)):
            if bag.ids[i] >= 0:
                bag.counts[bag.ids[i]] = 0
    bag.stretch[:] = -1


@njit(nogil=True, cache=True)
def _n_in_common(counts, ids_T, start, stop):
    """Return how many of an item's tokens are in a bag: as many as any common subsequence has, or more."""
    n = 0
    for i in range(start, stop):
        n += counts[ids_T[i]] > 0
        counts[ids_T[i]] -= 1
    for i in range(start, stop):
        counts[ids_T[i]] += 1
    return n


@njit(nogil=True, cache=True)
def _best_lcs(ids, hits, i, n_tokens, part, size, targets, slots):
    """Return the best subsequence of the first tokens of an item and a window of the text: one for each run."""
    start, of_item = targets.starts_I[hits.items[i]], slice(hits.offsets[i], hits.offsets[i + 1])
    tokens = targets.ids_T[start : start + n_tokens]
    positions = hits.positions[of_item][(hits.places[of_item] + size <= n_tokens) | (part == OTHER_FORM)]
    best, is_first, begin = _Lcs(0, 1, False), True, 0
    for j in range(len(positions)):
        # a run ends where the next n-gram neither overlaps nor touches
        if not targets.whole_document and j + 1 < len(positions) and positions[j + 1] <= positions[j] + size:
            continue
        low, high = _window(len(ids), positions[begin], positions[j], n_tokens, size, targets.whole_document)
        n_shorter = min(high - low, n_tokens)
        length = lcs_length(tokens, ids[low:high], slots)
        is_enough = _is_enough(length, n_shorter, targets.min_lcs, targets.min_lcs_ratio)
        is_better = is_enough == best.is_enough and length > best.length
        if is_first or is_better or (is_enough and not best.is_enough):
            best, is_first = _Lcs(length, n_shorter, is_enough), False
        if targets.whole_document:
            break
        begin = j + 1
    return best


@njit(nogil=True, cache=True)
def _compute_left_out_lcs(ids, hits, facts, i, size, targets, slots):
    """Compute the subsequence of a row that was left out, since it is surely too short: the row shows its length."""
    if targets.min_lcs > 0 or targets.min_lcs_ratio > 0:
        item = hits.items[i]
        stop = targets.stops_I[item] if facts[i, PART] else targets.question_stops_I[item]
        best = _best_lcs(ids, hits, i, stop - targets.starts_I[item], facts[i, PART], size, targets, slots)
        facts[i, LCS], facts[i, N_SHORTER] = best.length, best.n_shorter


@njit(nogil=True, cache=True)
def _strongest(hits, facts, benchmark_I, limit):
    """Return which items get a row, ascending."""
    n = len(hits.items)
    if n <= limit:
        return np.arange(n)
    keys = np.empty(n, np.int64)
    for i in range(n):
        # rule first, then the number of n-grams, most first
        weakness = 2 if facts[i, RULE] == TEMPLATE else QWEN2 - facts[i, RULE]
        keys[i] = weakness * (1 << 40) - facts[i, N_SHARED]
    # mergesort is stable: equal ones stay in the order of the items, whatever the number of workers
    order, is_kept = np.argsort(keys, kind="mergesort"), np.zeros(n, np.bool_)
    seen_benchmark = np.zeros(benchmark_I.max() + 1, np.bool_)
    seen_places = np.full(1 << max(4, int(np.ceil(np.log2(2 * n)))), -1, np.int64)
    for rank in range(n):
        row = order[rank]
        benchmark = benchmark_I[hits.items[row]]
        is_new = has_new_places(hits, row, seen_places)
        is_kept[row] = is_new or rank < limit or not seen_benchmark[benchmark]
        seen_benchmark[benchmark] = True
    return np.flatnonzero(is_kept)
