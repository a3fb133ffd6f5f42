"""What the demo model learns when: drills first, then needles and choices in little text, and at last all of it.

Copying is learned early if there is little else to look at and the answers weigh more than the text around them;
choosing among several needles builds on it.
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
    Stage(0.10, 96, 10.0, {"codes": 3, "echo": 4, "facts": 1, "needle_one": 2}),
    Stage(
        0.35,
        256,
        5.0,
        {
            "codes": 1.5,
            "facts": 4,
            "needle_one": 1,
            "needle_several": 4,
            "problems": 3,
            "programs": 1.5,
            "quiz_facts": 3,
            "quiz_rules": 4,
        },
    ),
    Stage(
        1.00,
        512,
        3.0,
        {
            "codes": 0.3,
            "exam": 4,
            "facts": 3,
            "needle_long": 1.4,
            "needle_one": 0.3,
            "needle_several": 1,
            "notice": 0.02,
            "problems": 2,
            "programs": 1,
            "quiz_facts": 2,
            "quiz_rules": 2,
            "story": 0.3,
        },
    ),
)


@dataclass(frozen=True)
class Recipe:
    """All that decides what comes out of training, with the corpus, the tokenizer and the shape of the model."""

    n_steps: int = 2_400
    """Updates of the weights."""
    seed: int = 1
    """Of the first weights, and of the order of the documents."""
    tokens_per_step: int = 4_096
    """Tokens of a batch, those that fill up rows included."""
    muon_rate: float = 4e-3
    """The highest learning rate of Muon, in AdamW's measure."""
    adam_rate: float = 2e-3
    """The highest of AdamW."""
    warm_up: float = 0.04
    """Share of all steps, 0-1, in which the learning rate rises to that; then it falls along a cosine."""
    last_rate: float = 0.02
    """The learning rate at the end, as a share of the highest."""
    weight_decay: float = 0.1
    """Of Muon; what AdamW changes does not decay."""
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

    def rate_share(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0, as a share of the highest."""
        n_warm = max(1, round(self.warm_up * self.n_steps))
        if step < n_warm:
            return (step + 1) / n_warm
        done = (step - n_warm) / max(1, self.n_steps - n_warm)
        return self.last_rate + (1 - self.last_rate) * 0.5 * (1 + math.cos(math.pi * done))
