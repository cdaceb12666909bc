"""A decoder whose blocks are halves of another's blocks, each called as its block is.

Half 2i is the attention of block i, half 2i+1 its MLP. Whatever walks over blocks walks over them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from torch import nn

from phaseprune.decoder.blocks import replaced_blocks
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.items import half_items, item_in_words
from phaseprune.decoder.sublayers import Halves, Part, without


class _Half(nn.Module):
    """A block without its other half. The block's own forward runs, in which that gives zeros."""

    def __init__(self, block: nn.Module, other: Part):
        super().__init__()
        self.block, self.other = block, other
        self.own = block.forward

    def forward(self, *args, **kwargs):
        with without(self.block, self.other):
            return self.own(*args, **kwargs)


def halved(decoder: Decoder, halves: Halves) -> Decoder:
    """The decoder of halves. It is to be used within ``running_halves`` alone.

    Args:
        decoder: with all its weights in one memory.
        halves: from ``find_halves``.
    """
    modules = [
        _Half(block, other)
        for block, pair in zip(decoder.blocks, halves, strict=True)
        for other in reversed(pair)
    ]
    names = tuple(map(item_in_words, half_items("sublayer", len(decoder.blocks))))
    return replace(
        decoder, blocks=nn.ModuleList(modules), block_names=names, packed_length=None,
        reads_alone=False,
    )  # fmt: skip


@contextmanager
def running_halves(view: Decoder) -> Iterator[Decoder]:
    """Let the model's blocks call the halves of ``halved``, one after the other."""
    pairs = list(zip(view.blocks[::2], view.blocks[1::2], strict=True))
    model = replace(view, blocks=nn.ModuleList(first.block for first, _ in pairs))
    with replaced_blocks(model, lambda index: _in_turn(view, *pairs[index])):
        yield view


def _in_turn(view: Decoder, first: nn.Module, second: nn.Module):
    def forward(*args, **kwargs):
        between = first(*args, **kwargs)
        between = between[0] if isinstance(between, tuple | list) else between
        if args:
            return second(between, *args[1:], **kwargs)
        return second(**{**kwargs, view.input_name: between})

    return forward
