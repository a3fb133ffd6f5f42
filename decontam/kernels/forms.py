"""Runs of segments put together token by token, and which n-grams of items are their own. Numba.

Shape suffixes: I items, R runs, T tokens, S segments, G distinct n-grams, P postings, B benchmarks.
"""

import numpy as np
from numba import njit

_ACROSS, _FIRST = 0, 1
"""As in `decontam.forms`."""


@njit(nogil=True, cache=True)
def join_segments(segments, stops_R, kinds_R, sizes_R, begins_S, stops_S, n_labels):
    """Return the tokens of runs, as places among the segments' tokens, and where their n-grams begin.

    Args:
        segments: numbers of the runs' segments, one run after another; `stops_R`: one past those of each run.
        kinds_R: which n-grams are searched for, as in `forms.Run`.
        sizes_R: tokens of an n-gram.
        begins_S: first token of each segment; `stops_S`: one past its last.
        n_labels: segments with a smaller number are labels.

    Returns:
        places of tokens; whether an n-gram that is searched for begins at each, which is in the run's first segment;
        tokens of each run.
    """
    n, first = 0, 0
    for segment in segments:
        n += stops_S[segment] - begins_S[segment]
    places, is_start, n_tokens_R = np.empty(n, np.int64), np.zeros(n, np.bool_), np.zeros(len(stops_R), np.int64)
    is_label, n = np.zeros(n, np.bool_), 0
    for run in range(len(stops_R)):
        begin, size, kind = n, sizes_R[run], kinds_R[run]
        n_first = stops_S[segments[first]] - begins_S[segments[first]]
        for segment in segments[first : stops_R[run]]:
            for at in range(begins_S[segment], stops_S[segment]):
                if kind == _FIRST and n - begin == size:
                    break
                places[n], is_label[n] = at, segment < n_labels
                n += 1
        first = stops_R[run]
        n_in_window = 0
        for at in range(begin, n):
            n_in_window += is_label[at]
            start = at - size + 1
            if start >= begin:
                is_start[start] = start < begin + n_first and (kind != _ACROSS or n_in_window > 0)
                n_in_window -= is_label[start]
        n_tokens_R[run] = n - begin
    return places[:n].copy(), is_start[:n].copy(), n_tokens_R


@njit(nogil=True, cache=True)
def own_ngrams(offsets_G1, items_P, group_I, benchmark_I, most):
    """Say of each posting whether at most so many different items of any benchmark have the n-gram.

    Args:
        group_I: the first item with the same text as an item: these count as one.
        most: 0: all n-grams are own.
    """
    is_own_P, counts_B = np.ones(len(items_P), np.bool_), np.zeros(benchmark_I.max() + 1, np.int64)
    if most == 0:
        return is_own_P
    for ngram in range(len(offsets_G1) - 1):
        low, high = offsets_G1[ngram], offsets_G1[ngram + 1]
        n_other = 0
        for posting in range(low + 1, high):
            n_other += group_I[items_P[posting]] != group_I[items_P[low]]
        if n_other < most:
            continue
        # benchmark and group in one number
        pairs = np.unique(benchmark_I[items_P[low:high]] * len(group_I) + group_I[items_P[low:high]])
        for pair in pairs:
            counts_B[pair // len(group_I)] += 1
            if counts_B[pair // len(group_I)] > most:
                is_own_P[low:high] = False
        for pair in pairs:
            counts_B[pair // len(group_I)] = 0
    return is_own_P


@njit(nogil=True, cache=True)
def rarest_windows(ids_T, starts, lengths, counts, size):
    """Return for each stretch of tokens where its window of `size` tokens begins whose words are the rarest.

    Args:
        counts: how often each word is in all items.
    """
    found = np.empty(len(starts), np.int64)
    for i in range(len(starts)):
        best, found[i] = np.inf, starts[i]
        for at in range(starts[i], starts[i] + lengths[i] - size + 1):
            weight = 0.0
            for j in range(size):
                weight += np.log(counts[ids_T[at + j]])
            if weight < best:
                best, found[i] = weight, at
    return found


@njit(nogil=True, cache=True)
def other_holders(ids_T, items, texts_at, lengths_I, starts_I, stops_I, group_I, benchmark_I):
    """Count for each item in how many other items of its benchmark its first tokens stand, candidates given.

    Args:
        items: the item of each candidate; `texts_at`: where its first token would be among all items' tokens.
        lengths_I: how many tokens of each item must stand there.

    Returns:
        (items,) distinct groups other than the item's own.
    """
    counts, last = np.zeros(len(starts_I), np.int64), np.full(len(starts_I), -1, np.int64)
    for i in range(len(items)):
        item, at = items[i], texts_at[i]
        owner = np.searchsorted(starts_I, at, "right") - 1
        while owner >= 0 and stops_I[owner] == starts_I[owner]:
            owner -= 1
        n = lengths_I[item]
        if at < 0 or at + n > stops_I[owner] or benchmark_I[owner] != benchmark_I[item]:
            continue
        if group_I[owner] == group_I[item] or group_I[owner] == last[item]:
            continue
        is_same = True
        for j in range(n):
            if ids_T[at + j] != ids_T[starts_I[item] + j]:
                is_same = False
                break
        if is_same:
            counts[item] += 1
            last[item] = group_I[owner]
    return counts
