"""Racing: which candidates can be given up after some of the questions.

The N calibration questions are a finite population from which looks see a growing sample, drawn
without replacement. A candidate is given up when a one-sided bound of how much better than the
leader it is, on all N, lies below a tolerance (Hoeffding races: Maron and Moore 1993; here with
paired t bounds, as Moore and Lee 1994). What an earlier step measured on more questions than this
look serves as the auxiliary variable of a regression estimator in two-phase sampling (Cochran 1977,
sections 7.2, 12.6), and variances are moderated by their mean over candidates (Smyth 2004).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from scipy import stats

#: New questions of a look: so many, or half of those seen, whichever is more.
LEAST = 16
#: A look must leave this share of the questions to come, or it is not worth its own walk.
LEFT = 0.25
#: Weight, in degrees of freedom, of the mean variance over candidates in each one's own.
PRIOR_FREEDOM = 16


def looks(questions: int, least: int = LEAST) -> list[int]:
    """How many questions each look has seen; the last one sees all."""
    ends, end = [], least
    while end <= (1 - LEFT) * questions:
        ends.append(end)
        end += max(least, end // 2)
    return [*ends, questions]


@dataclass(frozen=True)
class Bounds:
    """How much better than the leader candidates are, on all questions.

    Attributes:
        leader: position of the candidate with the best estimate.
        difference: ``[C]`` estimates.
        upper: ``[C]`` upper bounds.
    """

    leader: int
    difference: np.ndarray
    upper: np.ndarray


def differences(
    values: np.ndarray, before: np.ndarray, leader: int, seen: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Estimates of mean(candidate) − mean(leader) over all questions.

    Args:
        values: ``[C, N]`` a figure a question, in the order drawn; the first ``seen`` are known.
        before: ``[C, N]`` figures of earlier steps, NaN where unknown; known ones come first.
        leader: position of the candidate that all are compared with.
        seen: n.

    Returns:
        ``[C]`` estimates, their standard errors, and degrees of freedom.
    """
    total = values.shape[1]
    now = values[:, :seen] - values[leader, :seen]
    then = before - before[leader]
    known = np.isfinite(then).sum(axis=1)
    then = np.where(np.isfinite(then), then, 0.0)
    mean, centred = now.mean(axis=1), now - now.mean(axis=1, keepdims=True)
    first = then[:, :seen] - then[:, :seen].mean(axis=1, keepdims=True)
    spread = (first**2).sum(axis=1)
    helped = (known > seen) & (spread > 1e-12) & (seen > 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(helped, (first * centred).sum(axis=1) / spread, 0.0)
        shift = np.where(
            helped, then.sum(axis=1) / np.maximum(known, 1) - then[:, :seen].mean(axis=1), 0.0
        )
        leverage = np.where(helped, shift**2 / spread, 0.0)
    larger = np.where(helped, known, seen)
    freedom = np.maximum(1, np.where(helped, seen - 2, seen - 1))
    own = _moderated((centred**2).sum(axis=1), np.full(len(now), max(1, seen - 1)), leader)
    rest = ((centred - slope[:, None] * first) ** 2).sum(axis=1)
    rest = _moderated(rest, freedom, leader)
    variance = rest * (1 / seen - 1 / larger + leverage) + own * (1 / larger - 1 / total)
    variance[leader] = 0.0
    return mean + slope * shift, np.sqrt(variance), freedom + PRIOR_FREEDOM


def _moderated(squares: np.ndarray, freedom: np.ndarray, leader: int) -> np.ndarray:
    """Variances from sums of squares, each drawn a little to the mean of all but the leader's.

    A few questions on which two candidates happen to agree give a variance of next to nothing, and
    a bound that means nothing.
    """
    others = np.arange(len(squares)) != leader
    typical = (squares[others] / freedom[others]).mean() if others.any() else 0.0
    return (squares + PRIOR_FREEDOM * typical) / (freedom + PRIOR_FREEDOM)


def mean_bound(sample: np.ndarray, total: int, error: float) -> float:
    """Upper bound of the size of a mean over all questions, from a sample without replacement."""
    count = len(sample)
    if count == total or count < 2:
        return float(abs(sample.mean())) if count == total else np.inf
    deviation = sample.std(ddof=1) * np.sqrt(1 / count - 1 / total)
    return float(abs(sample.mean()) + _quantile(error / 2, count - 1) * deviation)


def bounds(values: np.ndarray, before: np.ndarray, seen: int, error: float) -> Bounds:
    """Find the leader after so many questions, and bound the others against it.

    Args:
        values: see ``differences``.
        before: see ``differences``.
        seen: n.
        error: probability with which one bound may fail.
    """
    leader = int(np.argmax(values[:, :seen].mean(axis=1)))
    estimate, _, _ = differences(values, before, leader, seen)
    leader = int(np.argmax(estimate))
    estimate, deviation, freedom = differences(values, before, leader, seen)
    quantile = np.array([_quantile(error, int(count)) for count in freedom])
    return Bounds(leader, estimate, estimate + quantile * deviation)


@lru_cache(maxsize=1024)
def _quantile(error: float, freedom: int) -> float:
    return float(stats.t.isf(error, freedom))


@dataclass
class Race:
    """A race between candidates, look by look.

    The total error is shared out evenly over the looks before the last and over the candidates that
    could lead wrongly (Bonferroni). ``stands_for`` is how much better than a candidate those may be
    that were given up for it, so that tolerances do not add up from leader to leader.

    Attributes:
        before: ``[C, N]`` see ``differences``.
        alpha: probability with which the race may end worse than the best by the tolerance.
        tolerance: loss of the mean that is accepted.
        ends: how many questions each look has seen.
        values: ``[C, N]`` what was seen, NaN where nothing was.
        alive: positions of the candidates still in the race.
        dropped: the look at which each candidate was given up, from 1; None for those never.
        look: how many looks there were.
    """

    before: np.ndarray
    alpha: float
    tolerance: float
    ends: list[int]
    values: np.ndarray = field(init=False)
    alive: np.ndarray = field(init=False)
    dropped: list[int | None] = field(init=False)
    stands_for: np.ndarray = field(init=False)
    look: int = 0

    def __post_init__(self) -> None:
        count = len(self.before)
        self.values = np.full(self.before.shape, np.nan)
        self.alive = np.arange(count)
        self.dropped = [None] * count
        self.stands_for = np.zeros(count)

    @property
    def seen(self) -> int:
        """Questions that those alive have seen."""
        return self.ends[self.look - 1] if self.look else 0

    @property
    def over(self) -> bool:
        """Whether all questions are seen, or one candidate is left after a look."""
        return self.look == len(self.ends) or (self.look > 0 and len(self.alive) == 1)

    def see(self, values: np.ndarray) -> None:
        """Take what the candidates alive have on the next look's questions; give some up.

        Args:
            values: ``[A, n]`` one figure a question, larger is better.
        """
        end = self.ends[self.look]
        self.values[self.alive, self.seen : end] = values
        self.look += 1
        if self.over:
            return
        error = self.alpha / ((len(self.ends) - 1) * (len(self.before) - 1))
        found = bounds(self.values[self.alive], self.before[self.alive], end, error)
        gain = found.upper + self.stands_for[self.alive]
        lost = gain < self.tolerance
        lost[found.leader] = False
        for candidate in self.alive[lost]:
            self.dropped[candidate] = self.look
        if lost.any():
            leader = self.alive[found.leader]
            self.stands_for[leader] = max(self.stands_for[leader], gain[lost].max())
        self.alive = self.alive[~lost]
