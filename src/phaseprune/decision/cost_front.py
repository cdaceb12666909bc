"""What ways to choose blocks retain for what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from phaseprune.decision.corrections import holm
from phaseprune.decision.intervals import percentiles, resampled_lead, resamples
from phaseprune.decision.phases import (
    LEVEL,
    Estimate,
    Sets,
    retained_draws,
    retained_of_sets,
)


class Retaining:
    """Retained accuracy of cells with intervals, all on the same resampled questions.

    Args:
        full: ``[Q]`` whether the full model is right.
        chances: ``[Q]`` 1/k.
        seed: of the bootstrap over questions, and over draws where a method has several.
    """

    def __init__(self, full: np.ndarray, chances: np.ndarray, seed: int):
        self.full, self.chances, self.seed = np.asarray(full, float), chances, seed
        self.weights = np.concatenate(list(resamples(len(self.full), seed)))
        self.bottom = resampled_lead(self.weights, self.full - chances)
        #: Whether there is anything to retain.
        self.defined = bool((self.full - chances).mean() > 0)

    def value(self, correct: np.ndarray) -> float | None:
        """Mean retained of ``[S, Q]`` shares of right decisions; None at chance."""
        if not self.defined:
            return None
        return float(retained_of_sets(correct, self.full, self.chances).mean())

    def draws(self, correct: np.ndarray) -> np.ndarray:
        """``[draws]`` of the same on resampled questions and draws."""
        sets = Sets(correct, exhaustive=len(correct) == 1)
        rng = np.random.default_rng([self.seed, 1])
        return retained_draws(sets, self.weights, self.chances, self.bottom, rng)

    def estimate(self, correct: np.ndarray) -> Estimate | None:
        """The same with its 95 % interval; None at chance."""
        value = self.value(correct)
        if value is None:
            return None
        return Estimate(value, tuple(percentiles(self.draws(correct)).tolist()))

    def loss_ci(self, before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
        """95 % interval of what is lost from one ``[S, Q]`` to another."""
        return tuple(percentiles(self.draws(before) - self.draws(after)).tolist())


def front(costs: Mapping[str, float], values: Mapping[str, float]) -> tuple[str, ...]:
    """The methods that no other one beats in value at no more cost, the cheapest first.

    Args:
        costs: method -> cost, in any unit.
        values: method -> value, larger is better; methods without one are passed over.
    """

    def beaten(one: str) -> bool:
        return any(
            costs[other] <= costs[one]
            and values[other] >= values[one]
            and (costs[other], values[other]) != (costs[one], values[one])
            for other in values
        )

    return tuple(sorted((m for m in values if not beaten(m)), key=lambda m: (costs[m], -values[m])))


@dataclass(frozen=True)
class Gain:
    """What a dearer method of the front retains more than the next cheaper one."""

    method: str
    than: str
    estimate: Estimate
    p_value: float
    p_corrected: float

    @property
    def significant(self) -> bool:
        """Whether the corrected p-value is below 0.05."""
        return self.p_corrected < LEVEL


def gains(
    order: Sequence[str],
    costs: Mapping[str, float],
    correct: Mapping[str, np.ndarray],
    retaining: Retaining,
) -> list[Gain]:
    """Steps along the front.

    The front is found on the same questions, so its steps are corrected over all pairs of methods
    (Holm), not over the steps alone.

    Args:
        order: the front, the cheapest first.
        costs: method -> cost.
        correct: method -> ``[S, Q]`` shares of right decisions; those of the front among them.
        retaining: of the full model, above chance.
    """
    draws = {method: retaining.draws(rows) for method, rows in correct.items()}
    pairs = list(combinations(correct, 2))
    p_values = [
        mean_p(
            retaining.value(correct[other]) - retaining.value(correct[one]),
            draws[other] - draws[one],
        )
        for one, other in pairs
    ]
    corrected = holm(p_values)
    tests = {
        frozenset(pair): both
        for pair, *both in zip(pairs, p_values, corrected.tolist(), strict=True)
    }
    found = []
    for one, other in zip(order, order[1:], strict=False):
        if costs[one] < costs[other]:
            value = retaining.value(correct[other]) - retaining.value(correct[one])
            ci = retaining.loss_ci(correct[other], correct[one])
            found.append(Gain(other, one, Estimate(value, ci), *tests[frozenset((one, other))]))
    return found


def mean_p(value: float, draws: np.ndarray) -> float:
    """Two-sided p-value of "the mean is 0" by the normal law, with the bootstrap's standard error.

    Shares of draws cannot be smaller than one over their number, too coarse to be corrected.

    Args:
        value: the mean.
        draws: ``[draws]`` of it on resampled questions.
    """
    spread = float(draws.std())
    if spread == 0:
        return 1.0 if value == 0 else 0.0
    return float(2 * stats.norm.sf(abs(value) / spread))
