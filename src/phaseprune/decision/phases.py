"""Retained accuracy of models without random sets of blocks, compared between phases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from phaseprune.decision.corrections import holm
from phaseprune.decision.curve import SIGNIFICANCE
from phaseprune.decision.intervals import DRAWS, percentiles, resampled_lead, resamples

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
        estimate: the mean difference; above 0, Silent blocks are the dearer ones.
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
class Comparison:
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
) -> Comparison:
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
    return Comparison(retained, contrasts)


def _contrast(
    silent: str, decisive: str, retained: Mapping[int, Mapping[str, Estimate]],
    drawn: Mapping[int, Mapping[str, np.ndarray]],
) -> Contrast:  # fmt: skip
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
