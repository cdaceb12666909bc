"""A full model and pruned ones walked over a shard side by side.

Models that have removed the same blocks so far are one stream, so a ladder of pruned models costs
no more than what makes them differ, and every block's weights are touched once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch

from phaseprune.decoder.decoder import Decoder
from phaseprune.sweep.memory import batch_tokens
from phaseprune.sweep.rows import Shard
from phaseprune.sweep.states import Walker

#: Models that share a stream, by their positions.
Models = tuple[int, ...]
#: Called with a readout, the models of each stream, and ``[S, N, D]`` states at the reads.
See = Callable[[int, list[Models], torch.Tensor], None]


def branch(streams: list[Models], block: int, removals: Sequence[Collection[int]]):
    """Which streams leave a block, those that run it first.

    Args:
        streams: those that come to it.
        block: original index.
        removals: what each model leaves out.

    Returns:
        Streams that run it, streams that skip it, and for each of both the position of the stream
        that it comes from.
    """
    parts: dict[bool, list[tuple[int, Models]]] = {True: [], False: []}
    for source, models in enumerate(streams):
        for runs, of in parts.items():
            chosen = tuple(m for m in models if (block not in removals[m]) == runs)
            if chosen:
                of.append((source, chosen))
    run, skip = ([models for _, models in parts[runs]] for runs in (True, False))
    return run, skip, [source for of in parts.values() for source, _ in of]


def block_passes(blocks: int, removals: Sequence[Collection[int]]) -> int:
    """Runs of one block over all rows that a walk takes."""
    streams, passes = [tuple(range(len(removals)))], 0
    for block in range(blocks):
        run, skip, _ = branch(streams, block, removals)
        streams, passes = run + skip, passes + len(run)
    return passes


@torch.no_grad()
def walk_models(
    decoder: Decoder,
    shard: Shard,
    removals: Sequence[Collection[int]],
    see: See,
    progress: Callable[[int], None] = lambda streams: None,
) -> None:
    """Walk models over a shard and show the states of each at its own readouts.

    A model's own readouts are 0 and b + 1 for every block b that it has.

    Args:
        decoder: the full model.
        shard: the rows.
        removals: for each model the blocks that it leaves out (none for the full one).
        see: shown the states.
        progress: told how many streams of a batch are done.
    """
    live = [b for b in range(len(decoder.blocks)) if any(b not in gone for gone in removals)]
    walker = Walker(decoder, shard, batch_tokens(decoder), live)
    streams, states = [tuple(range(len(removals)))], walker.embedded()
    see(0, streams, torch.cat(walker.at_reads(states), dim=1))
    for block in live:
        run, skip, sources = branch(streams, block, removals)
        last = block == live[-1]  # whoever skips it was seen before
        running, skipping = sources[: len(run)], [] if last else sources[len(run) :]
        after = walker.run(
            block, [state[running] for state in states], room=len(skipping), reads=last,
            progress=progress,
        )  # fmt: skip
        for new, old in zip(after, states, strict=True):
            if skipping:
                new[len(run) :] = old[skipping]
        streams, states = run + skip, after
        own = states if last else walker.at_reads([state[: len(run)] for state in states])
        see(block + 1, run, torch.cat(own, dim=1))
