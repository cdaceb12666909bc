"""Walks over the blocks: one stream read at every readout, or all candidates of a step at once.

The layer-synchronous sweep is exact: it gives every candidate "without this block" the scores that
skipping the block and running the whole model gives, in n(n+1)/2 block passes for n live blocks.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from phaseprune.decoder.blocks import record_calls, run_block
from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError
from phaseprune.progress import Progress, silent
from phaseprune.sweep.rows import Rows
from phaseprune.sweep.scoring import add_scores

#: Bytes of hidden states that one batch of a sweep may hold.
STATE_BYTES = 2**29
#: The most tokens in a batch: on a CPU 1,024 already fill the matrix products, and rows of a small
#: batch are more alike in length (on ARC-Easy's trees 13 % padding against 31 % with 4,096).
CPU_BATCH_TOKENS, BATCH_TOKENS = 1024, 8192


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


def batch_tokens(decoder: Decoder) -> int:
    """Tokens in a batch such that a sweep's streams fit into ``STATE_BYTES``."""
    width = decoder.model.get_input_embeddings().weight.shape[1]
    a_token = (len(decoder.blocks) + 1) * width * decoder.dtype.itemsize
    most = CPU_BATCH_TOKENS if decoder.device.type == "cpu" else BATCH_TOKENS
    return max(256, min(most, STATE_BYTES // a_token))


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
    questions, width = rows.shape
    sums = torch.zeros(1 if output_only else count + 1, questions * width, dtype=torch.float64)
    total, done = len(rows.batches) * (count - len(removed)), 0
    for batch in rows.batches:
        calls = record_calls(decoder, batch.input_ids, batch.segments)
        hidden = calls.embedded
        if not output_only:
            _read(decoder, batch, hidden, needs_vocabulary, sums[0], -1, width)
        latest = 0
        for block in range(count):
            if block not in removed:
                hidden = run_block(decoder, block, hidden, calls)
                latest = block + 1
                if not output_only:
                    _read(decoder, batch, hidden, needs_vocabulary, sums[latest], block, width)
                done += 1
                progress(label, done, total)
        if output_only:
            _read(decoder, batch, hidden, needs_vocabulary, sums[0], latest - 1, width)
    if not output_only:
        for block in range(count):
            if block in removed:
                sums[block + 1] = sums[block]
    scores = sums.numpy().reshape(-1, questions, width).transpose(1, 0, 2)
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
        progress: told of each block pass.
        label: for ``progress``.

    Raises:
        UserError: a candidate's scores are NaN; names the block and a question.
    """
    questions, width = rows.shape
    sums = torch.zeros(len(live), questions * width, dtype=torch.float64)
    runs, total = 0, len(rows.batches) * len(live) * (len(live) + 1) // 2
    for batch in rows.batches:
        calls = record_calls(decoder, batch.input_ids, batch.segments)
        base = calls.embedded
        streams: list[torch.Tensor] = []
        for block in live:
            streams = [run_block(decoder, block, stream, calls) for stream in streams]
            streams.append(base)
            base = run_block(decoder, block, base.clone(), calls)
            runs += len(streams)
            progress(label, runs, total)
        for candidate, stream in enumerate(streams):
            _read(
                decoder, batch, stream, needs_vocabulary, sums[candidate], live[candidate], width
            )
    scores = sums.numpy().reshape(len(live), questions, width) / rows.repeats[:, None]
    scores[np.broadcast_to(rows.absent, scores.shape)] = -np.inf
    return Sweep(tuple(live), scores, runs // len(rows.batches))


def _read(decoder, batch, hidden, needs_vocabulary, out, block: int, width: int) -> None:
    """Read a batch into ``out``, and refuse NaN by the names of the block and the question."""
    states = batch.at_reads(hidden)
    if not torch.isfinite(states).all():
        bad = int((~torch.isfinite(states)).any(dim=-1).nonzero()[0, 0])
        entry = int((batch.entry_reads == bad).nonzero()[0, 0])
        place = f"block {block}" if block >= 0 else "the embeddings"
        raise UserError(
            f"{decoder.name}: {place} gives NaN or infinite values on question number "
            f"{int(batch.entry_slots[entry]) // width} (0-based); try --dtype float32"
        )
    add_scores(decoder, batch, states, needs_vocabulary, out)
