"""Retained accuracy of models without random sets of blocks, compared between phases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from phaseprune.decision.corrections import holm
from phaseprune.decision.intervals import DRAWS, percentiles, resamples

#: A difference is called one where its p-value, corrected, is below this.
LEVEL = 0.05


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
    """

    estimate: Estimate
    p_value: float
    p_corrected: float

    @property
    def significant(self) -> bool:
        """Whether the corrected p-value is below 0.05."""
        return self.p_corrected < LEVEL


@dataclass(frozen=True)
class Comparison:
    """Phases compared at each number of removed blocks, and over all of them.

    Attributes:
        retained: a number of removed blocks -> kind of set -> mean retained accuracy.
        differences: a number of removed blocks -> difference between the phases.
        pooled: the mean of these differences, each number of blocks with the same weight.
    """

    retained: dict[int, dict[str, Estimate]]
    differences: dict[int, Difference]
    pooled: Difference


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
        sets: a number of removed blocks -> ``silent``, ``decisive`` (and others) -> the sets.
        full: ``[Q]`` whether the full model is right; it must be above chance.
        chances: ``[Q]`` 1/k.
        seed: of the bootstrap.
    """
    full = np.asarray(full, dtype=float)
    weights = np.concatenate(list(resamples(len(full), seed)))
    # Of a resample at chance, the full model counts as right on one question more.
    bottom = np.maximum(weights @ (full - chances), 1 / len(full))
    rng = np.random.default_rng([seed, 1])
    retained: dict[int, dict[str, Estimate]] = {}
    values, samples = [], []
    for number, kinds in sets.items():
        drawn = {}
        retained[number] = {}
        for kind, of in kinds.items():
            value = float(retained_of_sets(of.correct, full, chances).mean())
            drawn[kind] = retained_draws(of, weights, chances, bottom, rng)
            retained[number][kind] = _estimate(value, drawn[kind])
        values.append(retained[number]["decisive"].value - retained[number]["silent"].value)
        samples.append(drawn["decisive"] - drawn["silent"])
    p_values = [_two_sided(draws) for draws in samples]
    corrected = holm(p_values).tolist()
    differences = {
        number: Difference(_estimate(value, samples[place]), p_values[place], corrected[place])
        for place, (number, value) in enumerate(zip(sets, values, strict=True))
    }
    together = np.mean(samples, axis=0)
    p_pooled = _two_sided(together)
    pooled = Difference(_estimate(float(np.mean(values)), together), p_pooled, p_pooled)
    return Comparison(retained, differences, pooled)


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


def _two_sided(draws: np.ndarray) -> float:
    """P-value of "the mean is 0" from bootstrap draws of it; at least 2 / (draws + 1)."""
    side = min((draws <= 0).sum(), (draws >= 0).sum())
    return float(min(1.0, 2 * (1 + side) / (DRAWS + 1)))
