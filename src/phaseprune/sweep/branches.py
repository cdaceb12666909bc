"""A walk over the blocks in which other streams branch off from the unchanged model.

Like a pruning step, but what is born at a readout is said by the caller: the state
there with noise, without the block before it, with a block run twice. A stream that is born at
readout r costs L - r block passes, and every block is run on all streams together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from phaseprune.decoder.decoder import Decoder
from phaseprune.progress import Progress, silent
from phaseprune.sweep.rows import Rows
from phaseprune.sweep.scoring import read_into
from phaseprune.sweep.states import States, Walker
from phaseprune.sweep.walk import PassCounter, walk

#: Called as ``born(readout, base, reads, tell)``: the states of the streams that are born at a
#: readout. ``base`` has the unchanged model's states by readout (one stream); with ``reads`` (at L)
#: those of L, and what is given back, are at the reads alone. ``tell`` is the ``progress`` of
#: ``Walker.run`` for what a birth itself runs.
Born = Callable[[int, Mapping[int, States], bool, Callable[[int], None]], States]


@dataclass(frozen=True)
class Births:
    """What branches off.

    Attributes:
        names: for each readout 0 … L, what is born there, in words, as ``noise at readout 3``.
        begin: called for each shard.
        back: how many readouts back a birth looks at the unchanged model.
        passes: block passes that the births themselves take.
    """

    names: Sequence[Sequence[str]]
    begin: Callable[[Walker], Born]
    back: int = 0
    passes: int = 0

    @property
    def streams(self) -> int:
        """Streams at the end, with the unchanged model's."""
        return 1 + sum(map(len, self.names))

    @property
    def block_passes(self) -> int:
        """Of the whole walk."""
        last = len(self.names) - 1
        branches = sum(len(names) * (last - readout) for readout, names in enumerate(self.names))
        return last + branches + self.passes


@dataclass(frozen=True)
class Branches:
    """Scores of the unchanged model and of the branches.

    Attributes:
        base: ``[Q, L+1, K]`` raw option scores at every readout, ``-inf`` where absent.
        scores: ``[Q, B, K]`` those of the branches at the output, in the order of birth.
        block_passes: counted runs of one block over all rows.
    """

    base: np.ndarray
    scores: np.ndarray
    block_passes: int


@torch.no_grad()
def branch_scores(
    decoder: Decoder,
    rows: Rows,
    needs_vocabulary: bool,
    births: Births,
    *,
    progress: Progress = silent,
    label: str = "branches",
) -> Branches:
    """Score the unchanged model at its readouts and all branches at the output, in one walk.

    Args:
        decoder: the model.
        rows: the task's rows.
        needs_vocabulary: see ``scoring.add_scores``.
        births: what branches off where.
        progress: told of each block pass.
        label: for ``progress``.

    Raises:
        UserError: a stream gives NaN; names it and a question.
    """
    questions, options = rows.shape
    room = [len(names) for names in births.names]
    names = [name for some in births.names for name in some]
    base_sums = torch.zeros(len(room), questions * options, dtype=torch.float64)
    sums = torch.zeros(len(names), questions * options, dtype=torch.float64)
    tell = PassCounter(progress, label, births.block_passes * len(rows.batches))
    for shard in rows.shards:
        base: dict[int, States] = {}
        born: Born | None = None
        for here in walk(decoder, shard, room=room, progress=tell):
            number = here.number
            read_into(decoder, shard, here.at_reads(slice(1)), needs_vocabulary,
                      base_sums[number : number + 1], [here.block], options)  # fmt: skip
            born = born or births.begin(here.walker)
            base[number] = [one[:1].clone() for one in here.states]
            base.pop(number - births.back - 1, None)
            if room[number]:
                here.join(born(number, base, here.reads, tell))
            if here.last and names:
                read_into(decoder, shard, here.at_reads(slice(1, None)), needs_vocabulary, sums,
                          names, options)  # fmt: skip
    return Branches(
        rows.scores(base_sums).transpose(1, 0, 2),
        rows.scores(sums).transpose(1, 0, 2),
        tell.done // len(rows.batches),
    )
