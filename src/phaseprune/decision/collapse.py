"""Collapse: what is left of the full model's accuracy above chance, and where it falls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from phaseprune.decision.intervals import percentiles, resamples

#: Collapsed: the upper 95 % bound of retained lies below this.
COLLAPSED_BELOW = 0.25


@dataclass(frozen=True)
class Retained:
    """Share of the full model's accuracy above chance that is left, with a 95 % interval.

    ``value`` is None where the full model is not above chance; ``ci`` is None where the bootstrap
    cannot bound the ratio, as resamples of the full model fall to chance too.
    """

    value: float | None
    ci: tuple[float, float] | None

    @property
    def collapsed(self) -> bool:
        """Whether the upper bound is below 0.25."""
        return self.ci is not None and self.ci[1] < COLLAPSED_BELOW


@dataclass(frozen=True)
class Cliff:
    """The step with the largest one-step loss of retained accuracy.

    ``loss`` is in units of retained (1 = all of the accuracy above chance); ``significant`` means
    that the 95 % interval of the loss lies above 0.
    """

    step: int
    removed: int | str
    phase: str | None
    loss: float
    loss_ci: tuple[float, float] | None
    significant: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"loss_ci": list(self.loss_ci) if self.loss_ci else None}


def retained(correct: np.ndarray, full: np.ndarray, chances: np.ndarray, seed: int) -> Retained:
    """Retained accuracy of a pruned model, bootstrapped over questions in pairs.

    Args:
        correct: ``[Q]`` whether the pruned model is right.
        full: ``[Q]`` whether the full model is right on the same questions.
        chances: ``[Q]`` 1/k of each question.
        seed: of the bootstrap.
    """
    return _ratio(np.asarray(correct, float) - chances, full, chances, seed)


def find_cliff(
    correct: Sequence[np.ndarray],
    removed: Sequence[int | str | None],
    phases: Sequence[str | None],
    chances: np.ndarray,
    seed: int,
) -> Cliff | None:
    """The cliff of a pruning run.

    Args:
        correct: one ``[Q]`` array a step, the first of the full model.
        removed: the block (or the half of one) removed at each step (None at step 0).
        phases: its phase in the full model.
        chances: ``[Q]`` 1/k of each question.
        seed: of the bootstrap.

    Returns:
        None where nothing was removed, nothing was lost, or the full model is not above chance.
    """
    right = np.stack([np.asarray(row, float) for row in correct])
    above_chance = float((right[0] - chances).mean())
    if len(right) < 2 or above_chance <= 0:
        return None
    losses = -np.diff(right.mean(axis=1)) / above_chance
    step = int(np.argmax(losses)) + 1
    if losses[step - 1] <= 0:
        return None
    loss = _ratio(right[step - 1] - right[step], right[0], chances, seed)
    return Cliff(
        step=step,
        removed=removed[step],
        phase=phases[step],
        loss=float(losses[step - 1]),
        loss_ci=loss.ci,
        significant=loss.ci is not None and loss.ci[0] > 0,
    )


def _ratio(numerator: np.ndarray, full: np.ndarray, chances: np.ndarray, seed: int) -> Retained:
    """Mean of ``numerator`` over the mean of (full - chance), with its paired bootstrap."""
    denominator = np.asarray(full, float) - chances
    if denominator.mean() <= 0:
        return Retained(None, None)
    samples = []
    for weights in resamples(len(denominator), seed):
        bottom = weights @ denominator
        if (bottom <= 0).any():
            return Retained(float(numerator.mean() / denominator.mean()), None)
        samples.append((weights @ numerator) / bottom)
    low, high = percentiles(np.concatenate(samples))
    return Retained(float(numerator.mean() / denominator.mean()), (float(low), float(high)))
