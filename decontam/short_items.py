"""Questions and items that are too short for an n-gram, and are searched for in full.

A question of a few common words stands in many texts, so one that other items of the benchmark hold, too, is not
searched for. Each text is looked for by its rarest words in a row, which are in fewer documents than its first ones.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from decontam.items import Items
from decontam.kernels.forms import other_holders, rarest_windows
from decontam.kernels.ngrams import NgramTable, build_ngrams
from decontam.kernels.words import UNKNOWN
from decontam.rule import Rule

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ShortItems:
    """What is searched for in full."""

    is_question_I: Bools
    """Whether an item's question is."""
    is_item_I: Bools
    """Whether question and answer together are."""
    windows: NgramTable
    """The rarest words in a row of each such text, all of the same number."""


def find_short_items(items: Items, group_I: Ints, benchmark_I: Ints, rule: Rule) -> ShortItems | None:
    """Return what is searched for in full; None: nothing.

    Args:
        group_I: the first item with the same text as each.
    """
    n_question_I, n_item_I = items.n_question_I, items.n_tokens_I
    is_question_I, is_item_I = (
        (n_tokens_I >= rule.min_whole) & (n_tokens_I < items.sizes_I) for n_tokens_I in (n_question_I, n_item_I)
    )
    # no answer follows: the question is the item
    is_question_I &= (n_question_I < n_item_I) | is_item_I
    if not (is_question_I | is_item_I).any():
        return None
    windows = _windows(items, is_question_I, is_item_I)
    if rule.template_items:
        is_question_I &= (
            _n_others(items, windows, is_question_I, n_question_I, group_I, benchmark_I) < rule.template_items
        )
        is_item_I &= _n_others(items, windows, is_item_I, n_item_I, group_I, benchmark_I) < rule.template_items
        if not (is_question_I | is_item_I).any():
            return None
        windows = _windows(items, is_question_I, is_item_I)
    return ShortItems(is_question_I, is_item_I, windows)


def _windows(items: Items, is_question_I: Bools, is_item_I: Bools) -> NgramTable:
    # a question that is searched for is in its item, so one window is enough for both
    lengths_I = np.where(is_question_I, items.n_question_I, items.n_tokens_I)
    chosen = is_question_I | is_item_I
    size = int(lengths_I[chosen].min())
    counts = np.bincount(items.ids_T)
    begins = rarest_windows(items.ids_T, items.starts_I[chosen], lengths_I[chosen], counts, size)
    return build_ngrams(items.ids_T, begins.astype(np.int32), items.starts_I, size)


def _without_runs(items: Items) -> npt.NDArray[np.int32]:
    """Return the tokens with nothing in place of the items' runs."""
    is_run_T = np.zeros(len(items.ids_T) + 1, np.int32)
    np.add.at(is_run_T, items.starts_R, 1)
    np.add.at(is_run_T, items.stops_R, -1)
    found: npt.NDArray[np.int32] = np.where(np.cumsum(is_run_T[:-1]) > 0, np.int32(UNKNOWN), items.ids_T)
    return found


def _n_others(
    items: Items, windows: NgramTable, is_searched_I: Bools, lengths_I: Ints, group_I: Ints, benchmark_I: Ints
) -> Ints:
    """Return in how many other items of its benchmark each text stands."""
    found_items, at, places, _ = windows.postings(windows.find(_without_runs(items), items.ids_T))
    is_asked = is_searched_I[found_items]
    found_items, firsts = found_items[is_asked], (at - places)[is_asked]
    order = np.lexsort((group_I[items.owners(np.maximum(firsts, 0))], found_items))
    counts: Ints = other_holders(
        *(items.ids_T, found_items[order], firsts[order], lengths_I),
        *(items.starts_I, items.stops_I, group_I, benchmark_I),
    )
    return counts
