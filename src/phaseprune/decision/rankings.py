"""From figures of blocks to an order of removal, or to a choice of so many: no model is known here.

An order is a tuple of original indices, the one to remove first at its head. Ties go to the lower
index, and what is protected is never in it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

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
            f"--protect {','.join(map(str, unknown))}: the model has blocks 0 to {blocks - 1}; "
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
            f"--remove {remove}: the model has {blocks} {nouns}{why}, and one at least must stay; "
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
