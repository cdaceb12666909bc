"""The transition: where the Silent Phase ends and the Decisive Phase begins.

A two-level piecewise-constant least-squares fit of the mean Decision Margin over readouts. The
paper speaks of a sharp transition and gives no estimator; docs/statistics.md says why this one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from phaseprune.decision.intervals import resamples

SIGNIFICANCE = 0.01
FLIPS = 1999
#: Bootstrap mass left out on either side of the interval of the transition. Not 0.025: a resampled
#: curve carries the noise of the sample and as much again, and the split jumps where the curve is
#: nearly flat, so percentiles at 0.025 cover a true step in 99 to 100 of 100 samples
#: (docs/statistics.md, benchmarks/coverage.py).
TAIL = 0.10


@dataclass(frozen=True)
class Transition:
    """Where a model makes up its mind, or the reason why that cannot be said.

    ``readout`` is the first readout of the Decisive Phase; silent blocks are ``0 … readout-1``,
    decisive blocks ``readout … L-1`` (original indices). ``sharpness`` is the largest one-readout
    rise over (final DM - silent level). All but ``found``, ``reason`` and ``p_value`` are None (the
    lists empty) where no transition is found.
    """

    found: bool
    readout: int | None = None
    ci: tuple[int, int] | None = None
    silent_blocks: tuple[int, ...] = ()
    decisive_blocks: tuple[int, ...] = ()
    silent_level: float | None = None
    decisive_level: float | None = None
    sharpness: float | None = None
    r2: float | None = None
    p_value: float | None = None
    reason: str | None = None

    def phase(self, block: int) -> str | None:
        """``"silent"`` or ``"decisive"`` for an original block index; None without a transition."""
        if not self.found:
            return None
        return "silent" if block in self.silent_blocks else "decisive"


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


def above_chance(correct: np.ndarray, chance: float) -> float:
    """P-value of "the decisions are no better than guessing" (exact binomial, one-sided)."""
    right = int(np.sum(correct))
    return float(stats.binomtest(right, len(correct), chance, alternative="greater").pvalue)


def find_transition(
    margins: np.ndarray, correct: np.ndarray, chance: float, seed: int, flips: int = FLIPS
) -> Transition:
    """Fit the step, test it, and bound it.

    Args:
        margins: ``[Q, L+1]`` Decision Margin of each question at each readout.
        correct: ``[Q]`` whether the final decision is right.
        chance: mean of 1/k over the questions.
        seed: of the bootstrap and of the sign-flip test.
        flips: random sign flips of that test; its p-value is at least 1 / (1 + flips).

    Returns:
        A found transition if the final accuracy is above chance (exact binomial test, p < 0.01) and
        the step is significant (p < 0.01), else one that names the reason. The step's test flips
        the sign of whole centred trajectories at random: under "no question tends to rise" each is
        as likely as its mirror image, whatever the correlation between neighbouring readouts; the
        statistic is the best rise over all splits, so the choice of the split is accounted for.
    """
    margins = np.asarray(margins, dtype=np.float64)
    correct = np.asarray(correct, dtype=bool)
    questions = len(margins)
    guessing = above_chance(correct, chance)
    if guessing >= SIGNIFICANCE:
        return Transition(
            found=False,
            reason=f"the final accuracy {correct.mean():.3f} on {questions} questions is not above "
            f"chance {chance:.3f} (exact binomial test, p = {guessing:.2g})",
        )
    mean = margins.mean(axis=0)
    gain = step_gain(mean)
    split = int(np.argmax(gain)) + 1
    p_value = _sign_flip_p_value(margins, float(gain.max()), seed, flips)
    if gain.max() <= 0 or p_value >= SIGNIFICANCE:
        return Transition(
            found=False,
            p_value=p_value,
            reason="the Decision Margin does not rise by a significant step over the readouts "
            f"(sign-flip test, p = {p_value:.2g})",
        )
    blocks = margins.shape[1] - 1
    silent_level, decisive_level = mean[:split].mean(), mean[split:].mean()
    spread = ((mean - mean.mean()) ** 2).sum()
    rise = mean[-1] - silent_level
    drawn = [
        np.argmax(step_gain(weights @ margins), axis=-1) + 1
        for weights in resamples(questions, seed)
    ]
    tails = (TAIL, 1 - TAIL)
    low, high = np.quantile(np.concatenate(drawn), tails, method="inverted_cdf").astype(int)
    return Transition(
        found=True,
        readout=split,
        ci=(min(int(low), split), max(int(high), split)),
        silent_blocks=tuple(range(split)),
        decisive_blocks=tuple(range(split, blocks)),
        silent_level=float(silent_level),
        decisive_level=float(decisive_level),
        sharpness=float(np.diff(mean).max() / rise) if rise > 0 else None,
        r2=float(gain.max() ** 2 / spread),
        p_value=p_value,
    )


def _sign_flip_p_value(margins: np.ndarray, observed: float, seed: int, flips: int) -> float:
    """Share of sign-flipped samples whose best rise is at least the observed one."""
    centred = margins - margins.mean(axis=1, keepdims=True)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(flips, len(margins)))
    flipped = step_gain(signs @ centred / len(margins)).max(axis=-1)
    return float((1 + (flipped >= observed - 1e-12).sum()) / (1 + flips))
