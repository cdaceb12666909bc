"""From figures of blocks to an order of removal, or to a choice of so many: no model is known here.

An order is a tuple of original indices, the one to remove first at its head; a set is a rising one.
Ties go to the lower index, and what is protected is never in it.

A *plan* is made from one look at a model. Three things are known of a block after one walk. Its
*influence* (1 - cosine of its input and output, arXiv 2403.03853) says how far it turns each hidden
state. Its *rearrangement* (1 - CKA of input and output, arXiv 1905.00414) says how far it changes
how the states of different tokens lie to each other; the few very large states of a real model
weigh most in it. And what it *adds* to the last state can be taken off and the rest read: exact for
the last blocks, blind to what later blocks would make of the change for earlier ones. A block is
cheap where it has little of all three. docs/plan.md says what this predicts and where it fails.

A *surrogate* predicts what removing any blocks loses from what one and two of them lose. The loss
of a set S, a function of which blocks are in it, is cut off behind its terms of second order:
drop(S) = sum_i d_i + sum_{i<j} d_ij.

Mutations of sets are those of an evolutionary search (EvoPress; arXiv 2410.14649).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from scipy import stats

from phaseprune.errors import UserError


def removable(blocks: int, protect: Collection[int] = ()) -> tuple[int, ...]:
    """The blocks that may be removed, in order of their index.

    Args:
        blocks: L.
        protect: original indices that are never removed.

    Raises:
        UserError: an index that the model does not have, or none is left.
    """
    unknown = sorted(block for block in protect if not 0 <= block < blocks)
    if unknown:
        raise UserError(
            f"--protect={','.join(map(str, unknown))}: the model has blocks 0 to {blocks - 1}; "
            "name some of these"
        )
    left = tuple(block for block in range(blocks) if block not in protect)
    if not left:
        raise UserError(
            f"all {blocks} blocks are protected and nothing is left to remove; protect fewer"
        )
    return left


def check_number(
    blocks: int, candidates: Sequence[int], remove: int | None = None, nouns: str = "blocks"
) -> int:
    """How many blocks are to be removed: the given number, or as many as may be.

    One block at least stays.

    Args:
        blocks: L.
        candidates: from ``removable``.
        remove: how many; None for all that may be.
        nouns: what is counted, in messages.

    Raises:
        UserError: there are not so many.
    """
    most = min(len(candidates), blocks - 1)
    if remove is None:
        return most
    if not 1 <= remove <= most:
        protected = blocks - len(candidates)
        why = f" and {protected} of them protected" if protected else ""
        offer = f"give 1 to {most}" if most > 1 else "give 1" if most else "nothing can be removed"
        raise UserError(
            f"--remove={remove}: the model has {blocks} {nouns}{why}, and one at least must stay; "
            f"{offer}" + (", or protect fewer" if protected else "")
        )
    return remove


def least_first(scores: np.ndarray, candidates: Sequence[int]) -> tuple[int, ...]:
    """The candidates by their score, the least first.

    Args:
        scores: ``[L]`` how much each block matters, in any unit.
        candidates: from ``removable``.

    Raises:
        UserError: a candidate has no score; names it.
    """
    scores = np.asarray(scores, dtype=np.float64)
    without = [block for block in candidates if np.isnan(scores[block])]
    if without:
        raise UserError(
            f"block {without[0]} has no score here (its states do not vary, or are no numbers); "
            "give other questions or text, or another method"
        )
    ordered = sorted(candidates)
    return tuple(ordered[i] for i in np.argsort(scores[ordered], kind="stable"))


def window_scores(distances: np.ndarray, length: int, candidates: Sequence[int]) -> np.ndarray:
    """What removing each window of neighbouring blocks spans.

    Args:
        distances: ``[L+1, L+1]`` between the states at every two readouts.
        length: blocks of a window, n >= 1.
        candidates: from ``removable``.

    Returns:
        ``[L]`` for a window that begins with block b, the distance of readouts b and b+n; NaN
        where a block of it is protected or it does not fit.

    Raises:
        UserError: no window fits between what is protected.
    """
    blocks = len(distances) - 1
    allowed = set(candidates)
    scores = np.full(blocks, np.nan)
    for first in range(blocks - length + 1):
        if allowed.issuperset(range(first, first + length)):
            scores[first] = distances[first, first + length]
    if np.isnan(scores).all():
        raise UserError(
            f"no {length} neighbouring blocks are free of protection; remove or protect fewer"
        )
    return scores


def least_window(scores: np.ndarray, length: int) -> tuple[int, ...]:
    """The blocks of the window with the least score, in order of their index.

    Args:
        scores: from ``window_scores``.
        length: blocks of a window.
    """
    first = int(np.nanargmin(scores))
    return tuple(range(first, first + length))


def last_first(candidates: Sequence[int]) -> tuple[int, ...]:
    """The candidates from the output to the embeddings."""
    return tuple(sorted(candidates, reverse=True))


def first_first(candidates: Sequence[int]) -> tuple[int, ...]:
    """The candidates from the embeddings to the output."""
    return tuple(sorted(candidates))


def at_random(candidates: Sequence[int], seed: int) -> tuple[int, ...]:
    """The candidates in a uniformly drawn order, by seed."""
    return tuple(np.random.default_rng(seed).permutation(sorted(candidates)).tolist())


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


#: Questions of the first stage, at least.
LEAST_OF_A_STAGE = 8
#: The most switches of a mutation.
MOST_SWITCHES = 3
#: Mutations that are drawn for each that is wanted before the search takes fewer.
TRIES = 20


def stage_ends(count: int, shares: Sequence[float]) -> list[int]:
    """How many questions the sets of a generation have seen at the end of each stage.

    Args:
        count: all questions; the last stage sees them all.
        shares: of them that the stages before see, rising.
    """
    ends = [min(count, max(LEAST_OF_A_STAGE, ceil(count * share))) for share in shares]
    return list(dict.fromkeys([*ends, count]))


def mutate(
    parent: Collection[int], free: Sequence[int], rng: np.random.Generator
) -> tuple[int, ...]:
    """Switch some removed blocks for as many kept ones.

    The number of switches is the smaller of two drawn uniformly from 1 to 3, so that one is the
    most likely, and no more than the set allows.

    Args:
        parent: a set.
        free: the blocks that may be removed, more than the set has.
        rng: draws.
    """
    removed = sorted(parent)
    kept = [block for block in free if block not in parent]
    switches = min(*rng.integers(1, MOST_SWITCHES + 1, size=2), len(removed), len(kept))
    back = rng.choice(removed, switches, replace=False).tolist()
    gone = rng.choice(kept, switches, replace=False).tolist()
    return tuple(sorted({*removed, *gone} - {*back}))


def offspring(
    parent: Collection[int],
    free: Sequence[int],
    count: int,
    known: Collection[tuple[int, ...]],
    rng: np.random.Generator,
) -> list[tuple[int, ...]]:
    """Different mutations of a set; fewer than asked for where new ones are hard to find.

    Args:
        parent: a set.
        free: the blocks that may be removed.
        count: how many mutations.
        known: sets that need not be looked at again, the parent among them.
        rng: draws.
    """
    found: dict[tuple[int, ...], None] = {}
    if len(parent) < len(free):
        for _ in range(TRIES * count):
            drawn = mutate(parent, free, rng)
            if drawn not in known:
                found[drawn] = None
            if len(found) == count:
                break
    return list(found)
