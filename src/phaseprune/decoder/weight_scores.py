"""How much the weights of each block weigh: by their size, or by what the loss would do without.

The two block scores of Shortened LLaMA (arXiv 2402.02834) that look at single weights,
over the matrices of a block: norms and biases do not count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.trainable import logits_at, repeatable
from phaseprune.errors import UserError
from phaseprune.progress import Progress, silent


def block_matrices(decoder: Decoder, block: int) -> list[nn.Parameter]:
    """The weight matrices of a block (of experts: stacks of them).

    Raises:
        UserError: a block without any, or with quantised ones.
    """
    found = [
        parameter
        for name, parameter in decoder.blocks[block].named_parameters()
        if parameter.dim() >= 2 and not name.endswith("bias")  # experts stack their biases
    ]
    quantised = any(not p.is_floating_point() or p.dtype.itemsize < 2 for p in found)
    if quantised or not found:
        why = "are quantised" if found else "are none"
        raise UserError(
            f"{decoder.name}: the weight matrices of block {block} {why}, so that they cannot be "
            "ranked by their values; give a checkpoint in 16 or 32 bits, or another method"
        )
    return found


@torch.no_grad()
def magnitudes(decoder: Decoder, progress: Progress = silent) -> np.ndarray:
    """``[L]`` sum of |w| over a block's weight matrices (the paper's Mag); runs nothing.

    Args:
        decoder: the model; blocks are read one after the other where it is streamed.
        progress: told of each block.

    Raises:
        UserError: weights that cannot be summed.
    """
    count = len(decoder.blocks)
    sums = np.zeros(count)
    for block in range(count):
        with decoder.resident(block, block + 1 if block + 1 < count else None):
            for weight in block_matrices(decoder, block):
                sums[block] += float(weight.float().abs().sum(dtype=torch.float64))
        progress("weights", block + 1, count)
    return sums


def taylor_scores(
    decoder: Decoder, windows: Sequence[Sequence[int]], progress: Progress = silent
) -> np.ndarray:
    """``[L]`` sum of |w dL/dw| over a block's weight matrices (the paper's Taylor).

    L is the mean loss over all predicted tokens of the text; its gradient is summed in float32 over
    the windows before the absolute value is taken.

    Args:
        decoder: a model whose weights are all in memory.
        windows: of tokens.
        progress: told of each window.

    Raises:
        UserError: a model that gives no gradients, or a loss that is not finite.
    """
    check_gradients(decoder)
    blocks = [block_matrices(decoder, block) for block in range(len(decoder.blocks))]
    weights = [weight for block in blocks for weight in block]
    predicted = sum(len(window) - 1 for window in windows)
    sums = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]
    wanted = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad(), repeatable(decoder):
            for number, window in enumerate(windows):
                tokens = torch.tensor([window], device=decoder.device)
                reads = torch.arange(len(window) - 1, device=decoder.device)
                logits = logits_at(decoder, tokens[:, :-1], reads)
                loss = functional.cross_entropy(logits, tokens[0, 1:], reduction="sum")
                if not torch.isfinite(loss):
                    raise UserError(
                        f"{decoder.name}: the loss is NaN or infinite in window {number} of the "
                        "text; try --dtype=float32"
                    )
                for total, gradient in zip(
                    sums,
                    torch.autograd.grad(loss / predicted, weights, allow_unused=True),
                    strict=True,
                ):
                    if gradient is not None:  # an expert that no token went to
                        total += gradient
                progress("gradients", number + 1, len(windows))
    finally:
        for weight, before in zip(weights, wanted, strict=True):
            weight.requires_grad_(before)
    products = iter(sums)
    with torch.no_grad():
        return np.array(
            [
                sum(
                    float((weight.float() * next(products)).abs().sum(dtype=torch.float64))
                    for weight in block
                )
                for block in blocks
            ]
        )


def check_gradients(decoder: Decoder) -> None:
    """Refuse a model through which no gradients flow.

    Raises:
        UserError: says how to load it.
    """
    decoder.placement.require("gradients", decoder.name)
