"""Chance that falls the same on every machine and every Python: all of it comes from `random.Random.random`.

Python promises that a seed gives the same numbers from `random()` in all versions; of `choice` or `shuffle` it doesn't.
"""

import random
from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")


class Dice:
    """Draws from a seed, which may be several values: `Dice(7, "needles")`.

    >>> dice = Dice(7, "an example")
    >>> dice.between(1, 6), dice.pick("abc"), dice.some("abcdef", 3)
    (1, 'b', ['d', 'a', 'e'])
    """

    def __init__(self, *seed: object) -> None:
        self._random = random.Random("/".join(map(str, seed)))

    def fraction(self) -> float:
        """Return a number from 0 up to but without 1."""
        return self._random.random()

    def below(self, limit: int) -> int:
        """Return a whole number from 0 to `limit` - 1."""
        return int(self._random.random() * limit)

    def between(self, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`, both included."""
        return low + self.below(high - low + 1)

    def pick(self, values: Sequence[_T]) -> _T:
        """Return one of the values."""
        return values[self.below(len(values))]

    def some(self, values: Sequence[_T], n: int) -> list[_T]:
        """Return `n` of the values, or all if there are fewer, none twice, in random order."""
        left = list(values)
        for place in range(min(n, len(left))):
            other = place + self.below(len(left) - place)
            left[place], left[other] = left[other], left[place]
        return left[:n]

    def shuffled(self, values: Sequence[_T]) -> list[_T]:
        """Return all values in random order."""
        return self.some(values, len(values))

    def others(self, values: Sequence[_T], right: _T, n: int) -> list[_T]:
        """Return `n` of the values that are not the right one."""
        return self.some([value for value in values if value != right], n)


def listed(text: str) -> tuple[str, ...]:
    """Return the words of a text, for values to pick from."""
    return tuple(text.split())
