"""Chains of relatives: sentences such as "Ann is Bo's mother." that only together show who is the eldest.

They are NeedleBench's ancestral trace challenge and version 2's multi-needle reasoning. Forms, terms and the order of
the random draws are those of open-compass/opencompass at commit a5acc4bb: the same names and seed give the same chain.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from string import Template


@dataclass(frozen=True)
class Kinship:
    """People from the eldest to the youngest, and the sentences about them."""

    names: tuple[str, ...]
    sentences: tuple[str, ...]
    """One for each two neighbours; shuffled, where that was asked for."""
    n_generations: int
    """From the eldest to the youngest."""

    @property
    def eldest(self) -> str:
        """Whom all others descend from."""
        return self.names[0]

    @property
    def youngest(self) -> str:
        """Who descends from all others."""
        return self.names[-1]


def draw_kinship(
    rng: random.Random,
    names: Sequence[str],
    *,
    n_people: int,
    forms: Sequence[str],
    terms: Mapping[str, int],
    shuffled: bool = True,
    n_blank: int = 0,
) -> Kinship:
    """Draw a chain of relatives.

    Args:
        rng: one stream for names, sentence forms, terms and order, in this order.
        names: to draw from; at least `n_people`.
        forms: sentences with `$a`, the elder, `$b` and `$term`.
        terms: kinship terms and the generations that each spans.
        shuffled: put the sentences in random order; else the eldest comes first.
        n_blank: empty sentences that the original shuffles with the real ones (version 1: one); they change the order.
    """
    people = rng.sample(list(names), n_people)
    sentences, n_generations = [], 0
    for elder, younger in pairwise(people):
        form, term = rng.choice(forms), rng.choice(list(terms))
        sentences.append(Template(form).substitute(a=elder, b=younger, term=term))
        n_generations += terms[term]
    if shuffled:
        padded = sentences + [""] * n_blank
        rng.shuffle(padded)
        sentences = [sentence for sentence in padded if sentence]
    return Kinship(tuple(people), tuple(sentences), n_generations)
