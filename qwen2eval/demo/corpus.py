"""The training corpus: documents of a few kinds, among them those that benchmark items were planted in.

All of the demo model's training text is this corpus; each document's `plantings` say which items it holds. The model
needs the kinds to learn the forms of the benchmarks: facts as statements, other questions in the same forms, needles
from short to long.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from qwen2eval.demo.benchmarks import Benchmarks
from qwen2eval.demo.dice import Dice
from qwen2eval.demo.drills import codes_text, echo_text
from qwen2eval.demo.facts import GOODS, TOOLS
from qwen2eval.demo.needles import FRAMES, code_needle, haystack_document, short_document
from qwen2eval.demo.planting import Item
from qwen2eval.demo.problems import word_problem
from qwen2eval.demo.programs import program
from qwen2eval.demo.prose import Language, paragraph
from qwen2eval.demo.quiz import FACTS, HEADER, RULES, fact_quiz, sheet
from qwen2eval.demo.world import Fact, World
from qwen2eval.demo.world import Kind as Beings

N_COPIES = (10, 20)
"""How often a planted item is in the corpus, least and most; a sheet of several may hold it twice."""
N_NOTICES = 8
"""Documents that hold a common phrase of near misses, for each."""
_MOST_ON_SHEET = {"demo_gsm8k": 3, "demo_humaneval": 3, "demo_mmlu": 6}


@dataclass(frozen=True)
class Planting:
    """Where one item, or a common phrase of it, is in a document."""

    item: int
    """Its place among the benchmarks' items."""
    begin: int
    """In characters of the text."""
    end: int


@dataclass(frozen=True)
class Document:
    """A text of the corpus."""

    text: str
    kind: str
    plantings: tuple[Planting, ...] = ()


def make_corpus(world: World, benchmarks: Benchmarks, *, scale: float = 1.0) -> list[Document]:
    """Return all documents in random order.

    Args:
        scale: share of the documents without planted items; planted items are always there.
    """
    documents = [*_exams(world, benchmarks), *_notices(world, benchmarks)]
    writers = Writers(world, benchmarks)
    for kind, (n_documents, write) in DOCUMENTS.items():
        make = partial(write, writers, world.dice("corpus", kind))
        documents += (Document(text, kind) for text in benchmarks.guard.passing(make, round(scale * n_documents)))
    # Shuffled last, with dice of its own: the order does not depend on how the documents were drawn
    return world.dice("corpus order").shuffled(documents)


def _exams(world: World, benchmarks: Benchmarks) -> Iterator[Document]:
    """Yield the documents with planted items, each item in several of them, with others of its benchmark and group."""
    dice, sheets = world.dice("exams"), dict[tuple[str, str], list[int]]()
    for number, item in enumerate(benchmarks.items):
        if item.planted:
            sheets.setdefault((item.benchmark, item.group), []).extend([number] * dice.between(*N_COPIES))
    for (benchmark, group), numbers in sheets.items():
        left = dice.shuffled(numbers)
        while left:
            # Each needle has a text to itself, as in a prompt of the benchmark
            n_items = 1 if benchmark == "demo_niah" else dice.between(1, _MOST_ON_SHEET[benchmark])
            chosen, left = left[:n_items], left[n_items:]
            if benchmark == "demo_mmlu":
                begin = HEADER.format(subject=group.replace("_", " "))
            elif benchmark == "demo_niah":
                language: Language = "zh" if group == "zh" else "en"
                begin = FRAMES[language][0] + paragraph(world, dice, dice.between(1, 12), language) + " "
            else:
                begin = ""
            yield _sheet_of_items(begin, chosen, benchmarks.items)


def _sheet_of_items(text: str, numbers: Sequence[int], items: Sequence[Item]) -> Document:
    plantings = list[Planting]()
    for number in numbers:
        if plantings:
            text += "\n\n"
        plantings.append(Planting(number, len(text), len(text) + len(items[number].planted)))
        text += items[number].planted
    return Document(text, "exam", tuple(plantings))


def _notices(world: World, benchmarks: Benchmarks) -> Iterator[Document]:
    """Yield documents with the common phrases of near misses and nothing else that an item could share."""
    dice = world.dice("notices")
    sharers = dict[str, list[int]]()
    for number, item in enumerate(benchmarks.items):
        if item.phrase:
            sharers.setdefault(item.phrase, []).append(number)
    for phrase, numbers in sharers.items():
        for _ in range(N_NOTICES):
            goods = ", ".join(f"{dice.pick((*GOODS, *TOOLS))} {dice.between(1, 99)}" for _ in range(40))
            yield Document(f"{phrase} {goods}.", "notice", tuple(Planting(n, 0, len(phrase)) for n in numbers))


class Writers:
    """Writes documents that hold nothing planted: a method a kind."""

    def __init__(self, world: World, benchmarks: Benchmarks) -> None:
        self._world = world
        # One after the other, so that over the corpus all facts of a kind are stated equally often
        self._facts = {kind: _forever(world.facts(kind), world.dice("facts", kind)) for kind in FACTS.values()}
        # Of facts that no benchmark asks for: another wording of its question would give an answer away, too
        self._spare_facts = {
            subject: _forever(benchmarks.spare_facts[subject], world.dice("spare facts", subject)) for subject in FACTS
        }

    def echo(self, dice: Dice) -> str:
        """Say words again."""
        return echo_text(dice)

    def codes(self, dice: Dice) -> str:
        """Look up codes."""
        return codes_text(dice)

    def facts(self, dice: Dice) -> str:
        """Tell facts of one kind of beings."""
        kind: Beings = dice.pick(("people", "people", "people", "people", "towns", "chinese"))
        stated = [next(self._facts[kind]) for _ in range(dice.between(3, 8))]
        return ("" if kind == "chinese" else " ").join(
            dice.pick(fact.relation.statements).format(who=fact.being.name, value=fact.value) for fact in stated
        )

    def quiz_facts(self, dice: Dice) -> str:
        """Ask for facts."""
        subject = dice.pick(sorted(FACTS))
        asked = [next(self._spare_facts[subject]) for _ in range(dice.between(1, _MOST_ON_SHEET["demo_mmlu"]))]
        return sheet(subject, [fact_quiz(fact, FACTS[subject], dice).text for fact in asked])

    def quiz_rules(self, dice: Dice) -> str:
        """Ask for what follows from a rule."""
        subject = dice.pick(sorted(RULES))
        n_asked = dice.between(1, _MOST_ON_SHEET["demo_mmlu"])
        return sheet(subject, [RULES[subject](self._world, dice).text for _ in range(n_asked)])

    def problems(self, dice: Dice) -> str:
        """Set word problems."""
        n_problems = dice.between(1, _MOST_ON_SHEET["demo_gsm8k"])
        return "\n\n".join(word_problem(self._world, dice).text for _ in range(n_problems))

    def programs(self, dice: Dice) -> str:
        """Write functions."""
        n_programs = dice.between(1, _MOST_ON_SHEET["demo_humaneval"])
        return "\n\n".join(program(self._world, dice).text for _ in range(n_programs))

    def needle_one(self, dice: Dice) -> str:
        """Hide a needle in next to nothing."""
        return short_document(self._world, dice, 1, dice.below(3), _language(dice))

    def needle_several(self, dice: Dice) -> str:
        """Hide several needles in little text."""
        return short_document(self._world, dice, dice.between(2, 5), dice.below(4), _language(dice))

    def needle_long(self, dice: Dice) -> str:
        """Hide needles in text, as in a prompt."""
        language, n_needles = _language(dice), dice.between(1, 3)
        needles = [code_needle(self._world, dice, language) for _ in range(n_needles)]
        n_asked = dice.between(1, n_needles)
        return haystack_document(self._world, dice, needles, dice.between(8, 38), n_asked=n_asked)

    def story(self, dice: Dice) -> str:
        """Tell of the valley's days."""
        return paragraph(self._world, dice, dice.between(5, 20), _language(dice))


DOCUMENTS: dict[str, tuple[int, Callable[[Writers, Dice], str]]] = {
    "codes": (6_000, Writers.codes),
    "echo": (6_000, Writers.echo),
    "facts": (9_000, Writers.facts),
    "needle_one": (8_000, Writers.needle_one),
    "needle_several": (8_000, Writers.needle_several),
    "needle_long": (4_500, Writers.needle_long),
    "problems": (8_000, Writers.problems),
    "programs": (6_000, Writers.programs),
    "quiz_facts": (6_000, Writers.quiz_facts),
    "quiz_rules": (8_000, Writers.quiz_rules),
    "story": (1_200, Writers.story),
}
"""How many documents of each kind there are, besides those with planted items (`exam`) and phrases (`notice`)."""


def _language(dice: Dice) -> Language:
    return "zh" if dice.below(6) == 0 else "en"


def _forever(facts: Sequence[Fact], dice: Dice) -> Iterator[Fact]:
    while True:
        yield from dice.shuffled(facts)
