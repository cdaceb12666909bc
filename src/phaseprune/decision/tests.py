"""Tests of two models on the same questions, and p-values of many tests held against one level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from phaseprune.decision.intervals import bootstrap_mean


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Adjust for the chance of a single false finding (Holm 1979); holds under any dependence.

    Args:
        p_values: ``[m]`` one a test.

    Returns:
        ``[m]``: a test is significant at level α if its adjusted value is below α.

    Raises:
        ValueError: a value is no probability.
    """
    p = _checked(p_values)
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(len(p), 0, -1)
    return _in_place(np.maximum.accumulate(steps), order)


def benjamini_hochberg(p_values: Sequence[float]) -> np.ndarray:
    """Adjust for the expected share of false findings (Benjamini and Hochberg 1995).

    Valid for independent tests and for positively dependent ones.

    Args:
        p_values: ``[m]`` one a test.

    Returns:
        ``[m]``: the tests below q are expected to be false findings in at most a share q.

    Raises:
        ValueError: a value is no probability.
    """
    p = _checked(p_values)
    order = np.argsort(-p, kind="stable")
    steps = p[order] * len(p) / np.arange(len(p), 0, -1)
    return _in_place(np.minimum.accumulate(steps), order)


def _checked(p_values: Sequence[float]) -> np.ndarray:
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values must be a list of numbers from 0 to 1: {p_values}")
    return p


def _in_place(adjusted: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Undo the sorting, and cut at 1."""
    out = np.empty_like(adjusted)
    out[order] = np.minimum(adjusted, 1)
    return out


@dataclass(frozen=True)
class Paired:
    """How two models differ on the same questions.

    Attributes:
        only_first: questions that the first alone decides rightly,
        only_second: and the second alone.
        difference: accuracy of the second minus that of the first.
        ci: its 95 % interval, a bootstrap over questions in pairs.
        p_value: of "neither is better" (exact McNemar test, two-sided).
    """

    only_first: int
    only_second: int
    difference: float
    ci: tuple[float, float]
    p_value: float


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact p-value of McNemar's test (McNemar 1947).

    Of the questions on which the two differ each side gets a half if neither is better; those on
    which they agree say nothing.

    Args:
        only_first: questions that the first alone decides rightly,
        only_second: and the second alone.
    """
    differ = only_first + only_second
    if differ == 0:
        return 1.0
    return float(min(1.0, 2 * stats.binom.cdf(min(only_first, only_second), differ, 0.5)))


def compare_paired(first: np.ndarray, second: np.ndarray, seed: int) -> Paired:
    """Compare two models question by question.

    Args:
        first: ``[Q]`` whether the first is right.
        second: ``[Q]`` whether the second is right on the same questions.
        seed: of the bootstrap.
    """
    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    difference = second.astype(float) - first
    low, high = bootstrap_mean(difference, seed)
    return Paired(
        only_first,
        only_second,
        float(difference.mean()),
        (float(low), float(high)),
        mcnemar(only_first, only_second),
    )


SIGNIFICANCE = 0.01


@dataclass(frozen=True)
class MarginShift:
    """DM of the second model less that of the first at each readout, all ``[R]``.

    ``p_value`` is that of a paired t test, adjusted over the readouts (Holm); the bounds are
    bootstrap ones over questions and are not adjusted.
    """

    mean: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    p_value: np.ndarray

    @property
    def higher(self) -> list[int]:
        """Readouts at which DM is significantly higher."""
        return np.flatnonzero((self.p_value < SIGNIFICANCE) & (self.mean > 0)).tolist()

    @property
    def lower(self) -> list[int]:
        """And lower."""
        return np.flatnonzero((self.p_value < SIGNIFICANCE) & (self.mean < 0)).tolist()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "mean": self.mean.tolist(),
            "ci_low": self.ci_low.tolist(),
            "ci_high": self.ci_high.tolist(),
            "p_value": self.p_value.tolist(),
            "higher": self.higher,
            "lower": self.lower,
        }


def margin_shift(before: np.ndarray, after: np.ndarray, seed: int) -> MarginShift:
    """Hold the margins of two models against each other.

    Args:
        before: ``[Q, R]`` Decision Margin of each question at each readout.
        after: ``[Q, R]`` of the second model.
        seed: of the bootstrap.
    """
    difference = np.asarray(after, float) - before
    low, high = bootstrap_mean(difference, seed)
    return MarginShift(difference.mean(axis=0), low, high, holm(paired_t(difference)))


def paired_t(differences: np.ndarray) -> np.ndarray:
    """``[...]`` two-sided p-values of "the mean is 0" for ``[Q, ...]`` differences.

    Where all differences are the same nothing is estimated: the value is 1 if they are 0, else 0.
    """
    differences = np.asarray(differences, dtype=float)
    count = len(differences)
    mean, spread = differences.mean(axis=0), differences.std(axis=0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        p_values = 2 * stats.t.sf(np.abs(mean) / (spread / np.sqrt(count)), count - 1)
    return np.where(spread > 0, p_values, np.where(mean == 0, 1.0, 0.0))
