"""Decision depth: at which readout each question's decision becomes right for good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Depths:
    """How the decision on each question comes about over the R readouts.

    Attributes:
        depth: ``[Q]`` first readout from which the decision is right and stays so to the output;
            -1 where the output is wrong.
        flips: ``[Q]`` how often the decision changes from a readout to the next, of R-1 times.
        lost: ``[Q]`` how often it changes from the right option to another.
        never: ``[Q]`` whether no readout decides rightly.
        readouts: R.
    """

    depth: np.ndarray
    flips: np.ndarray
    lost: np.ndarray
    never: np.ndarray
    readouts: int

    @property
    def counts(self) -> np.ndarray:
        """``[R]`` how many questions have their decision depth at each readout."""
        return np.bincount(self.depth[self.depth >= 0], minlength=self.readouts)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the depth of a question whose output is wrong is None."""
        right = self.depth[self.depth >= 0]
        quartiles = (
            np.quantile(right, (0.25, 0.5, 0.75), method="inverted_cdf") if len(right) else []
        )
        return {
            "depth": [None if depth < 0 else depth for depth in self.depth.tolist()],
            "flips": self.flips.tolist(),
            "lost": self.lost.tolist(),
            "never_right": self.never.tolist(),
            "counts": self.counts.tolist(),
            "quartiles": [int(value) for value in quartiles],
            "wrong_at_the_output": int((self.depth < 0).sum()),
            "never_right_count": int(self.never.sum()),
            "mean_flips": float(self.flips.mean()),
            "mean_lost": float(self.lost.mean()),
        }


def decision_depths(decided: np.ndarray, gold: np.ndarray) -> Depths:
    """Follow each question's decision over the readouts.

    Args:
        decided: ``[Q, R]`` index of the decided option.
        gold: ``[Q]`` index of the right option.
    """
    decided = np.asarray(decided)
    right = decided == np.asarray(gold)[:, None]
    # From the output backwards: how many readouts in a row are right.
    right_to_the_end = np.logical_and.accumulate(right[:, ::-1], axis=1).sum(axis=1)
    readouts = decided.shape[1]
    return Depths(
        depth=np.where(right_to_the_end > 0, readouts - right_to_the_end, -1),
        flips=(decided[:, 1:] != decided[:, :-1]).sum(axis=1),
        lost=(right[:, :-1] & ~right[:, 1:]).sum(axis=1),
        never=~right.any(axis=1),
        readouts=readouts,
    )
