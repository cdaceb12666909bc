"""Walks over the blocks: one stream read at every readout, or all candidates of a step at once.

The layer-synchronous sweep is exact: it gives every candidate "without this block" the scores that
skipping the block and running the whole model gives, in n(n+1)/2 block passes for n live blocks,
and in about (n² − r²)/2 where the states of the step before are kept.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError
from phaseprune.progress import Progress, silent
from phaseprune.sweep.kept import Kept
from phaseprune.sweep.memory import batch_tokens
from phaseprune.sweep.rows import Rows, Shard
from phaseprune.sweep.scoring import add_scores
from phaseprune.sweep.states import States, Walker


@dataclass(frozen=True)
class Sweep:
    """The scores of all candidates of one step.

    Attributes:
        blocks: the candidates, original indices in order.
        scores: ``[n, Q, K]`` raw option scores of "without this block", ``-inf`` where absent.
        block_passes: counted runs of one block over all rows.
    """

    blocks: tuple[int, ...]
    scores: np.ndarray
    block_passes: int


@torch.no_grad()
def trace_scores(
    decoder: Decoder,
    rows: Rows,
    needs_vocabulary: bool,
    *,
    removed: Collection[int] = (),
    output_only: bool = False,
    progress: Progress = silent,
    label: str = "trace",
) -> np.ndarray:
    """Option scores of one (pruned) model at its readouts, in one pass.

    Args:
        decoder: the model.
        rows: the task's rows.
        needs_vocabulary: see ``scoring.add_scores``.
        removed: blocks to skip. A skipped block is the identity, so the readout behind it repeats
            the one before.
        output_only: read at L alone.
        progress: told of each block.
        label: for ``progress``.

    Returns:
        ``[Q, L+1, K]`` raw scores, or ``[Q, 1, K]``; ``-inf`` where an option is absent.

    Raises:
        UserError: a block gives NaN; names the block and a question.
    """
    count = len(decoder.blocks)
    questions, options = rows.shape
    sums = torch.zeros(1 if output_only else count + 1, questions * options, dtype=torch.float64)
    live = [block for block in range(count) if block not in removed]
    tell = _counter(progress, label, len(rows.batches) * len(live))
    for shard in rows.shards:
        walker = Walker(decoder, shard, batch_tokens(decoder), live)
        states = walker.embedded()

        def read(at_reads: States, block: int, readout: int, shard: Shard = shard) -> None:
            _read(decoder, shard, at_reads, needs_vocabulary, sums[readout : readout + 1],
                  [block], options)  # fmt: skip

        if not output_only:
            read(walker.at_reads(states), -1, 0)
        for block in live:
            last = block == live[-1]
            states = walker.run(block, states, reads=last, progress=tell)
            if last and output_only:
                read(states, block, 0)
            elif not output_only:
                read(states if last else walker.at_reads(states), block, block + 1)
    if not output_only:
        for block in range(count):
            if block in removed:
                sums[block + 1] = sums[block]
    scores = sums.numpy().reshape(-1, questions, options).transpose(1, 0, 2)
    scores = scores / rows.repeats[:, None, None]
    scores[np.broadcast_to(rows.absent[:, None], scores.shape)] = -np.inf
    return scores


@torch.no_grad()
def sweep_scores(
    decoder: Decoder,
    rows: Rows,
    needs_vocabulary: bool,
    live: Sequence[int],
    *,
    kept: Kept | None = None,
    progress: Progress = silent,
    label: str = "sweep",
) -> Sweep:
    """Score every candidate "the live model without this block" in one walk over the blocks.

    At each block the base stream and every candidate that already skipped an earlier block are
    run; then the candidate "without this block" is born from the base before it.

    Args:
        decoder: the model.
        rows: the calibration rows.
        needs_vocabulary: see ``scoring.add_scores``.
        live: the blocks not removed yet, original indices in order.
        kept: states of earlier steps on the same rows to begin with; those of this step are added.
        progress: told of each block pass.
        label: for ``progress``.

    Raises:
        UserError: a candidate's scores are NaN; names the block and a question.
    """
    questions, options = rows.shape
    sums = torch.zeros(len(live), questions * options, dtype=torch.float64)
    keep: set[int] = set()
    if kept is not None:
        values = rows.padded_tokens * decoder.width
        keep = kept.plan(live, values * decoder.dtype.itemsize)
    starts = [kept.latest(number) if kept else None for number in range(len(rows.shards))]
    passes = [_passes(live, start[0] if start else live[0]) for start in starts]
    tell = _counter(
        progress, label,
        sum(count * len(shard.batches) for count, shard in zip(passes, rows.shards, strict=True)),
    )  # fmt: skip
    for number, (shard, start) in enumerate(zip(rows.shards, starts, strict=True)):
        walker = Walker(decoder, shard, batch_tokens(decoder), live)
        begin, states = start if start else (live[0], walker.embedded())
        for block in [b for b in live if b >= begin]:
            if block in keep:
                kept.keep(number, block, live, states)
            last = block == live[-1]
            after = walker.run(block, states, room=1, reads=last, progress=tell)
            born = walker.at_reads(states) if last else states
            for new, old in zip(after, born, strict=True):
                new[-1] = old[0]
            states = after
        if begin > live[-1]:  # the block removed last was the last one: nothing is left to run
            states = walker.at_reads(states)
        candidates = [state[1:] for state in states]
        _read(decoder, shard, candidates, needs_vocabulary, sums, live, options)
    scores = sums.numpy().reshape(len(live), questions, options) / rows.repeats[:, None]
    scores[np.broadcast_to(rows.absent, scores.shape)] = -np.inf
    return Sweep(tuple(live), scores, tell.done // len(rows.batches))


def _passes(live: Sequence[int], begin: int) -> int:
    """Block passes of a sweep that begins at the input of a block."""
    earlier = sum(block < begin for block in live)
    return (len(live) * (len(live) + 1) - earlier * (earlier + 1)) // 2


class _counter:  # noqa: N801 - a function with a memory
    """Counts runs of a block on a batch of one stream, and tells ``progress``."""

    def __init__(self, progress: Progress, label: str, total: int):
        self.progress, self.label, self.total, self.done = progress, label, total, 0

    def __call__(self, streams: int) -> None:
        self.done += streams
        self.progress(self.label, self.done, self.total)


def _read(
    decoder: Decoder,
    shard: Shard,
    states: States,
    needs_vocabulary: bool,
    out: torch.Tensor,
    blocks: Sequence[int],
    options: int,
) -> None:
    """Read streams into ``out``, and refuse NaN by the names of the block and the question."""
    together = torch.cat(states, dim=1)
    if not torch.isfinite(together).all():
        stream, bad = (~torch.isfinite(together)).any(dim=-1).nonzero()[0].tolist()
        entry = int((shard.entry_reads == bad).nonzero()[0, 0])
        place = f"block {blocks[stream]}" if blocks[stream] >= 0 else "the embeddings"
        raise UserError(
            f"{decoder.name}: {place} gives NaN or infinite values on question number "
            f"{int(shard.entry_slots[entry]) // options} (0-based); try --dtype float32"
        )
    add_scores(decoder, shard, together, needs_vocabulary, out)
