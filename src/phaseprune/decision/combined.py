"""Several tasks as one figure: what is left of each, made comparable, and their mean or worst.

What is left of a task is 1 for the full model and 0 where its lead over guessing is gone. Guessing
is the decision representation that gives each of the k options 1/k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from phaseprune.decision.collapse import Loss, Retained
from phaseprune.decision.intervals import percentiles, resampled_lead, resamples

COMBINES = ("mean", "worst")
#: The least distance that counts as all that there is to lose, as a share of that from guessing to
#: being sure of the right option everywhere: nothing is divided by what is near 0 or below.
LEAST_SHARE = 0.2
#: Combined figures that differ by less are equal: sums of the same numbers in another order are.
TIE = 1e-9


@dataclass(frozen=True)
class Scale:
    """What makes an objective of one task comparable with that of another.

    Attributes:
        full: the full model's objective.
        guessing: that of guessing.
        lost: the loss of objective that counts as all of it, above 0.
        sign: +1 where a larger objective is better, else -1.
    """

    full: float
    guessing: float
    lost: float
    sign: int

    def left(self, values: np.ndarray | float) -> np.ndarray | float:
        """What is left, of the objective of some models: 1 where it is that of the full model."""
        return 1 - self.sign * (self.full - np.asarray(values, float)) / self.lost

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def make_scale(objective: str, full: float, options: np.ndarray) -> Scale:
    """The scale of an objective.

    Args:
        objective: a name in ``search.objectives.OBJECTIVES``.
        full: the full model's, on the calibration questions.
        options: ``[Q]`` number of options of these questions.
    """
    guessing, sure, sign = {
        "accuracy": (float((1 / options).mean()), 1.0, 1),
        "decision_margin": (0.0, 1.0, 1),
        "loss": (float(np.log(options).mean()), 0.0, -1),
        "debiased_margin": (0.0, 1.0, 1),
    }[objective]
    lost = max(sign * (full - guessing), LEAST_SHARE * abs(sure - guessing))
    return Scale(float(full), guessing, lost, sign)


def combine(left: np.ndarray, weights: Sequence[float], how: str) -> np.ndarray:
    """What is left of several tasks as one figure.

    Args:
        left: ``[T, ...]`` what is left of each task.
        weights: one a task, above 0.
        how: ``mean``, weighted; or ``worst``, the least of 1 - w (1 - left) with w the weight over
            the largest one, so that a task of half the weight may lose twice as much.

    Returns:
        ``[...]``; 1 where all is left.
    """
    left, weights = np.asarray(left, float), np.asarray(weights, float)
    if how == "mean":
        return np.tensordot(weights / weights.sum(), left, axes=1)
    share = (weights / weights.max()).reshape(-1, *[1] * (left.ndim - 1))
    return (1 - share * (1 - left)).min(axis=0)


def best_place(values: np.ndarray) -> int:
    """Position of the largest figure; of equal ones the first, the lowest original index."""
    values = np.asarray(values)
    return int(np.flatnonzero(values >= values.max() - TIE)[0])


@dataclass(frozen=True)
class Answers:
    """Right answers of the full model and of one without blocks, on one task.

    Attributes:
        correct: ``[Q]`` whether the model is right.
        full: ``[Q]`` whether the full model is.
        chances: ``[Q]`` 1/k.
    """

    correct: np.ndarray
    full: np.ndarray
    chances: np.ndarray


def combined_retained(
    tasks: Sequence[Answers], weights: Sequence[float], how: str, seed: int
) -> Retained:
    """Retained accuracy of several tasks as one figure, with its 95 % interval.

    Args:
        tasks: the answers on each.
        weights: see ``combine``.
        how: see ``combine``.
        seed: of the bootstrap, in which each task's questions are drawn by themselves.
    """
    values = [_retained(task) for task in tasks]
    if None in values:
        return Retained(None, None)
    bounds = tuple(map(float, percentiles(_drawn(tasks, weights, how, seed))))
    return Retained(float(combine(np.array(values), weights, how)), bounds)


def combined_loss(
    steps: Sequence[Sequence[Answers]],
    removed: Sequence[int | None],
    weights: Sequence[float],
    how: str,
    seed: int,
) -> Loss | None:
    """The step with the largest loss of what is retained of several tasks together.

    Args:
        steps: the answers on each task at each step, the first of the full model.
        removed: the block removed at each step (None at step 0).
        weights: see ``combine``.
        how: see ``combine``.
        seed: see ``combined_retained``.

    Returns:
        None as ``collapse.largest_loss``; its phase is None, as each task has its own.
    """
    values = [[_retained(task) for task in tasks] for tasks in steps]
    if len(steps) < 2 or None in values[0]:
        return None
    losses = -np.diff(combine(np.array(values).T, weights, how))
    step = int(np.argmax(losses)) + 1
    if losses[step - 1] <= 0:
        return None
    before, after = (_drawn(steps[at], weights, how, seed) for at in (step - 1, step))
    return Loss(
        step=step,
        removed=int(removed[step]),
        phase=None,
        loss=float(losses[step - 1]),
        loss_ci=tuple(map(float, percentiles(before - after))),
    )


def _retained(task: Answers) -> float | None:
    above = float((task.full - task.chances).mean())
    return float((task.correct - task.chances).mean()) / above if above > 0 else None


def _drawn(tasks: Sequence[Answers], weights: Sequence[float], how: str, seed: int) -> np.ndarray:
    """``[draws]`` of the combined figure."""
    left = []
    for number, task in enumerate(tasks):
        part = []
        for drawn in resamples(len(task.full), [seed, number]):
            above = resampled_lead(drawn, task.full - task.chances)
            part.append(drawn @ (task.correct - task.chances) / above)
        left.append(np.concatenate(part))
    return combine(np.stack(left), weights, how)
