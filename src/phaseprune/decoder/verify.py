"""What is checked when a decoder is loaded, before any work is done with it."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from phaseprune.decoder.blocks import record_calls, run_block
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.readout import read_logits
from phaseprune.errors import UserError

#: Largest |difference| allowed, as a share of the largest |logit|, by the bits of the dtype.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
PROBE_ROWS, PROBE_TOKENS = 2, 12


def check_weights(decoder: Decoder) -> None:
    """Refuse weights in memory that are not finite.

    Raises:
        UserError: names the block (or the module outside the blocks) and the tensor.
    """
    held = ((n, p) for n, p in decoder.model.named_parameters() if not p.is_meta)
    _refuse_not_finite(decoder, held)


def check_block_weights(decoder: Decoder, block: int) -> None:
    """The same of one block."""
    path = f"{decoder.blocks_path}.{block}"
    _refuse_not_finite(decoder, decoder.blocks[block].named_parameters(path))


def _refuse_not_finite(decoder: Decoder, named: Iterable[tuple[str, torch.Tensor]]) -> None:
    prefix = decoder.blocks_path + "."
    for name, tensor in named:
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            inside = name.startswith(prefix)
            place = f"block {name[len(prefix):].split('.')[0]}" if inside else "outside the blocks"
            raise UserError(
                f"{decoder.name}: {place} has NaN or infinite weights ({name}); the checkpoint is "
                "damaged, so fetch it again"
            )


@torch.no_grad()
def check_readout(decoder: Decoder) -> float:
    """Demand that replaying the blocks and reading out at L gives the model's own logits.

    Also finds out how the blocks return their output.

    Returns:
        The largest absolute difference of the logits on random tokens.

    Raises:
        UserError: the logits differ, or a later token changes an earlier logit.
    """
    generator = torch.Generator().manual_seed(0)
    vocabulary = decoder.model.get_input_embeddings().weight.shape[0]
    shape = (PROBE_ROWS, PROBE_TOKENS)
    tokens = torch.randint(vocabulary, shape, generator=generator).to(decoder.device)
    decoder.output_length = _output_length(decoder, tokens)
    expected = decoder.model(input_ids=tokens, use_cache=False).logits.float()
    if not torch.isfinite(expected).all():
        raise UserError(f"{decoder.name}: the logits on a random probe are NaN or infinite")
    tolerance = TOLERANCE[decoder.dtype] * max(1.0, float(expected.abs().max()))

    altered = tokens.clone()
    altered[:, -1] = (altered[:, -1] + 1) % vocabulary
    changed = decoder.model(input_ids=altered, use_cache=False).logits.float() - expected
    refuse_acausal(decoder, changed, tolerance)
    difference = readout_difference(decoder, _last_hidden(decoder, tokens), expected)
    refuse_readout(decoder, difference, tolerance)
    return difference


def refuse_acausal(decoder: Decoder, changed: torch.Tensor, tolerance: float) -> None:
    """Refuse a model whose logits change (by ``changed``) before the token that was altered."""
    if float(changed[:, :-1].abs().max()) > tolerance:
        raise UserError(
            f"{decoder.name}: a later token changes what the model says before it, so this is an "
            "encoder, not a causal decoder; give a decoder such as Llama or Qwen"
        )


def readout_difference(decoder: Decoder, hidden: torch.Tensor, expected: torch.Tensor) -> float:
    """Max |difference| of the readout of ``[R, T, D]`` states, whole and by rows, from logits."""
    flat = hidden.reshape(-1, hidden.shape[-1])
    read = read_logits(decoder, flat)
    difference = float((read - expected.reshape(len(flat), -1)).abs().max())
    vocabulary = read.shape[-1]
    rows = torch.arange(0, vocabulary, max(1, vocabulary // 7), device=decoder.device)
    by_rows = read_logits(decoder, flat, rows)
    return max(difference, float((by_rows - read[:, rows]).abs().max()))


def refuse_readout(decoder: Decoder, difference: float, tolerance: float) -> None:
    """Refuse a model whose readout at L is not its own logits."""
    if not difference <= tolerance:
        raise UserError(
            f"{decoder.name}: the readout after the last block differs from the model's own logits "
            f"(max |difference| {difference:.2g}, allowed {tolerance:.2g}), so this "
            f"{decoder.family} architecture cannot be traced"
        )


def _last_hidden(decoder: Decoder, tokens: torch.Tensor) -> torch.Tensor:
    """``[R, T, D]`` state after the last block, by replaying the blocks one by one."""
    calls = record_calls(decoder, tokens)
    hidden = calls.embedded
    for index in range(len(decoder.blocks)):
        hidden = run_block(decoder, index, hidden, calls)
    return hidden


def _output_length(decoder: Decoder, tokens: torch.Tensor) -> int:
    """0 where blocks return a tensor, else the length of the tuple they return."""
    lengths = []
    handle = decoder.blocks[0].register_forward_hook(
        lambda module, inputs, output: lengths.append(
            len(output) if isinstance(output, tuple) else 0
        )
    )
    try:
        decoder.model(input_ids=tokens, use_cache=False)
    finally:
        handle.remove()
    return lengths[0]
