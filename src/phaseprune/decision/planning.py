"""A plan from one look at a model: in which order blocks could go, and how many; no model here.

Three things are known of a block after one walk. Its *influence* (1 - cosine of its input and
output, arXiv 2403.03853) says how far it turns each hidden state. Its *rearrangement* (1 - CKA of
input and output, arXiv 1905.00414) says how far it changes how the states of different tokens lie
to each other; the few very large states of a real model weigh most in it. And what it *adds* to
the last state can be taken off and the rest read: exact for the last blocks, blind to what later
blocks would make of the change for earlier ones. A block is cheap where it has little of all
three. docs/plan.md says what this predicts and where it fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

#: Influence that blocks may have together, at the budget and at the ends of its interval: a rule
#: of thumb (docs/plan.md), not a law.
LIMITS = (0.20, 0.25, 0.30)
#: The interval reaches so many blocks to each side at least: as far as predictions were off.
OFF_BY = 2
#: And the share of the accuracy above chance that must be read off what the others add.
READ_OFF = 0.5
#: Of the blocks that are left, so many that look least needed are looked at in each step.
LOOKED_AT = 4

#: ``[S]`` mean Decision Margins with what each of S sets of blocks added taken off.
Margins = Callable[[Sequence[tuple[int, ...]]], np.ndarray]


def least_needed(influence: np.ndarray, rearrangement: np.ndarray) -> np.ndarray:
    """``[L]`` places of blocks by the worse of their two ranks, 0 for the least needed.

    Ranks, because the two are not on one scale. Ties go to the lesser influence, then to the lower
    index. Where rearrangement is not known (NaN: too few questions), influence decides.
    """
    rank = stats.rankdata(influence, method="min")
    if not np.isnan(rearrangement).any():
        rank = np.maximum(rank, stats.rankdata(rearrangement, method="min"))
    places = np.empty(len(rank), dtype=int)
    places[np.lexsort((influence, rank))] = np.arange(len(rank))
    return places


def plan_order(
    influence: np.ndarray,
    rearrangement: np.ndarray,
    margins: Margins,
    candidates: Sequence[int],
    number: int,
) -> tuple[tuple[int, ...], np.ndarray]:
    """Order blocks greedily by the Decision Margin read without them, less their influence.

    Args:
        influence: ``[L]`` of each block, in [0, 2].
        rearrangement: ``[L]`` 1 - CKA of each block, or NaN.
        margins: reads sets of blocks.
        candidates: the blocks that may go.
        number: how many are to go.

    Returns:
        Original indices, the first to go first (ties to the lower index), and ``[number]`` what
        each costs when it goes: its influence and what the margin falls by.
    """
    places = least_needed(influence, rearrangement)
    order: tuple[int, ...] = ()
    costs = np.empty(number)
    before = float(margins([()])[0])
    for step in range(number):
        left = sorted(set(candidates) - set(order), key=lambda block: places[block])
        looked_at = sorted(left[:LOOKED_AT])
        read = margins([(*order, block) for block in looked_at])
        cost = influence[looked_at] + before - read
        place = int(np.argmin(cost))
        order = (*order, looked_at[place])
        costs[step], before = cost[place], float(read[place])
    return order, costs


def predict_budget(
    influence: np.ndarray, order: Sequence[int], retained: Sequence[float | None]
) -> dict[str, Any]:
    """How many blocks of an order can go before collapse, by ``LIMITS`` and ``READ_OFF``.

    Args:
        influence: ``[L]`` of each block.
        order: original indices.
        retained: of the order's first 0, 1, … blocks, the share of the accuracy above chance that
            is read off what the others add.

    Returns:
        ``blocks``, ``low`` and ``high`` (by the outer limits, ``OFF_BY`` to each side at least),
        and ``bound_by``: what ends it, ``influence``, ``decision`` or ``order`` (nothing, up to its
        end). ``blocks`` is None where retained is.
    """
    if any(value is None for value in retained):
        return {"blocks": None, "low": None, "high": None, "bound_by": None}
    together = np.cumsum(influence[list(order)])
    read = np.asarray(retained[1:], dtype=float) >= READ_OFF
    readable = len(order) if read.all() else int(np.argmin(read))
    fitting = [int(np.searchsorted(together, limit, side="right")) for limit in LIMITS]
    low, middle, high = (min(count, readable) for count in fitting)
    low, high = max(0, min(low, middle - OFF_BY)), min(readable, max(high, middle + OFF_BY))
    bound_by = "order" if middle == len(order) else "influence"
    if readable < fitting[1]:
        bound_by = "decision"
    return {"blocks": middle, "low": low, "high": high, "bound_by": bound_by}
