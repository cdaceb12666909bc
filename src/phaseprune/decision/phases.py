"""Do Silent blocks cost more than Decisive ones, and is that their phase or their depth?

Random sets of blocks of both phases are removed and the retained accuracy of the models without
them compared. What a single block costs may also jump at the transition, beyond what its depth
says. Cost of a block is what is lost of retained accuracy without it. Over the blocks near the
transition

    cost = level + slope * depth + jump * [the block is Silent]

is fitted by least squares: a regression discontinuity (Thistlethwaite & Campbell 1960; Imbens &
Lemieux 2008) whose running variable is depth. A block's signed distance to the transition is its
depth less a constant, so the two are one variable here. The slope is the same on both sides: with
so few blocks two slopes leave too little, and the jump of a common slope is no further off where
the cost is a smooth curve of depth (benchmarks/phase_or_depth.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from phaseprune.decision.curve import SIGNIFICANCE
from phaseprune.decision.intervals import CONFIDENCE, DRAWS, percentiles, resampled_lead, resamples
from phaseprune.decision.tests import holm

#: One of several differences is called one where its p-value, corrected, is below this. Those that
#: a verdict hangs on, over all numbers of blocks, must be below ``SIGNIFICANCE``.
LEVEL = 0.05
#: What is compared: sets of Silent blocks, and those of Decisive ones that they are held against.
CONTRASTS = {
    "plain": ("silent", "decisive"),
    "without_first": ("later_silent", "decisive"),
    "near": ("near_silent", "near_decisive"),
    "windows": ("window_silent", "window_decisive"),
}


@dataclass(frozen=True)
class Sets:
    """What some sets of removed blocks leave.

    Attributes:
        correct: ``[S, Q]`` whether the model without the set is right.
        exhaustive: whether these are all sets that there are, and no sample of them.
    """

    correct: np.ndarray
    exhaustive: bool


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

    value: float
    ci: tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """Retained accuracy without Decisive blocks minus that without as many Silent blocks.

    Attributes:
        estimate: the mean difference; above 0, Silent blocks cost more.
        p_value: of "no difference", two-sided, from the bootstrap.
        p_corrected: after Holm's correction over the numbers of removed blocks.
        level: the corrected p-value of a significant difference is below it.
    """

    estimate: Estimate
    p_value: float
    p_corrected: float
    level: float = LEVEL

    @property
    def significant(self) -> bool:
        """Whether the corrected p-value is below ``level``."""
        return self.p_corrected < self.level


@dataclass(frozen=True)
class Contrast:
    """Two kinds of sets compared, at each number of removed blocks and over all of them.

    Attributes:
        differences: a number of removed blocks -> the difference.
        pooled: the mean of these, each number of blocks with the same weight.
    """

    differences: dict[int, Difference]
    pooled: Difference


@dataclass(frozen=True)
class PhaseComparison:
    """Phases compared at each number of removed blocks, and over all of them.

    Attributes:
        retained: a number of removed blocks -> kind of set -> mean retained accuracy.
        contrasts: of ``CONTRASTS``, those that have sets.
    """

    retained: dict[int, dict[str, Estimate]]
    contrasts: dict[str, Contrast]

    @property
    def differences(self) -> dict[int, Difference]:
        """Of the plain comparison."""
        return self.contrasts["plain"].differences

    @property
    def pooled(self) -> Difference:
        """Of the plain comparison."""
        return self.contrasts["plain"].pooled


def retained_of_sets(correct: np.ndarray, full: np.ndarray, chances: np.ndarray) -> np.ndarray:
    """``[S]`` retained accuracy of each set from ``[S, Q]`` right decisions."""
    chance = chances.mean()
    return (correct.mean(axis=1) - chance) / (full.mean() - chance)


def compare_phases(
    sets: Mapping[int, Mapping[str, Sets]], full: np.ndarray, chances: np.ndarray, seed: int
) -> PhaseComparison:
    """Compare the phases, with a bootstrap over sets and questions at once.

    Each draw resamples the questions, the same for all sets and for the full model, and within each
    kind and number the sets, unless these are all there are (Owen 2007: resampling both ways of a
    crossed design is slightly conservative).

    Args:
        sets: a number of removed blocks -> kinds of ``CONTRASTS`` (and others) -> the sets.
        full: ``[Q]`` whether the full model is right; it must be above chance.
        chances: ``[Q]`` 1/k.
        seed: of the bootstrap.
    """
    full = np.asarray(full, dtype=float)
    weights = np.concatenate(list(resamples(len(full), seed)))
    bottom = resampled_lead(weights, full - chances)
    rng = np.random.default_rng([seed, 1])
    retained: dict[int, dict[str, Estimate]] = {}
    drawn: dict[int, dict[str, np.ndarray]] = {}
    for number, kinds in sets.items():
        drawn[number], retained[number] = {}, {}
        for kind, of in kinds.items():
            value = float(retained_of_sets(of.correct, full, chances).mean())
            drawn[number][kind] = retained_draws(of, weights, chances, bottom, rng)
            retained[number][kind] = _estimate(value, drawn[number][kind])
    contrasts = {
        name: _contrast(*pair, retained, drawn)
        for name, pair in CONTRASTS.items()
        if any(set(pair) <= set(kinds) for kinds in sets.values())
    }
    return PhaseComparison(retained, contrasts)


def _contrast(
    silent: str,
    decisive: str,
    retained: Mapping[int, Mapping[str, Estimate]],
    drawn: Mapping[int, Mapping[str, np.ndarray]],
) -> Contrast:
    """Two kinds compared at the numbers of blocks at which both have sets."""
    numbers = [number for number, kinds in drawn.items() if {silent, decisive} <= set(kinds)]
    values = [retained[n][decisive].value - retained[n][silent].value for n in numbers]
    samples = [drawn[n][decisive] - drawn[n][silent] for n in numbers]
    p_values = [two_sided(draws) for draws in samples]
    differences = {
        number: Difference(_estimate(value, draws), p_value, p_corrected)
        for number, value, draws, p_value, p_corrected in zip(
            numbers, values, samples, p_values, holm(p_values).tolist(), strict=True
        )
    }
    together = np.mean(samples, axis=0)
    p_pooled = two_sided(together)
    estimate = _estimate(float(np.mean(values)), together)
    return Contrast(differences, Difference(estimate, p_pooled, p_pooled, SIGNIFICANCE))


def retained_draws(of: Sets, weights, chances, bottom, rng: np.random.Generator) -> np.ndarray:
    """``[draws]`` mean retained accuracy of resampled sets on resampled questions.

    Args:
        of: the sets.
        weights: ``[draws, Q]`` from ``intervals.resamples``.
        chances: ``[Q]`` 1/k.
        bottom: ``[draws]`` accuracy above chance of the full model, each above 0.
        rng: draws the sets.
    """
    by_set = weights @ (np.asarray(of.correct, dtype=float) - chances).T / bottom[:, None]
    count = by_set.shape[1]
    if of.exhaustive:
        return by_set.mean(axis=1)
    chosen = rng.multinomial(count, np.full(count, 1 / count), size=len(by_set)) / count
    return (by_set * chosen).sum(axis=1)


def _estimate(value: float, draws: np.ndarray) -> Estimate:
    return Estimate(value, tuple(percentiles(draws).tolist()))


def two_sided(draws: np.ndarray) -> float:
    """P-value of "the mean is 0" from bootstrap draws of it; at least 2 / (draws + 1)."""
    side = min((draws <= 0).sum(), (draws >= 0).sum())
    return float(min(1.0, 2 * (1 + side) / (DRAWS + 1)))


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


#: The controls that a verdict needs: without the model's first blocks, among blocks equally near to
#: the transition, and beyond the trend of depth.
CONTROLS = ("without_first", "near", "jump")
#: A controlled difference below this share of the plain one is small: most of that is depth.
SMALL = 0.5


@dataclass(frozen=True)
class Control:
    """A difference Decisive - Silent in which depth is controlled.

    Attributes:
        value: of the difference, in units of retained; above 0, Silent blocks cost more.
        ci: its 95 % interval.
        p_value: of "no difference", two-sided.
        questions_ci: the interval over questions alone, where blocks are a source of chance too,
        p_questions: and its p-value: what more questions can decide.
        numbers: of removed blocks that it is over.
        plain: the plain difference at the same numbers.
    """

    value: float
    ci: tuple[float, float]
    p_value: float
    questions_ci: tuple[float, float]
    p_questions: float
    numbers: tuple[int, ...]
    plain: float

    @property
    def significant(self) -> bool:
        """Whether p is below 0.01."""
        return self.p_value < SIGNIFICANCE

    @property
    def limited_by(self) -> str | None:
        """What keeps it from being significant: too few ``questions``, or ``blocks``; or None."""
        if self.significant:
            return None
        return "questions" if self.p_questions >= SIGNIFICANCE else "blocks"

    @property
    def share(self) -> float | None:
        """How much of the plain difference it is; None where that is not above 0."""
        return self.value / self.plain if self.plain > 0 else None

    @property
    def holds(self) -> bool:
        """Whether it is significant, above 0, and not small beside the plain difference."""
        return self.significant and self.value > 0 and self.value >= SMALL * self.plain


def controls_of(compared: PhaseComparison, jump: Jump | None) -> dict[str, Control]:
    """The controls of ``CONTROLS`` that there are blocks for."""
    found = {}
    for name in CONTROLS[:2]:
        contrast = compared.contrasts.get(name)
        if contrast is not None:
            of, p_value = contrast.pooled.estimate, contrast.pooled.p_value
            numbers = tuple(contrast.differences)
            found[name] = Control(
                of.value, of.ci, p_value, of.ci, p_value, numbers, _plain(compared, numbers)
            )
    if jump is not None:
        of = jump.jump
        found["jump"] = Control(
            of.value, of.widest_ci, of.p_value, of.ci, of.p_questions, (1,), _plain(compared, (1,))
        )
    return found


def _plain(compared: PhaseComparison, numbers: tuple[int, ...]) -> float:
    values = [compared.differences[number].estimate.value for number in numbers]
    return sum(values) / len(values)


def phase_verdict(plain: Difference, controls: Mapping[str, Control]) -> str:
    """What the plain and the controlled differences say of "Silent blocks matter, not Decisive".

    Args:
        plain: over all numbers of removed blocks.
        controls: those that there are.

    Returns:
        ``agrees``: Silent blocks cost more, and every control holds; ``partly``: they cost more,
        but it may be for their depth; ``disagrees``: Decisive blocks cost significantly more, in
        the plain comparison or among blocks that are near or later; ``undecided``: else. The jump
        alone makes no ``disagrees``: a bend in the cost makes it negative too.
    """
    compared = [controls[name] for name in CONTROLS[:2] if name in controls]
    reversed_ = any(one.significant and one.value < 0 for one in compared)
    if reversed_ or (plain.significant and plain.estimate.value < 0):
        return "disagrees"
    if not plain.significant:
        return "undecided"
    held = all(name in controls and controls[name].holds for name in CONTROLS)
    return "agrees" if held else "partly"
