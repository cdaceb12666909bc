"""Blocks that stand for others as well: their weights put in place while a context lasts.

A merged block's weights are a sum of original blocks' weights with whole numbers. The blocks that
were taken in are skipped by whoever runs the model; every block keeps its original index.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from phaseprune.decoder.decoder import Decoder
from phaseprune.errors import UserError


def check_mergeable(decoder: Decoder) -> None:
    """Refuse a model whose blocks' weights cannot be added up, before anything is paid for.

    Raises:
        UserError: weights that are not all in memory on one device, quantised ones, ones that
            blocks share, or blocks that differ in what weights they have.
    """
    lead = f"{decoder.name}: blocks cannot be merged"
    decoder.placement.require("merging", decoder.name)
    blocks = [dict(block.named_parameters()) for block in decoder.blocks]
    quantised = any(
        not weight.is_floating_point() or weight.dtype.itemsize < 2
        for block in blocks
        for weight in block.values()
    )
    packed = getattr(decoder.config, "quantization_config", None) and not decoder.source.gguf_file
    if quantised or packed:
        raise UserError(
            f"{lead}, as their weights are quantised; give a checkpoint in 16 or 32 bits, or "
            "choose another method"
        )
    first = _kinds(blocks[0])
    for number, block in enumerate(blocks):
        if _kinds(block) != first:
            different = min(_kinds(block) ^ first)[0]
            raise UserError(
                f"{lead}, as block {number} differs from block 0 in its weights ({different}); "
                "choose another method"
            )
    owned = [id(weight) for block in blocks for weight in block.values()]
    if len(set(owned)) < len(owned):
        raise UserError(f"{lead}, as they share weights; choose another method")


@contextmanager
def merged_blocks(decoder: Decoder, mixtures: Mapping[int, Mapping[int, int]]) -> Iterator[None]:
    """Put merged weights in the place of blocks' own, then the very same ones back.

    Each weight is summed up in float32 from the original blocks in the order of their index, and
    rounded to the model's dtype once. Buffers stay those of the block itself.

    Args:
        decoder: a model that ``check_mergeable`` lets pass.
        mixtures: block -> original block -> whole number.
    """
    with torch.no_grad():
        made = [
            (parameter, _summed(decoder.blocks, name, of))
            for into, of in mixtures.items()
            for name, parameter in decoder.blocks[into].named_parameters()
        ]
    saved = [parameter.data for parameter, _ in made]
    try:
        for parameter, weight in made:
            parameter.data = weight
        yield
    finally:
        for (parameter, _), own in zip(made, saved, strict=True):
            parameter.data = own


def _summed(blocks: nn.ModuleList, name: str, of: Mapping[int, int]) -> torch.Tensor:
    total = None
    for block in sorted(of):
        weight = blocks[block].get_parameter(name)
        part = of[block] * weight.to(torch.promote_types(weight.dtype, torch.float32))
        total = part if total is None else total.add_(part)
    return total.to(weight.dtype)


def _kinds(block: Mapping[str, nn.Parameter]) -> set[tuple[str, tuple[int, ...], str]]:
    """What a block's weights are called, and their shapes and dtypes."""
    return {(name, tuple(weight.shape), str(weight.dtype)) for name, weight in block.items()}
