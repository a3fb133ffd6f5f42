"""The bit-parallel subsequence against rapidfuzz and the textbook."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import LCSseq

from decontam.kernels.lcs import LANES, lcs_length, lcs_lengths
from tests.decontam.slow import lcs

N_WORDS = 300
items = st.lists(st.integers(0, 6), min_size=1, max_size=150)
texts = st.lists(st.integers(-1, 6), max_size=200)


def ours(item, text):
    slots = np.zeros(N_WORDS + 1, np.int32)
    found = lcs_length(np.array(item, np.int32), np.array(text, np.int32), slots)
    assert (slots == 0).all()
    return found


@settings(max_examples=300)
@given(item=items, text=texts)
def test_length_is_rapidfuzzs_and_the_textbooks(item, text):
    known = [token if token >= 0 else N_WORDS + i for i, token in enumerate(text)]
    assert ours(item, text) == LCSseq.similarity(item, known) == lcs(item, known)


@settings(max_examples=300, deadline=None)
@given(
    pairs=st.lists(
        st.tuples(st.lists(st.integers(0, 6), min_size=1, max_size=64), st.integers(0, 80), st.integers(0, 90)),
        min_size=1,
        max_size=8,
    ),
    text=st.lists(st.integers(-1, 6), min_size=1, max_size=120),
)
def test_eight_at_once_are_as_one_by_one(pairs, text):
    ids = np.array([token for item, _, _ in pairs for token in item], np.int32)
    sizes = np.array([len(item) for item, _, _ in pairs], np.int64)
    lows, highs = np.zeros(LANES, np.int64), np.zeros(LANES, np.int64)
    for lane, (_, low, size) in enumerate(pairs):
        lows[lane], highs[lane] = min(low, len(text) - 1), min(low + size + 1, len(text))
    slots, masks = np.zeros(N_WORDS + 1, np.int32), np.zeros((513, LANES), np.uint64)
    found = lcs_lengths(ids, np.cumsum(sizes) - sizes, sizes, np.array(text, np.int32), lows, highs, slots, masks)
    assert not slots.any()
    assert not masks.any()
    for lane, (item, _, _) in enumerate(pairs):
        assert found[lane] == ours(item, text[lows[lane] : highs[lane]])


def test_long_sequences():
    rng = np.random.default_rng(0)
    for n_item, n_text in ((63, 500), (64, 500), (65, 5_000), (128, 64), (1_000, 3_000)):
        item, text = rng.integers(0, 50, n_item).tolist(), rng.integers(0, 50, n_text).tolist()
        assert ours(item, text) == LCSseq.similarity(item, text)
