"""Longest common subsequences of token sequences, bit by bit (Hyyrö 2004); the tests compare rapidfuzz's LCSseq."""

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def lcs_length(item, text, slots, at_least):
    """Return the length of the longest common subsequence, or some smaller number if it is under `at_least`.

    Args:
        item: word numbers, (tokens,) int32, none negative.
        text: word numbers, (tokens,) int32; negative ones match nothing.
        slots: (vocabulary,) int32, all -1, and again when this returns; spares a set-up for each call.
        at_least: the result of interest; a cheap bound, words in common in any order, is tried first.
    """
    n_distinct = 0
    for token in item:
        if slots[token] < 0:
            slots[token] = n_distinct
            n_distinct += 1
    masks, counts = np.zeros((n_distinct, (len(item) + 63) >> 6), np.uint64), np.zeros(n_distinct, np.int64)
    for i in range(len(item)):
        slot = slots[item[i]]
        masks[slot, i >> 6] |= np.uint64(1) << np.uint64(i & 63)
        counts[slot] += 1
    in_common = 0
    for token in text:
        if token >= 0 and slots[token] >= 0 and counts[slots[token]] > 0:
            counts[slots[token]] -= 1
            in_common += 1
    found = 0
    if in_common >= at_least:
        found = _row_by_row(text, slots, masks, len(item))
    for token in item:
        slots[token] = -1
    return found


@njit(nogil=True, cache=True)
def _row_by_row(text, slots, masks, n_item):
    n_blocks = masks.shape[1]
    # a zero bit at i: the best subsequence grows by one with the item's token i
    state = np.full(n_blocks, np.uint64(0xFFFFFFFFFFFFFFFF))
    for token in text:
        if token < 0 or slots[token] < 0:
            continue
        mask, carry = masks[slots[token]], np.uint64(0)
        for block in range(n_blocks):
            old = state[block]
            both = old & mask[block]
            partial = old + both
            total = partial + carry
            carry = np.uint64(1) if partial < old or total < partial else np.uint64(0)
            state[block] = total | (old & ~both)
    found = 0
    for i in range(n_item):
        if (state[i >> 6] >> np.uint64(i & 63)) & np.uint64(1) == np.uint64(0):
            found += 1
    return found
