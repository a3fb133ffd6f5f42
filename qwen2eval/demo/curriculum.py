"""What the demo model learns when: one needle in little text first, then more of them, longer texts, and all the rest.

Copying a code is learned early if there is little else to look at and the answers weigh more than the text around them;
choosing among several needles, or among choices, builds on it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from qwen2eval.errors import ConfigError


@dataclass(frozen=True)
class Stage:
    """A part of training."""

    until: float
    """Share of all steps, 0-1, at which it ends."""
    row_length: int
    """Tokens of a row; documents are packed into rows whole, and may look back at those before them."""
    answer_weight: float
    """What the loss of an answer's token counts, that of other tokens being 1."""
    weights: Mapping[str, float]
    """How many of the documents are of each kind, in relation to each other."""


STAGES = (
    Stage(0.05, 72, 10.0, {"needle_one": 8, "facts": 2}),  # a row holds one needle
    Stage(0.12, 128, 10.0, {"needle_one": 2, "binding": 5, "facts": 3}),
    Stage(
        0.30,
        256,
        5.0,
        {
            "needle_one": 2,
            "needle_several": 5,
            "binding": 2,
            "facts": 4,
            "quiz_rules": 2,
            "quiz_facts": 2,
            "problems": 2,
            "programs": 1,
        },
    ),
    Stage(
        1.00,
        512,
        3.0,
        {
            "binding": 0.3,
            "exam": 1.6,
            "facts": 4,
            "needle_long": 1.6,
            "needle_one": 0.5,
            "needle_several": 1.5,
            "notice": 0.02,
            "problems": 2.5,
            "programs": 1.5,
            "quiz_facts": 2,
            "quiz_rules": 2.5,
            "story": 0.3,
        },
    ),
)


@dataclass(frozen=True)
class Recipe:
    """All that decides what comes out of training, with the corpus, the tokenizer and the shape of the model."""

    n_steps: int = 12_000
    """Updates of the weights."""
    seed: int = 1
    """Of the first weights, and of the order of the documents."""
    tokens_per_step: int = 4_096
    """Tokens of a batch, those that fill up rows included."""
    learning_rate: float = 2e-3
    """The highest."""
    warm_up: float = 0.02
    """Share of all steps, 0-1, in which the learning rate rises to that; then it falls along a cosine."""
    last_rate: float = 0.05
    """The learning rate at the end, as a share of the highest."""
    weight_decay: float = 0.1
    """Of AdamW, for matrices only."""
    max_gradient: float = 1.0
    """The norm to which gradients are cut."""
    stages: tuple[Stage, ...] = STAGES

    def __post_init__(self) -> None:
        """Refuse what can't be trained.

        Raises:
            ConfigError: no steps, or stages that don't cover all of them.
        """
        if self.n_steps < 1:
            raise ConfigError(f"steps is {self.n_steps}: give 1 or more")
        if not self.stages or self.stages[-1].until < 1:
            raise ConfigError("the last stage of a recipe must end at 1, the end of training")

    def stage(self, step: int) -> Stage:
        """Return the stage of a step, counted from 0."""
        return next(stage for stage in self.stages if step < stage.until * self.n_steps)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        n_warm = max(1, round(self.warm_up * self.n_steps))
        if step < n_warm:
            return self.learning_rate * (step + 1) / n_warm
        done = (step - n_warm) / max(1, self.n_steps - n_warm)
        share = self.last_rate + (1 - self.last_rate) * 0.5 * (1 + math.cos(math.pi * done))
        return self.learning_rate * share
