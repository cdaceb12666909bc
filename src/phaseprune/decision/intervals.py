"""Confidence intervals: Wilson for shares, percentile bootstrap over questions for means."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
DRAWS = 2000
#: How surely ``questions_needed`` questions decide.
POWER = 0.8
#: Of more than so many times the questions at hand, nothing can be said.
MOST_TIMES = 100


@dataclass(frozen=True)
class Interval:
    """A mean a readout with its 95 % bounds, each ``[R]``."""

    mean: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: value.tolist() for name, value in asdict(self).items()}


def wilson(successes: np.ndarray, trials: int, confidence: float = CONFIDENCE) -> np.ndarray:
    """Wilson score interval of a share (Wilson 1927).

    Args:
        successes: ``[...]`` counts out of ``trials``.
        trials: how many questions.
        confidence: two-sided level.

    Returns:
        ``[2, ...]`` lower and upper bounds.
    """
    share = np.asarray(successes, dtype=np.float64) / trials
    z = stats.norm.ppf(0.5 + confidence / 2)
    centre = share + z**2 / (2 * trials)
    half = z * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    bounds = np.stack([centre - half, centre + half]) / (1 + z**2 / trials)
    return np.clip(bounds, 0.0, 1.0)


def resamples(
    questions: int, seed: int | list[int], draws: int = DRAWS, chunk: int = 250
) -> Iterator:
    """Bootstrap weights: yields ``[<=chunk, Q]`` arrays whose rows sum to 1, ``draws`` rows in all.

    A row holds how often each question was drawn, over Q, so that ``weights @ values`` are the
    means of the resamples.
    """
    rng = np.random.default_rng(seed)
    uniform = np.full(questions, 1 / questions)
    for start in range(0, draws, chunk):
        yield rng.multinomial(questions, uniform, size=min(chunk, draws - start)) / questions


def resampled_lead(weights: np.ndarray, above: np.ndarray) -> np.ndarray:
    """``[draws]`` mean lead over chance of the full model on resampled questions, to divide by.

    Of a resample at chance, the full model counts as right on one question more.

    Args:
        weights: ``[draws, Q]`` from ``resamples``.
        above: ``[Q]`` right or not, less 1/k.
    """
    return np.maximum(weights @ above, 1 / len(above))


def bootstrap_mean(values: np.ndarray, seed: int, confidence: float = CONFIDENCE) -> np.ndarray:
    """Percentile bootstrap interval of the mean over questions.

    Args:
        values: ``[Q, ...]`` one figure a question.
        seed: of the resampling; the same seed gives the same bounds.
        confidence: two-sided level.

    Returns:
        ``[2, ...]`` lower and upper bounds.
    """
    values = np.asarray(values, dtype=np.float64)
    flat = values.reshape(len(values), -1)
    means = np.concatenate([weights @ flat for weights in resamples(len(values), seed)])
    return percentiles(means, confidence).reshape(2, *values.shape[1:])


def percentiles(samples: np.ndarray, confidence: float = CONFIDENCE) -> np.ndarray:
    """``[2, ...]`` two-sided percentile bounds of ``[draws, ...]`` samples."""
    tail = 100 * (1 - confidence) / 2
    return np.percentile(samples, [tail, 100 - tail], axis=0)


def questions_needed(
    value: float,
    ci: Sequence[float] | None,
    questions: int,
    confidence: float = CONFIDENCE,
) -> int | None:
    """How many questions would decide whether an effect is there, if it is as large as it looks.

    The standard error is read off the 95 % interval and taken to fall with the root of the number
    of questions. What does not fall with it (sets of blocks, seeds) must grow in proportion.

    Args:
        value: the effect as estimated.
        ci: its 95 % interval.
        questions: how many questions both are of.
        confidence: of the interval that is to leave out 0; a test at p < 0.01 needs 0.99.

    Returns:
        The number at which such an interval leaves out 0 in 80 of 100 samples. It is below
        ``questions`` where these were more than enough. None where the effect is 0, has no
        interval, or needs more than 100 times as many.
    """
    if ci is None or not value or not math.isfinite(value):
        return None
    error = (ci[1] - ci[0]) / (2 * stats.norm.ppf(0.5 + CONFIDENCE / 2))
    wanted = stats.norm.ppf(0.5 + confidence / 2) + stats.norm.ppf(POWER)
    times = (wanted * error / value) ** 2
    if not times <= MOST_TIMES:
        return None
    return max(1, math.ceil(times * questions))
