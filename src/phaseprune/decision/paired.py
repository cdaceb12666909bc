"""Two models on the same questions: is one better than the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from phaseprune.decision.intervals import bootstrap_mean


@dataclass(frozen=True)
class PairedAccuracy:
    """Accuracy of a second model less that of a first, on the same questions.

    Attributes:
        difference: second minus first.
        ci: its bootstrap interval over questions, drawn in pairs.
        gained: questions that only the second decides rightly,
        lost: and that only the first does.
        p_value: of McNemar's exact test.
    """

    difference: float
    ci: tuple[float, float]
    gained: int
    lost: int
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"ci": list(self.ci)}


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided p-value of McNemar's exact test (McNemar 1947): a binomial one on the discordant.

    Args:
        gained: pairs in which only the second is right.
        lost: pairs in which only the first is.
    """
    discordant = gained + lost
    return 1.0 if discordant == 0 else float(stats.binomtest(gained, discordant, 0.5).pvalue)


def compare_accuracy(before: np.ndarray, after: np.ndarray, seed: int) -> PairedAccuracy:
    """Hold two models' decisions against each other.

    Args:
        before: ``[Q]`` whether the first model is right,
        after: ``[Q]`` and whether the second is, on the same questions.
        seed: of the bootstrap.
    """
    before, after = np.asarray(before, bool), np.asarray(after, bool)
    difference = after.astype(float) - before
    low, high = bootstrap_mean(difference, seed)
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return PairedAccuracy(
        float(difference.mean()), (float(low), float(high)), gained, lost, mcnemar(gained, lost)
    )


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p-values (Holm 1979): ``[n]``, to be held against the level as they are.

    Args:
        p_values: ``[n]`` of the tests.
    """
    given = np.asarray(p_values, dtype=float)
    order = np.argsort(given, kind="stable")
    scaled = given[order] * np.arange(len(given), 0, -1)
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def paired_t(differences: np.ndarray) -> np.ndarray:
    """``[...]`` two-sided p-values that the mean of ``[Q, ...]`` differences is not 0.

    Where all differences are 0 there is nothing to test and the value is 1.
    """
    differences = np.asarray(differences, dtype=float)
    count = len(differences)
    mean, spread = differences.mean(axis=0), differences.std(axis=0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.abs(mean) / (spread / np.sqrt(count))
    p_values = 2 * stats.t.sf(statistic, count - 1)
    return np.where(spread > 0, p_values, np.where(mean == 0, 1.0, 0.0))
