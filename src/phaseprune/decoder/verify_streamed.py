"""The load-time checks of ``verify`` where blocks are fetched to run, in two walks over them.

One is a forward of the model's own that is looked on at. In the other every comparison is a few
rows of one more forward; the replayed streams run beside it, block by block, while a block's
weights are in memory.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from phaseprune.decoder.blocks import Calls, replaced_blocks, split_call
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.own_pipeline import prompt_rows
from phaseprune.decoder.verify import (
    PROBE_TOKENS,
    TOLERANCE,
    look_on,
    readout_difference,
    record_independent,
    refuse_acausal,
    refuse_other_skip,
    refuse_readout,
    try_alone,
)


@torch.no_grad()
def check_readout_streamed(decoder: Decoder) -> float:
    """As ``verify.check_readout``.

    Returns:
        The largest absolute difference of the logits on random tokens and real prompts.

    Raises:
        UserError: the logits differ, a later token changes an earlier logit, or the blocks hand on
            more than the hidden state.
    """
    tokens, altered, watched = look_on(decoder, prompt_rows(decoder, PROBE_TOKENS))
    calls = record_independent(decoder, watched, tokens)
    skips = sorted({0, len(decoder.blocks) // 2, len(decoder.blocks) - 1})

    logits, (whole, *streams) = try_alone(
        decoder, lambda: _side_by_side(decoder, calls, tokens, altered, skips)
    )
    expected, changed, *skipped = logits.split(len(tokens))
    tolerance = TOLERANCE[decoder.dtype] * max(1.0, float(expected.abs().max()))
    refuse_acausal(decoder, changed - expected, tolerance)
    difference = max(
        readout_difference(decoder, whole, own) for own in (expected, watched.logits)
    )
    refuse_readout(decoder, difference, tolerance)
    for block, stream, own in zip(skips, streams, skipped, strict=True):
        refuse_other_skip(decoder, block, stream, own)
    return difference


def _side_by_side(
    decoder: Decoder, calls: Calls, tokens: torch.Tensor, altered: torch.Tensor, skips: list[int]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The model's own forward, and replayed streams beside it.

    Returns:
        Float32 logits of the tokens, of the altered ones, and of the tokens without each block of
        ``skips``; and the last states of the replayed streams: of all blocks, and without each.
    """
    rows = len(tokens)
    streams = [calls.embedded]
    last = len(decoder.blocks) - 1

    def beside(index: int) -> Callable:
        forward = decoder.blocks[index].forward

        def hidden_of(output):
            return output[0] if isinstance(output, tuple | list) else output

        def both(*args, **kwargs):
            given, _, _ = split_call(decoder, args, kwargs)
            given = given.clone()  # blocks may write into what they are given
            rest, named = calls.arguments[index]
            with decoder.resident(index, index + 1 if index < last else None):
                born = [streams[0].clone()] if index in skips else []
                streams[:] = [hidden_of(forward(s.clone(), *rest, **named)) for s in streams] + born
                out = hidden_of(forward(*args, **kwargs)).clone()
            if index in skips:
                first = rows * (2 + skips.index(index))
                out[first : first + rows] = given[first : first + rows]
            return decoder.block_output(out)

        return both

    together = torch.cat([tokens, altered, *[tokens] * len(skips)])
    with replaced_blocks(decoder, beside):
        logits = decoder.model(input_ids=together, use_cache=False).logits.float()
    return logits, [stream.to(decoder.device) for stream in streams]
