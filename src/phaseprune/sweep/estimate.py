"""What a trace and a step will cost here, and which dtype is fastest, by quick measurements."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from phaseprune.decoder.budget import LOGIT_BYTES
from phaseprune.decoder.decoder import Decoder
from phaseprune.sweep.measure import Prepared, prepare
from phaseprune.sweep.memory import batch_tokens, stream_bytes
from phaseprune.sweep.rows import Rows
from phaseprune.sweep.scoring import add_scores
from phaseprune.sweep.states import States, Walker

#: What a part of the readout holds (float32 logits and their log-probabilities) and what one block
#: makes of a batch before it is done.
WORKING_BYTES = LOGIT_BYTES + 2**28


@dataclass(frozen=True)
class Cost:
    """Counts, bytes and seconds; ``step`` is the first pruning step with all blocks live."""

    trace_block_passes: int
    step_block_passes: int
    memory_bytes: int
    trace_seconds: float
    step_seconds: float


@dataclass(frozen=True)
class Rates:
    """How long things take on this machine, in seconds.

    Attributes:
        token: a token (with padding) of one stream in one block.
        read: a position at which the head is read as the task scores.
        vocabulary_read: one at which it is read over the whole vocabulary.
    """

    token: float
    read: float
    vocabulary_read: float


@torch.no_grad()
def measure_rates(decoder: Decoder, evaluation: Prepared) -> Rates:
    """Time one block and one readout on about a batch of the evaluation questions.

    Args:
        decoder: the loaded model.
        evaluation: what a trace would run.
    """
    blocks = len(decoder.blocks)
    task, rows = evaluation.task, evaluation.rows
    together = batch_tokens(decoder)
    enough = math.ceil(len(task.questions) * together / rows.tokens)
    sample = prepare(decoder, task.head(enough))
    shard = sample.rows.shards[0]
    walker = Walker(decoder, shard, together)
    embedded = walker.embedded()
    states = torch.cat(walker.at_reads(embedded), dim=1)
    sums = torch.zeros(1, math.prod(sample.rows.shape), dtype=torch.float64)
    needs = evaluation.needs_vocabulary
    a_token = _seconds(lambda: walker.run(blocks // 2, embedded), decoder)
    a_token /= sum(batch.input_ids.numel() for batch in shard.batches)
    reads = {
        vocabulary: _seconds(
            lambda vocabulary=vocabulary: add_scores(decoder, shard, states, vocabulary, sums),
            decoder,
        )
        / shard.reads
        for vocabulary in {needs, True}
    }
    return Rates(a_token, reads[needs], reads[True])


def estimate(
    decoder: Decoder, evaluation: Prepared, calibration: Prepared, rates: Rates | None = None
) -> Cost:
    """What a trace and the first pruning step will take, from ``measure_rates``.

    Args:
        decoder: the loaded model.
        evaluation: what a trace would run.
        calibration: what a pruning step would run.
        rates: measured before; None measures them on the evaluation questions.
    """
    rates = rates or measure_rates(decoder, evaluation)
    blocks = len(decoder.blocks)
    step_passes = blocks * (blocks + 1) // 2
    return Cost(
        trace_block_passes=blocks,
        step_block_passes=step_passes,
        memory_bytes=decoder.weight_bytes
        + WORKING_BYTES
        + 2 * (blocks + 1) * stream_bytes(decoder, calibration.rows.largest_shard),
        trace_seconds=rates.token * blocks * evaluation.rows.padded_tokens
        + rates.read * (blocks + 1) * _reads(evaluation),
        step_seconds=rates.token * step_passes * calibration.rows.padded_tokens
        + rates.read * blocks * _reads(calibration),
    )


def _reads(prepared: Prepared) -> int:
    return sum(shard.reads for shard in prepared.rows.shards)


def _seconds(work: Callable[[], object], decoder: Decoder) -> float:
    """The quickest of two to ten runs, of more than two only within half a second."""
    times: list[float] = []
    while len(times) < 2 or (sum(times) < 0.5 and len(times) < 10):
        began = time.perf_counter()
        work()
        if decoder.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times)


#: Block passes must be so many times faster for reduced precision to be worth it.
GAIN = 1.25
#: Streams and runs of the measurement.
STREAMS, RUNS = 4, 4


@torch.no_grad()
def faster_matmul_dtype(decoder: Decoder, rows: Rows) -> tuple[torch.dtype | None, float]:
    """bfloat16 where a block of a float32 model runs notably faster with products in it.

    The middle block is timed on the first batch of rows.

    Returns:
        The dtype, None where the model's own is as good (or the block takes no other), and how
        many times faster it was.
    """
    if decoder.dtype != torch.float32:
        return None, 1.0
    shard = replace(rows.shards[0], batches=rows.shards[0].batches[:1])
    own, other = (
        Walker(decoder, shard, batch_tokens(decoder), matmul_dtype=dtype)
        for dtype in (None, torch.bfloat16)
    )
    states = [torch.cat([state] * STREAMS) for state in own.embedded()]
    block = len(decoder.blocks) // 2
    with decoder.resident(block):
        try:
            finite = all(torch.isfinite(out).all() for out in other.run(block, states))
        except (RuntimeError, TypeError):  # some operation has no such form
            return None, 1.0
        if not finite:
            return None, 1.0
        own.run(block, states)
        # Turn by turn, as other programs may run beside it.
        pairs = [
            (_block_seconds(own, block, states), _block_seconds(other, block, states))
            for _ in range(RUNS)
        ]
    gain = min(first for first, _ in pairs) / min(second for _, second in pairs)
    return (torch.bfloat16 if gain >= GAIN else None), gain


def _block_seconds(walker: Walker, block: int, states: States) -> float:
    began = time.perf_counter()
    walker.run(block, states)
    if walker.decoder.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
