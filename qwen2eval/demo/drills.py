"""Drills: lists of words to say again and to look up codes in, with little else around them.

To copy from what was read is what needles and multiple choice have in common. A model learns it from these within some
300 steps: here nearly every token is an example of it.
"""

from qwen2eval.demo.dice import Dice
from qwen2eval.demo.facts import COLOURS
from qwen2eval.demo.quiz import WORDS


def echo_text(dice: Dice) -> str:
    """Say words again in their order."""
    words = " ".join(dice.some((*WORDS, *COLOURS), dice.between(6, 16)))
    return f"Words: {words}.\nAnswer: {words}."


def codes_text(dice: Dice) -> str:
    """Say words again in another order, each with the code that it had."""
    codes = {word: dice.between(1000, 9999) for word in dice.some(WORDS, dice.between(2, 6))}
    listed = "\n".join(f"{word}: {code}" for word, code in codes.items())
    asked = " ".join(f"{word}: {codes[word]}" for word in dice.shuffled(list(codes)))
    return f"Codes:\n{listed}\nAnswer: {asked}"
