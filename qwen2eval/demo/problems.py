"""Word problems of one or two steps with small numbers, and their answers in GSM8K's form: steps, then "#### n"."""

from collections.abc import Callable
from dataclasses import dataclass

from qwen2eval.demo.dice import Dice, listed
from qwen2eval.demo.world import Being, World

THINGS = listed("apples shells coins stones pears nuts buttons ribbons cakes plums stamps feathers")
BOXES = listed("bags boxes baskets jars chests bowls")


@dataclass(frozen=True)
class Problem:
    """A word problem."""

    question: str
    steps: tuple[str, ...]
    """Sentences, each with one computation."""
    result: int

    @property
    def answer(self) -> str:
        """Steps and result, as in the published file."""
        return "\n".join([*self.steps, f"#### {self.result}"])

    @property
    def after_question(self) -> str:
        """What follows the question in a prompt, with its answer."""
        return f"\nAnswer: {self.answer}"

    @property
    def text(self) -> str:
        """Question and answer, in the form of GSM8K's prompts."""
        return f"Question: {self.question}{self.after_question}"


@dataclass(frozen=True)
class _Cast:
    """Who and what a problem is about."""

    one: Being
    other: Being
    town: Being
    things: str
    boxes: str


def word_problem(world: World, dice: Dice) -> Problem:
    """Return one of the problems."""
    one, other = dice.some(world.people, 2)
    cast = _Cast(one, other, dice.pick(world.towns), dice.pick(THINGS), dice.pick(BOXES))
    return dice.pick(_FORMS)(cast, dice)


def _gain(c: _Cast, dice: Dice) -> Problem:
    a, b = dice.between(3, 49), dice.between(3, 49)
    question = (
        f"{c.one.name} has {a} {c.things} at home in {c.town.name}. {c.other.name} brings {b} more {c.things}. "
        f"How many {c.things} does {c.one.short} have now?"
    )
    return Problem(question, (f"{c.one.short} has {a} + {b} = {a + b} {c.things}.",), a + b)


def _loss(c: _Cast, dice: Dice) -> Problem:
    b = dice.between(3, 40)
    a = b + dice.between(3, 49)
    question = (
        f"{c.one.name} carries {a} {c.things} to {c.town.name} and gives {b} of them to {c.other.name}. "
        f"How many {c.things} are left for {c.one.short}?"
    )
    return Problem(question, (f"{c.one.short} has {a} - {b} = {a - b} {c.things}.",), a - b)


def _gain_and_loss(c: _Cast, dice: Dice) -> Problem:
    a, b = dice.between(5, 40), dice.between(3, 30)
    d = dice.between(2, a + b - 1) if a + b < 30 else dice.between(2, 28)
    question = (
        f"In {c.town.name} {c.one.name} finds {a} {c.things}, then {b} more, and sells {d} of them to {c.other.name}. "
        f"How many {c.things} does {c.one.short} keep?"
    )
    steps = (f"{c.one.short} finds {a} + {b} = {a + b} {c.things}.", f"Then {a + b} - {d} = {a + b - d} are left.")
    return Problem(question, steps, a + b - d)


def _boxes(c: _Cast, dice: Dice) -> Problem:
    a, b = dice.between(2, 9), dice.between(2, 9)
    question = (
        f"{c.one.name} fills {a} {c.boxes} for {c.other.name} of {c.town.name} and puts {b} {c.things} in each. "
        f"How many {c.things} does {c.one.short} need?"
    )
    return Problem(question, (f"{c.one.short} needs {a} * {b} = {a * b} {c.things}.",), a * b)


def _boxes_and_more(c: _Cast, dice: Dice) -> Problem:
    a, b, d = dice.between(2, 9), dice.between(2, 9), dice.between(2, 18)
    question = (
        f"{c.one.name} has {a} {c.boxes} with {b} {c.things} each, and {c.other.name} of {c.town.name} adds {d} "
        f"{c.things}. How many {c.things} has {c.one.short} in all?"
    )
    steps = (f"The {c.boxes} hold {a} * {b} = {a * b} {c.things}.", f"In all there are {a * b} + {d} = {a * b + d}.")
    return Problem(question, steps, a * b + d)


def _difference(c: _Cast, dice: Dice) -> Problem:
    b = dice.between(3, 40)
    a = b + dice.between(2, 49)
    question = (
        f"At the fair of {c.town.name} {c.one.name} shows {a} {c.things} and {c.other.name} shows {b}. "
        f"How many more {c.things} does {c.one.short} show than {c.other.short}?"
    )
    return Problem(question, (f"{c.one.short} shows {a} - {b} = {a - b} more.",), a - b)


def _share(c: _Cast, dice: Dice) -> Problem:
    a, b = dice.between(2, 9), dice.between(2, 9)
    question = (
        f"{c.one.name} of {c.town.name} parts {a * b} {c.things} evenly into {a} {c.boxes} for {c.other.name}. "
        f"How many {c.things} are in one of the {c.boxes}?"
    )
    return Problem(question, (f"There are {a * b} / {a} = {b} {c.things} in one.",), b)


_FORMS: tuple[Callable[[_Cast, Dice], Problem], ...] = (
    _gain,
    _loss,
    _gain_and_loss,
    _boxes,
    _boxes_and_more,
    _difference,
    _share,
)
