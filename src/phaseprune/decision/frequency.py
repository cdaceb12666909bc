"""Option Frequency, and how far it is from the gold shares (arXiv 2605.07271).

The distance is total variation, which the paper shows without bounds. Sampling alone lifts it from
0, and resampling lifts it again, so percentiles of resampled distances are no interval. But its
*error* is at most the distance between the sampled and the true shares (triangle inequality), and a
bootstrap of that one is sound at 0 too (docs/statistics.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from phaseprune.decision.curve import SIGNIFICANCE
from phaseprune.decision.intervals import CONFIDENCE, resamples
from phaseprune.runs.plain import rebuilt

if TYPE_CHECKING:
    from phaseprune.decision.transition import Transition


def option_frequency(decided: np.ndarray, options: int) -> np.ndarray:
    """Share of questions that decide for each option.

    Args:
        decided: ``[Q, ...]`` index of the decided option.
        options: K, the largest number of options.

    Returns:
        ``[..., K]`` shares that sum to 1.
    """
    decided = np.asarray(decided)
    return (decided[..., None] == np.arange(options)).mean(axis=0)


def frequency_where_present(decided: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Share of the questions that have an option at a position which decide for it.

    With unequal k the plain share of a late position is small because few questions have it.

    Args:
        decided: ``[Q, ...]`` index of the decided option.
        present: ``[Q]`` number of options k of each question.

    Returns:
        ``[..., K]`` shares, K the largest k; each position has a denominator of its own.
    """
    options = int(np.max(present))
    have = (np.asarray(present)[:, None] > np.arange(options)).sum(axis=0)
    return option_frequency(decided, options) * len(present) / have


def gold_frequency(gold: np.ndarray, options: int) -> np.ndarray:
    """``[K]`` share of questions whose right option stands at each position."""
    return option_frequency(gold, options)


def total_variation(differences: np.ndarray) -> np.ndarray:
    """Distance of two shares: half the sum of absolute differences, 0 (equal) to 1.

    Args:
        differences: ``[..., K]`` the one minus the other.

    Returns:
        ``[...]``.
    """
    return np.abs(differences).sum(axis=-1) / 2


@dataclass(frozen=True)
class Distance:
    """Distances of Option Frequency from the gold shares, each 0 to 1 and of the same shape.

    Attributes:
        mean: of these questions (a mean over readouts where it is of a phase).
        ci_low: lower,
        ci_high: and upper 95 % bound.
        noise: what sampling would show on average if the shares of all questions were equal.
    """

    mean: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    noise: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: np.asarray(value).tolist() for name, value in asdict(self).items()}


@dataclass(frozen=True)
class PhaseDistances:
    """Mean distances over the readouts of each phase.

    Attributes:
        silent: over readouts before the transition,
        decisive: and over those from it on.
        difference: silent minus decisive, with its lower and upper 95 % bound.
        significant: whether its 99 % interval leaves out 0.
    """

    silent: Distance
    decisive: Distance
    difference: tuple[float, float, float]
    significant: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        difference = dict(zip(("mean", "ci_low", "ci_high"), self.difference, strict=True))
        return {
            "silent": self.silent.to_dict(),
            "decisive": self.decisive.to_dict(),
            "difference": difference | {"significant": self.significant},
        }


@dataclass(frozen=True)
class FrequencyDistance:
    """The distance at each readout (``[R]``), and by phase where there is a transition."""

    by_readout: Distance
    phases: PhaseDistances | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        phases = None if self.phases is None else self.phases.to_dict()
        return self.by_readout.to_dict() | {"phases": phases}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> FrequencyDistance:
        """What ``to_dict`` gave."""
        phases = content["phases"]
        if phases is not None:
            told = phases["difference"]
            difference = tuple(told[part] for part in ("mean", "ci_low", "ci_high"))
            parts = (rebuilt(Distance, phases[name]) for name in ("silent", "decisive"))
            phases = PhaseDistances(*parts, difference, told["significant"])
        return cls(rebuilt(Distance, content), phases)


@dataclass(frozen=True)
class OutputFrequency:
    """Option Frequency at the output of some questions (``[K]``) and its distance from the gold."""

    option_frequency: np.ndarray
    gold_frequency: np.ndarray
    distance: Distance

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "option_frequency": self.option_frequency.tolist(),
            "gold_frequency": self.gold_frequency.tolist(),
            "option_frequency_distance": self.distance.to_dict(),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> OutputFrequency:
        """What ``to_dict`` gave."""
        shares = (np.array(content[name]) for name in ("option_frequency", "gold_frequency"))
        return cls(*shares, rebuilt(Distance, content["option_frequency_distance"]))


def frequency_distance(
    decided: np.ndarray, gold: np.ndarray, options: int, transition: Transition, seed: int
) -> FrequencyDistance:
    """Hold Option Frequency against the gold shares at every readout and by phase.

    Args:
        decided: ``[Q, R]`` decided options.
        gold: ``[Q]`` right options.
        options: K, the largest number of options; a question with fewer never has the late ones.
        transition: which readouts are of which phase; it is taken as given.
        seed: of the bootstrap over questions, decision and gold in pairs.
    """
    distances, errors = _with_errors(decided, gold, options, seed)
    phases = None
    if transition.found:
        phases = _by_phase(distances, errors, transition.readout, len(gold))
    return FrequencyDistance(_bounded(distances, errors, len(gold)), phases)


def output_frequency(
    decided: np.ndarray, gold: np.ndarray, options: int, seed: int
) -> OutputFrequency:
    """Option Frequency at the output, held against the gold shares.

    Args:
        decided: ``[Q]`` decided options.
        gold: ``[Q]`` right options.
        options: K, the largest number of options.
        seed: of the bootstrap over questions.
    """
    distances, errors = _with_errors(np.asarray(decided)[:, None], gold, options, seed)
    return OutputFrequency(
        option_frequency(decided, options),
        gold_frequency(gold, options),
        _bounded(distances[0], errors[:, 0], len(gold)),
    )


def _with_errors(
    decided: np.ndarray, gold: np.ndarray, options: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """``[R]`` distances, and ``[draws, R]`` distances of resampled shares from these shares."""
    each = np.arange(options)
    apart = (np.asarray(decided)[..., None] == each).astype(float)
    apart -= (np.asarray(gold)[:, None] == each)[:, None]
    flat = apart.reshape(len(apart), -1)
    centre = flat.mean(axis=0)
    errors = [
        total_variation((weights @ flat - centre).reshape(len(weights), -1, options))
        for weights in resamples(len(flat), seed)
    ]
    return total_variation(centre.reshape(-1, options)), np.concatenate(errors)


def _reach(errors: np.ndarray, confidence: float, questions: int) -> np.ndarray:
    """How far off a distance may be; never less than the rule of three, about 3 / questions.

    Where nearly all questions are decided rightly the bootstrap sees hardly any error, though a few
    in a hundred more could be wrong.
    """
    never_seen = 1 - (1 - confidence) ** (1 / questions)
    return np.maximum(np.quantile(errors, confidence, axis=0), never_seen)


def _bounded(distances: np.ndarray, errors: np.ndarray, questions: int) -> Distance:
    reach = _reach(errors, CONFIDENCE, questions)
    low, high = np.clip([distances - reach, distances + reach], 0.0, 1.0)
    return Distance(distances, low, high, errors.mean(axis=0))


def _by_phase(
    distances: np.ndarray, errors: np.ndarray, readout: int, questions: int
) -> PhaseDistances:
    silent, decisive = (
        _bounded(distances[part].mean(), errors[:, part].mean(axis=1), questions)
        for part in (slice(readout), slice(readout, None))
    )
    difference = float(silent.mean - decisive.mean)
    # The difference is off by at most the errors of both, drawn from the same questions.
    both = errors[:, :readout].mean(axis=1) + errors[:, readout:].mean(axis=1)
    reach, far = (_reach(both, level, questions) for level in (CONFIDENCE, 1 - SIGNIFICANCE))
    bounds = np.clip([difference - reach, difference + reach], -1.0, 1.0).tolist()
    return PhaseDistances(silent, decisive, (difference, *bounds), bool(abs(difference) > far))
