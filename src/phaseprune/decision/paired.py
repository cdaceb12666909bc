"""Two models on the same questions: exact McNemar test and paired difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from phaseprune.decision.intervals import bootstrap_mean


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
