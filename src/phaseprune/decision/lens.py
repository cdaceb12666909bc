"""A trace under a tuned lens beside the same trace under the plain logit lens."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from phaseprune.decision.corrections import holm
from phaseprune.decision.intervals import bootstrap_mean

if TYPE_CHECKING:
    from phaseprune.decision.trace import Interval, Trace

#: A readout's Decision Margins differ below this p-value, after Holm's correction over readouts.
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class LensComparison:
    """What the plain logit lens says where a tuned one was traced.

    Attributes:
        calibration_questions: that the tuned lens was fitted to; none of them is traced.
        decision_margin: ``[R]`` of the logit lens.
        accuracy: likewise.
        transition: of the logit lens, as in ``trace.json``.
        difference: ``[R]`` mean DM of the tuned lens minus that of the logit lens, with a bootstrap
            interval over questions.
        p_value: ``[R]`` of "the mean difference is 0" (paired t-test), after Holm's correction.
        differs: readouts where it is below 0.05.
        kl_logit: ``[R]`` mean KL(model || readout) over the vocabulary, nats a token, on
            calibration tokens that the maps were not trained on, of the logit lens,
        kl_tuned: and of the tuned one; 0 at the last readout.
    """

    calibration_questions: int
    decision_margin: Interval
    accuracy: Interval
    transition: dict[str, Any]
    difference: Interval
    p_value: np.ndarray
    differs: tuple[int, ...]
    kl_logit: np.ndarray
    kl_tuned: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: ``lens`` of ``trace.json``."""
        return {"name": "tuned"} | {name: _plain(value) for name, value in asdict(self).items()}


def compare_lenses(
    tuned: Trace,
    logit: Trace,
    *,
    calibration_questions: int,
    kl_logit: np.ndarray,
    kl_tuned: np.ndarray,
    seed: int,
) -> LensComparison:
    """Hold the traces of the same questions under both lenses side by side.

    Args:
        tuned: under the tuned lens.
        logit: under the plain one.
        calibration_questions: that the tuned lens was fitted to.
        kl_logit: ``[L]`` divergence of the readouts before the last,
        kl_tuned: under both lenses.
        seed: of the bootstrap.
    """
    difference = tuned.decisions.margins - logit.decisions.margins
    interval = type(tuned.decision_margin)
    adjusted = holm([_p_value(column) for column in difference.T])
    return LensComparison(
        calibration_questions=calibration_questions,
        decision_margin=logit.decision_margin,
        accuracy=logit.accuracy,
        transition=logit.to_dict()["transition"],
        difference=interval(difference.mean(axis=0), *bootstrap_mean(difference, seed)),
        p_value=adjusted,
        differs=tuple(np.flatnonzero(adjusted < SIGNIFICANCE).tolist()),
        kl_logit=np.append(kl_logit, 0.0),
        kl_tuned=np.append(kl_tuned, 0.0),
    )


def _p_value(differences: np.ndarray) -> float:
    """Of a mean of 0; 1 where no question differs."""
    if np.ptp(differences) == 0:
        return float(differences[0] == 0)
    return float(stats.ttest_1samp(differences, 0).pvalue)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return value
