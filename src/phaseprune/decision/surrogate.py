"""A model of what removing any blocks loses, from what one and two of them lose: no model is run.

The loss of a set S, a function of which blocks are in it, is cut off behind its terms of second
order: drop(S) = sum_i d_i + sum_{i<j} d_ij.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Surrogate:
    """Terms of the drop of a figure of which more is better.

    Attributes:
        base: the figure of the full model.
        single: ``[L]`` d_i, what removing block i loses.
        pair: ``[L, L]`` d_ij, symmetric: what removing both loses beyond the two alone; 0 on the
            diagonal and where it was not measured.
    """

    base: float
    single: np.ndarray
    pair: np.ndarray

    def figure(self, blocks: Sequence[int]) -> float:
        """The predicted figure without some blocks."""
        blocks = list(blocks)
        between = self.pair[np.ix_(blocks, blocks)].sum() / 2
        return float(self.base - self.single[blocks].sum() - between)


def make_surrogate(base: float, singles: np.ndarray, pairs: np.ndarray) -> Surrogate:
    """The surrogate that agrees with all that was measured.

    Args:
        base: the figure of the full model.
        singles: ``[L]`` without block i; NaN where it was not measured.
        pairs: ``[L, L]`` without blocks i and j, at i < j; NaN where it was not measured.
    """
    single = base - singles
    pair = base - pairs - single[:, None] - single[None]
    pair = np.nan_to_num(np.triu(pair, 1), nan=0.0)
    return Surrogate(base, single, pair + pair.T)


def greedy_order(
    surrogate: Surrogate, candidates: Sequence[int], number: int
) -> tuple[tuple[int, ...], np.ndarray]:
    """At each step the block that adds least to the predicted drop; ties to the lower index.

    Args:
        surrogate: of the drop.
        candidates: blocks that may be removed, all with a single drop.
        number: how many of them.

    Returns:
        The order, and ``[L]`` the predicted figure at the step at which a block goes; else NaN.
    """
    order: list[int] = []
    scores = np.full(len(surrogate.single), np.nan)
    left = sorted(candidates)
    for _ in range(number):
        adds = surrogate.single[left] + surrogate.pair[np.ix_(left, order)].sum(axis=1)
        order.append(left.pop(int(np.argmin(adds))))
        scores[order[-1]] = surrogate.figure(order)
    return tuple(order), scores
