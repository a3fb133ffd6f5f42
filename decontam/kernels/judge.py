"""What texts and each item have in common, once their shared n-grams are known. Numba.

A text may share n-grams with a thousand items that are made from one template, so all of it is computed here, for many
texts at once, and objects are made of the results only.

Shape suffixes: D texts, R rows of results, I items.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from decontam.kernels.lcs import LANES, lcs_length, lcs_lengths

Ints = npt.NDArray[np.int64]
TEXT, ITEM, WITH_ANSWER, HOLDS, N_SHARED, LONGEST, LCS, N_SHORTER = range(8)
"""Columns of a row: which text, which item, whether it is about question and answer (else about the question, for which
as much holds), whether the rule of the longest common subsequence holds, distinct shared n-grams, tokens of the longest
run that both have, of the longest common subsequence, and of the shorter one of the two sequences compared."""


class Texts(NamedTuple):
    """Texts as word numbers, one after another, each followed by UNKNOWN."""

    ids: npt.NDArray[np.int32]
    begins: Ints
    """Where each word stands in its text, in characters; `ends`: one past."""
    ends: Ints
    starts_D1: Ints
    """Where each text begins among the words; one more for the end of the last."""


class Sought(NamedTuple):
    """The items, as in `index.Items`, and the rule's numbers."""

    ids_T: npt.NDArray[np.int32]
    starts_I: Ints
    question_stops_I: Ints
    stops_I: Ints
    benchmark_I: Ints
    n_words: int
    """Of the vocabulary."""
    min_lcs: int
    """0 and min_lcs_ratio 0: no subsequences are computed."""
    min_lcs_ratio: float
    whole_document: bool
    """Compare all of a text, not only what is around shared n-grams."""


class Judged(NamedTuple):
    """Rows in the order of texts and items, only the strongest of a text where there are too many."""

    rows_R: Ints
    """(rows, 8)"""
    span_stops_R: Ints
    """How many spans are the rows' up to this one."""
    spans: Ints
    """(spans, 2): where shared n-grams stand in the text, in characters; what overlaps or touches is one."""
    ngram_stops_R: Ints
    ngrams: Ints
    """The shared n-grams' numbers, ascending for each row."""
    every_item: Ints
    """(…, 3): text, item, and whether the rule of the subsequence holds, for all items that share an n-gram."""
    every_ngram: Ints
    """(…, 2): text and n-gram, once."""


class _One(NamedTuple):
    """What one text and its items have in common: a number for each item, ascending."""

    items: Ints
    facts: Ints
    """(items, 8), as the rows."""
    offsets: Ints
    """Which of the following are an item's: from [i] to [i + 1]."""
    positions: Ints
    """Of shared n-grams in the text, ascending for each item."""
    places: Ints
    """In the item."""
    numbers: Ints


class _Scratch(NamedTuple):
    """Arrays that are as they were after each use."""

    counts_I: Ints
    cursors_I: Ints
    slots: npt.NDArray[np.int32]
    """(vocabulary + 1,) 0"""
    bag: npt.NDArray[np.int32]
    """(vocabulary,) 0"""
    masks: npt.NDArray[np.uint64]
    """(513, 8) 0"""


@njit(nogil=True, cache=True)
def judge_texts(texts, positions, ngrams, table, sought, limit):
    """Return the fields of `Judged`.

    Args:
        positions: of n-grams in the texts that items have, ascending; `ngrams`: their numbers.
        table: the `NgramTable`.
        limit: keep only so many rows of a text, those for which most holds, besides the best one of each benchmark and
            of each set of places in the text: what is cut out of it then depends on no other row.
    """
    rows, spans, grams = np.empty((64, 8), np.int64), np.empty((64, 2), np.int64), np.empty((256, 1), np.int64)
    items, every = np.empty((64, 3), np.int64), np.empty((256, 2), np.int64)
    n_rows, n_spans, n_grams, n_items, n_every, first = 0, 0, 0, 0, 0, 0
    span_stops, gram_stops = np.empty((64, 1), np.int64), np.empty((64, 1), np.int64)
    scratch = _scratch(len(sought.starts_I), sought.n_words)
    for text in range(len(texts.starts_D1) - 1):
        low, high, last = texts.starts_D1[text], texts.starts_D1[text + 1], first
        while last < len(positions) and positions[last] < high:
            last += 1
        if last == first:
            continue
        one = _judge(
            texts.ids[low : high - 1], positions[first:last] - low, ngrams[first:last], table, sought, limit, scratch
        )
        items, every = _with_room(items, n_items + len(one.items)), _with_room(every, n_every + last - first)
        for i in range(len(one.items)):
            items[n_items, 0], items[n_items, 1], items[n_items, 2] = text, one.items[i], one.facts[i, HOLDS]
            n_items += 1
        for number in np.unique(ngrams[first:last]):
            every[n_every, 0], every[n_every, 1] = text, number
            n_every += 1
        for i in _strongest(one, sought.benchmark_I, limit):
            if len(one.items) > limit and not one.facts[i, HOLDS]:
                _exact(texts.ids[low : high - 1], one, i, table.size, sought, scratch.slots)
            own = slice(one.offsets[i], one.offsets[i + 1])
            rows, spans = _with_room(rows, n_rows + 1), _with_room(spans, n_spans + len(one.positions[own]))
            grams = _with_room(grams, n_grams + len(one.numbers[own]))
            span_stops, gram_stops = _with_room(span_stops, n_rows + 1), _with_room(gram_stops, n_rows + 1)
            rows[n_rows] = one.facts[i]
            rows[n_rows, TEXT] = text
            n_spans = _add_spans(one.positions[own] + low, table.size, texts.begins, texts.ends, spans, n_spans)
            for number in np.unique(one.numbers[own]):
                grams[n_grams, 0] = number
                n_grams += 1
            span_stops[n_rows, 0], gram_stops[n_rows, 0] = n_spans, n_grams
            n_rows += 1
        first = last
    stops = span_stops[:n_rows, 0].copy(), gram_stops[:n_rows, 0].copy()
    return (
        rows[:n_rows].copy(),
        stops[0],
        spans[:n_spans].copy(),
        stops[1],
        grams[:n_grams, 0].copy(),
        items[:n_items].copy(),
        every[:n_every].copy(),
    )


@njit(nogil=True, cache=True)
def _scratch(n_items, n_words):
    return _Scratch(
        np.zeros(n_items, np.int64),
        np.zeros(n_items, np.int64),
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
def _judge(ids, positions, ngrams, table, sought, limit, scratch):
    """Return what a text has in common with each item that shares one of these n-grams."""
    items, offsets, at, places, numbers = _grouped(positions, ngrams, table, scratch)
    facts, has_lcs = np.zeros((len(items), 8), np.int64), sought.min_lcs > 0 or sought.min_lcs_ratio > 0
    is_exact, kept_before = len(items) <= limit, np.full(2, -1, np.int64)
    shared, longest = np.zeros(2, np.int64), np.zeros(2, np.int64)
    bag = _Bag(ids, _widest(items, sought, table.size), scratch.bag)
    first, last = -1, -1  # n-grams of the text that the bag is about
    known, known_shorter = _question_lcs(ids, items, offsets, at, places, table.size, sought, scratch, is_exact)
    for i in range(len(items)):
        item, low, high = items[i], offsets[i], offsets[i + 1]
        start, n_both = sought.starts_I[item], sought.stops_I[item] - sought.starts_I[item]
        n_question, is_found = sought.question_stops_I[item] - start, False
        if not (i and _same_rows(at, places, offsets, i)):
            kept_before[:] = -1
        facts[i, ITEM], facts[i, N_SHORTER] = item, 1
        for part in range(2):
            n_tokens = n_both if part else n_question
            n_kept = _n_kept(places, low, high, n_tokens - table.size)
            if not n_kept or (is_found and (facts[i, HOLDS] or n_tokens == n_question)):
                continue
            length, shorter, is_held = 0, min(len(ids), n_tokens), False
            if has_lcs and part == 0 and known[i] >= 0:
                length, shorter = known[i], known_shorter[i]
                is_held = length >= sought.min_lcs and length >= sought.min_lcs_ratio * shorter - 1e-9
            elif has_lcs:
                is_hopeless = False
                if not is_exact:
                    if (at[low], at[high - 1]) != (first, last):
                        _empty_bag(bag, first, last)
                        first, last = at[low], at[high - 1]
                        _fill_bag(bag, first, last)
                    wanted = max(sought.min_lcs, int(np.ceil(sought.min_lcs_ratio * shorter - 1e-9)))
                    is_hopeless = _in_common(bag.counts, sought.ids_T, start, start + n_tokens) < wanted
                if not is_hopeless:
                    own = at[low:high][places[low:high] + table.size <= n_tokens]
                    tokens = sought.ids_T[start : start + n_tokens]
                    length, shorter, is_held = _best_lcs(ids, tokens, own, table.size, sought, scratch.slots)
            if is_found and not is_held:
                continue
            if n_kept != kept_before[part]:
                kept = places[low:high] + table.size <= n_tokens
                shared[part] = len(np.unique(numbers[low:high][kept]))
                longest[part] = _longest(at[low:high][kept], places[low:high][kept]) + table.size - 1
                kept_before[part] = n_kept
            facts[i, WITH_ANSWER] = is_found or part == 1
            facts[i, HOLDS], facts[i, LCS], facts[i, N_SHORTER] = is_held, length, shorter
            facts[i, N_SHARED], facts[i, LONGEST] = shared[part], longest[part]
            is_found = True
            if not has_lcs:
                break
    _empty_bag(bag, first, last)
    return _One(items, facts, offsets, at, places, numbers)


@njit(nogil=True, cache=True)
def _question_lcs(ids, items, offsets, at, places, size, sought, scratch, is_exact):
    """Return the lengths for short questions that are compared with one stretch of the text; -1 for others.

    Also the tokens of the shorter sequence. Eight are computed at once, which is worth it where items are many.
    """
    known, shorter = np.full(len(items), -1, np.int64), np.ones(len(items), np.int64)
    if is_exact or (sought.min_lcs == 0 and sought.min_lcs_ratio == 0):
        return known, shorter
    chosen, starts, sizes = np.empty(LANES, np.int64), np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    lows, highs, n = np.zeros(LANES, np.int64), np.zeros(LANES, np.int64), 0
    for i in range(len(items)):
        start = sought.starts_I[items[i]]
        n_tokens = sought.question_stops_I[items[i]] - start
        first, last = _only_run(at, places, offsets[i], offsets[i + 1], n_tokens - size, size)
        if first >= 0 and n_tokens <= 64:
            margin = max(2 * n_tokens, n_tokens + size)
            lows[n] = 0 if sought.whole_document else max(0, first - margin)
            highs[n] = len(ids) if sought.whole_document else min(len(ids), last + size + margin)
            chosen[n], starts[n], sizes[n] = i, start, n_tokens
            n += 1
        if n == LANES or (n and i + 1 == len(items)):
            found = lcs_lengths(sought.ids_T, starts[:n], sizes[:n], ids, lows, highs, scratch.slots, scratch.masks)
            for lane in range(n):
                known[chosen[lane]] = found[lane]
                shorter[chosen[lane]] = min(highs[lane] - lows[lane], sizes[lane])
            lows[:], highs[:], n = 0, 0, 0
    return known, shorter


@njit(nogil=True, cache=True)
def _only_run(at, places, low, high, last_place, size):
    """Return the first and last n-gram of a part of an item if each overlaps or touches the next, else -1 for both."""
    first = last = np.int64(-1)
    for j in range(low, high):
        if places[j] <= last_place:
            if last >= 0 and at[j] > last + size:
                return np.int64(-1), np.int64(-1)
            first, last = at[j] if first < 0 else first, at[j]
    return first, last


@njit(nogil=True, cache=True)
def _grouped(positions, ngrams, table, scratch):
    """Return each item once, and all its hits: offsets, positions, places, n-grams."""
    counts, cursors, n = scratch.counts_I, scratch.cursors_I, 0
    for ngram in ngrams:
        n += table.offsets_G1[ngram + 1] - table.offsets_G1[ngram]
    found, n_items = np.empty(n, np.int64), 0
    for ngram in ngrams:
        for posting in range(table.offsets_G1[ngram], table.offsets_G1[ngram + 1]):
            item = table.items_P[posting]
            if not counts[item]:
                found[n_items] = item
                n_items += 1
            counts[item] += 1
    items = np.sort(found[:n_items])
    offsets = np.zeros(n_items + 1, np.int64)
    for i in range(n_items):
        cursors[items[i]] = offsets[i]
        offsets[i + 1] = offsets[i] + counts[items[i]]
        counts[items[i]] = 0
    at, places, numbers = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    for i in range(len(ngrams)):
        for posting in range(table.offsets_G1[ngrams[i]], table.offsets_G1[ngrams[i] + 1]):
            cursor = cursors[table.items_P[posting]]
            at[cursor], places[cursor], numbers[cursor] = positions[i], table.places_P[posting], ngrams[i]
            cursors[table.items_P[posting]] += 1
    for item in items:
        cursors[item] = 0
    return items, offsets, at, places, numbers


@njit(nogil=True, cache=True)
def _same_rows(at, places, offsets, i):
    """Whether item i shares the same n-grams at the same places as the one before."""
    before, low, high = offsets[i - 1], offsets[i], offsets[i + 1]
    if high - low != low - before:
        return False
    for j in range(high - low):
        if at[low + j] != at[before + j] or places[low + j] != places[before + j]:
            return False
    return True


@njit(nogil=True, cache=True)
def _n_kept(places, low, high, last):
    """Return how many n-grams lie in a part of an item, which the last one that does begins at."""
    n = 0
    for i in range(low, high):
        n += places[i] <= last
    return n


class _Bag(NamedTuple):
    """The words around a stretch of a text, without their order."""

    ids: npt.NDArray[np.int32]
    margin: int
    counts: npt.NDArray[np.int32]


@njit(nogil=True, cache=True)
def _widest(items, sought, size):
    """Return how many tokens before and behind shared n-grams are compared with any of the items, at most."""
    longest = 0
    for item in items:
        longest = max(longest, sought.stops_I[item] - sought.starts_I[item])
    return 1 << 60 if sought.whole_document else max(2 * longest, longest + size) + size


@njit(nogil=True, cache=True)
def _fill_bag(bag, first, last):
    for i in range(max(0, first - bag.margin), min(len(bag.ids), last + bag.margin)):
        if bag.ids[i] >= 0:
            bag.counts[bag.ids[i]] += 1


@njit(nogil=True, cache=True)
def _empty_bag(bag, first, last):
    if first >= 0:
        for i in range(max(0, first - bag.margin), min(len(bag.ids), last + bag.margin)):
            if bag.ids[i] >= 0:
                bag.counts[bag.ids[i]] = 0


@njit(nogil=True, cache=True)
def _in_common(counts, ids_T, start, stop):
    """Return how many of an item's tokens are in a bag: as long as any common subsequence, or longer."""
    n = 0
    for i in range(start, stop):
        n += counts[ids_T[i]] > 0
        counts[ids_T[i]] -= 1
    for i in range(start, stop):
        counts[ids_T[i]] += 1
    return n


@njit(nogil=True, cache=True)
def _best_lcs(ids, item, positions, size, sought, slots):
    """Return length, tokens of the shorter sequence, and whether the rule holds, for the best sequence."""
    best_length, best_shorter, best_holds, is_first = 0, 1, False, True
    margin, begin = max(2 * len(item), len(item) + size), 0
    for i in range(len(positions)):
        # a run ends where the next n-gram neither overlaps nor touches
        if not sought.whole_document and i + 1 < len(positions) and positions[i + 1] <= positions[i] + size:
            continue
        if sought.whole_document:
            low, high = 0, len(ids)
        else:
            low, high = max(0, positions[begin] - margin), min(len(ids), positions[i] + size + margin)
        shorter = min(high - low, len(item))
        length = lcs_length(item, ids[low:high], slots)
        # a ratio that should be exact may come out a hair below it
        holds = length >= sought.min_lcs and length >= sought.min_lcs_ratio * shorter - 1e-9
        if is_first or (holds and not best_holds) or (holds == best_holds and length > best_length):
            best_length, best_shorter, best_holds, is_first = length, shorter, holds, False
        if sought.whole_document:
            break
        begin = i + 1
    return best_length, best_shorter, best_holds


@njit(nogil=True, cache=True)
def _exact(ids, one, i, size, sought, slots):
    """Compute the subsequence of a row that was left out, since it is surely too short."""
    if sought.min_lcs > 0 or sought.min_lcs_ratio > 0:
        item, own = one.items[i], slice(one.offsets[i], one.offsets[i + 1])
        stop = sought.stops_I[item] if one.facts[i, WITH_ANSWER] else sought.question_stops_I[item]
        tokens = sought.ids_T[sought.starts_I[item] : stop]
        positions = one.positions[own][one.places[own] + size <= len(tokens)]
        length, shorter, _ = _best_lcs(ids, tokens, positions, size, sought, slots)
        one.facts[i, LCS], one.facts[i, N_SHORTER] = length, shorter


@njit(nogil=True, cache=True)
def _longest(positions, places):
    """Return how many n-grams follow each other both in the text and in the item, at most."""
    # those of one diagonal stand together, in the order of the text
    keys = np.sort((positions - places + (1 << 31)) * (1 << 32) + positions)
    best = run = 1
    for i in range(1, len(keys)):
        run = run + 1 if keys[i] == keys[i - 1] + 1 else 1
        best = max(best, run)
    return best


@njit(nogil=True, cache=True)
def _strongest(one, benchmark_I, limit):
    """Return the rows that are kept, ascending."""
    n = len(one.items)
    if n <= limit:
        return np.arange(n)
    keys = np.empty(n, np.int64)
    for i in range(n):
        keys[i] = (1 - one.facts[i, HOLDS]) * (1 << 40) - one.facts[i, N_SHARED]
    order, is_kept = np.argsort(keys, kind="mergesort"), np.zeros(n, np.bool_)
    seen_benchmark = np.zeros(benchmark_I.max() + 1, np.bool_)
    seen_places = np.full(1 << max(4, int(np.ceil(np.log2(2 * n)))), -1, np.int64)
    for rank in range(n):
        row = order[rank]
        benchmark = benchmark_I[one.items[row]]
        is_new = _is_new(one, row, seen_places)
        is_kept[row] = is_new or rank < limit or not seen_benchmark[benchmark]
        seen_benchmark[benchmark] = True
    return np.flatnonzero(is_kept)


@njit(nogil=True, cache=True)
def _is_new(one, row, seen):
    """Whether no row before had its n-grams at the same places of the text; remember it."""
    low, n, key = one.offsets[row], one.offsets[row + 1] - one.offsets[row], np.uint64(0)
    for i in range(low, low + n):
        key = (key ^ np.uint64(one.positions[i])) * np.uint64(0x9E3779B97F4A7C15)
    at = int(key >> np.uint64(32)) & (len(seen) - 1)
    while seen[at] >= 0:
        other = one.offsets[seen[at]]
        is_same = one.offsets[seen[at] + 1] - other == n
        for i in range(n):
            is_same = is_same and one.positions[low + i] == one.positions[other + i]
        if is_same:
            return False
        at = (at + 1) & (len(seen) - 1)
    seen[at] = row
    return True


@njit(nogil=True, cache=True)
def _add_spans(positions, size, begins, ends, spans, n):
    """Write the runs of n-grams that overlap or touch; positions ascend, and may repeat."""
    first = last = positions[0]
    for position in positions:
        if position > last + size:
            spans[n, 0], spans[n, 1] = begins[first], ends[last + size - 1]
            n += 1
            first = position
        last = position
    spans[n, 0], spans[n, 1] = begins[first], ends[last + size - 1]
    return n + 1
