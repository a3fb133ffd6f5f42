"""The prefix tree against the set of all prefixes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen2eval.engine.tree import build_tree, n_shared, walk

sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=12)


def arrays(lists):
    return [np.array(tokens, np.int64) for tokens in lists]


@given(sequences, st.sampled_from([1, 2, 4, 100]))
def test_every_path_spells_its_sequences(lists, min_shared):
    root = build_tree(arrays(lists), min_shared=min_shared)
    found = []
    for node in walk(root):
        assert node.start == node.parent.end
        assert node in node.parent.children
        assert node.sequences or len(node.children) > 1, "a node ends a sequence or is a branch"
        assert not node.children or len(node.tokens) >= min_shared
        for index in node.sequences:
            assert np.concatenate([above.tokens for above in node.path()]).tolist() == lists[index]
            found.append(index)
    assert sorted(found) == list(range(len(lists)))


@given(sequences)
def test_nothing_shared_is_repeated(lists):
    root = build_tree(arrays(lists), min_shared=1)
    prefixes = {tuple(tokens[:n]) for tokens in lists for n in range(1, len(tokens) + 1)}
    assert sum(len(node.tokens) for node in walk(root)) == len(prefixes)


@given(sequences)
def test_each_sequence_alone_is_a_leaf_without_sharing(lists):
    root = build_tree(arrays(lists), min_shared=100)
    assert all(not node.children for node in walk(root))
    assert sum(len(node.tokens) for node in walk(root)) == sum(map(len, {tuple(tokens) for tokens in lists}))


def test_walk_goes_by_the_sorted_sequences_and_parents_first():
    lists = [[2, 2], [1, 1, 1], [1, 1, 2], [1, 1]]
    visited = [index for node in walk(build_tree(arrays(lists), min_shared=1)) for index in node.sequences]
    assert visited == [3, 1, 2, 0]


def test_large_token_ids_sort_as_numbers():
    """Bytes of little-endian numbers would put 256 before 1, and tear shared prefixes apart."""
    root = build_tree(arrays([[1, 5, 5], [256, 7], [1, 5, 6], [256, 8]]), min_shared=1)
    assert [node.tokens.tolist() for node in root.children] == [[1, 5], [256]]


@pytest.mark.parametrize(("first", "second", "n"), [([1, 2], [1, 2], 2), ([1], [1, 2], 1), ([3], [1], 0)])
def test_shared(first, second, n):
    assert n_shared(*arrays([first, second])) == n
