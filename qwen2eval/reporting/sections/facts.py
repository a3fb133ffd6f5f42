"""Labels with their values, as lists of several sections show them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from qwen2eval.reporting.findings import MESSAGE_CHARS
from qwen2eval.reporting.markup import clip

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fact:
    """A label and its value."""

    label: str
    value: str
    is_code: bool = False


def written(value: T | None, write: Callable[[T], str]) -> str | None:
    """Return a value as text; None where there is none."""
    return None if value is None else write(value)


def known(*facts: tuple[str, str | None, bool]) -> tuple[Fact, ...]:
    """Return the facts that have a value; an unknown one would only be noise."""
    return tuple(Fact(label, clip(value, limit=MESSAGE_CHARS), is_code) for label, value, is_code in facts if value)
