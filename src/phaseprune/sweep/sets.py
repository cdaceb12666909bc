"""Many sets of removed blocks in one walk: sets that agree so far share a stream.

Exact: each set gets the scores of the model without its blocks.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from phaseprune.decoder.decoder import Decoder
from phaseprune.progress import Progress, silent
from phaseprune.sweep.rows import Rows, Shard
from phaseprune.sweep.side_by_side import Models, block_passes, walk_models
from phaseprune.sweep.walk import PassCounter, read_into


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
    last_run = [max(set(range(count)) - blocks) for blocks in different]
    questions, options = rows.shape
    sums = torch.zeros(len(different), questions * options, dtype=torch.float64)
    passes = block_passes(count, different)
    tell = PassCounter(progress, label, passes * len(rows.batches))
    for shard in rows.shards:

        def see(readout: int, streams: list[Models], states, shard: Shard = shard) -> None:
            block = readout - 1
            ended = [(place, number) for place, numbers in enumerate(streams)
                     for number in numbers if last_run[number] == block]  # fmt: skip
            if ended:
                places, numbers = map(list, zip(*ended, strict=True))
                part = torch.zeros(len(ended), sums.shape[1], dtype=torch.float64)
                read_into(decoder, shard, [states[places]], needs_vocabulary, part,
                          [block] * len(ended), options)  # fmt: skip
                sums[numbers] += part

        walk_models(decoder, shard, different, see, tell)
    scores = rows.scores(sums)
    places = [different.index(frozenset(blocks)) for blocks in sets]
    naive = sum(count - len(blocks) for blocks in different)
    return SetSweep(scores[places], tell.done // len(rows.batches), naive)
