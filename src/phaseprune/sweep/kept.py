"""What a pruning step begins with of the step before: states of a sweep, and scores of a trace.

When block r is removed, the streams of the next step are those of this one up to r: the base at the
input of r is the next base there, and so is each candidate that skips a block before r. So states
stay good as long as the blocks that they have run are the first live ones. Likewise the readouts
before the first block in which two models differ are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from phaseprune.decoder.items import Item, block_of_item, whole_blocks
from phaseprune.sweep.states import States


@dataclass
class Kept:
    """States by shard and by the live blocks before them, with the streams that they are of.

    Attributes:
        budget: bytes of states that may be kept.
    """

    budget: int
    entries: dict[tuple[int, tuple[int, ...]], tuple[tuple[int, ...], States]] = field(
        default_factory=dict
    )

    def plan(self, live: Sequence[int], a_stream: int) -> set[int]:
        """The blocks at whose input states are worth keeping.

        Evenly spread, and as many as the budget allows.

        Args:
            live: the live blocks in order.
            a_stream: bytes of one stream's states, over all shards.
        """
        self.forget(live)
        for apart in range(1, len(live)):
            places = range(apart, len(live), apart)
            if sum(place + 1 for place in places) * a_stream <= self.budget:
                return {live[place] for place in places}
        return set()

    def forget(self, live: Sequence[int]) -> None:
        """Drop what is no longer good."""
        self.entries = {
            (shard, before): entry
            for (shard, before), entry in self.entries.items()
            if before == tuple(live[: len(before)])
        }

    def keep(
        self, shard: int, before: tuple[int, ...], streams: tuple[int, ...], states: States
    ) -> None:
        """Keep streams, the base among them, unless more are kept there already."""
        if len(self.entries.get((shard, before), ((), []))[0]) <= len(streams):
            self.entries[shard, before] = streams, states

    def places(self, shard: int) -> dict[int, tuple[int, ...]]:
        """The streams kept of a shard, by how many live blocks are before them."""
        return {
            len(before): streams
            for (number, before), (streams, _) in self.entries.items()
            if number == shard
        }

    def take(self, shard: int, before: tuple[int, ...], streams: tuple[int, ...]) -> States:
        """The states of some kept streams."""
        have, states = self.entries[shard, before]
        if have == streams:
            return states
        places = [have.index(stream) for stream in streams]
        return [state[places] for state in states]


def counted_passes(
    kept: Kept, live: Sequence[int], candidates: Sequence[int], a_stream: int
) -> int:
    """The block passes that a sweep would take; ``kept`` takes down what it would keep.

    Args:
        kept: what earlier sweeps of the kind would have kept, without any states.
        live: the live blocks in order.
        candidates: those that the sweep would score, in order.
        a_stream: bytes of one stream's states.
    """
    keep = kept.plan(live, a_stream)
    legs = schedule(live, candidates, kept.places(0))
    for leg in legs:
        if leg.block in keep and leg.streams[0] == BASE:
            kept.keep(0, leg.before, leg.streams, [])
    return passes(legs)


#: The stream that skips no live block.
BASE = -1


@dataclass(frozen=True)
class Leg:
    """One block of a walk.

    Attributes:
        block: original index; None behind the last live block, where nothing is run.
        before: the live blocks before it.
        joins: the streams that begin here with kept states (the base with the embeddings at 0).
        streams: all that are run here, the base first where it is one of them.
        born: whether the candidate without this block is born here.
        ends: whether the base is needed no more behind this block.
    """

    block: int | None
    before: tuple[int, ...]
    joins: tuple[int, ...]
    streams: tuple[int, ...]
    born: bool = False
    ends: bool = False


def schedule(
    live: Sequence[int], candidates: Sequence[int], kept: Mapping[int, Collection[int]]
) -> list[Leg]:
    """The legs of a sweep.

    Args:
        live: the live blocks in order.
        candidates: those to be scored, in order.
        kept: for a number of live blocks, the streams whose states behind so many of them are kept;
            the base is always among these.
    """
    starts: dict[int, int] = {}
    births = []
    for block in candidates:
        places = [place for place, streams in kept.items() if block in streams]
        if places:
            starts[block] = max(places)
        else:
            births.append(block)
    if births:
        first = live.index(births[0])
        starts = {BASE: max((place for place in kept if place <= first), default=0)} | starts
    legs: list[Leg] = []
    streams: tuple[int, ...] = ()
    for place in range(min(starts.values()), len(live) + 1):
        joins = tuple(stream for stream, start in starts.items() if start == place)
        streams = joins + streams if BASE in joins else streams + joins
        if place == len(live):
            legs.append(Leg(None, tuple(live), joins, streams))
            break
        block = live[place]
        born, ends = block in births, bool(births) and block == births[-1]
        legs.append(Leg(block, tuple(live[:place]), joins, streams, born, ends))
        streams += (block,) if born else ()
        streams = streams[1:] if ends else streams
    return legs


def passes(legs: Sequence[Leg]) -> int:
    """Runs of a block on a stream."""
    return sum(len(leg.streams) for leg in legs if leg.block is not None)


@dataclass
class LastTrace:
    """The last trace of some rows, which the next one begins with.

    Attributes:
        removed: blocks, or halves of blocks, that the traced model was without.
        raw: ``[Q, L+1, K]`` raw scores at its readouts; None before the first trace.
    """

    removed: frozenset[Item] = frozenset()
    raw: np.ndarray | None = None

    def then(
        self, removed: Collection[Item], trace: Callable[[np.ndarray | None], np.ndarray]
    ) -> np.ndarray:
        """Trace the model without some blocks or halves, its weights otherwise as they were.

        Args:
            removed: what the model is without.
            trace: gives its raw scores; told those of its first readouts, as
                ``walk.trace_scores`` takes them.
        """
        raw = trace(self._common(frozenset(removed)))
        self.removed, self.raw = frozenset(removed), raw
        return raw

    def _common(self, removed: frozenset[Item]) -> np.ndarray | None:
        """The scores of the readouts that a model has in common with the last."""
        if self.raw is None:
            return None
        blocks = self.raw.shape[1] - 1
        changed = min(map(block_of_item, self.removed ^ removed), default=blocks)
        # The last live block runs at the reads alone, which may round differently.
        last = [
            max(set(range(blocks)) - set(whole_blocks(items))) for items in (self.removed, removed)
        ]
        return self.raw[:, : min(changed, *last) + 1]
