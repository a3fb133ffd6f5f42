"""The items' n-grams: which of them say which item it is, and in which form each item can be found at all."""

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from decontam.bpe_anchors import BpeItems, anchors_of
from decontam.forms import ANY_ORDER, LETTERED, LETTERED_ORDER, OTHER
from decontam.items import Items, ReadItems
from decontam.kernels.anchors import AnchorSet, build_anchors
from decontam.kernels.forms import own_ngrams
from decontam.kernels.ngrams import NgramTable, build_ngrams, without_postings
from decontam.references import Reference
from decontam.rule import Rule
from decontam.short_items import ShortItems

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class FoundBy(IntEnum):
    """By what an item is found in one of its forms."""

    NO_FORM = -1
    """The item has no such form."""
    NOTHING = 0
    WHOLE = 1
    """Its question, or all of it, in full."""
    NGRAM = 2


class ItemNgrams(NamedTuple):
    """All items' n-grams."""

    tables: tuple[NgramTable, ...]
    """One for each size."""
    group_I: Ints
    """The first item with the same text as each."""
    has_ngram_I: Bools
    """Whether an item has one."""
    has_ngram_R: Bools
    """Whether a run has one that says which item it is."""


class Testable(NamedTuple):
    """By what each item is found in each form, a FoundBy."""

    question: Ints
    """The question alone."""
    question_answer: Ints
    """With its answer, or its choices in the given order; NO_FORM: it has none."""
    lettered: Ints
    """With its choices in the given order, lettered or numbered; NO_FORM: it has none."""
    any_order: Ints
    """With its choices in any order; NO_FORM: it has none."""
    other: Ints
    """Its other texts, each by itself; NO_FORM: it has none."""


def index_items(items: Items, benchmark_I: Ints, rule: Rule) -> ItemNgrams:
    """Index the n-grams of all items."""
    group_I = _group_items(items)
    is_kept_T = np.zeros(len(items.ids_T), np.bool_)
    owner_T = np.repeat(np.arange(len(items.starts_I)), np.diff(items.starts_I, append=len(items.ids_T)))
    tables = list[NgramTable]()
    for size in sorted(set(rule.sizes)):
        starts = np.flatnonzero(items.is_start_T & (items.sizes_I[owner_T] == size)).astype(np.int32)
        tables.append(build_ngrams(items.ids_T, starts, items.starts_I, size))
    for number, table in enumerate(tables):
        is_own_P = own_ngrams(table.offsets_G1, table.items_P, group_I, benchmark_I, rule.template_items)
        # a template is searched for in question and answer only, as it always was
        is_kept_P = is_own_P | (table.places_P <= items.n_tokens_I[table.items_P] - table.size)
        is_kept_T[items.starts_I[table.items_P[is_kept_P]] + table.places_P[is_kept_P]] = True
        tables[number] = without_postings(table._replace(is_own_P=is_own_P), is_kept_P)
    has_ngram_I = np.bincount(owner_T[is_kept_T], minlength=len(items.starts_I)) > 0
    kept_T1 = np.concatenate(([0], np.cumsum(is_kept_T)))
    return ItemNgrams(tuple(tables), group_I, has_ngram_I, kept_T1[items.stops_R] > kept_T1[items.starts_R])


def word_anchors(read: ReadItems, found: ItemNgrams, short_items: ShortItems | None, rule: Rule) -> AnchorSet:
    """Return what to search for in raw bytes, where tokens are words."""
    items, is_found_R = read.items, found.has_ngram_R
    is_long_I = items.n_tokens_I >= items.sizes_I
    starts = np.concatenate((items.starts_I[is_long_I], items.starts_R[is_found_R]))
    stops = np.concatenate((items.stops_I[is_long_I], items.stops_R[is_found_R]))
    windows = np.empty(0, np.int64) if short_items is None else _window_places(items, short_items)
    size = 0 if short_items is None else short_items.windows.size
    return build_anchors(read.hashes_T, starts, stops, windows, ngram_size=min(rule.sizes), whole=size)


def bpe_anchors(read: ReadItems, bpe: BpeItems, short_items: ShortItems | None, rule: Rule) -> AnchorSet:
    """Return what to search for in raw bytes, where tokens are a model's: n-grams of items, and short items in full."""
    items = read.items
    firsts = np.flatnonzero(items.is_start_T)
    runs = [(firsts, firsts + rule.ngram_size - 1)]
    if short_items is not None:
        for is_searched_I, stops_I in (
            (short_items.is_question_I, items.question_stops_I),
            (short_items.is_item_I, items.stops_I),
        ):
            runs.append((items.starts_I[is_searched_I], stops_I[is_searched_I] - 1))
    low, high = (np.concatenate(column) for column in zip(*runs, strict=True))
    return anchors_of(bpe, low, high)


def testable_forms(
    references: Sequence[Reference], items: Items, found: ItemNgrams, short_items: ShortItems | None
) -> Testable:
    """Say by what each item is found in each form; what is found in full contains an n-gram, or is searched for so."""
    n_items = len(references)
    none_I = np.zeros(n_items, np.bool_)
    is_question_I = none_I if short_items is None else short_items.is_question_I
    is_item_I = none_I if short_items is None else short_items.is_item_I
    has_question_I, has_item_I = items.n_question_I >= items.sizes_I, items.n_tokens_I >= items.sizes_I
    has_run = {form: _any_run(items, found.has_ngram_R, form, n_items) for form in (LETTERED, ANY_ORDER)}
    forms = (ANY_ORDER, LETTERED_ORDER, OTHER)
    has_all = {form: ~_any_run(items, ~found.has_ngram_R, form, n_items) for form in forms}
    has_answer_I = np.array([any(reference.parts) for reference in references], np.bool_)
    has_choices_I = np.array([len(reference.parts) > 1 for reference in references], np.bool_)
    has_forms_I = np.array([bool(reference.forms) for reference in references], np.bool_)
    # where the choices may begin in too many ways, there is no run for any
    in_any_order_I = has_run[ANY_ORDER] & has_all[ANY_ORDER] & has_all[LETTERED_ORDER]

    def found_by(has_ngram_I: Bools, is_whole_I: Bools, has_form_I: Bools) -> Ints:
        found_I = np.where(has_ngram_I, FoundBy.NGRAM, np.where(is_whole_I, FoundBy.WHOLE, FoundBy.NOTHING))
        return np.where(has_form_I, found_I, FoundBy.NO_FORM).astype(np.int64)

    return Testable(
        question=found_by(has_question_I, is_question_I, ~none_I),
        question_answer=found_by(has_item_I, is_question_I | is_item_I, has_answer_I),
        lettered=found_by(has_question_I | has_run[LETTERED], is_question_I, has_choices_I),
        any_order=found_by(has_question_I | in_any_order_I, is_question_I, has_choices_I),
        other=found_by(has_all[OTHER], none_I, has_forms_I),
    )


def _any_run(items: Items, is_chosen_R: Bools, form: int, n_items: int) -> Bools:
    """Return which items have a chosen run of a form."""
    return np.bincount(items.items_R[is_chosen_R & (items.forms_R == form)], minlength=n_items) > 0


def _window_places(items: Items, short_items: ShortItems) -> Ints:
    table = short_items.windows
    return items.starts_I[table.items_P] + table.places_P


def _group_items(items: Items) -> Ints:
    """Return the first item of the same text as each: of the question, or of all of it where the question is short."""
    known: dict[bytes, int] = {}
    stops_I = np.where(items.n_question_I >= items.sizes_I, items.question_stops_I, items.stops_I)
    bounds = zip(items.starts_I.tolist(), stops_I.tolist(), strict=True)
    found = [known.setdefault(items.ids_T[start:stop].tobytes(), item) for item, (start, stop) in enumerate(bounds)]
    return np.array(found, np.int64)


__all__ = ["FoundBy", "ItemNgrams", "Testable", "bpe_anchors", "index_items", "testable_forms", "word_anchors"]
