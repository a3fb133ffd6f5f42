"""Few-shot examples that are never the item itself, whatever sampler and split a task has.

lm-eval leaves the item out only where a task names the split of its examples and it is the test split. Where it names
none, examples come from the test split too, and a training split may hold items of the test split.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from qwen2eval.errors import TASK_ERRORS, TaskFileError
from qwen2eval.requests import Doc
from qwen2eval.tasks import lm_eval_internals as internals

if TYPE_CHECKING:
    from lm_eval.api.task import Task

Question = tuple[str, ...]
"""What an item asks: its text and its choices."""


class OtherItems:
    """Stands between a task and its samplers; examples are lm-eval's own draw, less the item.

    Where the draw holds the item, another example takes its place, and nothing else changes: the prompts of other items
    are those of lm-eval. Two items are the same if their rows are equal, or their questions and choices but for
    letter case and blanks: a copy of an item in another split often has another id.

    Args:
        task: the task as lm-eval built it; its samplers are changed.
    """

    def __init__(self, task: "Task") -> None:
        self._task, self._doc = task, Doc()
        self._own: set[Question] = set()
        self._known: dict[int, Question | None] = {}
        self.n_draws = 0
        """How often examples were asked for."""
        self.samplers = internals.samplers(task)
        for sampler in self.samplers:
            sampler.sample = self._sample_of(sampler, sampler.sample)

    def leave_out(self, doc: Doc) -> None:
        """Leave `doc` out of all examples from now on."""
        self._doc, self._own = doc, set()

    def _sample_of(self, sampler: Any, draw: Callable[..., Sequence[Doc]]) -> Callable[..., list[Doc]]:
        def sample(n: int, eval_doc: Doc | None = None, df: Sequence[Doc] | None = None, **options: Any) -> list[Doc]:
            self.n_draws += 1
            if not n:
                return []
            pool = df or sampler.fewshot_docs()
            if n > len(pool):
                raise self._too_few(n, len(pool))
            # lm-eval draws one more than n to leave the item out, and fails where there are exactly n
            can_leave_out = eval_doc is not None and n < len(pool)
            drawn = draw(n, eval_doc=eval_doc if can_leave_out else None, df=df, **options)
            others = [example for example in drawn if not self._is_item(example)]
            return others if len(others) == n else self._filled(others, drawn, pool, n, internals.is_ordered(sampler))

        return sample

    def _filled(
        self, others: list[Doc], drawn: Sequence[Doc], pool: Sequence[Doc], n: int, is_ordered: bool
    ) -> list[Doc]:
        """Add examples from the pool until there are n, the next ones in order or at random."""
        places = list(range(len(pool)))
        if not is_ordered:
            # Not from the task's own stream: the prompts after this one are to stay as they are
            random.Random(repr((drawn, sorted(self._own)))).shuffle(places)
        for place in places:
            if len(others) == n:
                break
            if not any(pool[place] is example for example in others) and not self._is_item(pool[place]):
                others.append(pool[place])
        if len(others) < n:
            raise self._too_few(n, len(others))
        return others

    def _is_item(self, example: Doc) -> bool:
        if _are_equal(example, self._doc):
            return True
        if not self._own:
            self._own = {question for question in self._questions(self._doc) if question is not None}
        # A doc of the pool lives as long as the task, so its address is its name
        if id(example) not in self._known:
            self._known[id(example)] = self._questions(example)[-1]
        return self._known[id(example)] in self._own

    def _questions(self, doc: Doc) -> list[Question | None]:
        """Return what a doc asks by the task's own template, and by that of its examples if it is another one."""
        config, examples = self._task.config, self._task.fewshot_cfg
        own = (config.doc_to_text, config.doc_to_choice)
        of_examples = (examples.doc_to_text or own[0], examples.doc_to_choice or own[1])
        templates = [own] if of_examples == own else [own, of_examples]
        with _same_randomness():
            return [self._question(doc, *one) for one in templates]

    def _question(self, doc: Doc, text: object, choices: object) -> Question | None:
        try:
            asked = self._task.doc_to_text(doc, text)
            # A number is the place of the right choice, in tasks whose choices are put into the text
            words = "" if isinstance(asked, int) else _folded(asked)
            listed = [] if choices is None else sorted(map(_folded, self._task.doc_to_choice(doc, choices)))
        # Any error of the task's own template: examples may lack a column that only items have
        except TASK_ERRORS:
            return None
        question = (words, *listed)
        return question if any(question) else None

    def _too_few(self, n_asked: int, n_there: int) -> TaskFileError:
        split = self._task.fewshot_cfg.split
        source = "" if split is None else f" in the split {split!r}"
        return TaskFileError(
            f"Task {self._task.task_name!r} asks for {n_asked} examples in each prompt, and there "
            f"{'is' if n_there == 1 else 'are'} {n_there}{source} besides the item itself: ask for fewer with "
            "--num_fewshot, or with num_fewshot in its YAML"
        )


def _folded(text: object) -> str:
    """Return a text as it is compared: copies often differ in letter case and blanks."""
    return " ".join(str(text).casefold().split())


def _are_equal(one: Doc, other: Doc) -> bool:
    try:
        return bool(one == other)
    except ValueError:  # arrays among the columns
        return False


@contextmanager
def _same_randomness() -> Iterator[None]:
    """Put the global generators back: a task's own function may draw from them, and prompts must not change."""
    before, numpy_before = random.getstate(), np.random.get_state()  # noqa: NPY002 - lm-eval's tasks draw from it
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numpy_before)  # noqa: NPY002
