"""Ways to choose blocks held against each other: what they retain, and for what cost."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from phaseprune.decision.intervals import percentiles, resampled_lead, resamples
from phaseprune.decision.phases import (
    LEVEL,
    Estimate,
    Sets,
    retained_draws,
    retained_of_sets,
)
from phaseprune.decision.tests import holm, mcnemar


@dataclass(frozen=True)
class Cell:
    """What one method leaves at one number of removed blocks.

    Attributes:
        key: equal for cells that removed the same blocks.
        correct: ``[S, Q]`` whether the pruned model is right; S is 1 unless the method draws.
    """

    key: Hashable
    correct: np.ndarray

    @property
    def accuracy(self) -> float:
        """Mean over questions (and draws)."""
        return float(self.correct.mean())


#: Number of removed blocks -> method -> cell.
Cells = Mapping[int, Mapping[str, Cell]]


@dataclass(frozen=True)
class Pair:
    """Two different choices of blocks at one number, and whether they differ.

    Attributes:
        removed_blocks: the number.
        first: methods that made the one choice,
        second: and the other.
        only_first: questions that the first alone decides rightly (a mean over draws),
        only_second: and the second alone.
        p_value: of "neither is better", see ``paired_p``.
        p_corrected: after Holm's correction over all pairs at all numbers.
    """

    removed_blocks: int
    first: tuple[str, ...]
    second: tuple[str, ...]
    only_first: float
    only_second: float
    p_value: float
    p_corrected: float

    @property
    def significant(self) -> bool:
        """Whether the corrected p-value is below 0.05."""
        return self.p_corrected < LEVEL


@dataclass(frozen=True)
class Standing:
    """The methods at one number of removed blocks.

    Attributes:
        best: those with the highest accuracy,
        not_worse: others that are not significantly worse than the first of these,
        worse: and those that are.
    """

    best: tuple[str, ...]
    not_worse: tuple[str, ...]
    worse: tuple[str, ...]


def paired_p(first: np.ndarray, second: np.ndarray) -> float:
    """P-value of "neither is better" on the same questions, two-sided.

    The exact McNemar test; where a side has several draws, twice the median of the tests of every
    two draws (Rüger 1978: valid however these depend on each other), in which a test against the
    direction of the mean difference counts as 1.

    Args:
        first: ``[S, Q]`` whether the first is right, one row a draw.
        second: ``[T, Q]`` the same of the second.
    """
    if len(first) == len(second) == 1:
        return mcnemar(*_only(first[0], second[0]))
    direction = np.sign(second.mean() - first.mean())
    tests = []
    for one in first:
        for other in second:
            only_first, only_second = _only(one, other)
            along = np.sign(only_second - only_first) == direction
            tests.append(mcnemar(only_first, only_second) if along else 1.0)
    return float(min(1.0, 2 * np.median(tests)))


def _only(first: np.ndarray, second: np.ndarray) -> tuple[int, int]:
    return int((first & ~second).sum()), int((second & ~first).sum())


def compare_cells(cells: Cells) -> list[Pair]:
    """Test every two different choices at each number; methods that made the same one are one.

    Args:
        cells: on the same questions all of them.

    Returns:
        The pairs, corrected together.
    """
    found = []
    for number, of in cells.items():
        choices: dict[Hashable, list[str]] = {}
        for method, cell in of.items():
            choices.setdefault(cell.key, []).append(method)
        for one, other in combinations(choices.values(), 2):
            first, second = of[one[0]].correct, of[other[0]].correct
            both = float((first[:, None] & second[None]).sum(axis=-1).mean())
            onlys = [float(side.sum(axis=-1).mean()) - both for side in (first, second)]
            found.append((number, tuple(one), tuple(other), *onlys, paired_p(first, second)))
    corrected = holm([pair[-1] for pair in found])
    return [Pair(*pair, float(p)) for pair, p in zip(found, corrected, strict=True)]


def standings(cells: Cells, pairs: Sequence[Pair]) -> dict[int, Standing]:
    """The best methods at each number, and which others are not significantly worse.

    Args:
        cells: as in ``compare_cells``.
        pairs: from there.
    """
    return {
        number: _standing(of, [pair for pair in pairs if pair.removed_blocks == number])
        for number, of in cells.items()
    }


def _standing(of: Mapping[str, Cell], pairs: Sequence[Pair]) -> Standing:
    if not of:  # no method removes so many
        return Standing((), (), ())
    top = max(cell.accuracy for cell in of.values())
    best = tuple(method for method, cell in of.items() if cell.accuracy == top)
    against = {
        method
        for pair in pairs
        if pair.significant
        for side, others in ((pair.first, pair.second), (pair.second, pair.first))
        if best[0] in side
        for method in others
    }
    rest = [method for method in of if method not in best]
    return Standing(
        best,
        tuple(method for method in rest if method not in against),
        tuple(method for method in rest if method in against),
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
    """What a more expensive method of the front retains more than the next cheaper one."""

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
