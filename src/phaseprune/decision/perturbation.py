"""What noise does to decisions: curves of the Decision Margin by noise, and where they halve.

The noise is h + eps * sigma(h) * N(0, I) at one readout, its variance sigma^2 = eps^2
(arXiv 2605.07271); docs/perturbation.md says what was decided where the paper is silent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from phaseprune.decision.intervals import Interval, bootstrap_mean, percentiles, resamples, wilson
from phaseprune.decision.transition import Transition

#: What readers of the paper report, to be held against; it is no input of any figure.
PAPER = {
    "source": "arXiv 2605.07271",
    "silent": {"noise": 0.02, "finding": "breaks near"},
    "decisive": {"noise": 0.1, "finding": "still holds at"},
}


@dataclass(frozen=True)
class Halving:
    """The noise variance at which the Decision Margin is half of that without noise.

    ``value`` is None, and ``reason`` says why, where the margin without noise is not above 0 or no
    level halves it. A bound of None lies above the largest level; both are None where no half is
    defined.
    """

    value: float | None
    ci_low: float | None = None
    ci_high: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Curve:
    """Output figures by noise level of the noise at one set of readouts.

    Attributes:
        readouts: where the noise was put in; the figures are means over these.
        decision_margin: ``[N]`` with bootstrap intervals over questions.
        halving: where it halves.
        paper_noise: a variance that the paper names for this phase, None for none.
        paper_share: ``(share, low, high)`` of the margin without noise that is left there,
            interpolated; None where it is beyond the levels or not defined.
    """

    readouts: tuple[int, ...]
    decision_margin: Interval
    halving: Halving
    paper_noise: float | None = None
    paper_share: tuple[float, float | None, float | None] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "readouts": list(self.readouts),
            "decision_margin": {k: v.tolist() for k, v in asdict(self.decision_margin).items()},
            "halving": asdict(self.halving),
            "paper_noise": self.paper_noise,
            "paper_share": None if self.paper_share is None else list(self.paper_share),
        }


def mean_with_interval(values: np.ndarray, seed: int) -> Interval:
    """Mean over questions with its bootstrap interval; ``values`` are ``[Q, ...]``."""
    return Interval(values.mean(axis=0), *bootstrap_mean(values, seed))


def accuracy_with_interval(correct: np.ndarray) -> Interval:
    """Accuracy from shares of right decisions, with Wilson's interval.

    Args:
        correct: ``[Q, ...]`` share of a question's draws of noise that are decided rightly. With
            several draws the interval is wider than it need be: the mean of a question's draws
            varies no more than one draw.
    """
    return Interval(correct.mean(axis=0), *wilson(correct.sum(axis=0), len(correct)))


def halving_noise(curves: np.ndarray, noise: Sequence[float]) -> np.ndarray:
    """``[...]`` the least variance at which a curve is at or below half of its value at 0.

    Args:
        curves: ``[..., N]`` Decision Margin by level.
        noise: ``[N]`` variances, ascending, the first one 0. Between levels the curve is taken to
            be straight in the variance.

    Returns:
        ``inf`` where no level reaches half; 0 where the curve begins at or below 0.
    """
    curves, noise = np.asarray(curves, dtype=np.float64), np.asarray(noise, dtype=np.float64)
    half = curves[..., :1] / 2
    reached = curves <= half
    at = np.argmax(reached, axis=-1)[..., None]
    before = np.maximum(at - 1, 0)
    high, low = (np.take_along_axis(curves, place, axis=-1) for place in (before, at))
    fall = np.where(high > low, high - low, 1.0)
    value = noise[before] + (noise[at] - noise[before]) * (high - half) / fall
    value = np.where(at == 0, 0.0, value)
    return np.where(reached.any(axis=-1), value[..., 0], np.inf)


def curve(
    margins: np.ndarray,
    noise: Sequence[float],
    readouts: Sequence[int],
    seed: int,
    paper_noise: float | None = None,
) -> Curve:
    """Figures of the noise at some readouts taken together.

    Args:
        margins: ``[Q, R, N]`` Decision Margin at the output, mean over the draws of noise.
        noise: ``[N]`` variances, ascending, the first one 0.
        readouts: which of the R; their mean is taken question by question.
        seed: of the bootstrap over questions.
        paper_noise: see ``Curve``.
    """
    levels = np.asarray(noise, dtype=np.float64)
    values = margins[:, list(readouts)].mean(axis=1)
    drawn = np.concatenate([weights @ values for weights in resamples(len(values), seed)])
    interval = Interval(values.mean(axis=0), *percentiles(drawn))
    return Curve(
        tuple(int(readout) for readout in readouts),
        interval,
        _halving(interval, drawn, levels),
        paper_noise,
        _share(interval, drawn, levels, paper_noise),
    )


def _halving(interval: Interval, drawn: np.ndarray, noise: np.ndarray) -> Halving:
    clean, low = interval.mean[0], interval.ci_low[0]
    if low <= 0:
        return Halving(
            None,
            reason="the Decision Margin without noise is not above 0 "
            f"({clean:+.2f}, 95 % CI {low:+.2f} to {interval.ci_high[0]:+.2f})",
        )
    value = float(halving_noise(interval.mean, noise))
    # Order statistics, as a draw that never halves is infinite.
    tails = np.quantile(halving_noise(drawn, noise), [0.025, 0.975], method="inverted_cdf")
    bounds = [float(bound) if np.isfinite(bound) else None for bound in tails]
    reason = None
    if not np.isfinite(value):
        reason = f"no level up to {noise[-1]:g} halves the Decision Margin"
    return Halving(value if reason is None else None, *bounds, reason)


def _share(
    interval: Interval, drawn: np.ndarray, noise: np.ndarray, at: float | None
) -> tuple[float, float | None, float | None] | None:
    """What is left of the margin without noise at a variance."""
    if at is None or at > noise[-1] or interval.ci_low[0] <= 0:
        return None
    share = float(np.interp(at, noise, interval.mean) / interval.mean[0])
    if (drawn[:, 0] <= 0).any():
        return share, None, None
    shares = [np.interp(at, noise, row) / row[0] for row in drawn]
    low, high = percentiles(np.array(shares))
    return share, float(low), float(high)


def phase_curves(
    margins: np.ndarray, noise: Sequence[float], transition: Transition, seed: int
) -> dict[str, Curve]:
    """The curves of the Silent readouts (before the transition) and of the Decisive ones.

    Empty where there is no transition; arguments as of ``curve``.
    """
    if not transition.found:
        return {}
    readouts = range(margins.shape[1])
    phases = {"silent": readouts[: transition.readout], "decisive": readouts[transition.readout :]}
    return {
        name: curve(margins, noise, members, seed, PAPER[name]["noise"])
        for name, members in phases.items()
    }


def phase_difference(margins: np.ndarray, transition: Transition, seed: int) -> Interval | None:
    """``[N]`` how much more margin noise at the Decisive readouts leaves than at the Silent ones.

    Question by question, each phase's mean over its readouts; intervals are not corrected for the
    number of levels. None without a transition; arguments as of ``phase_curves``.
    """
    if not transition.found:
        return None
    silent, decisive = np.split(margins, [transition.readout], axis=1)
    return mean_with_interval(decisive.mean(axis=1) - silent.mean(axis=1), seed)
