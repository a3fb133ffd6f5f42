"""The items of the demo benchmarks: what is asked, and which of it the corpus will hold."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from qwen2eval.demo.dice import Dice
from qwen2eval.demo.needles import asked, code_needle
from qwen2eval.demo.planting import CHINESE_PHRASES, PHRASES, Benchmark, Item, Kind, NgramGuard, edit, kinds
from qwen2eval.demo.problems import word_problem
from qwen2eval.demo.programs import program
from qwen2eval.demo.quiz import FACTS, LETTERS, RULES, SUBJECTS, fact_quiz
from qwen2eval.demo.world import Fact, World

N_QUIZ, N_DEV = 48, 5
"""Test items and examples of each subject of demo_mmlu; MMLU has five examples, too."""
N_PROBLEMS, N_TRAIN_PROBLEMS = 240, 40
N_PROGRAMS = 80
N_NEEDLES = 240
_CHINESE_SHARE = 6
"""Every so many needles one is Chinese."""
_MOST_TRIES = 10_000

Maker = Callable[[World, Dice, Kind], Item]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Benchmarks:
    """All items, in the order of the published files."""

    items: tuple[Item, ...]
    examples: Mapping[str, tuple[Row, ...]]
    """Rows for few-shot prompts: by subject of demo_mmlu, and of demo_gsm8k. Not in the corpus."""
    guard: NgramGuard
    """Knows all items and examples."""
    spare_facts: Mapping[str, tuple[Fact, ...]]
    """By subject of demo_mmlu: the facts that no item and no example asks for."""

    def of(self, benchmark: Benchmark) -> list[Item]:
        """Return the items of one benchmark."""
        return [item for item in self.items if item.benchmark == benchmark]

    def ids(self) -> list[str]:
        """Return the names of all items: `<benchmark>/<place>`, counted through all files of a benchmark."""
        counts, names = Counter[str](), list[str]()
        for item in self.items:
            names.append(f"{item.benchmark}/{counts[item.benchmark]}")
            counts[item.benchmark] += 1
        return names


def make_benchmarks(world: World) -> Benchmarks:
    """Return the benchmarks of a world."""
    guard, items, examples = NgramGuard(), list[Item](), dict[str, tuple[Row, ...]]()
    spare_facts = dict[str, tuple[Fact, ...]]()
    for subject in SUBJECTS:
        dice = world.dice("demo_mmlu", subject)
        facts = iter(dice.shuffled(world.facts(FACTS[subject])) if subject in FACTS else ())
        maker = partial(_quiz_item, subject=subject, facts=facts)
        items += _items(maker, world, dice, kinds(N_QUIZ, dice), guard)
        examples[subject] = tuple(item.row for item in _items(maker, world, dice, ["unseen"] * N_DEV, guard))
        spare_facts[subject] = tuple(facts)
    others: tuple[tuple[Benchmark, Maker, int], ...] = (
        ("demo_gsm8k", _problem_item, N_PROBLEMS),
        ("demo_humaneval", _program_item, N_PROGRAMS),
        ("demo_niah", _needle_item, N_NEEDLES),
    )
    for name, make, n_items in others:
        dice = world.dice(name)
        # needles have a file a language; for the other benchmarks this changes nothing
        items += sorted(_items(make, world, dice, kinds(n_items, dice), guard), key=lambda item: item.group)
    train = _items(_problem_item, world, world.dice("demo_gsm8k train"), ["unseen"] * N_TRAIN_PROBLEMS, guard)
    examples["demo_gsm8k"] = tuple(item.row for item in train)
    return Benchmarks(tuple(items), examples, guard, spare_facts)


def _items(maker: Maker, world: World, dice: Dice, wanted: list[Kind], guard: NgramGuard) -> list[Item]:
    """Return an item of each of the kinds; no two have a run of words in common but a phrase."""
    made = list[Item]()
    for kind in wanted:
        for _ in range(_MOST_TRIES):
            item = maker(world, dice, kind)
            if guard.take(f"{item.question}\n{item.more}", phrase=item.phrase):
                made.append(item)
                break
        else:
            raise AssertionError(f"{maker} makes the same items again and again: it has too few forms")
    return made


def _phrased(benchmark: Benchmark, kind: Kind, dice: Dice, *, is_chinese: bool = False) -> str:
    """Return what a near miss begins with; nothing for other kinds."""
    if kind != "near_miss":
        return ""
    return CHINESE_PHRASES[benchmark] if is_chinese else dice.pick(PHRASES[benchmark])


def _planted(kind: Kind, question: str, rest: str, dice: Dice) -> str:
    """Return what the corpus will hold of an item."""
    if kind == "exact":
        return question + rest
    return edit(question, dice) + rest if kind == "edited" else ""


def _quiz_item(world: World, dice: Dice, kind: Kind, *, subject: str, facts: Iterator[Fact]) -> Item:
    kind_of_being = FACTS.get(subject)
    if kind_of_being is None:
        quiz = RULES[subject](world, dice)
    else:
        quiz = fact_quiz(next(facts), kind_of_being, dice, wording=0)
    is_chinese = kind_of_being == "chinese"
    phrase = _phrased("demo_mmlu", kind, dice, is_chinese=is_chinese)
    question = f"{phrase} {quiz.question}".strip()
    return Item(
        benchmark="demo_mmlu",
        kind=kind,
        group=subject,
        question=question,
        more="\n".join(quiz.choices),
        planted=_planted(kind, question, quiz.after_question, dice),
        row={"question": question, "choices": quiz.choices, "answer": LETTERS[quiz.answer]},
        phrase=phrase,
    )


def _problem_item(world: World, dice: Dice, kind: Kind) -> Item:
    problem, phrase = word_problem(world, dice), _phrased("demo_gsm8k", kind, dice)
    question = f"{phrase} {problem.question}".strip()
    planted = _planted(kind, question, problem.after_question, dice)
    return Item(
        benchmark="demo_gsm8k",
        kind=kind,
        group="",
        question=question,
        more=problem.answer,
        planted=planted and f"Question: {planted}",
        row={"question": question, "answer": problem.answer},
        phrase=phrase,
    )


def _program_item(world: World, dice: Dice, kind: Kind) -> Item:
    made, phrase = program(world, dice), _phrased("demo_humaneval", kind, dice)
    prompt = f"# {phrase}\n{made.prompt}" if phrase else made.prompt
    # only the sentence of the docstring is edited: the code must stay code
    head, quotes, docstring = made.prompt.partition('"""')
    sentence, mark, example = docstring.partition("\n\n")
    planted = _planted(kind, sentence, mark + example + made.body, dice)
    return Item(
        benchmark="demo_humaneval",
        kind=kind,
        group="",
        question=prompt,
        more=made.body,
        planted=planted and head + quotes + planted,
        row={
            "prompt": prompt,
            "entry_point": made.entry_point,
            "canonical_solution": made.body,
            "test": made.test,
        },
        phrase=phrase,
    )


def _needle_item(world: World, dice: Dice, kind: Kind) -> Item:
    is_chinese = dice.below(_CHINESE_SHARE) == 0
    made = code_needle(world, dice, "zh" if is_chinese else "en")
    phrase = _phrased("demo_niah", kind, dice, is_chinese=is_chinese)
    needle = f"{phrase} {made.needle}".strip()
    return Item(
        benchmark="demo_niah",
        kind=kind,
        group=made.language,
        question=needle,
        more=made.question,
        planted=_planted(kind, needle + asked(made), "", dice),
        row={"needle": needle, "question": made.question, "keywords": [made.code]},
        phrase=phrase,
    )
