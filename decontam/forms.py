"""The forms in which an item is asked, as runs of segments: question, choices, labels and other texts.

Signs are no tokens, so `A.`, `(A)` and `a)` are one form, digits and circled digits another, and bullets are the bare
one. A question that has an n-gram is found in each of them by its own n-grams. A shorter one is found by those that go
from the question into what follows it, so these are runs of their own:

    lettered   question, label, choice, label, choice ...      with each set of labels, in the given order
    any order  the first n-gram of question, (label,) choice ...  for each order in which choices may begin
    answer     question, "Answer", choice or answer
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from decontam.references import Reference

ACROSS, FIRST, ALL = range(3)
"""Which n-grams of a run are searched for: those from the question into what follows a label, the first one, or all."""
ANSWER, LETTERED, ANY_ORDER, LETTERED_ORDER, OTHER = range(5)
"""Which form a run is of; in other orders of the choices without labels, and with them."""
MOST_ORDERS = 24
"""Orders of the choices of one item and set of labels; where there may be more, only the given one is searched for."""
_MOST_CHOICES = 26
_SCRIPTS = (
    ("", tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")),
    ("", tuple(map(str, range(1, _MOST_CHOICES + 1)))),
    ("", tuple(map(str, range(_MOST_CHOICES)))),
    (r"[\u0600-\u06ff]", tuple("أبجدهوزحطي")),
    (r"[\u0600-\u06ff]", tuple("ابجدهوزحطي")),
    (r"[\u0600-\u06ff]", tuple("١٢٣٤٥٦٧٨٩")),
    (r"[\u0600-\u06ff]", tuple("۱۲۳۴۵۶۷۸۹")),
    (r"[\u0400-\u04ff]", tuple("АБВГДЕЖЗИК")),
    (r"[\u0370-\u03ff]", tuple("ΑΒΓΔΕΖΗΘΙΚ")),
    (r"[\u0590-\u05ff]", tuple("אבגדהוזחטי")),
    (r"[\u0900-\u097f]", tuple("कखगघङचछजझञ")),
    (r"[\u0900-\u097f]", tuple("१२३४५६७८९")),
    (r"[\u0980-\u09ff]", tuple("কখগঘঙচছজঝঞ")),
    (r"[\u0980-\u09ff]", tuple("১২৩৪৫৬৭৮৯")),
    (r"[\u0e00-\u0e7f]", tuple("กขคงจฉชซ")),
    (r"[\u0e00-\u0e7f]", tuple("๑๒๓๔๕๖๗๘๙")),
    (r"[\u3040-\u30ff]", tuple("アイウエオカキクケコ")),
    (r"[\uac00-\ud7af]", tuple("가나다라마바사아자차")),
    (r"[\u3400-\u9fff]", tuple("甲乙丙丁戊己庚辛壬癸")),
    (r"[\u3400-\u9fff]", tuple("一二三四五六七八九十")),
)
"""Labels of choices: always, or where a question is written in a script."""
_ANSWERS = (("", "Answer"), ("", "A"), (r"[\u3400-\u9fff]", "答案"), (r"[\u3400-\u9fff]", "答"))
"""What stands before an answer."""
LABELS = tuple(dict.fromkeys([label for _, labels in _SCRIPTS for label in labels] + [word for _, word in _ANSWERS]))
"""All labels; their segments come before those of the items."""
_NUMBER_OF = {label: number for number, label in enumerate(LABELS)}


class Run(NamedTuple):
    """A run of segments that is searched for besides the item's question and answer."""

    item: int
    segments: tuple[int, ...]
    ngrams: int
    """ACROSS, FIRST or ALL."""
    form: int
    """ANSWER, LETTERED, ANY_ORDER, LETTERED_ORDER or OTHER."""


class Segments(NamedTuple):
    """How many tokens each segment has: labels, then question and parts of each item, then the items' other forms."""

    n_tokens: Sequence[int]
    first_of: Sequence[int]
    """By item: the segment of its question; its parts follow it."""
    forms_of: Sequence[Sequence[int]]
    """By item: the segments of its other forms."""


def plan_runs(references: Sequence[Reference], segments: Segments, sizes: Sequence[int]) -> list[Run]:
    """Return the runs of all items, in their order.

    Args:
        sizes: by item, the tokens of an n-gram.
    """
    runs: list[Run] = []
    for item, reference in enumerate(references):
        runs += [Run(item, (form,), ALL, OTHER) for form in segments.forms_of[item]]
        if segments.n_tokens[segments.first_of[item]] < sizes[item] and any(reference.parts):
            runs += _runs_of_short_question(item, reference, segments, sizes[item])
    return runs


def _runs_of_short_question(item: int, reference: Reference, segments: Segments, size: int) -> Iterator[Run]:
    question, n_parts = segments.first_of[item], len(reference.parts)
    room = size - segments.n_tokens[question]
    # what is longer than the room is as good as any other
    lengths = tuple(min(room, n) for n in segments.n_tokens[question + 1 : question + 1 + n_parts])
    is_ascii = reference.text.isascii()
    for script, word in _ANSWERS:
        label = _NUMBER_OF[word]
        # "A." before a choice is the first letter, too
        if (n_parts > 1 and word == "A") or (script and (is_ascii or not re.search(script, reference.text))):
            continue
        for part, n_tokens in enumerate(lengths, question + 1):
            if segments.n_tokens[label] + n_tokens >= room:
                yield Run(item, (question, label, part), FIRST if n_parts > 1 else ACROSS, ANSWER)
    if n_parts < 2 or n_parts > _MOST_CHOICES:
        return
    for order in _other_orders((0,) * n_parts, lengths, room):
        yield Run(item, (question, *(question + 1 + choice for choice in order)), FIRST, ANY_ORDER)
    for script, labels in _SCRIPTS:
        if len(labels) < n_parts or (script and (is_ascii or not re.search(script, reference.text))):
            continue
        numbers = [_NUMBER_OF[label] for label in labels[:n_parts]]
        yield Run(item, _labelled(question, numbers, range(n_parts)), ACROSS, LETTERED)
        for order in _other_orders(tuple(segments.n_tokens[number] for number in numbers), lengths, room):
            yield Run(item, _labelled(question, numbers, order), FIRST, LETTERED_ORDER)


def _labelled(question: int, labels: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """Return a question and some of its choices, each behind its label."""
    found = [question]
    for label, choice in zip(labels, order, strict=False):
        found += (label, question + 1 + choice)
    return tuple(found)


@lru_cache(maxsize=10_000)
def _other_orders(label_lengths: tuple[int, ...], lengths: tuple[int, ...], room: int) -> tuple[tuple[int, ...], ...]:
    """Return other choices than the given ones with which a list may begin, so many that they have `room` tokens.

    () if there are too many.

    (0, 0), (9, 9), room 5  ->  (1,)                the second choice alone
    (0, 0), (3, 3), room 5  ->  (1, 0)              the second one, then the first one
    """
    waiting: list[tuple[tuple[int, ...], int]] = [((), 0)]
    found: list[tuple[int, ...]] = []
    while waiting and len(found) <= MOST_ORDERS:
        chosen, n_tokens = waiting.pop()
        for choice in range(len(lengths)):
            if choice not in chosen:
                order, n_now = (*chosen, choice), n_tokens + label_lengths[len(chosen)] + lengths[choice]
                if n_now >= room:
                    found.append(order)
                else:
                    waiting.append((order, n_now))
    given = tuple(range(len(lengths)))
    return () if len(found) > MOST_ORDERS else tuple(order for order in found if order != given[: len(order)])
