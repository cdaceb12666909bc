"""States of one step that the next step begins with.

When block r is removed, the streams of the next step are those of this one up to r: the base at the
input of r is the next base there, and so is each candidate that skips a block before r. So states
kept at the input of a block stay good as long as the same blocks are live before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from phaseprune.sweep.states import States


@dataclass
class Kept:
    """States by shard and by the block at whose input they stand.

    Attributes:
        budget: bytes of states that may be kept.
    """

    budget: int
    entries: dict[tuple[int, int], tuple[tuple[int, ...], States]] = field(default_factory=dict)

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
            (shard, block): entry
            for (shard, block), entry in self.entries.items()
            if entry[0] == before(live, block)
        }

    def keep(self, shard: int, block: int, live: Sequence[int], states: States) -> None:
        """Keep the streams at the input of a block: the base, then a candidate a live block."""
        self.entries[shard, block] = before(live, block), states

    def latest(self, shard: int) -> tuple[int, States] | None:
        """The deepest block of a shard with kept states, and these."""
        blocks = [block for number, block in self.entries if number == shard]
        if not blocks:
            return None
        return max(blocks), self.entries[shard, max(blocks)][1]


def before(live: Sequence[int], block: int) -> tuple[int, ...]:
    """The live blocks before a block."""
    return tuple(b for b in live if b < block)
