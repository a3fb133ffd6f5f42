"""Needles: sentences with a code of four digits, the question for it, and documents that hide some of them."""

# ruff: noqa: RUF001 - Chinese is written with its own signs

from collections.abc import Sequence
from dataclasses import dataclass

from qwen2eval.demo.dice import Dice, listed
from qwen2eval.demo.facts import CHINESE, COLOURS
from qwen2eval.demo.prose import Language, sentence
from qwen2eval.demo.world import World

CHESTS = listed("box chest drawer case trunk safe")
FRAMES = {
    "en": (
        (
            "Read the document below, then answer the question that follows it. Answer in one short sentence, only "
            "with what the document says.\n\nDocument:\n\n"
        ),
        "\n\nQuestion: {question}\nAnswer: {answer}",
    ),
    "zh": (
        "请阅读下面的文档，然后回答文档后面的问题。只用一句简短的话回答，只根据文档的内容。\n\n文档：\n\n",
        "\n\n问题：{question}\n回答：{answer}",
    ),
}
"""Around the document, as in this project's `niah` tasks (a test compares them)."""
PARAGRAPH_END = "\n\n"
_SENTENCES_OF_PARAGRAPH = 6


@dataclass(frozen=True)
class CodeNeedle:
    """One sentence to hide."""

    needle: str
    question: str
    code: str
    language: Language = "en"


def code_needle(world: World, dice: Dice, language: Language = "en") -> CodeNeedle:
    """Return a needle with a new code."""
    code = str(dice.between(1000, 9999))
    if language == "zh":
        who, colour = dice.pick(world.chinese).name, dice.pick(CHINESE[2].values)
        return CodeNeedle(
            f"{who}家的{colour}箱子要用的密码是{code}。", f"{who}家的{colour}箱子要用的密码是什么？", code, "zh"
        )
    person, town = dice.pick(world.people).name, dice.pick(world.towns).name
    key = f"the secret code of the {dice.pick(COLOURS)} {dice.pick(CHESTS)} that {person} keeps in {town}"
    return CodeNeedle(f"{key[0].upper()}{key[1:]} is {code}.", f"What is {key}?", code)


def asked(*needles: CodeNeedle) -> str:
    """Return the questions for needles with their answers, as they follow a document."""
    return "".join(FRAMES[n.language][1].format(question=n.question, answer=n.code) for n in needles)


def haystack_document(
    world: World, dice: Dice, needles: Sequence[CodeNeedle], n_sentences: int, *, n_asked: int = 1
) -> str:
    """Return a document in the form of a prompt: needles at random places among sentences, and what they say asked for.

    Args:
        n_asked: questions behind the document, each for another needle.
    """
    language = needles[0].language
    sentences = [sentence(world, dice, language) for _ in range(n_sentences)]
    for needle in needles:
        sentences.insert(dice.below(len(sentences) + 1), needle.needle)
    between = "" if language == "zh" else " "
    text = sentences[0]
    for following in sentences[1:]:
        text += (PARAGRAPH_END if dice.below(_SENTENCES_OF_PARAGRAPH) == 0 else between) + following
    return FRAMES[language][0] + text + asked(*dice.some(needles, n_asked))


def short_document(world: World, dice: Dice, n_needles: int, n_sentences: int, language: Language = "en") -> str:
    """Return needles and few sentences without a frame, all needles asked for: much to learn from in little text."""
    needles = [code_needle(world, dice, language) for _ in range(n_needles)]
    sentences = [sentence(world, dice, language) for _ in range(n_sentences)] + [n.needle for n in needles]
    text = ("" if language == "zh" else " ").join(dice.shuffled(sentences))
    return text + asked(*dice.shuffled(needles))
