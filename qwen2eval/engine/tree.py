"""The prefix tree of many token sequences: what they share is one node, and is computed once.

Sequences are sorted, and a node is made where neighbours part. A shared piece shorter than `min_shared` is not worth a
separate node: it is repeated in each of its branches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from qwen2eval.engine.kv import NodeKV

Tokens = NDArray[np.int64]

MIN_SHARED = 8
"""Tokens from which on a shared piece gets a node: below, the calls for one more part cost more than the tokens."""


@dataclass(eq=False, slots=True)
class Node:
    """A run of tokens that one or more sequences have behind the same prefix."""

    tokens: Tokens
    """Its own tokens, without those of the nodes above."""
    start: int
    """Tokens above it: the position of its first."""
    parent: "Node | None"
    children: list["Node"] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)
    """Indices of the sequences that end here."""
    n_waiting: int = 0
    """Sequences that end here or below and are not done; at 0 nobody needs its keys and values any more."""
    kv: "NodeKV | None" = None
    """Keys and values of its tokens, while they are kept."""

    @property
    def end(self) -> int:
        """Tokens up to its last: the position behind it."""
        return self.start + len(self.tokens)

    def path(self) -> list["Node"]:
        """Return the nodes from the top down to this one, the empty root left out."""
        nodes: list[Node] = []
        node: Node | None = self
        while node is not None and node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]


def build_tree(sequences: Sequence[Tokens], *, min_shared: int = MIN_SHARED) -> Node:
    """Return the root of the tree of `sequences`; equal ones end in the same node.

    Args:
        sequences: token ids, each (time,) int64 with at least one token.
    """
    root = Node(np.empty(0, np.int64), 0, None)
    # big-endian bytes sort as the tokens do, and a prefix before what it begins
    keys = [sequence.astype(">u4").tobytes() for sequence in sequences]
    open_nodes = [root]
    before: Tokens = root.tokens
    for index in sorted(range(len(sequences)), key=keys.__getitem__):
        tokens = sequences[index]
        shared = n_shared(before, tokens)
        # Else it equals the one before
        if shared < len(tokens):
            _branch(open_nodes, tokens, shared)
        open_nodes[-1].sequences.append(index)
        before = tokens
    # After the whole tree is built: only then is it known what each piece is shared by
    _fold(root, min_shared)
    return root


def walk(root: Node) -> Iterator[Node]:
    """Yield all nodes below `root`, each before its children, in the order of the sorted sequences."""
    stack = root.children[::-1]
    while stack:
        node = stack.pop()
        yield node
        # Reversed, because the stack is popped from its end
        stack.extend(node.children[::-1])


def sort_by_first_sequence(root: Node) -> None:
    """Reorder children by the lowest index at or below each, so that a walk ends sequences about as they were given.

    A text that is scored in several windows is then done soon after its first one, not when the last text is.
    """
    lowest: dict[Node, int] = {}
    # Children come after their parents in a walk, so backwards they are known first
    for node in (*reversed(list(walk(root))), root):
        node.children.sort(key=lowest.__getitem__)
        lowest[node] = min([*node.sequences, *(lowest[child] for child in node.children)], default=0)


def n_shared(first: Tokens, second: Tokens) -> int:
    """Return how many tokens two sequences begin with in common.

    >>> n_shared(np.array([1, 2, 3]), np.array([1, 2, 4, 5]))
    2
    """
    n = min(len(first), len(second))
    differs = np.flatnonzero(first[:n] != second[:n])
    return int(differs[0]) if len(differs) else n


def _branch(open_nodes: list[Node], tokens: Tokens, shared: int) -> None:
    """Make a leaf for `tokens`, which leave the path of open nodes behind `shared` tokens."""
    last = None
    while open_nodes[-1].end > shared:
        last = open_nodes.pop()
    parent = open_nodes[-1]
    if last is not None and parent.end < shared:
        # `last` is cut in two: what both share, and the rest
        upper = Node(last.tokens[: shared - last.start], last.start, parent, [last])
        parent.children[-1] = upper
        last.tokens, last.start, last.parent = last.tokens[shared - last.start :], shared, upper
        open_nodes.append(upper)
        parent = upper
    leaf = Node(tokens[parent.end :], parent.end, parent)
    parent.children.append(leaf)
    open_nodes.append(leaf)


def _fold(root: Node, min_shared: int) -> None:
    """Repeat shared pieces that are too short in each of their branches."""
    stack = [root]
    while stack:
        node = stack.pop()
        kept: list[Node] = []
        queue = node.children[::-1]
        while queue:
            child = queue.pop()
            if child.children and len(child.tokens) < min_shared:
                for below in child.children:
                    below.tokens = np.concatenate((child.tokens, below.tokens))
                    below.start, below.parent = child.start, node
                queue.extend(child.children[::-1])
                child.children = []
                if not child.sequences:
                    continue
            kept.append(child)
        node.children = kept
        stack.extend(kept)
