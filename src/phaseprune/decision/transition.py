"""The transition: where the Silent Phase ends and the Decisive Phase begins.

A two-level piecewise-constant least-squares fit of the mean Decision Margin over readouts. The
paper speaks of a sharp transition and gives no estimator; docs/statistics.md says why this one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from phaseprune.decision.intervals import resamples

SIGNIFICANCE = 0.01
FLIPS = 1999
#: Flips that are in memory at once.
CHUNK = 500
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
    lists empty) where no transition is found. ``questions`` says on how many questions it was found
    where these are others than those that the figures beside it are of, else None.
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
    questions: int | None = None

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


@dataclass(frozen=True)
class StepFit:
    """The best rising step of a mean curve.

    Attributes:
        split: place of the first point of the upper level.
        ci: its 95 % interval; None where the step is not significant.
        before: level before the split,
        after: and from it on.
        r2: share of the curve's squared deviation that the step explains.
        p_value: of "no rise" (sign-flip test).
    """

    split: int
    ci: tuple[int, int] | None
    before: float
    after: float
    r2: float
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether it rises at all, with p < 0.01."""
        return self.after > self.before and self.p_value < SIGNIFICANCE


def fit_step(values: np.ndarray, seed: int, flips: int = FLIPS) -> StepFit:
    """Fit a step to the mean of curves by least squares, test it, and bound its place.

    The test flips the sign of whole centred curves at random: under "no curve tends to rise" each
    is as likely as its mirror image, whatever the correlation between neighbouring points; the
    statistic is the best rise over all splits, so the choice of the split is accounted for.

    Args:
        values: ``[Q, R]`` a curve of each question over R >= 2 points.
        seed: of the bootstrap and of the sign flips.
        flips: how many; the p-value is at least 1 / (1 + flips).
    """
    values = np.asarray(values, dtype=np.float64)
    mean = values.mean(axis=0)
    gain = step_gain(mean)
    split = int(np.argmax(gain)) + 1
    p_value = _sign_flip_p_value(values, float(gain.max()), seed, flips)
    spread = ((mean - mean.mean()) ** 2).sum()
    fit = StepFit(
        split=split,
        ci=None,
        before=float(mean[:split].mean()),
        after=float(mean[split:].mean()),
        r2=float(gain.max() ** 2 / spread) if spread > 0 else 0.0,
        p_value=p_value,
    )
    if not fit.significant:
        return fit
    drawn = [
        np.argmax(step_gain(weights @ values), axis=-1) + 1
        for weights in resamples(len(values), seed)
    ]
    tails = (TAIL, 1 - TAIL)
    low, high = np.quantile(np.concatenate(drawn), tails, method="inverted_cdf").astype(int)
    return replace(fit, ci=(min(int(low), split), max(int(high), split)))


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
        the step is significant (``fit_step``, p < 0.01), else one that names the reason.
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
    fit = fit_step(margins, seed, flips)
    if not fit.significant:
        return Transition(
            found=False,
            p_value=fit.p_value,
            reason="the Decision Margin does not rise by a significant step over the readouts "
            f"(sign-flip test, p = {fit.p_value:.2g})",
        )
    blocks = margins.shape[1] - 1
    mean = margins.mean(axis=0)
    rise = mean[-1] - fit.before
    return Transition(
        found=True,
        readout=fit.split,
        ci=fit.ci,
        silent_blocks=tuple(range(fit.split)),
        decisive_blocks=tuple(range(fit.split, blocks)),
        silent_level=fit.before,
        decisive_level=fit.after,
        sharpness=float(np.diff(mean).max() / rise) if rise > 0 else None,
        r2=fit.r2,
        p_value=fit.p_value,
    )


def _sign_flip_p_value(margins: np.ndarray, observed: float, seed: int, flips: int) -> float:
    """Share of sign-flipped samples whose best rise is at least the observed one."""
    centred = margins - margins.mean(axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    as_large = 0
    for start in range(0, flips, CHUNK):
        signs = rng.choice([-1.0, 1.0], size=(min(CHUNK, flips - start), len(margins)))
        flipped = step_gain(signs @ centred / len(margins)).max(axis=-1)
        as_large += int((flipped >= observed - 1e-12).sum())
    return (1 + as_large) / (1 + flips)
