"""What a trace and a pruning step will cost, from counts and one quick measurement."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from phaseprune.decoder.blocks import record_calls, run_block
from phaseprune.decoder.decoder import Decoder
from phaseprune.sweep.measure import Prepared
from phaseprune.sweep.scoring import LOGIT_ELEMENTS, add_scores
from phaseprune.sweep.walk import STATE_BYTES, batch_tokens

#: Logits, their log-probabilities and what lies between (float32).
LOGIT_BYTES = 3 * 4 * LOGIT_ELEMENTS


def batch_bytes() -> int:
    """What a run may hold besides the weights: a batch's hidden states and its logits."""
    return STATE_BYTES + LOGIT_BYTES


@dataclass(frozen=True)
class Cost:
    """Counts, bytes and seconds; ``step`` is the first pruning step with all blocks live."""

    trace_block_passes: int
    step_block_passes: int
    memory_bytes: int
    trace_seconds: float
    step_seconds: float


@torch.no_grad()
def estimate(decoder: Decoder, evaluation: Prepared, calibration: Prepared) -> Cost:
    """Time one block and one readout on the middle batch of the evaluation rows, and scale.

    Args:
        decoder: the loaded model.
        evaluation: what a trace would run.
        calibration: what a pruning step would run.
    """
    blocks = len(decoder.blocks)
    batch = evaluation.rows.batches[len(evaluation.rows.batches) // 2]
    calls = record_calls(decoder, batch.input_ids, batch.segments)
    sums = torch.zeros(evaluation.rows.shape[0] * evaluation.rows.shape[1], dtype=torch.float64)

    def run() -> torch.Tensor:
        return run_block(decoder, blocks // 2, calls.embedded, calls)

    def read() -> None:
        add_scores(
            decoder, batch, batch.at_reads(calls.embedded), evaluation.needs_vocabulary, sums
        )

    run()  # the first call warms up
    a_token = _seconds(run, decoder) / batch.input_ids.numel()
    a_read = _seconds(read, decoder) / len(batch.read_rows)
    step_passes = blocks * (blocks + 1) // 2
    width = calls.embedded.shape[-1]
    states = (blocks + 1) * batch_tokens(decoder) * width * decoder.dtype.itemsize
    weights = sum(p.nbytes for p in decoder.model.parameters())
    return Cost(
        trace_block_passes=blocks,
        step_block_passes=step_passes,
        memory_bytes=weights + states + LOGIT_BYTES,
        trace_seconds=a_token * blocks * evaluation.rows.padded_tokens
        + a_read * (blocks + 1) * _reads(evaluation),
        step_seconds=a_token * step_passes * calibration.rows.padded_tokens
        + a_read * blocks * _reads(calibration),
    )


def _reads(prepared: Prepared) -> int:
    return sum(len(batch.read_rows) for batch in prepared.rows.batches)


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
