"""The load-time checks of ``verify`` for a model whose blocks are on disk, in one walk over them.

Every comparison is a few rows of one forward of the model's own; the replayed streams run beside
it, block by block, while a block's weights are in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import torch

from phaseprune.decoder.blocks import record_calls, replaced_blocks, split_call
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.verify import (
    PROBE_ROWS,
    PROBE_TOKENS,
    TOLERANCE,
    readout_difference,
    refuse_acausal,
    refuse_readout,
)
from phaseprune.errors import UserError


class _Known(Exception):
    """Ends a forward behind its first block."""


@torch.no_grad()
def check_readout_streamed(decoder: Decoder) -> float:
    """As ``verify.check_readout``; also holds skipping a block in a replayed stream against the
    model's own forward without it.

    Returns:
        The largest absolute difference of the logits on random tokens.

    Raises:
        UserError: the logits differ, or a later token changes an earlier logit.
    """  # noqa: D205
    generator = torch.Generator().manual_seed(0)
    vocabulary = decoder.model.get_input_embeddings().weight.shape[0]
    shape = (PROBE_ROWS, PROBE_TOKENS)
    tokens = torch.randint(vocabulary, shape, generator=generator).to(decoder.device)
    altered = tokens.clone()
    altered[:, -1] = (altered[:, -1] + 1) % vocabulary
    decoder.output_length = _output_length(decoder, tokens)
    skips = sorted({0, len(decoder.blocks) // 2, len(decoder.blocks) - 1})

    logits, replayed = _side_by_side(decoder, tokens, altered, skips)
    expected, changed, *skipped = logits.split(PROBE_ROWS)
    if not torch.isfinite(expected).all():
        raise UserError(f"{decoder.name}: the logits on a random probe are NaN or infinite")
    tolerance = TOLERANCE[decoder.dtype] * max(1.0, float(expected.abs().max()))
    refuse_acausal(decoder, changed - expected, tolerance)
    differences = [
        readout_difference(decoder, state, own)
        for state, own in zip(replayed, [expected, *skipped], strict=True)
    ]
    refuse_readout(decoder, max(differences), tolerance)
    return differences[0]


def _output_length(decoder: Decoder, tokens: torch.Tensor) -> int:
    """0 where blocks return a tensor, else the length of the tuple they return."""
    lengths = []

    def first(*args, **kwargs):
        with decoder.resident(0):
            output = forward(*args, **kwargs)
        lengths.append(len(output) if isinstance(output, tuple) else 0)
        raise _Known

    forward = decoder.blocks[0].forward
    begin = replaced_blocks(decoder, lambda index: first if index == 0 else None)
    with begin, suppress(_Known):
        decoder.model(input_ids=tokens, use_cache=False)
    return lengths[0]


def _side_by_side(
    decoder: Decoder, tokens: torch.Tensor, altered: torch.Tensor, skips: list[int]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The model's own forward, and replayed streams beside it.

    Returns:
        Float32 logits of the tokens, of the altered ones, and of the tokens without each block of
        ``skips``; and the last states of the replayed streams: of all blocks, and without each.
    """
    rows = len(tokens)
    calls = record_calls(decoder, tokens)
    streams = [calls.embedded]
    last = len(decoder.blocks) - 1

    def beside(index: int) -> Callable:
        forward = decoder.blocks[index].forward

        def hidden_of(output):
            return output[0] if isinstance(output, tuple) else output

        def both(*args, **kwargs):
            given, _, _ = split_call(args, kwargs)
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
    return logits, streams
