"""NeedleBench's docs: which needles are asked for, at which length and depth, in which haystack. Contexts come later.

The draws are the original's wherever it seeds them (open-compass/opencompass at commit a5acc4bb). It doesn't seed the
choice of needles of multi-needle retrieval: here `seed` does. References are kept with the question, never built again.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from qwen2eval.errors import DataFileError
from qwen2eval.long_context.needlebench import texts
from qwen2eval.long_context.needlebench.data import LANGUAGES, Language, Needle, NeedleBenchData
from qwen2eval.long_context.needlebench.grid import N_FACTS, N_REPEATS, Setting
from qwen2eval.long_context.needlebench.kinship import Kinship, draw_kinship
from qwen2eval.long_context.needlebench.scoring import Part
from qwen2eval.requests import Doc


@dataclass(frozen=True)
class Grid:
    """What is asked: every combination of these."""

    version: int
    setting: Setting
    languages: tuple[Language, ...] = LANGUAGES
    n_facts: tuple[int, ...] = N_FACTS
    """Needles of one multi-needle reasoning."""
    n_repeats: int | None = None
    """Needles or chains a language; None: as published."""
    guide: bool = True
    """Version 1: advise to think first."""
    position: texts.Position = "end"
    """Of the question; at the start in version 1 only."""
    base: bool = False
    """Version 1: leave the format of the answer open, for a base model to continue it."""
    seed: int = 0
    """Of what the original leaves to chance."""

    def repeats(self, part: Part) -> range:
        """Return the numbers of the repeats of a part."""
        return range(N_REPEATS[part] if self.n_repeats is None else self.n_repeats)


@dataclass(frozen=True)
class NeedleDoc:
    """One question; its context is built for the model under test."""

    part: Part
    language: Language
    length: int
    """Tokens."""
    repeat: int
    """Number of the haystack's order, from 0."""
    needles: tuple[str, ...]
    """In their order in the text."""
    depths: tuple[int, ...]
    """Percent: one a needle in multi-needle retrieval, else of the first needle only."""
    keywords: tuple[str, ...]
    """Single retrieval: one; multi-needle retrieval: one a needle; reasoning: the answer."""
    question: str
    notes: str
    """What follows the question."""
    cluster: str
    """Questions about the same needles share it."""


def make_docs(grid: Grid, part: Part, data: NeedleBenchData) -> list[Doc]:
    """Return the docs of one part as rows, shortest context first.

    Raises:
        MissingDataError: a file is not there.
        DataFileError: a file is broken, or has fewer needles or names than the grid needs.
    """
    make = {"single": _single_docs, "retrieval": _retrieval_docs, "reasoning": _reasoning_docs}[part]
    docs = [doc for language in grid.languages for doc in make(grid, language, data)]
    # shortest first: a model that takes only some of the lengths has the same doc ids for these
    docs.sort(key=lambda doc: doc.length)
    return [asdict(doc) | _cell(doc) for doc in docs]


def pick_distinct(needles: Sequence[Needle], n: int, *, rng: random.Random) -> list[Needle]:
    """Return `n` random needles, no two of which share subject or keyword.

    Raises:
        DataFileError: there are fewer.
    """
    shuffled, picked = list(needles), list[Needle]()
    rng.shuffle(shuffled)
    for needle in shuffled:
        if all(needle.subject != other.subject and needle.keyword != other.keyword for other in picked):
            picked.append(needle)
        if len(picked) == n:
            return picked
    raise DataFileError(f"needles.jsonl has {len(picked)} needles with different subjects and keywords; {n} are needed")


def _cell(doc: NeedleDoc) -> dict[str, Any]:
    """Return a doc's place in a heat map; a multi-needle retrieval is at all depths at once."""
    return {} if doc.part == "retrieval" else {"cell": {"length": doc.length, "depth": doc.depths[0]}}


def _single_docs(grid: Grid, language: Language, data: NeedleBenchData) -> Iterator[NeedleDoc]:
    needles = data.needles(language)
    for repeat in grid.repeats("single"):
        needle = random.Random(repeat).choice(needles)
        question = _guided(needle.question, grid, language)
        for length in grid.setting.lengths:
            for depth in grid.setting.depths:
                yield NeedleDoc(
                    "single",
                    language,
                    length,
                    repeat,
                    (needle.text,),
                    (depth,),
                    (needle.keyword,),
                    question,
                    "",
                    f"{language}/{repeat}",
                )


def _retrieval_docs(grid: Grid, language: Language, data: NeedleBenchData) -> Iterator[NeedleDoc]:
    depths = grid.setting.depths
    # Drawn once for all repeats, which differ in the needles' order only
    chosen = pick_distinct(data.needles(language), len(depths), rng=random.Random(grid.seed))
    for repeat in grid.repeats("retrieval"):
        needles = list(chosen)
        random.Random(repeat).shuffle(needles)
        question = _guided(texts.joined_question(needles, language=language), grid, language)
        found, keywords = tuple(n.text for n in needles), tuple(n.keyword for n in needles)
        for length in grid.setting.lengths:
            yield NeedleDoc(
                "retrieval", language, length, repeat, found, depths, keywords, question, "", f"{language}/{repeat}"
            )


def _reasoning_docs(grid: Grid, language: Language, data: NeedleBenchData) -> Iterator[NeedleDoc]:
    draw = _drawn_kinships if grid.version == 2 else _drawn_chains
    for n_facts in grid.n_facts:
        for repeat, drawn in enumerate(draw(grid, language, data, n_facts)):
            for length in grid.setting.lengths:
                for depth in grid.setting.depths:
                    yield NeedleDoc(
                        "reasoning",
                        language,
                        length,
                        repeat,
                        drawn.facts,
                        (depth,),
                        (drawn.answer,),
                        drawn.question,
                        drawn.notes,
                        f"{language}/{n_facts}/{repeat}",
                    )


class _Drawn(NamedTuple):
    facts: tuple[str, ...]
    answer: str
    question: str
    notes: str


def _drawn_chains(grid: Grid, language: Language, data: NeedleBenchData, n_facts: int) -> Iterator[_Drawn]:
    chains = data.chains(language, n_facts)
    guide = texts.prompts()["guide"][language] if grid.guide else ""
    for repeat in grid.repeats("reasoning"):
        chain = random.Random(repeat).choice(chains)
        yield _Drawn(chain.facts, chain.answer, chain.question + guide, "")


def _drawn_kinships(grid: Grid, language: Language, data: NeedleBenchData, n_facts: int) -> Iterator[_Drawn]:
    names = data.names(language)
    for repeat in grid.repeats("reasoning"):
        kinship = kinship_of(random.Random(repeat), names, n_facts=n_facts, version=2, language=language)
        question = texts.eldest_in_document(kinship.youngest, language=language)
        notes = "\n\n".join(texts.boxed_notes("eldest", kinship, language=language))
        yield _Drawn(kinship.sentences, kinship.eldest, question, notes)


def kinship_of(
    rng: random.Random, names: Sequence[str], *, n_facts: int, version: int, language: Language, shuffled: bool = True
) -> Kinship:
    """Draw a chain of `n_facts` sentences with a version's sentence forms.

    Raises:
        DataFileError: fewer names than people.
    """
    if len(names) <= n_facts:
        raise DataFileError(f"names.json has {len(names)} {language} names; a chain of {n_facts + 1} people needs more")
    kinship = texts.prompts()["kinship"]
    return draw_kinship(
        rng,
        names,
        n_people=n_facts + 1,
        forms=kinship["forms"][f"v{version}"][language],
        terms=kinship["terms"][language],
        shuffled=shuffled,
        n_blank=1 if version == 1 else 0,
    )


def _guided(question: str, grid: Grid, language: Language) -> str:
    return texts.guided(question, language=language) if grid.version == 1 and grid.guide else question
