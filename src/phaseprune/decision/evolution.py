"""What an evolutionary search over sets of blocks draws (EvoPress; arXiv 2410.14649).

A set is a rising tuple of original indices. No model is known here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import ceil

import numpy as np

#: Questions of the first stage, at least.
LEAST = 8
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
    ends = [min(count, max(LEAST, ceil(count * share))) for share in shares]
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
