"""Walks over the blocks: models side by side, read at every readout, or all candidates of a step.

``walk`` runs over the blocks once, and whoever looks on reads something out or lets streams join.
``sweep_scores`` is the walk of a pruning step, which begins with what the steps before have kept.
It is exact: it gives every candidate "without this block" the scores that skipping the block and
running the whole model gives, in n(n+1)/2 block passes for n live blocks, and in about
(n² − r²)/2 where the states of the step before are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import count as count_from

import numpy as np
import torch

from phaseprune.decoder.decoder import Decoder
from phaseprune.progress import Progress, silent
from phaseprune.sweep.kept import BASE, Kept, Leg, passes, schedule
from phaseprune.sweep.memory import batch_tokens, stream_bytes
from phaseprune.sweep.rows import Rows, Shard
from phaseprune.sweep.scoring import read_into
from phaseprune.sweep.states import States, Walker, matmuls_in

#: Models that share a stream, by their positions.
Models = tuple[int, ...]


@dataclass(frozen=True)
class Readout:
    """Where a walk is: at the embeddings, or behind a block.

    Attributes:
        walker: of the shard.
        number: of the readout, 0 … L.
        streams: the models of each stream that this is a readout of.
        states: those streams' states, then those of streams that skip the block or join here.
        last: whether no block is run behind it.
        reads: whether states are those at the reads alone.
    """

    walker: Walker
    number: int
    streams: list[Models]
    states: States
    last: bool = False
    reads: bool = False

    @property
    def block(self) -> int:
        """The block that was run; -1 at the embeddings."""
        return self.number - 1

    def at_reads(self, streams: slice | None = None) -> torch.Tensor:
        """``[S, N, D]`` states at the shard's reads.

        Args:
            streams: which; by default those that this is a readout of.
        """
        streams = slice(len(self.streams)) if streams is None else streams
        chosen = [state[streams] for state in self.states]
        return torch.cat(chosen if self.reads else self.walker.at_reads(chosen), dim=1)

    def join(self, states: States) -> None:
        """Put the states of the streams that join here into the room that was left for them."""
        for all_streams, joined in zip(self.states, states, strict=True):
            all_streams[-len(joined) :] = joined


def walk(
    decoder: Decoder,
    shard: Shard,
    removals: Sequence[Collection[int]] = ((),),
    *,
    room: Sequence[int] = (),
    whole: bool = False,
    progress: Callable[[int], None] = lambda streams: None,
) -> Iterator[Readout]:
    """Walk models over a shard, and stop at every readout that one of them has.

    A model's own readouts are 0 and b + 1 for every block b that it has. Models that have removed
    the same blocks so far are one stream, so a ladder of pruned models costs no more than what
    makes them differ, and every block's weights are touched once.

    Args:
        decoder: the full model.
        shard: the rows.
        removals: for each model the blocks that it leaves out; by default the full model alone.
        room: how many streams join at each readout 0 … L (``Readout.join``), each run through all
            blocks behind it; none by default.
        whole: give the states of all tokens behind the last block, too, not of the reads alone.
        progress: told how many streams of a batch are done.
    """
    count = len(decoder.blocks)
    room = room or [0] * (count + 1)
    streams, joining = [tuple(range(len(removals)))], count_from(len(removals))
    removals = [*removals, *[()] * sum(room)]
    live = [block for block in range(count) if any(block not in gone for gone in removals)]
    walker = Walker(decoder, shard, batch_tokens(decoder), live)
    states = walker.embedded()
    if room[0]:
        states = [torch.cat([one, one.expand(room[0], *one.shape[1:])]) for one in states]
    yield Readout(walker, 0, streams, states)
    streams = streams + [(next(joining),) for _ in range(room[0])]
    for block in live:
        run, skip, sources = branch(streams, block, removals)
        last = block == live[-1]  # whoever skips it was seen before
        running, skipping = sources[: len(run)], [] if last else sources[len(run) :]
        after = walker.run(
            block,
            _chosen(states, running),
            room=len(skipping) + room[block + 1],
            reads=last and not whole,
            progress=progress,
        )
        if skipping:
            for new, old in zip(after, states, strict=True):
                new[len(run) : len(run) + len(skipping)] = old[skipping]
        states = after
        yield Readout(walker, block + 1, run, states, last, last and not whole)
        streams = run + skip + [(next(joining),) for _ in range(room[block + 1])]


def _chosen(states: States, streams: Sequence[int]) -> States:
    """Some streams' states; no copy where they are all, in order."""
    if list(streams) == list(range(len(states[0]))):
        return states
    return [state[streams] for state in states]


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
    """Runs of one block over all rows that a walk of some models takes."""
    streams, passes = [tuple(range(len(removals)))], 0
    for block in range(blocks):
        run, skip, _ = branch(streams, block, removals)
        streams, passes = run + skip, passes + len(run)
    return passes


class PassCounter:
    """Counts runs of a block on a batch of one stream, and tells ``progress``."""

    def __init__(self, progress: Progress, label: str, total: int):
        self.progress, self.label, self.total, self.done = progress, label, total, 0

    def __call__(self, streams: int) -> None:
        """Count the runs of a block on a batch of so many streams; fewer than 0 take some back."""
        self.done += streams
        self.progress(self.label, self.done, self.total)


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
    count, gone = len(decoder.blocks), set(removed)
    questions, options = rows.shape
    sums = torch.zeros(1 if output_only else count + 1, questions * options, dtype=torch.float64)
    given = 0 if known is None else known.shape[1]
    tell = PassCounter(progress, label, len(rows.batches) * (count - len(gone)))
    for shard in rows.shards:
        for here in walk(decoder, shard, [gone], progress=tell):
            if here.last if output_only else here.number >= given:
                out = sums[:1] if output_only else sums[here.number : here.number + 1]
                read_into(
                    decoder, shard, here.at_reads(), needs_vocabulary, out, [here.block], options
                )
    # Laid out as scores are when read back, so that means over them are the same to the last bit.
    raw = np.ascontiguousarray(rows.scores(sums).transpose(1, 0, 2))
    if not output_only:
        if given:
            raw[:, :given] = known
        for block in range(count):
            if block in gone:
                raw[:, block + 1] = raw[:, block]
    return raw


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
    tell = PassCounter(progress, label, block_passes(count, different) * len(rows.batches))
    for shard in rows.shards:
        for here in walk(decoder, shard, different, progress=tell):
            ended = [
                (place, number)
                for place, numbers in enumerate(here.streams)
                for number in numbers
                if last_run[number] == here.block
            ]
            if ended:
                places, numbers = map(list, zip(*ended, strict=True))
                part = torch.zeros(len(ended), sums.shape[1], dtype=torch.float64)
                read_into(
                    decoder,
                    shard,
                    here.at_reads()[places],
                    needs_vocabulary,
                    part,
                    [here.block] * len(ended),
                    options,
                )
                sums[numbers] += part
    scores = rows.scores(sums)
    places = [different.index(frozenset(blocks)) for blocks in sets]
    naive = sum(count - len(blocks) for blocks in different)
    return SetSweep(scores[places], tell.done // len(rows.batches), naive)


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
def sweep_scores(
    decoder: Decoder,
    rows: Rows,
    needs_vocabulary: bool,
    live: Sequence[int],
    *,
    candidates: Collection[int] | None = None,
    kept: Kept | None = None,
    matmul_dtype: torch.dtype | None = None,
    head_dtype: torch.dtype | None = None,
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
        matmul_dtype: dtype of the blocks' matrix products where they need not be exact.
        head_dtype: of the head's.
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
        walker = Walker(decoder, shard, batch_tokens(decoder), run, matmul_dtype)
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
        read = torch.cat([state[order] for state in states], dim=1)
        with matmuls_in(decoder, head_dtype):
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
