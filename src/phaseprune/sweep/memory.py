"""How much memory a run may take, and what for."""

from __future__ import annotations

import torch

from phaseprune.decoder.budget import LEAST_TOKENS, free_memory, in_words, working_bytes
from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError
from phaseprune.sweep.rows import Rows

#: Share of the free memory that a run takes unless it is told how much.
DEFAULT_SHARE = 0.6
#: Values of hidden states that a block is given at once on a CPU: enough to fill the matrix
#: products, few enough that what a block makes of them stays in the processor's cache.
CPU_VALUES = 2**19
#: The most tokens that a block is given at once, on a CPU and elsewhere.
CPU_MOST, ELSEWHERE = 8192, 16384


def usual_tokens(width: int, device: torch.device) -> int:
    """Tokens that a block is given at once where memory does not matter, by the model's width."""
    if device.type != "cpu":
        return ELSEWHERE
    return max(LEAST_TOKENS, min(CPU_MOST, CPU_VALUES // width))


def batch_tokens(decoder: Decoder) -> int:
    """Tokens that a block is given at once.

    What it makes of them may have a quarter of what a stated budget leaves beside the weights.
    """
    tokens = usual_tokens(decoder.width, decoder.device)
    if decoder.max_memory is not None:
        share = (decoder.max_memory - decoder.weight_bytes) // 4
        while tokens > LEAST_TOKENS and _working(decoder, tokens) > share:
            tokens = max(LEAST_TOKENS, tokens // 2)
    return tokens


def _working(decoder: Decoder, tokens: int) -> int:
    return working_bytes(decoder.blocks, tokens, decoder.dtype.itemsize)


def state_budget(decoder: Decoder) -> int:
    """Bytes that hidden states may take: what the run may take, without weights and working."""
    if decoder.max_memory is not None:
        left = decoder.max_memory - decoder.weight_bytes
        return max(0, left - _working(decoder, batch_tokens(decoder)))
    free = int(DEFAULT_SHARE * free_memory(decoder.device))
    return max(0, free - decoder.placement.bytes_to_come)


def stream_bytes(decoder: Decoder, tokens: int) -> int:
    """Bytes of one stream's hidden states of so many tokens."""
    return tokens * decoder.width * decoder.dtype.itemsize


def shard_tokens(decoder: Decoder, streams: int | None = None) -> int:
    """Tokens of a shard of which all streams fit into half of the budget, twice.

    Args:
        decoder: the model.
        streams: how many are run beside each other; by default all of a step.
    """
    a_token = 2 * (streams or len(decoder.blocks) + 1) * stream_bytes(decoder, 1)
    return max(1, state_budget(decoder) // 2 // a_token)


def refuse_unfit(decoder: Decoder, rows: Rows, streams: int | None = None) -> None:
    """Refuse a question whose streams do not fit into a stated budget; arguments as above.

    Raises:
        UserError: names the question and the least budget that would do.
    """
    if decoder.max_memory is None:
        return
    count = streams or len(decoder.blocks) + 1
    largest = max(rows.shards, key=lambda s: sum(b.input_ids.numel() for b in s.batches))
    need = 2 * count * stream_bytes(decoder, rows.largest_shard)
    left = state_budget(decoder)
    if need > left:
        number = int(largest.entry_slots.min()) // rows.shape[1]
        raise UserError(
            f"{decoder.name}: question number {number} (0-based) is of {rows.largest_shard} tokens "
            f"with its options, and --max-memory {in_words(decoder.max_memory)} has no room for "
            f"what {count} streams of it take; give at least "
            f"{in_words(decoder.max_memory + need - left)}, or leave the question out"
        )


def kept_budget(decoder: Decoder, rows: Rows) -> int:
    """Bytes of states that may be kept from step to step beside those of the step itself."""
    step = 2 * (len(decoder.blocks) + 1) * stream_bytes(decoder, rows.largest_shard)
    return max(0, state_budget(decoder) - step)
