"""What shape the mean of some curves has: a step, a gradual rise, or several steps.

Least-squares fits to the mean over questions. The paper (arXiv 2605.07271) speaks of a sharp
transition and gives no estimator; docs/statistics.md says why these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from phaseprune.decision.intervals import resamples

SIGNIFICANCE = 0.01
#: Random signs of the test of a rise.
FLIPS = 1999
#: Resamples that are in memory at once.
CHUNK = 500
#: Bootstrap mass left out on either side of the interval of a step's place. Not 0.025: a resampled
#: curve carries the noise of the sample and as much again, and the split jumps where the curve is
#: nearly flat, so percentiles at 0.025 cover a true step in 99 to 100 of 100 samples
#: (docs/statistics.md, benchmarks/calibration.py).
SPLIT_TAIL = 0.06
#: The same of the ends of a rise, and of its length.
TAIL = 0.025
#: A rise that takes at most this share of the curve (or ``SHORTEST`` points) is a step.
SHARP = 1 / 8
SHORTEST = 2
#: Two steps must explain this share of what the best step or straight rise leaves unexplained.
EXPLAINS = 0.5
#: And each of them must be at least this share of both together.
PART = 0.2


def step_gain(curves: np.ndarray) -> np.ndarray:
    """How much of the squared deviation each split into two levels explains, signed by direction.

    Args:
        curves: ``[..., R]`` values over readouts.

    Returns:
        ``[..., R-1]``: entry j is for the split before readout j+1: the rise between the two means
        times sqrt(n1*n2/R). Its square is the reduction of the sum of squares, so its largest
        entry is the best least-squares *rise*.
    """
    curves = np.asarray(curves, dtype=np.float64)
    readouts = curves.shape[-1]
    before = np.arange(1, readouts)
    after = readouts - before
    sums = np.cumsum(curves, axis=-1)
    low = sums[..., :-1] / before
    high = (sums[..., -1:] - sums[..., :-1]) / after
    return (high - low) * np.sqrt(before * after / readouts)


@lru_cache(maxsize=64)
def _ramps(at: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """``[P, 2]`` first and last point of every linear rise, and ``[P, R]`` them at unit length."""
    points, places = len(at), np.asarray(at)
    ends = np.array([(a, b) for a in range(points) for b in range(a + 1, points)])
    start, end = places[ends].T[..., None]
    rises = np.clip((places - start) / (end - start), 0, 1)
    rises -= rises.mean(axis=1, keepdims=True)
    return ends, rises / np.linalg.norm(rises, axis=1, keepdims=True)


def best_ramp(
    curves: np.ndarray, at: Sequence[float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The best rise that is level, then a straight line from point a to point b, then level.

    Args:
        curves: ``[N, R]``.
        at: ``[R]`` where the points lie; by default one apart.

    Returns:
        ``[N, 2]`` a and b, and ``[N]`` its gain, as in ``step_gain`` (a step is b = a + 1).
    """
    ends, rises = _ramps(tuple(range(curves.shape[-1]) if at is None else at))
    gains = curves @ rises.T
    best = np.argmax(gains, axis=-1)
    return ends[best], np.take_along_axis(gains, best[:, None], axis=-1)[:, 0]


def best_two_steps(curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best two steps upwards, each at least ``PART`` of both together.

    Args:
        curves: ``[N, R]``, R >= 3.

    Returns:
        ``[N, 2]`` first points of the second and the third level, and ``[N]`` how much they
        reduce the sum of squares; 0 where no such steps are there.
    """
    curves = np.asarray(curves, dtype=np.float64)
    points = curves.shape[-1]
    pairs = np.array([(a, b) for a in range(1, points) for b in range(a + 1, points)])
    found = [_two_steps(curves[i : i + CHUNK], pairs) for i in range(0, len(curves), CHUNK)]
    splits, gains = (np.concatenate(part) for part in zip(*found, strict=True))
    return splits, gains


def _two_steps(curves: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points = curves.shape[-1]
    first, second = pairs.T
    sums = np.concatenate([np.zeros((len(curves), 1)), np.cumsum(curves, axis=-1)], axis=-1)
    total = sums[:, -1:]
    counts = np.stack([first, second - first, points - second])
    parts = np.stack([sums[:, first], sums[:, second] - sums[:, first], total - sums[:, second]])
    levels = parts / counts[:, None]
    gains = (parts * levels).sum(axis=0) - total**2 / points
    rises = np.diff(levels, axis=0)
    # "At least" but for rounding.
    least = PART * rises.sum(axis=0) - 1e-12
    fits = (rises >= least).all(axis=0) & (rises > 0).all(axis=0)
    gains = np.where(fits, gains, 0.0)
    best = np.argmax(gains, axis=-1)
    return pairs[best], np.take_along_axis(gains, best[:, None], axis=-1)[:, 0]


@dataclass(frozen=True)
class Shape:
    """What shape the rise of a mean curve has.

    Attributes:
        kind: ``step``, ``gradual``, ``several`` (steps), or ``unclear``: a step or a gradual rise,
            which these questions cannot tell apart.
        split: first point of the upper level of the best single step.
        ci: its 95 % interval.
        before: level before the split,
        after: and from it on.
        r2: share of the curve's squared deviation that the step explains.
        rise: the last point of the lower level and the first of the upper one; of several steps,
            the first points of their upper levels.
        rise_ci: 95 % intervals of these.
        shape_r2: share that this rise (or these steps) explains.
        longer: share of the resamples in which the rise is longer than a step's.
        drawn: ``[draws, R]`` the resampled mean curves.
    """

    kind: str
    split: int
    ci: tuple[int, int]
    before: float
    after: float
    r2: float
    rise: tuple[int, int]
    rise_ci: tuple[tuple[int, int], tuple[int, int]]
    shape_r2: float
    longer: float
    drawn: np.ndarray = field(repr=False, compare=False)


def longest_step(points: int) -> int:
    """The most points that a rise over ``points`` takes and is still called a step."""
    return max(SHORTEST, int(SHARP * (points - 1)))


def fit_shape(values: np.ndarray, seed: int, at: Sequence[float] | None = None) -> Shape:
    """Fit a step to the mean of curves, and say what shape the rise has.

    A straight rise between two levels is fitted to bootstrap samples of the questions. Where its
    length has a 95 % interval beyond that of a step (``longest_step``), the rise is gradual; where
    the interval is within, it is a step; else that is unclear. Several steps are told where, in
    97.5 % of the samples, two explain at least half of what neither a step nor a straight rise
    explains.

    Args:
        values: ``[Q, R]`` a curve of each question over R >= 2 points.
        seed: of the bootstrap.
        at: ``[R]`` where the points lie; by default one apart.
    """
    values = np.asarray(values, dtype=np.float64)
    mean = values.mean(axis=0)
    drawn = np.concatenate([weights @ values for weights in resamples(len(values), seed)])
    curves = np.concatenate([mean[None], drawn])
    splits = np.argmax(step_gain(curves), axis=-1) + 1
    split = int(splits[0])
    spread = ((curves - curves.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    by_step = step_gain(curves).max(axis=-1).clip(min=0) ** 2
    ends, gains = best_ramp(curves, at)
    explained = gains.clip(min=0) ** 2
    longer = float((np.diff(ends[1:], axis=1) > longest_step(len(mean))).mean())
    kind = "unclear"
    if longer >= 1 - TAIL:
        kind = "gradual"
    elif longer <= TAIL:
        kind = "step"
    if len(mean) > 3:
        steps, both = best_two_steps(curves)
        better = both - explained >= EXPLAINS * (spread - explained)
        apart = np.diff(steps, axis=1)[:, 0] > longest_step(len(mean))
        if (better & apart & (spread > 0)).mean() >= 1 - TAIL:
            kind, ends, explained = "several", steps, both
    whole = float(spread[0]) or 1.0
    return Shape(
        kind=kind,
        split=split,
        ci=_interval(splits[1:], split, SPLIT_TAIL),
        before=float(mean[:split].mean()),
        after=float(mean[split:].mean()),
        r2=float(by_step[0]) / whole,
        rise=(int(ends[0, 0]), int(ends[0, 1])),
        rise_ci=tuple(_interval(ends[1:, i], int(ends[0, i]), TAIL) for i in range(2)),
        shape_r2=float(explained[0]) / whole,
        longer=longer,
        drawn=drawn,
    )


def _interval(drawn: np.ndarray, place: int, tail: float) -> tuple[int, int]:
    low, high = np.quantile(drawn, (tail, 1 - tail), method="inverted_cdf").astype(int)
    return min(int(low), place), max(int(high), place)


def rise_p_value(values: np.ndarray, seed: int, flips: int = FLIPS) -> float:
    """P-value of "no curve tends to rise by a step anywhere" (sign-flip test).

    The sign of whole centred curves is flipped at random: under "no curve tends to rise" each is as
    likely as its mirror image, whatever the correlation between neighbouring points; the statistic
    is the best rise over all splits, so the choice of the split is accounted for.

    Args:
        values: ``[Q, R]`` a curve of each question.
        seed: of the flips.
        flips: how many; the p-value is at least 1 / (1 + flips).
    """
    values = np.asarray(values, dtype=np.float64)
    observed = float(step_gain(values.mean(axis=0)).max())
    centred = values - values.mean(axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    as_large = 0
    for start in range(0, flips, CHUNK):
        signs = rng.choice([-1.0, 1.0], size=(min(CHUNK, flips - start), len(values)))
        flipped = step_gain(signs @ centred / len(values)).max(axis=-1)
        as_large += int((flipped >= observed - 1e-12).sum())
    return (1 + as_large) / (1 + flips)
