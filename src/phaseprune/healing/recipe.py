"""How a pruned model is fine-tuned: the options, checked before anything is loaded."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from phaseprune.decoder.trainable import METHODS, check_method
from phaseprune.errors import UserError, near_matches

OBJECTIVES = ("task", "text", "distill")
#: Peak learning rates where none is given: those usual for adapters and for all weights.
DEFAULT_LR = {"lora": 2e-3, "full": 2e-4}
#: Examples of the validation split: a tenth of those trained on, within these bounds. Twenty
#: evaluations then cost at most two thirds of the training, whose examples run forward and back.
LEAST_VALIDATION, MOST_VALIDATION = 32, 256


@dataclass(frozen=True)
class Recipe:
    """How a pruned model is fine-tuned.

    Attributes:
        method: ``lora`` or ``full``.
        objective: ``task``, ``text`` or ``distill`` (``heal.losses``).
        steps: optimiser steps at most.
        lr: peak learning rate of AdamW; None for ``DEFAULT_LR``.
        batch: questions (or windows of text) a step.
        seed: of the adapters, the validation split and the order of the batches.
        rank: of the adapters.
        minutes: time budget of training; None for none. Where it ends a run, how far that came
            depends on the machine.
        check_every: steps between two evaluations on the validation split, when the state is saved
            too; None for a twentieth of the steps, but as many as cost what an evaluation costs.
        patience: evaluations without a better validation loss after which training stops.
    """

    method: str = "lora"
    objective: str = "task"
    steps: int = 500
    lr: float | None = None
    batch: int = 32
    seed: int = 0
    rank: int = 16
    minutes: float | None = None
    check_every: int | None = None
    patience: int = 8

    @property
    def peak(self) -> float:
        """The peak learning rate in use."""
        return DEFAULT_LR[self.method] if self.lr is None else self.lr

    @property
    def between(self) -> int:
        """Steps between two evaluations; by default no fewer examples than one costs."""
        enough = math.ceil(self.validation / (3 * self.batch))  # forward and backward are three
        return self.check_every or max(1, self.steps // 20, enough)

    @property
    def validation(self) -> int:
        """Examples of the validation split, at most."""
        return max(LEAST_VALIDATION, min(MOST_VALIDATION, self.steps * self.batch // 10))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with what the defaults come to."""
        return asdict(self) | {"lr": self.peak, "check_every": self.between}

    def learning_rate(self, step: int) -> float:
        """Of a 0-based step: up over a twentieth of the steps, then down as a half cosine."""
        warm_up = max(1, self.steps // 20)
        if step < warm_up:
            return self.peak * (step + 1) / warm_up
        done = (step - warm_up) / max(1, self.steps - warm_up)
        return self.peak * 0.5 * (1 + math.cos(math.pi * done))


def check_recipe(recipe: Recipe) -> None:
    """Refuse options that do not do.

    Raises:
        UserError: an unknown word, a number out of its range, or LoRA without peft.
    """
    for option, value, allowed in (
        ("method", recipe.method, METHODS),
        ("objective", recipe.objective, OBJECTIVES),
    ):
        if value not in allowed:
            raise UserError(
                f"--{option} is {value!r} and must be one of {', '.join(allowed)}."
                + near_matches(value, allowed)
            )
    for name in ("steps", "batch", "rank", "check_every", "patience"):
        value = getattr(recipe, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1 and is {value}")
    for name in ("lr", "minutes"):
        value = getattr(recipe, name)
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"--{name} must be more than 0 and is {value:g}")
    check_method(recipe.method)
