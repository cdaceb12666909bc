"""Which dtype of matrix products is fastest here, by a quick measurement."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from phaseprune.decoder.decoder import Decoder
from phaseprune.sweep.memory import batch_tokens
from phaseprune.sweep.rows import Rows
from phaseprune.sweep.states import States, Walker

#: Block passes must be so many times faster for fewer digits to be worth anything.
GAIN = 1.25
#: Streams and runs of the measurement.
STREAMS, RUNS = 4, 4


@torch.no_grad()
def faster_products(decoder: Decoder, rows: Rows) -> tuple[torch.dtype | None, float]:
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
        Walker(decoder, shard, batch_tokens(decoder), products=dtype)
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
        pairs = [(_seconds(own, block, states), _seconds(other, block, states))
                 for _ in range(RUNS)]  # fmt: skip
    gain = min(first for first, _ in pairs) / min(second for _, second in pairs)
    return (torch.bfloat16 if gain >= GAIN else None), gain


def _seconds(walker: Walker, block: int, states: States) -> float:
    began = time.perf_counter()
    walker.run(block, states)
    if walker.decoder.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
