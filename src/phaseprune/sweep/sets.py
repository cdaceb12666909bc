"""Many sets of removed blocks in one walk: sets that agree so far share a stream.

The sets are a trie: at each block a stream goes on through it for the sets that keep the block,
stays as it is for those that remove it, and does both where they differ. Exact: each set gets the
scores of the model without its blocks.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from phaseprune.decoder.decoder import Decoder
from phaseprune.progress import Progress, silent
from phaseprune.sweep.memory import batch_tokens
from phaseprune.sweep.rows import Rows
from phaseprune.sweep.states import States, Walker
from phaseprune.sweep.walk import _counter, _read


@dataclass(frozen=True)
class Branching:
    """What streams do at one block.

    Attributes:
        block: original index.
        run: places of the streams that are run through it,
        stay: and of those that skip it; a place may be in both.
        streams: the sets (their numbers) that share each stream behind the block: those that were
            run, then those that stayed.
    """

    block: int
    run: tuple[int, ...]
    stay: tuple[int, ...]
    streams: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class SetSweep:
    """Scores of the model without each set of blocks.

    Attributes:
        scores: ``[S, Q, K]`` raw option scores at the output, ``-inf`` where an option is absent.
        block_passes: counted runs of one block over all rows.
        naive_passes: what running each set by itself would take.
    """

    scores: np.ndarray
    block_passes: int
    naive_passes: int


def branchings(blocks: int, sets: Sequence[Collection[int]]) -> list[Branching]:
    """The walk of some sets, all different, over that many blocks."""
    streams: tuple[tuple[int, ...], ...] = (tuple(range(len(sets))),)
    walk = []
    for block in range(blocks):
        keep = [tuple(i for i in stream if block not in sets[i]) for stream in streams]
        drop = [tuple(i for i in stream if block in sets[i]) for stream in streams]
        run = tuple(place for place, some in enumerate(keep) if some)
        stay = tuple(place for place, some in enumerate(drop) if some)
        streams = tuple(keep[place] for place in run) + tuple(drop[place] for place in stay)
        walk.append(Branching(block, run, stay, streams))
    return walk


@torch.no_grad()
def set_scores(
    decoder: Decoder,
    rows: Rows,
    needs_vocabulary: bool,
    sets: Sequence[Collection[int]],
    *,
    progress: Progress = silent,
    label: str = "sets",
) -> SetSweep:
    """Score the model without each of some sets of blocks, in one walk over the blocks.

    Args:
        decoder: the model.
        rows: of the questions; as many streams as sets are run beside each other.
        needs_vocabulary: see ``scoring.add_scores``.
        sets: original indices to remove, each leaving at least one block; a set that stands there
            twice is run once.
        progress: told of each block pass.
        label: for ``progress``.

    Raises:
        UserError: a set's scores are NaN; names a block and a question.
    """
    different = list(dict.fromkeys(frozenset(blocks) for blocks in sets))
    count = len(decoder.blocks)
    walk = branchings(count, different)
    passes = sum(len(leg.run) for leg in walk)
    questions, options = rows.shape
    sums = torch.zeros(len(different), questions * options, dtype=torch.float64)
    order = [number for (number,) in walk[-1].streams]
    last_run = [max(set(range(count)) - different[number]) for number in order]
    tell = _counter(progress, label, passes * len(rows.batches))
    for shard in rows.shards:
        live = [leg.block for leg in walk if leg.run]
        walker = Walker(decoder, shard, batch_tokens(decoder), live)
        states = walker.embedded()
        for leg in walk:
            states = _branch(walker, leg, states, leg.block == count - 1, tell)
        part = torch.zeros_like(sums)
        _read(decoder, shard, states, needs_vocabulary, part, last_run, options)
        sums[order] += part
    scores = sums.numpy().reshape(len(different), questions, options) / rows.repeats[:, None]
    scores[np.broadcast_to(rows.absent, scores.shape)] = -np.inf
    places = [different.index(frozenset(blocks)) for blocks in sets]
    naive = sum(count - len(blocks) for blocks in different)
    return SetSweep(scores[places], tell.done // len(rows.batches), naive)


def _branch(walker: Walker, leg: Branching, states: States, last: bool, tell) -> States:
    """The streams behind a block; at their reads alone behind the last one."""
    stayed = [state[list(leg.stay)] for state in states]
    stayed = walker.at_reads(stayed) if last else stayed
    if not leg.run:
        return stayed
    if len(leg.run) < len(states[0]):
        states = [state[list(leg.run)] for state in states]
    after = walker.run(leg.block, states, room=len(leg.stay), reads=last, progress=tell)
    for new, old in zip(after, stayed, strict=True):
        new[len(leg.run) :] = old
    return after
