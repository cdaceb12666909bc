"""How the Decision Margin moved between two models on the same questions, readout by readout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from phaseprune.decision.corrections import holm
from phaseprune.decision.intervals import bootstrap_mean

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
