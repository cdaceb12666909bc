"""Whether what a block costs jumps at the transition, beyond what its depth says.

Cost of a block is what is lost of retained accuracy without it. Over the blocks near the transition

    cost = level + slope * depth + jump * [the block is Silent]

is fitted by least squares: a regression discontinuity (Thistlethwaite & Campbell 1960; Imbens &
Lemieux 2008) whose running variable is depth. A block's signed distance to the transition is its
depth less a constant, so the two are one variable here. The slope is the same on both sides: with
so few blocks two slopes leave too little, and the jump of a common slope is no further off where
the cost is a smooth curve of depth (benchmarks/phase_or_depth.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from phaseprune.decision.intervals import CONFIDENCE, percentiles, resampled_lead, resamples
from phaseprune.decision.phases import Estimate, retained_of_sets, two_sided


@dataclass(frozen=True)
class Coefficient:
    """One coefficient of the fit.

    Attributes:
        value: in units of retained.
        ci: 95 % interval over questions, the blocks held.
        block_ci: 95 % interval that takes what the fit does not explain for chance, block by block
            (t with ``blocks - 3`` degrees of freedom).
        p_questions: of "it is 0", two-sided, over questions,
        p_blocks: and over blocks.
    """

    value: float
    ci: tuple[float, float]
    block_ci: tuple[float, float]
    p_questions: float
    p_blocks: float

    @property
    def p_value(self) -> float:
        """The larger one: a coefficient must hold for other questions and stand out of blocks."""
        return max(self.p_questions, self.p_blocks)

    @property
    def widest_ci(self) -> tuple[float, float]:
        """From the lower one of the lower bounds to the higher one of the upper bounds."""
        (low, high), (block_low, block_high) = self.ci, self.block_ci
        return min(low, block_low), max(high, block_high)


@dataclass(frozen=True)
class Jump:
    """The fit.

    Attributes:
        blocks: that it is over.
        level: cost of a Decisive block at the transition.
        slope: change of cost over the whole depth of the model.
        jump: what a Silent block costs more than a Decisive one of the same depth.
        residual: standard deviation of the blocks around the fit.
    """

    blocks: tuple[int, ...]
    level: Coefficient
    slope: Coefficient
    jump: Coefficient
    residual: float


@dataclass(frozen=True)
class Costs:
    """What single blocks cost.

    Attributes:
        blocks: original indices.
        costs: of each, with 95 % intervals over questions.
        draws: ``[draws, B]`` of the same on resampled questions.
    """

    blocks: tuple[int, ...]
    costs: tuple[Estimate, ...]
    draws: np.ndarray


def block_costs(
    blocks: Sequence[int], correct: np.ndarray, full: np.ndarray, chances: np.ndarray, seed: int
) -> Costs:
    """What each block costs: 1 less retained without it, in units of retained.

    Args:
        blocks: original indices.
        correct: ``[B, Q]`` whether the model without each is right.
        full: ``[Q]`` whether the full model is right; it must be above chance.
        chances: ``[Q]`` 1/k.
        seed: of the bootstrap over questions.
    """
    full, correct = np.asarray(full, dtype=float), np.asarray(correct, dtype=float)
    weights = np.concatenate(list(resamples(len(full), seed)))
    bottom = resampled_lead(weights, full - chances)
    draws = weights @ (full - correct).T / bottom[:, None]
    values = 1 - retained_of_sets(correct, full, chances)
    bounds = percentiles(draws).T
    estimates = [
        Estimate(float(value), (float(low), float(high)))
        for value, (low, high) in zip(values, bounds, strict=True)
    ]
    return Costs(tuple(blocks), tuple(estimates), draws)


def fit_jump(costs: Costs, near: Sequence[int], readout: int, blocks: int) -> Jump | None:
    """Fit level, slope and jump to the costs of the blocks near the transition.

    Args:
        costs: of these blocks, and maybe of others.
        near: equally many on either side of the transition.
        readout: the transition.
        blocks: of the model.

    Returns:
        None with fewer than two blocks on either side.
    """
    near = np.array(sorted(near), dtype=int)
    is_silent = near < readout
    if min(is_silent.sum(), (~is_silent).sum()) < 2:
        return None
    places = [costs.blocks.index(block) for block in near]
    values = np.array([costs.costs[place].value for place in places])
    depth = (near - readout + 0.5) / max(blocks - 1, 1)
    design = np.stack([np.ones(len(near)), depth, is_silent], axis=1)
    solve = np.linalg.pinv(design)
    found, drawn = solve @ values, costs.draws[:, places] @ solve.T
    left = values - design @ found
    freedom = len(near) - design.shape[1]
    residual = float((left @ left / freedom) ** 0.5)
    errors = residual * np.sqrt(np.diag(solve @ solve.T))
    level, slope, jump = (
        _coefficient(float(value), draws, float(error), freedom)
        for value, draws, error in zip(found, drawn.T, errors, strict=True)
    )
    return Jump(tuple(near.tolist()), level, slope, jump, residual)


def _coefficient(value: float, draws: np.ndarray, error: float, freedom: int) -> Coefficient:
    if max(abs(value), error) < 1e-9:  # nothing costs anything
        return Coefficient(0.0, (0.0, 0.0), (0.0, 0.0), 1.0, 1.0)
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)) * error
    return Coefficient(
        value=value,
        ci=tuple(percentiles(draws).tolist()),
        block_ci=(value - half, value + half),
        p_questions=two_sided(draws),
        p_blocks=float(2 * stats.t.sf(abs(value) / max(error, 1e-12), freedom)),
    )
