"""States of one step that the next step begins with.

When block r is removed, the streams of the next step are those of this one up to r: the base at the
input of r is the next base there, and so is each candidate that skips a block before r. So states
stay good as long as the blocks that they have run are the first live ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from phaseprune.sweep.schedule import BASE, passes, schedule
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
