"""Texts without their markup, and where what is left was; the grammar is in `kernels.markup`."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from decontam.kernels.markup import find_markup
from decontam.normalize import Folded, fold

Ints = npt.NDArray[np.int64]
BETWEEN = "\n\n"
"""Between texts that are read as one: nothing composes, and no tag goes, across it."""


class Resolved(NamedTuple):
    """A text in which a character stands for each tag, entity and escape."""

    text: str
    places: Ints
    """(signs,) where these characters are in it."""
    begins: Ints
    """Where in the original text each sign is: its first character."""
    ends: Ints
    """One past its last."""

    def original(self, begins: Ints, ends: Ints) -> tuple[Ints, Ints]:
        """Return the places of characters in the original text.

        Args:
            begins: places in the resolved text; `ends`: one past the last one of each, more than its begin.
        """
        if not len(self.places):
            return begins, ends
        return self._moved(begins, self.begins), self._moved(ends - 1, self.ends - 1) + 1

    def _moved(self, at: Ints, of_signs: Ints) -> Ints:
        number = np.searchsorted(self.places, at, "right") - 1
        place, end = self.places[number], self.ends[number]
        moved = np.where(place == at, of_signs[number], at - place - 1 + end)
        return np.where(number < 0, at, moved)


def resolve(text: str, *, markup: bool = True) -> Resolved:
    r"""Read a text's markup.

    >>> resolve(r"<p>caf&eacute;\nau lait").text
    ' café au lait'

    Args:
        markup: False: the text stays as it is.
    """
    none = np.empty(0, np.int64)
    if not markup or not any(sign in text for sign in "&<\\"):
        return Resolved(text, none, none, none)
    data = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
    points, begins, ends = find_markup(data)
    pieces, done = list[str](), 0
    for point, begin, end in zip(points.tolist(), begins.tolist(), ends.tolist(), strict=True):
        pieces += (text[done:begin], chr(point))
        done = end
    lengths = np.cumsum(ends - begins - 1)
    return Resolved("".join([*pieces, text[done:]]), begins - lengths + (ends - begins - 1), begins, ends)


def fold_resolved(text: str, *, fold_case: bool, markup: bool) -> Folded:
    """Return what a text is compared as, with places in the text as it is given."""
    resolved = resolve(text, markup=markup)
    entries, begins, ends = fold(resolved.text, fold_case=fold_case)
    return Folded(entries, *resolved.original(begins, ends))
