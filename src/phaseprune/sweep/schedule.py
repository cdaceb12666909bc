"""Which streams a sweep runs at which block, given what is kept of earlier sweeps.

Pure bookkeeping: a stream begins where it is first needed (a candidate at the block that it skips,
as a copy of the base) or at the deepest block at whose input its states are kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

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
