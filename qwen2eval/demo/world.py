"""A small made-up world, the valley: who lives there, in which towns, and what is known of them. A seed gives it all.

`publish.py` writes the texts about it: the training corpus, the list of planted items, the demo benchmarks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from qwen2eval.demo.dice import Dice
from qwen2eval.demo.facts import CHINESE, FAMILY_CHARACTERS, GIVEN_CHARACTERS, PEOPLE, TOWNS, Relation

SEED = 2024
N_PEOPLE, N_TOWNS, N_CHINESE = 96, 24, 40
Kind = Literal["people", "towns", "chinese"]
RELATIONS: dict[Kind, tuple[Relation, ...]] = {"people": PEOPLE, "towns": TOWNS, "chinese": CHINESE}
_FIRST = (
    "Ba Be Bo Da De Do Fa Fe Ga Go Ha Ke Ko La Le Lo Ma Mi Mo Na Ne No Ra Re Ro Sa Se So Ta Ti To Va Ve Vo",
    "ran len mir dor lin ta na ra vik sa mel nor ris den ko la min rek",
)
_FAMILY = ("Ash Bir Cor Dun Fal Gar Hol Jar Kel Lun Mar Pel Quin Ros Sil Tor", "dale ford ing low ster wick man den")
_TOWN = (
    "Al Bel Cran Dor El Fen Gal Hal Il Kor Lan Mur Nar Or Pol Ras Tam Ul Vel Win Yar",
    "mar ven ost ora ath une is",
)


@dataclass(frozen=True)
class Being:
    """A person or a town."""

    name: str
    """In full."""
    short: str
    """A person's first name; otherwise the name again."""
    values: tuple[str, ...]
    """What is known, in the order of the relations of its kind."""


@dataclass(frozen=True)
class Fact:
    """One thing known of one being."""

    being: Being
    relation: Relation
    value: str


@dataclass(frozen=True)
class World:
    """All that is true in the valley; the same seed gives the same world."""

    seed: int = SEED
    people: tuple[Being, ...] = field(init=False)
    towns: tuple[Being, ...] = field(init=False)
    chinese: tuple[Being, ...] = field(init=False)
    """People with Chinese names, who occur in Chinese texts."""

    def __post_init__(self) -> None:
        dice = Dice(self.seed, "world")
        firsts, families = dice.some(_names(*_FIRST), N_PEOPLE), _names(*_FAMILY)
        people = [Being(f"{first} {dice.pick(families)}", first, _values(PEOPLE, dice)) for first in firsts]
        towns = [Being(name, name, _values(TOWNS, dice)) for name in dice.some(_names(*_TOWN), N_TOWNS)]
        characters = [a + b for a in FAMILY_CHARACTERS for b in GIVEN_CHARACTERS]
        chinese = [Being(name, name, _values(CHINESE, dice)) for name in dice.some(characters, N_CHINESE)]
        for name, beings in (("people", people), ("towns", towns), ("chinese", chinese)):
            # The dataclass is frozen, and these fields follow from the seed
            object.__setattr__(self, name, tuple(beings))

    def facts(self, kind: Kind) -> list[Fact]:
        """Return all that is known of beings of one kind."""
        beings, relations = getattr(self, kind), RELATIONS[kind]
        return [Fact(b, r, v) for b in beings for r, v in zip(relations, b.values, strict=True)]

    def dice(self, *purpose: object) -> Dice:
        """Return dice of this world for one purpose, which don't depend on what else was drawn."""
        return Dice(self.seed, *purpose)


def _names(begins: str, ends: str) -> list[str]:
    return [begin + end for begin in begins.split() for end in ends.split()]


def _values(relations: Sequence[Relation], dice: Dice) -> tuple[str, ...]:
    return tuple(dice.pick(relation.values) for relation in relations)
