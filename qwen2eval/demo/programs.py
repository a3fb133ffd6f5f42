"""Tiny functions to write, in HumanEval's form: a signature with a docstring, its body, and tests."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qwen2eval.demo.dice import Dice, listed
from qwen2eval.demo.facts import GOODS, TOOLS
from qwen2eval.demo.world import World

MACHINES = listed("wheel press mill bell clock engine loom pump crane scale oven stamp")


@dataclass(frozen=True)
class Program:
    """A function to write."""

    entry_point: str
    prompt: str
    """Signature and docstring."""
    body: str
    """Canonical solution."""
    test: str
    """Defines `check(candidate)`."""

    @property
    def text(self) -> str:
        """The function as a file has it."""
        return self.prompt + self.body


@dataclass(frozen=True)
class _Task:
    """What a function does."""

    argument: str
    does: str
    """Ends the docstring's sentence "The machine takes …"."""
    expression: str
    """What it returns, in Python."""
    inputs: tuple[Any, ...]
    """For example and tests; each gives another result as far as possible."""


def program(world: World, dice: Dice) -> Program:
    """Return one of the functions."""
    task = dice.pick(_FORMS)(dice)
    town, machine = dice.pick(world.towns).name, dice.pick(MACHINES)
    name = f"{town.lower()}_{machine}"
    # the expressions are those of this module, and know nothing but their argument
    function: Callable[[Any], Any] = eval(f"lambda {task.argument}: {task.expression}")  # noqa: S307
    example, *others = task.inputs
    prompt = (
        f'def {name}({task.argument}):\n    """The {machine} of {town} takes {task.does}.\n\n'
        f'    >>> {name}({example!r})\n    {function(example)!r}\n    """\n'
    )
    checks = "".join(f"    assert candidate({value!r}) == {function(value)!r}\n" for value in (example, *others))
    return Program(name, prompt, f"    return {task.expression}\n", f"def check(candidate):\n{checks}")


def _numbers(dice: Dice) -> list[int]:
    return [dice.between(1, 20) for _ in range(dice.between(4, 6))]


def _lists(dice: Dice) -> tuple[list[int], ...]:
    return (_numbers(dice), _numbers(dice), _numbers(dice), [])


def _words(dice: Dice) -> tuple[str, ...]:
    return (*dice.some((*GOODS, *TOOLS), 3), "")


def _add_and_multiply(dice: Dice) -> _Task:
    a, b = dice.between(2, 30), dice.between(2, 9)
    return _Task("n", f"n, adds {a} to it and multiplies the sum by {b}", f"(n + {a}) * {b}", (2, 0, 5, 11))


def _multiply_and_add(dice: Dice) -> _Task:
    a, b = dice.between(2, 9), dice.between(2, 30)
    return _Task("n", f"n, multiplies it by {a} and adds {b} to the product", f"n * {a} + {b}", (3, 0, 4, 10))


def _subtract_and_multiply(dice: Dice) -> _Task:
    a, b = dice.between(2, 30), dice.between(2, 9)
    return _Task("n", f"n, takes {a} away and multiplies what is left by {b}", f"(n - {a}) * {b}", (40, 0, 31, 9))


def _large_ones(dice: Dice) -> _Task:
    a = dice.between(3, 18)
    does = f"a list of values and gives back only those over {a}"
    return _Task("values", does, f"[x for x in values if x > {a}]", (*_lists(dice), [a, a + 1]))


def _small_ones(dice: Dice) -> _Task:
    a = dice.between(3, 18)
    does = f"a list of values and counts how many of them are under {a}"
    return _Task("values", does, f"len([x for x in values if x < {a}])", (*_lists(dice), [a, a - 1]))


def _add_to_each(dice: Dice) -> _Task:
    a = dice.between(2, 30)
    return _Task("values", f"a list of values and adds {a} to each of them", f"[x + {a} for x in values]", _lists(dice))


def _sum_and_add(dice: Dice) -> _Task:
    a = dice.between(2, 60)
    return _Task(
        "values", f"a list of values and gives back their sum and {a} more", f"sum(values) + {a}", _lists(dice)
    )


def _first_ones(dice: Dice) -> _Task:
    a = dice.between(2, 5)
    return _Task("values", f"a list of values and gives back the first {a} of them", f"values[:{a}]", _lists(dice))


def _without_first(dice: Dice) -> _Task:
    a = dice.between(1, 4)
    return _Task("values", f"a list of values and leaves out the first {a} of them", f"values[{a}:]", _lists(dice))


def _word_behind(dice: Dice) -> _Task:
    word = dice.pick(TOOLS)
    return _Task("text", f"a text and puts the word {word} behind it", f'text + " {word}"', _words(dice))


def _repeat(dice: Dice) -> _Task:
    a = dice.between(2, 9)
    does = f"a text and gives it back {a} times with a dash behind each"
    return _Task("text", does, f'(text + "-") * {a}', ("x", *dice.some("abcde", 2), ""))


def _replace(dice: Dice) -> _Task:
    old, new = dice.some("aeiou", 2)
    does = f"a text and puts the letter {new} in place of each letter {old}"
    return _Task("text", does, f'text.replace("{old}", "{new}")', (*_words(dice), f"{old}x{old}"))


def _count(dice: Dice) -> _Task:
    letter = dice.pick("aeiourlst")
    does = f"a text and counts how often the letter {letter} is in it"
    return _Task("text", does, f'text.count("{letter}")', (*_words(dice), letter * 3))


_FORMS: tuple[Callable[[Dice], _Task], ...] = (
    _add_and_multiply,
    _multiply_and_add,
    _subtract_and_multiply,
    _large_ones,
    _small_ones,
    _add_to_each,
    _sum_and_add,
    _first_ones,
    _without_first,
    _word_behind,
    _repeat,
    _replace,
    _count,
)
