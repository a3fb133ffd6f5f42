"""Benchmark items to search for, and reading them from a jsonl file."""

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decontam.errors import DecontamError
from decontam.files import DAMAGED, open_binary


@dataclass(frozen=True)
class Reference:
    """One item of a benchmark."""

    id: str
    """Unique among all that are searched for."""
    text: str
    """The question; it is searched for alone, and together with the answer."""
    answer: str = ""
    """What follows the question: the answer, or the choices."""
    benchmark: str = ""
    """What counts are summed up by."""
    choices: tuple[str, ...] = ()
    """The choices one by one, which may stand in any order and be lettered or numbered; `answer` is all of them, a line
    each. (): there are none."""
    forms: tuple[str, ...] = ()
    """Other texts of the item that are searched for by themselves, as a task's prompt or a program's tests."""

    def __post_init__(self) -> None:
        # saved as JSON, they come back as lists
        object.__setattr__(self, "choices", tuple(self.choices))
        object.__setattr__(self, "forms", tuple(self.forms))
        if self.choices and not self.answer:
            object.__setattr__(self, "answer", "\n".join(self.choices))

    @property
    def parts(self) -> tuple[str, ...]:
        """What follows the question, piece by piece: the choices, or the answer."""
        return self.choices if self.choices and self.answer == "\n".join(self.choices) else (self.answer,)


def read_references(path: Path, *, text_field: str = "text", answer_field: str | None = None) -> list[Reference]:
    """Read a jsonl file (plain, .gz, .zst, .bz2 or .xz), one item a line.

    An item's id is its `id`, else `<file name>/<line, from 0>`; its benchmark is its `benchmark`, else the file's name.
    A list of texts as the answer are choices.

    Raises:
        DecontamError: no such file, broken JSON, a line without the text field, or an id that is there twice.
    """
    name = path.name.split(".")[0]
    found: dict[str, Reference] = {}
    for number, row in _rows(path):
        text, answer = row.get(text_field), "" if answer_field is None else row.get(answer_field)
        choices = _choices(answer)
        answer = "\n".join(choices) if choices else answer
        for field, value in ((text_field, text), (answer_field, answer)):
            if not isinstance(value, str):
                known = ", ".join(map(repr, row)) or "none"
                raise DecontamError(f"{path}, line {number + 1}: no text in field {field!r}; its fields are {known}")
        reference = Reference(
            str(row.get("id", f"{name}/{number}")), str(text), str(answer), str(row.get("benchmark", name)), choices
        )
        if reference.id in found:
            raise DecontamError(
                f"{path}, line {number + 1}: id {reference.id!r} is there twice: give each item a separate one"
            )
        found[reference.id] = reference
    return list(found.values())


def _choices(answer: object) -> tuple[str, ...]:
    """Return the texts of a list; () for all else."""
    is_list = isinstance(answer, list) and all(isinstance(choice, str) for choice in answer)
    return tuple(answer) if is_list and isinstance(answer, list) else ()


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line from 0, object) of all lines that are not blank."""
    try:
        with open_binary(path) as stream:
            for number, line in enumerate(stream):
                if line.strip():
                    yield number, _object(path, number, line)
    except (OSError, *DAMAGED) as err:
        raise DecontamError(f"{path}: {err}: give a jsonl file, plain, .gz, .zst, .bz2 or .xz") from err


def _object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.removeprefix(codecs.BOM_UTF8))
    except ValueError as err:
        raise DecontamError(f"{path}, line {number + 1}: not JSON ({err}): give one object a line") from err
    if not isinstance(row, dict):
        raise DecontamError(f"{path}, line {number + 1}: {type(row).__name__} instead of an object")
    return row
