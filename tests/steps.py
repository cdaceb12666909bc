"""Synthetic questions whose mean Decision Margin over readouts is a known curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from phaseprune.decision.curve import SIGNIFICANCE, fit_shape, rise_p_value, step_gain


@dataclass(frozen=True)
class Regime:
    """A population of questions.

    A question's margin at a readout is Beta-distributed on [-1, 1] about the curve's value (mostly
    sure of the right or of a wrong option), and follows that of the readout before through a
    Gaussian copula of the given correlation.

    Attributes:
        questions: of a sample.
        curve: ``[R]`` mean of DM by readout.
        spread: concentration of the Beta distribution; 2 is about uniform, 1 mostly near the ends.
        correlation: between neighbouring readouts of a question.
    """

    questions: int
    curve: np.ndarray
    spread: float
    correlation: float

    @property
    def transition(self) -> int:
        """The best split of the population's curve: what the interval must cover."""
        return int(np.argmax(step_gain(self.curve))) + 1

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """``[Q, R]`` margins."""
        z = rng.normal(size=(self.questions, len(self.curve)))
        for r in range(1, z.shape[1]):
            z[:, r] = self.correlation * z[:, r - 1] + np.sqrt(1 - self.correlation**2) * z[:, r]
        share = (self.curve + 1) / 2
        a, b = share * self.spread, (1 - share) * self.spread
        return 2 * special.betaincinv(a, b, special.ndtr(z)) - 1


def step(readouts: int, at: int, low: float, high: float) -> np.ndarray:
    """A sharp step: ``low`` before readout ``at``, ``high`` from it on."""
    return np.where(np.arange(readouts) < at, low, high)


def slope(readouts: int, at: float, low: float, high: float, width: float) -> np.ndarray:
    """A logistic rise that is half done just before readout ``at``."""
    return low + (high - low) / (1 + np.exp(-(np.arange(readouts) - at + 0.5) / width))


@dataclass(frozen=True)
class Coverage:
    """What came of the samples of a regime that rise significantly.

    Attributes:
        samples: all that were drawn.
        covered: share of intervals that hold the true transition.
        exact: share of estimates that are the true one.
        width: mean of the interval's end minus its beginning, readouts.
        one_readout: share of intervals that are a single readout.
    """

    samples: int
    covered: float
    exact: float
    width: float
    one_readout: float


def coverage(regime: Regime, simulations: int, seed: int) -> Coverage:
    """Fit and bound the step of samples until so many rise significantly."""
    rng = np.random.default_rng(seed)
    samples, found = 0, []
    while len(found) < simulations:
        margins = regime.sample(rng)
        samples += 1
        if rise_p_value(margins, samples) < SIGNIFICANCE:
            shape = fit_shape(margins, samples)
            found.append((shape.split, *shape.ci))
        if samples > 20 * simulations:
            raise ValueError("almost no sample of this regime rises significantly")
    readout, low, high = np.array(found).T
    at = regime.transition
    return Coverage(
        samples,
        float(((low <= at) & (at <= high)).mean()),
        float((readout == at).mean()),
        float((high - low).mean()),
        float((high == low).mean()),
    )
