"""Which choice a target means: lm-eval takes a number for a place, also where it is the text of another choice."""

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from qwen2eval.requests import Doc
from qwen2eval.tasks import lm_eval_internals as internals

if TYPE_CHECKING:
    from lm_eval.api.task import Task

Reading = Literal["choice", "place"]
_NUMBER = re.compile(r"\s*\d+(\.0+)?\s*")


class ChoiceTargets:
    """Stands between a task with choices and its targets.

    A text that is a choice means that choice, and a number of the data or of a template's expression a place. Where the
    texts are numbers and could be either, the reading that fits more docs is taken, choices first. Of equal choices the
    first one is the target: a model can't prefer another.

    Args:
        task: the task as lm-eval built it; its `doc_to_target` is changed.
    """

    def __init__(self, task: "Task") -> None:
        self._task = task
        self._original: Callable[..., Any] = task.doc_to_target
        # With several prompts for one ending, the target is the ending
        if getattr(task.config, "doc_to_choice", None) is not None and not getattr(task, "multiple_input", 0):
            task.doc_to_target = self._target

    @property
    def warning(self) -> str | None:
        """What a reader of the score must know of the targets; None: nothing."""
        if self._task.doc_to_target != self._target:
            return None
        texts = self._number_texts
        both = _with_two_readings(texts or self._numbers_that_are_choices)
        if not both:
            return None
        target, choices = both[0]
        reading = self._reading if texts else "place"
        advice = "the place as a number, not as text" if reading == "choice" else "the choice's text, not a number"
        return (
            f"{self._task.task_name}: in {len(both)} docs the target is the text of one choice and the place of "
            f"another (the first: {target!r} of {choices!r}, counted from 0). It is read as a {reading}. "
            f"If that is not meant, give {advice}"
        )

    def _target(self, doc: Doc, template: object = None, **options: Any) -> Any:
        doc_to_target = self._task.config.doc_to_target if template is None else template
        said = self._original(doc, *(() if template is None else (template,)), **options)
        return self._resolved(said, internals.native_value(self._task, doc_to_target, doc, said), self._choices(doc))

    def _resolved(self, said: Any, native: Any, choices: Sequence[str]) -> Any:
        """Return a target as lm-eval's scorer understands it.

        Args:
            said: what lm-eval makes of it.
            native: the value before it was rendered as text.
        """
        if isinstance(native, list | tuple):
            return [self._resolved(one, one, choices) for one in native]
        text = str(native) if isinstance(native, str | bool | float) else None
        is_number = isinstance(native, str) and _NUMBER.fullmatch(native) is not None
        place = _find(text, choices)
        if place is not None and (not is_number or self._reading == "choice"):
            # lm-eval's scorer of choices finds an equal text by itself
            return said if self._task.OUTPUT_TYPE == "multiple_choice" and said in choices else place
        if is_number or isinstance(native, bool) or (isinstance(native, float) and native.is_integer()):
            said = int(float(native))
        if isinstance(said, int) and 0 <= said < len(choices):
            return list(choices).index(choices[said])
        return said

    def _choices(self, doc: Doc) -> list[str]:
        return [str(choice) for choice in self._task.doc_to_choice(doc)]

    @cached_property
    def _reading(self) -> Reading:
        """How texts that are numbers are read: as the choice with this text, or as a place."""
        n_choices = sum(_find(target, choices) is not None for target, choices in self._number_texts)
        n_places = sum(int(float(target)) < len(choices) for target, choices in self._number_texts)
        return "choice" if n_choices >= n_places else "place"

    @cached_property
    def _number_texts(self) -> list[tuple[str, list[str]]]:
        """Targets that are numbers written as text, each with its choices."""
        template, found = self._task.config.doc_to_target, []
        for doc in self._task.task_docs:
            target = internals.native_value(self._task, template, doc, None)
            if isinstance(target, str) and _NUMBER.fullmatch(target):
                found.append((target, self._choices(doc)))
        return found

    @property
    def _numbers_that_are_choices(self) -> list[tuple[str, list[str]]]:
        """Targets that are numbers, each with its choices, if all of them are texts of choices, too; else none."""
        found = []
        for doc in self._task.task_docs:
            target = internals.native_value(self._task, self._task.config.doc_to_target, doc, None)
            choices = self._choices(doc) if type(target) is int else []
            if str(target) not in choices:
                return []
            found.append((str(target), choices))
        return found


def _with_two_readings(targets: Sequence[tuple[str, list[str]]]) -> list[tuple[str, list[str]]]:
    """Return those that are the text of one choice and the place of another."""
    return [
        (target, choices)
        for target, choices in targets
        if (place := int(float(target))) < len(choices) and _find(target, choices) not in (None, place)
    ]


def _find(text: str | None, choices: Sequence[str]) -> int | None:
    """Return the place of a choice with a text, blanks around it aside."""
    if text is None:
        return None
    bare = [choice.strip() for choice in choices]
    return bare.index(text.strip()) if text.strip() in bare else None
