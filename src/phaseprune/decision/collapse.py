"""Collapse: what is left of the full model's accuracy above chance, and where it falls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from phaseprune.decision.curve import SIGNIFICANCE, fit_shape, rise_p_value
from phaseprune.decision.intervals import CONFIDENCE

#: Collapsed: the upper 95 % bound of retained lies below this.
COLLAPSED_BELOW = 0.25
#: What the kinds of a rise are called where accuracy falls.
FALLS = {"step": "cliff", "gradual": "slope", "several": "several cliffs", "unclear": "unclear"}


@dataclass(frozen=True)
class Retained:
    """Share of the full model's accuracy above chance that is left, with a 95 % interval.

    Both are None where the full model is not above chance, so that there is nothing to retain.
    """

    value: float | None
    ci: tuple[float, float] | None

    @property
    def collapsed(self) -> bool:
        """Whether the upper bound is below 0.25."""
        return self.ci is not None and self.ci[1] < COLLAPSED_BELOW


def retained(correct: np.ndarray, full: np.ndarray, chances: np.ndarray) -> Retained:
    """Retained accuracy of a pruned model, with the interval of Fieller (1954) over questions.

    Args:
        correct: ``[Q]`` whether the pruned model is right.
        full: ``[Q]`` whether the full model is right on the same questions.
        chances: ``[Q]`` 1/k of each question.
    """
    return ratio(np.asarray(correct, float) - chances, np.asarray(full, float) - chances)


def ratio(above: np.ndarray, full: np.ndarray, confidence: float = CONFIDENCE) -> Retained:
    """The ratio of two paired means, and its interval.

    The interval holds every r for which mean(above - r full) = 0 is not rejected by a t test. Where
    the mean of ``full`` is not significantly above 0 it reaches without end to one side or to both;
    it is then cut where the full model is right on one question more than by guessing.

    Args:
        above: ``[Q]``, of each question, right or not less chance, of the pruned model,
        full: and of the full one.
        confidence: two-sided level.
    """
    above, full = np.asarray(above, float), np.asarray(full, float)
    questions, top, bottom = len(full), float(above.mean()), float(full.mean())
    if bottom <= 0:
        return Retained(None, None)
    value = top / bottom
    end = max(questions * max(1.0, float(np.abs(above).max())), abs(value))
    if questions < 2:
        return Retained(value, (-end, end))
    quantile = stats.t.ppf(0.5 + confidence / 2, questions - 1) ** 2 / questions
    spread = np.cov(above, full) * quantile
    # Roots of (bottom² - s_ff) r² - 2 (top bottom - s_af) r + (top² - s_aa) = 0.
    a, b, c = bottom**2 - spread[1, 1], top * bottom - spread[0, 1], top**2 - spread[0, 0]
    root = max(b**2 - a * c, 0.0) ** 0.5
    if a > 0:
        low, high = (b - root) / a, (b + root) / a
    elif root > 0 and a < 0:
        # Two rays: all but what lies between the roots. The value lies on one of them.
        inner, outer = sorted(((b - root) / a, (b + root) / a))
        low, high = (outer, end) if value >= outer else (-end, inner)
    else:
        low, high = -end, end
    return Retained(value, (max(min(float(low), value), -end), min(max(float(high), value), end)))


def collapse_kind(raw: Retained, debiased: Retained | None) -> str | None:
    """Name a collapse of a model that is asked by letters.

    Args:
        raw: retained as the model decides.
        debiased: and with the label prior taken off; None for texts.

    Returns:
        ``calibration``: the decisions have collapsed, and without the label prior they have not
        (the lower bound of what is left is above 0.25); ``knowledge``: both have; ``unclear``: the
        decisions have, and the rest cannot be told; None where they have not collapsed, or for
        texts.
    """
    if not raw.collapsed or debiased is None:
        return None
    if debiased.collapsed:
        return "knowledge"
    held = debiased.ci is not None and debiased.ci[0] > COLLAPSED_BELOW
    return "calibration" if held else "unclear"


@dataclass(frozen=True)
class Fall:
    """Where retained falls, as a fit over all steps says.

    Attributes:
        found: whether it falls at all (p < 0.01).
        kind: ``cliff``; ``slope`` where it falls gradually; ``several cliffs``; or ``unclear``:
            these questions cannot tell a cliff from a slope.
        step: place of the first model on the lower level; None where nothing falls.
        ci: its 95 % interval.
        before: mean retained up to the fall,
        after: and from it on.
        r2: share of the squared deviation that two levels explain,
        line_r2: and a straight line.
        span: places of the last model before the fall and of the first behind it; of several
            cliffs, theirs.
        span_ci: their 95 % intervals.
        p_value: of "no fall" (sign-flip test).
    """

    found: bool
    kind: str | None
    step: int | None
    ci: tuple[int, int] | None
    before: float
    after: float
    r2: float
    line_r2: float
    span: tuple[int, int] | None
    span_ci: tuple[tuple[int, int], tuple[int, int]] | None
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        told = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return told | {"span_ci": self.span_ci and [list(bounds) for bounds in self.span_ci]}


def fit_fall(
    correct: Sequence[np.ndarray], chances: np.ndarray, seed: int, at: Sequence[int] | None = None
) -> Fall | None:
    """Fit two levels to retained accuracy over steps, and say whether that is a cliff or a slope.

    Retained is the accuracy on another scale, so fit and tests are those of a rise
    (``curve.fit_shape``) turned downwards. They account for having looked at all steps, which the
    largest of many one-step losses does not.

    Args:
        correct: ``[Q]`` right decisions of each step, the first of the full model.
        chances: ``[Q]`` 1/k.
        seed: of bootstrap and test.
        at: how many blocks are gone at each step; by default one more at each.

    Returns:
        None with no step, or a full model that is not above chance.
    """
    right = np.stack([np.asarray(row, dtype=float) for row in correct], axis=1)
    chance = float(np.mean(chances))
    above = float(right[:, 0].mean()) - chance
    if right.shape[1] < 2 or above <= 0:
        return None
    p_value = rise_p_value(-right, seed)
    shape = fit_shape(-right, seed, at)
    found = p_value < SIGNIFICANCE
    return Fall(
        found=found,
        kind=FALLS[shape.kind] if found else None,
        step=shape.split if found else None,
        ci=shape.ci if found else None,
        before=(-shape.before - chance) / above,
        after=(-shape.after - chance) / above,
        r2=shape.r2,
        line_r2=_line_r2(right.mean(axis=0), at),
        span=shape.rise if found else None,
        span_ci=shape.rise_ci if found else None,
        p_value=p_value,
    )


def _line_r2(values: np.ndarray, at: Sequence[int] | None) -> float:
    """R² of a straight line through some values."""
    if np.ptp(values) == 0:
        return 0.0
    places = np.arange(len(values)) if at is None else np.asarray(at)
    return float(np.corrcoef(places, values)[0, 1] ** 2)


@dataclass(frozen=True)
class Loss:
    """The step with the largest one-step loss of retained accuracy; no cliff (see ``Fall``).

    ``loss`` is in units of retained (1 = all of the accuracy above chance). Its interval is not
    corrected for having chosen the largest of many losses.
    """

    step: int
    removed: int | str
    phase: str | None
    loss: float
    loss_ci: tuple[float, float] | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"loss_ci": list(self.loss_ci) if self.loss_ci else None}


def largest_loss(
    correct: Sequence[np.ndarray],
    removed: Sequence[int | str | None],
    phases: Sequence[str | None],
    chances: np.ndarray,
) -> Loss | None:
    """The step of a pruning run that loses most by itself.

    Args:
        correct: one ``[Q]`` array a step, the first of the full model.
        removed: the block (or the half of one) removed at each step (None at step 0).
        phases: its phase in the full model.
        chances: ``[Q]`` 1/k of each question.

    Returns:
        None where nothing was removed, nothing was lost, or the full model is not above chance.
    """
    right = np.stack([np.asarray(row, float) for row in correct])
    if len(right) < 2 or (right[0] - chances).mean() <= 0:
        return None
    losses = -np.diff(right.mean(axis=1))
    step = int(np.argmax(losses)) + 1
    if losses[step - 1] <= 0:
        return None
    loss = ratio(right[step - 1] - right[step], right[0] - chances)
    return Loss(step, removed[step], phases[step], loss.value, loss.ci)
