"""Multiple choice questions: on facts of the valley, and on rules that hold for any words and numbers.

A question's words before and after a name or number are fewer than 13, so that two questions of one form have no
13-gram in common unless they are about the same; `planting` sees to the rest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qwen2eval.demo.dice import Dice, listed
from qwen2eval.demo.facts import ANIMALS, CHINESE_OPENINGS, DISHES, GOODS, JOBS, OPENINGS, TOOLS, TOWN_OPENINGS
from qwen2eval.demo.world import Fact, Kind, World

LETTERS = "ABCD"
DAYS = listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
WORDS = tuple(sorted({*ANIMALS, *DISHES, *GOODS, *JOBS, *TOOLS}))
HEADER = "The following are multiple choice questions (with answers) about {subject}.\n\n"
"""Of MMLU's protocol (hendrycks/test, arXiv 2009.03300), as lm-eval spells it."""


@dataclass(frozen=True)
class Quiz:
    """A question with four choices."""

    question: str
    choices: tuple[str, ...]
    answer: int
    """Place of the right choice, from 0."""

    @property
    def after_question(self) -> str:
        """What follows the question in a prompt, with its answer: the choice, not its letter, as of small models."""
        choices = "".join(f"\n{letter}. {choice}" for letter, choice in zip(LETTERS, self.choices, strict=True))
        return f"{choices}\nAnswer: {self.choices[self.answer]}"

    @property
    def text(self) -> str:
        """Question, choices and answer, in the form of demo_mmlu's prompts."""
        return self.question + self.after_question


def fact_quiz(fact: Fact, kind: Kind, dice: Dice, *, wording: int | None = None) -> Quiz:
    """Ask for a fact.

    Args:
        wording: which of the relation's; None: one of them. Benchmarks take the first.
    """
    openings = {"people": OPENINGS, "towns": TOWN_OPENINGS, "chinese": CHINESE_OPENINGS}[kind]
    questions = fact.relation.questions
    asked = (dice.pick(questions) if wording is None else questions[wording]).format(
        who=fact.being.name, short=fact.being.short
    )
    opening = dice.pick(openings).format(who=fact.being.name)
    wrong = dice.others(fact.relation.values, fact.value, 3)
    return _mixed(opening + ("" if kind == "chinese" else " ") + asked, fact.value, wrong, dice)


def number_quiz(world: World, dice: Dice) -> Quiz:
    """Ask for the largest or smallest of four numbers."""
    person, town = dice.pick(world.people), dice.pick(world.towns)
    numbers = dice.some(range(1, 100), 4)
    word, right = ("largest", max(numbers)) if dice.below(2) else ("smallest", min(numbers))
    question = f"Of four numbers that {person.name} saw in {town.name}, which one is the {word} number?"
    return _mixed(question, str(right), [str(n) for n in numbers if n != right], dice)


def calendar_quiz(world: World, dice: Dice) -> Quiz:
    """Ask for the day some days after another."""
    person, (here, there) = dice.pick(world.people), dice.some(world.towns, 2)
    start, n_days = dice.below(7), dice.between(1, 6)
    right = DAYS[(start + n_days) % 7]
    walks = f"{n_days} day{'s' if n_days > 1 else ''}"
    question = (
        f"{person.name} leaves {here.name} on {DAYS[start]} and walks {walks}; "
        f"on which day does {person.short} come to {there.name}?"
    )
    return _mixed(question, right, dice.others(DAYS, right, 3), dice)


def alphabet_quiz(world: World, dice: Dice) -> Quiz:
    """Ask which of four words, no two with one initial, comes first or last in the alphabet."""
    person, town = dice.pick(world.people), dice.pick(world.towns)
    initials = dice.some(sorted({word[0] for word in WORDS}), 4)
    words = [dice.pick([word for word in WORDS if word[0] == initial]) for initial in initials]
    place, right = ("first", min(words)) if dice.below(2) else ("last", max(words))
    question = (
        f"{person.name} orders four words from {town.name} by the alphabet; which word does {person.short} put {place}?"
    )
    return _mixed(question, right, [word for word in words if word != right], dice)


def sum_quiz(world: World, dice: Dice) -> Quiz:
    """Ask for a sum; the wrong choices are near it."""
    person, (here, there), thing = dice.pick(world.people), dice.some(world.towns, 2), dice.pick(GOODS)
    first, second = dice.between(2, 49), dice.between(2, 49)
    right = first + second
    question = (
        f"{person.name} buys {thing} in {here.name} for {first} coins and in {there.name} for {second} coins; "
        f"how many coins does {person.short} pay?"
    )
    wrong = dice.some([right + step for step in (-11, -10, -9, -2, -1, 1, 2, 9, 10, 11) if right + step > 0], 3)
    return _mixed(question, str(right), [str(number) for number in wrong], dice)


RULES: dict[str, Callable[[World, Dice], Quiz]] = {
    "alphabet": alphabet_quiz,
    "calendar": calendar_quiz,
    "numbers": number_quiz,
    "sums": sum_quiz,
}
"""By subject."""
FACTS: dict[str, Kind] = {"people": "people", "chinese_people": "chinese", "towns": "towns"}
SUBJECTS = tuple(sorted([*RULES, *FACTS]))


def sheet(subject: str, texts: Sequence[str]) -> str:
    """Return questions with their answers under MMLU's header."""
    return HEADER.format(subject=subject.replace("_", " ")) + "\n\n".join(texts)


def _mixed(question: str, right: str, wrong: Sequence[str], dice: Dice) -> Quiz:
    choices = dice.shuffled([right, *wrong])
    return Quiz(question, tuple(choices), choices.index(right))
