"""The kinds of sets that phase-wise pruning removes, and how sets of each are drawn.

Beside sets of one phase and of anywhere there are controls. Silent blocks are early blocks, so what
they cost may be what early blocks cost: sets without the first blocks, sets of equally many blocks
on either side of the transition, and contiguous windows say whether it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil, comb

import numpy as np

#: The kinds, in the order in which they are drawn: a kind may take sets of those before it.
KINDS = (
    "anywhere",
    "silent",
    "decisive",
    "later_silent",
    "near_silent",
    "near_decisive",
    "window_silent",
    "window_across",
    "window_decisive",
)
#: The share of a model's blocks that are called its first ones (rounded up): 4 of 32, 2 of 14.
FIRST_SHARE = 0.1

#: A set of blocks, rising.
Blocks = tuple[int, ...]


@dataclass(frozen=True)
class Pool:
    """Sets of any blocks of a pool."""

    blocks: Blocks

    def count(self, number: int) -> int:
        """How many sets of ``number`` blocks there are."""
        return comb(len(self.blocks), number)

    def draw(
        self, number: int, draws: int, key: Sequence[int], known: Iterable[Blocks] = ()
    ) -> list[Blocks]:
        """At most ``draws`` of them, as ``draw_sets``."""
        return draw_sets(self.blocks, number, draws, key, known)


@dataclass(frozen=True)
class Windows:
    """Sets of blocks that follow each other.

    Attributes:
        blocks: that they consist of.
        across: a readout; where given, they have blocks before and behind it.
    """

    blocks: Blocks
    across: int | None = None

    def all(self, number: int) -> list[Blocks]:
        """All windows of ``number`` blocks."""
        found = [tuple(range(first, first + number)) for first in self.blocks]
        own = set(self.blocks)
        return [
            one
            for one in found
            if own.issuperset(one) and (self.across is None or one[0] < self.across <= one[-1])
        ]

    def count(self, number: int) -> int:
        """How many there are."""
        return len(self.all(number))

    def draw(
        self, number: int, draws: int, key: Sequence[int], known: Iterable[Blocks] = ()
    ) -> list[Blocks]:
        """At most ``draws`` of them, in order; ``known`` ones are no more likely than others."""
        windows = self.all(number)
        if len(windows) <= draws:
            return windows
        chosen = np.random.default_rng(key).choice(len(windows), draws, replace=False)
        return [windows[place] for place in sorted(chosen.tolist())]


def first_blocks(blocks: int) -> Blocks:
    """The first blocks of a model of so many: a tenth of them, rounded up."""
    return tuple(range(ceil(FIRST_SHARE * blocks)))


def kinds_of(
    silent: Sequence[int], decisive: Sequence[int], protect: Iterable[int] = ()
) -> dict[str, Pool | Windows]:
    """What the sets of each kind are drawn from.

    ``later_silent`` are Silent blocks but the first blocks of the model; ``near_silent`` and
    ``near_decisive`` the w blocks on either side that are nearest to the transition, where w is the
    size of the smaller one of ``later_silent`` and ``decisive``. Windows lie wholly in a phase, or
    across the transition.

    Args:
        silent: the blocks of the Silent Phase,
        decisive: and of the Decisive Phase.
        protect: blocks that are in no set.

    Returns:
        The kinds of ``KINDS`` that have blocks at all, in this order.
    """
    kept, first = set(protect), first_blocks(len(silent) + len(decisive))
    transition = len(silent)
    silent, decisive = (tuple(b for b in of if b not in kept) for of in (silent, decisive))
    later = tuple(b for b in silent if b not in first)
    width = min(len(later), len(decisive))
    found = {
        "anywhere": Pool(silent + decisive),
        "silent": Pool(silent),
        "decisive": Pool(decisive),
        "later_silent": Pool(later),
        "near_silent": Pool(later[len(later) - width :]),
        "near_decisive": Pool(decisive[:width]),
        "window_silent": Windows(silent),
        "window_across": Windows(silent + decisive, transition),
        "window_decisive": Windows(decisive),
    }
    return {name: found[name] for name in KINDS if found[name].blocks}


def drawn_sets(
    kinds: Mapping[str, Pool | Windows], number: int, draws: int, seed: int
) -> dict[Blocks, list[str]]:
    """The sets of ``number`` blocks, each with the kinds that it is of.

    Of single blocks all are taken, whatever ``draws``. A kind takes sets first that a kind with all
    its blocks has drawn: they are as good as new ones, and scored already. So kinds with the same
    blocks have the same sets.

    Args:
        kinds: from ``kinds_of``.
        number: of removed blocks.
        draws: the most sets of a kind.
        seed: of all draws.

    Returns:
        Rising sets -> names of kinds.
    """
    most = draws if number > 1 else max(kind.count(1) for kind in kinds.values())
    of: dict[str, list[Blocks]] = {}
    sets: dict[Blocks, list[str]] = {}
    for name, kind in kinds.items():
        known = [
            one
            for other, drawn in of.items()
            for one in drawn
            if set(kind.blocks) <= set(kinds[other].blocks)
        ]
        of[name] = kind.draw(number, most, [seed, number, KINDS.index(name)], known)
        for one in of[name]:
            sets.setdefault(one, []).append(name)
    return sets


def most_sets(blocks: int, draws: int) -> int:
    """The most sets of one number of blocks, of a model with so many that are not protected.

    One of ``near_silent`` and ``near_decisive`` is all of its side, and so another kind's.
    """
    return max(blocks, 5 * draws + min(3 * draws, blocks))


def draw_sets(
    blocks: Sequence[int], count: int, draws: int, key: Sequence[int], known: Iterable[Blocks] = ()
) -> list[Blocks]:
    """Sets of ``count`` of the blocks, no set twice; all there are where these are no more.

    Args:
        blocks: to draw from.
        count: blocks of a set.
        draws: the most sets.
        key: seed of the draw.
        known: sets that were drawn already, of these blocks and others, no block of these more
            likely than another: those that fit are taken first.
    """
    if comb(len(blocks), count) <= draws:
        return list(combinations(blocks, count))
    rng, own = np.random.default_rng(key), set(blocks)
    found = dict.fromkeys(one for one in known if own.issuperset(one))
    while len(found) < draws:
        found[tuple(sorted(rng.choice(blocks, count, replace=False).tolist()))] = None
    return list(found)[:draws]
