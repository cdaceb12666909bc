"""Recovery against remaining depth: the curve, and the depth at which it levels off.

The paper (arXiv 2605.07271) finds that recovery by fine-tuning is bounded by the depth that remains
and levels off; it names no estimator. docs/heal.md says why this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from phaseprune.decision.collapse import ratio
from phaseprune.decision.intervals import percentiles, resampled_lead, resamples

SIGNIFICANCE = 0.01
#: Fewer depths than this are not fitted: the broken line alone has four parameters.
LEAST_DEPTHS = 5
#: Candidates for the knot lie this far apart, in blocks.
GRID = 0.1
#: The flat side is flat: its slope, with its interval, is below this share of the steep side's.
FLAT_BELOW = 0.25


@dataclass(frozen=True)
class Levelling:
    """The depth at which a recovery curve levels off, or the reason why that cannot be said.

    Attributes:
        found: whether it can.
        depth: remaining blocks at the knot of the broken line, with ``ci``.
        flat: ``above`` where more depth than that adds next to nothing, ``below`` where less depth
            than that takes next to nothing more.
        slope_below: retained a block at depths below the knot, with its 95 % interval,
        slope_above: and above it.
        p_value: of the broken line against a straight one.
        reason: where nothing is found.
    """

    found: bool
    depth: float | None = None
    ci: tuple[float, float] | None = None
    flat: str | None = None
    slope_below: float | None = None
    slope_below_ci: tuple[float, float] | None = None
    slope_above: float | None = None
    slope_above_ci: tuple[float, float] | None = None
    p_value: float | None = None
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True)
class RecoveryCurve:
    """Retained accuracy at several depths.

    Attributes:
        values: ``[D]``.
        ci: ``[2, D]`` 95 % bounds.
        draws: ``[B, D]`` bootstrap draws, the same questions at all depths.
    """

    values: np.ndarray
    ci: np.ndarray
    draws: np.ndarray


def retained_curve(
    correct: np.ndarray, full: np.ndarray, chances: np.ndarray, seed: int
) -> RecoveryCurve | None:
    """Retained accuracy, over questions in pairs and over seeds.

    Args:
        correct: ``[D, S, Q]`` whether the model of each depth, trained by each seed, is right.
        full: ``[Q]`` whether the full model is.
        chances: ``[Q]`` 1/k.
        seed: of the bootstrap. A draw takes the same questions at all depths, and at each depth
            seeds of its own. With one seed the intervals are Fieller's, and what another seed
            would have changed is not in them.

    Returns:
        None where the full model is not above chance.
    """
    above = np.asarray(correct, float) - chances
    bottom = np.asarray(full, float) - chances
    if bottom.mean() <= 0:
        return None
    depths, seeds, questions = above.shape
    values = above.mean(axis=(1, 2)) / bottom.mean()
    rng = np.random.default_rng([seed, 1])
    uniform = np.full(seeds, 1 / seeds)
    draws = []
    for weights in resamples(questions, seed):
        below = resampled_lead(weights, bottom)
        by_seed = np.einsum("bq,dsq->bds", weights, above)
        drawn = rng.multinomial(seeds, uniform, size=by_seed.shape[:2]) / seeds
        draws.append((by_seed * drawn).sum(axis=-1) / below[:, None])
    samples = np.concatenate(draws)
    bounds = percentiles(samples)
    if seeds == 1:  # as everywhere that one model is told of
        bounds = np.array([ratio(one[0], bottom).ci for one in above]).T
    return RecoveryCurve(values, bounds, samples)


def trend(depths: Sequence[int], curve: RecoveryCurve) -> tuple[float, tuple[float, float]]:
    """Slope of the straight line through a curve, retained a block, and its 95 % interval."""
    centred = np.asarray(depths, float) - np.mean(depths)
    weights = centred / (centred**2).sum()
    return float(curve.values @ weights), tuple(map(float, percentiles(curve.draws @ weights)))


def find_levelling(depths: Sequence[int], curve: RecoveryCurve) -> Levelling:
    """Fit a broken line, test it against a straight one, and bound its knot.

    The line is y = a + b d + c max(d - k, 0) by least squares, k on a grid between the second and
    the last but one depth. Test: around the straight fit stand the bootstrap deviations of the
    curve; p is the share of such curves of which a knot explains at least as much as of ours, so
    the choice of the knot is accounted for.

    Args:
        depths: ``[D]`` remaining blocks, distinct.
        curve: retained at these.
    """
    if len(depths) < LEAST_DEPTHS:
        return Levelling(
            found=False,
            reason=f"{len(depths)} depths are too few to fit a knot; give at least {LEAST_DEPTHS}",
        )
    order = np.argsort(depths)
    x = np.asarray(depths, float)[order]
    values, draws = curve.values[order], curve.draws[:, order]
    knots = np.arange(x[1], x[-2] + GRID / 2, GRID)
    line = _basis(np.stack([np.ones_like(x), x], axis=-1))
    broken = np.stack([_basis(_design(x, knot)) for knot in knots])
    straight = values @ line @ line.T
    null = straight + draws - values
    observed, _ = _gain(values[None], line, broken)
    simulated, _ = _gain(null, line, broken)
    p_value = float((1 + (simulated >= observed[0] - 1e-12).sum()) / (1 + len(null)))
    if p_value >= SIGNIFICANCE:
        return Levelling(
            found=False,
            p_value=p_value,
            reason="a line with a knot does not fit significantly better than a straight one "
            f"(p = {p_value:.2g})",
        )
    best, slopes = _fit(values[None], x, knots, line, broken)
    drawn, drawn_slopes = _fit(draws, x, knots, line, broken)
    below, above = slopes[0]
    flat = "above" if abs(above) < abs(below) else "below"
    side = int(flat == "above")
    shares = np.abs(drawn_slopes[:, side]) / np.maximum(np.abs(drawn_slopes[:, 1 - side]), 1e-12)
    largest = float(np.percentile(shares, 97.5))
    low, high = percentiles(drawn)
    bounds = percentiles(drawn_slopes)
    found = largest < FLAT_BELOW
    return Levelling(
        found=found,
        depth=float(best[0]),
        ci=(float(low), float(high)),
        flat=flat,
        slope_below=float(below),
        slope_below_ci=(float(bounds[0, 0]), float(bounds[1, 0])),
        slope_above=float(above),
        slope_above_ci=(float(bounds[0, 1]), float(bounds[1, 1])),
        p_value=p_value,
        reason=None
        if found
        else "the line bends but neither side is flat: the flatter slope is "
        f"up to {largest:.2f} of the steeper one (97.5 % bound; {FLAT_BELOW:g} is the limit)",
    )


def _design(x: np.ndarray, knot: float) -> np.ndarray:
    """``[D, 3]`` of the broken line."""
    return np.stack([np.ones_like(x), x, np.maximum(x - knot, 0)], axis=-1)


def _basis(design: np.ndarray) -> np.ndarray:
    """An orthonormal basis of a design's columns."""
    return np.linalg.qr(design)[0]


def _gain(
    curves: np.ndarray, line: np.ndarray, broken: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of ``[B, D]`` curves: what the best knot explains beyond the line, and which knot that is."""
    explained = (np.einsum("bd,kdp->bkp", curves, broken) ** 2).sum(axis=-1)
    best = explained.argmax(axis=-1)
    beyond = explained.max(axis=-1) - ((curves @ line) ** 2).sum(axis=-1)
    return beyond, best


def _fit(
    curves: np.ndarray, x: np.ndarray, knots: np.ndarray, line: np.ndarray, broken: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The best knot of each curve ``[B]``, and its slopes below and above ``[B, 2]``."""
    _, best = _gain(curves, line, broken)
    solvers = np.stack([np.linalg.pinv(_design(x, knot)) for knot in knots])
    coefficients = np.einsum("bpd,bd->bp", solvers[best], curves)
    slopes = np.stack([coefficients[:, 1], coefficients[:, 1] + coefficients[:, 2]], axis=-1)
    return knots[best], slopes
