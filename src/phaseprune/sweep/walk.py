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
from phaseprune.decoder.products import products_in
from phaseprune.errors import UserError
from phaseprune.progress import Progress, silent
from phaseprune.sweep.kept import Kept
from phaseprune.sweep.memory import batch_tokens, stream_bytes
from phaseprune.sweep.rows import Rows, Shard
from phaseprune.sweep.schedule import BASE, Leg, passes, schedule
from phaseprune.sweep.scoring import add_scores
from phaseprune.sweep.states import States, Walker


@dataclass(frozen=True)
class Sweep:
    """The scores of the candidates of one step.

    Attributes:
        blocks: the candidates, original indices in order.
        scores: ``[n, Q, K]`` raw option scores of "without this block", ``-inf`` where absent.
        block_passes: counted runs of one block over all rows.
    """

    blocks: tuple[int, ...]
    scores: np.ndarray
    block_passes: int


@torch.no_grad()
def trace_scores(  # noqa: C901
    decoder: Decoder,
    rows: Rows,
    needs_vocabulary: bool,
    *,
    removed: Collection[int] = (),
    output_only: bool = False,
    known: np.ndarray | None = None,
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
        known: ``[Q, r, K]`` raw scores of the first r readouts, which are not read again.
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
    given = 0 if known is None else known.shape[1]
    tell = PassCounter(progress, label, len(rows.batches) * len(live))
    for shard in rows.shards:
        walker = Walker(decoder, shard, batch_tokens(decoder), live)
        states = walker.embedded()

        def read(at_reads: States, block: int, readout: int, shard: Shard = shard) -> None:
            read_into(decoder, shard, at_reads, needs_vocabulary, sums[readout : readout + 1],
                      [block], options)  # fmt: skip

        if not output_only and not given:
            read(walker.at_reads(states), -1, 0)
        for block in live:
            last = block == live[-1]
            states = walker.run(block, states, reads=last, progress=tell)
            if last and output_only:
                read(states, block, 0)
            elif not output_only and block + 1 >= given:
                read(states if last else walker.at_reads(states), block, block + 1)
    # Laid out as scores are when read back, so that means over them are the same to the last bit.
    raw = np.ascontiguousarray(rows.scores(sums).transpose(1, 0, 2))
    if not output_only:
        if given:
            raw[:, :given] = known
        for block in range(count):
            if block in removed:
                raw[:, block + 1] = raw[:, block]
    return raw


@torch.no_grad()
def sweep_scores(
    decoder: Decoder,
    rows: Rows,
    needs_vocabulary: bool,
    live: Sequence[int],
    *,
    candidates: Collection[int] | None = None,
    kept: Kept | None = None,
    products: torch.dtype | None = None,
    head_products: torch.dtype | None = None,
    progress: Progress = silent,
    label: str = "sweep",
) -> Sweep:
    """Score candidates "the live model without this block" in one walk over the blocks.

    At each block the base stream and every candidate that already skipped an earlier block are
    run; then the candidate "without this block" is born from the base before it.

    Args:
        decoder: the model.
        rows: the calibration rows.
        needs_vocabulary: see ``scoring.add_scores``.
        live: the blocks not removed yet, original indices in order.
        candidates: the live blocks to score; by default all. The base runs as far as the last one
            needs it, and no other stream is run.
        kept: states of earlier steps on the same rows to begin with; those of this step are added.
        products: dtype of the blocks' matrix products where they need not be exact.
        head_products: of the head's.
        progress: told of each block pass.
        label: for ``progress``.

    Raises:
        UserError: a candidate's scores are NaN; names the block and a question.
    """
    candidates = tuple(live if candidates is None else sorted(candidates))
    questions, options = rows.shape
    sums = torch.zeros(len(candidates), questions * options, dtype=torch.float64)
    keep: set[int] = set()
    if kept is not None:
        keep = kept.plan(live, stream_bytes(decoder, rows.padded_tokens))
    walks = [
        schedule(live, candidates, kept.places(number) if kept else {})
        for number in range(len(rows.shards))
    ]
    runs = [passes(legs) * len(s.batches) for legs, s in zip(walks, rows.shards, strict=True)]
    tell = PassCounter(progress, label, sum(runs))
    for number, (shard, legs) in enumerate(zip(rows.shards, walks, strict=True)):
        run = [leg.block for leg in legs if leg.block is not None]
        walker = Walker(decoder, shard, batch_tokens(decoder), run, products)
        states: States = []
        for leg in legs:
            if leg.joins:
                begin = bool(leg.before)
                taken = kept.take(number, leg.before, leg.joins) if begin else walker.embedded()
                taken = walker.at_reads(taken) if leg.block is None else taken
                states = _joined(states, taken, leg)
            if leg.block is None:
                break
            if leg.block in keep and leg.streams[0] == BASE:
                kept.keep(number, leg.before, leg.streams, states)
            last = leg.block == live[-1]
            after = walker.run(leg.block, states, room=int(leg.born), reads=last, progress=tell)
            if leg.born:
                born = walker.at_reads(states) if last else states
                for new, old in zip(after, born, strict=True):
                    new[-1] = old[0]
            states = [state[1:] for state in after] if leg.ends else after
        order = [legs[-1].streams.index(block) for block in candidates]
        read = [state[order] for state in states]
        with products_in(decoder, head_products):
            read_into(decoder, shard, read, needs_vocabulary, sums, candidates, options)
    return Sweep(candidates, rows.scores(sums), tell.done // len(rows.batches))


def _joined(states: States, taken: States, leg: Leg) -> States:
    """The streams of a leg: those on their way and those that begin here."""
    if not states:
        return taken
    pairs = zip(taken, states, strict=True)
    if BASE in leg.joins:
        return [torch.cat([new, old]) for new, old in pairs]
    return [torch.cat([old, new]) for new, old in pairs]


class PassCounter:
    """Counts runs of a block on a batch of one stream, and tells ``progress``."""

    def __init__(self, progress: Progress, label: str, total: int):
        self.progress, self.label, self.total, self.done = progress, label, total, 0

    def __call__(self, streams: int) -> None:
        """Count the runs of a block on a batch of so many streams; fewer than 0 take some back."""
        self.done += streams
        self.progress(self.label, self.done, self.total)


def read_into(
    decoder: Decoder,
    shard: Shard,
    states: States,
    needs_vocabulary: bool,
    out: torch.Tensor,
    places: Sequence[int | str],
    options: int,
) -> None:
    """Read streams into ``out``, and refuse NaN by the names of the place and the question.

    ``places`` says of each stream which block it is of (-1 for the embeddings), or what it is.
    """
    together = torch.cat(states, dim=1)
    bad = first_bad(shard, together)
    if bad is not None:
        stream, slot = bad
        place = places[stream]
        if not isinstance(place, str):
            place = decoder.called(place) if place >= 0 else "the embeddings"
        raise UserError(
            f"{decoder.name}: {place} gives NaN or infinite values on question number "
            f"{slot // options} (0-based); try --dtype float32"
        )
    add_scores(decoder, shard, together, needs_vocabulary, out)


def first_bad(shard: Shard, states: torch.Tensor) -> tuple[int, int] | None:
    """The first stream and (question, option) slot of ``[S, N, D]`` states that is not finite."""
    if torch.isfinite(states).all():
        return None
    stream, read = (~torch.isfinite(states)).flatten(2).any(dim=-1).nonzero()[0].tolist()
    entry = int((shard.entry_reads == read).nonzero()[0, 0])
    return stream, int(shard.entry_slots[entry])
