"""Longest common subsequences of token sequences, bit by bit (Hyyrö 2004); the tests compare rapidfuzz's LCSseq."""

import numpy as np
from numba import njit

from decontam.kernels.blocks import first_bits, lcs_step, ones

LANES = 8
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


@njit(nogil=True, cache=True)
def lcs_length(item, text, slots):
    """Return the length of the longest common subsequence.

    Args:
        item: word numbers, (tokens,) int32, none negative.
        text: word numbers, (tokens,) int32; -1 matches nothing.
        slots: (vocabulary + 1,) int32, all 0, and again when this returns; spares a set-up for each call.
    """
    n_blocks = (len(item) + 63) >> 6
    # row 0 is that of words which are not in the item, also of -1: the last of the slots is never set
    masks, n_distinct = np.zeros((len(item) + 1, n_blocks), np.uint64), 0
    for i in range(len(item)):
        if slots[item[i]] == 0:
            n_distinct += 1
            slots[item[i]] = n_distinct
        masks[slots[item[i]], i >> 6] |= np.uint64(1) << np.uint64(i & 63)
    # a zero bit at i: the best subsequence grows by one with the item's token i
    state = np.full(n_blocks, _ALL)
    if n_blocks == 1:
        state[0] = _one_block(text, slots, masks)
    else:
        _row_by_row(text, slots, masks, state)
    found = 0
    for i in range(len(item)):
        found += (state[i >> 6] >> np.uint64(i & 63)) & np.uint64(1) == np.uint64(0)
        slots[item[i]] = 0
    return found


@njit(nogil=True, cache=True)
def lcs_lengths(ids_T, starts, sizes, text, lows, highs, slots, masks):
    """Return the lengths for up to eight short items and the same text at once.

    Args:
        ids_T: all items' word numbers; `starts`: where each of the items begins; `sizes`: its tokens, at most 64.
        text: word numbers; each item is compared with it from `lows` to `highs` (one past); 0 in places without item.
        slots: as for `lcs_length`.
        masks: (at least 513, 8) uint64, all 0, and again when this returns.
    """
    n_distinct, states = 0, np.full(LANES, _ALL)
    for lane in range(len(starts)):
        for i in range(sizes[lane]):
            token = ids_T[starts[lane] + i]
            if slots[token] == 0:
                n_distinct += 1
                slots[token] = n_distinct
            masks[slots[token], lane] |= np.uint64(1) << np.uint64(i)
    to_states, to_masks, to_lows, to_highs = states.ctypes.data, masks.ctypes.data, lows.ctypes.data, highs.ctypes.data
    for t in range(lows[: len(starts)].min(), highs.max()):
        slot = slots[text[t]]
        if slot:
            lcs_step(to_states, to_masks + np.uint64(slot * 8 * LANES), to_lows, to_highs, t)
    found = np.zeros(LANES, np.int64)
    for lane in range(len(starts)):
        found[lane] = ones(~states[lane] & first_bits(sizes[lane]))
        for i in range(sizes[lane]):
            token = ids_T[starts[lane] + i]
            masks[slots[token], lane] = 0
    # only now: items may have words in common, whose slots the loop above still reads
    for lane in range(len(starts)):
        for i in range(sizes[lane]):
            slots[ids_T[starts[lane] + i]] = 0
    return found


@njit(nogil=True, cache=True)
def _one_block(text, slots, masks):
    # Hyyrö's step: the sum carries from each match to the next place where the subsequence may grow
    state = _ALL
    for token in text:
        both = state & masks[slots[token], 0]
        state = (state + both) | (state & ~both)
    return state


@njit(nogil=True, cache=True)
def _row_by_row(text, slots, masks, state):
    for token in text:
        slot, carry = slots[token], np.uint64(0)
        if slot == 0:
            continue
        for block in range(len(state)):
            old = state[block]
            both = old & masks[slot, block]
            # an addition over several words, lowest first; a sum below its summand has overflowed
            partial = old + both
            total = partial + carry
            carry = np.uint64(partial < old) | np.uint64(total < partial)
            state[block] = total | (old & ~both)
