"""Packed rows: the tokens of many sequences in one row, each computed once and none padded.

Sequences that begin alike share the tokens that they have in common, so a row is a forest: every
token sees what stands before it in its own sequences and nothing else. The model's own code runs;
only its attention function is replaced (``decoder.packed_attention``). A row's hidden states may be
those of several streams at once, ``[S, N, D]``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree as pytree

from phaseprune.decoder.blocks import Calls, record_calls, run_block
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.packed_attention import (
    KeysKnown,
    NotPackable,
    Packing,
    Pass,
    Trunk,
    our_attention,
)


def record_packed(decoder: Decoder, packing: Packing) -> Calls:
    """How the model calls its blocks for a packed row; its masks are left to our attention."""
    with our_attention(decoder, Pass(packing, packing.everyone, {})):
        return record_calls(decoder, packing.tokens, **_inputs(packing))


def forward_packed(decoder: Decoder, packing: Packing, trunk: Trunk) -> Any:
    """What the model's own forward gives for a packed row; gradients flow, into the trunk too.

    Args:
        decoder: a model on one device.
        packing: the row.
        trunk: as of ``run_packed``, of all blocks at once.
    """
    with our_attention(decoder, Pass(packing, packing.everyone, trunk)):
        return decoder.model(input_ids=packing.tokens, use_cache=False, **_inputs(packing))


def _inputs(packing: Packing) -> dict[str, torch.Tensor]:
    everyone = torch.ones_like(packing.tokens)  # without it transformers looks for packed rows too
    return {"position_ids": packing.positions, "attention_mask": everyone}


@torch.no_grad()
def run_packed(
    decoder: Decoder, index: int, hidden: torch.Tensor, calls: Calls, packing: Packing, trunk: Trunk
) -> torch.Tensor:
    """Block ``index`` on ``[S, N, D]`` hidden states of a packed row.

    Args:
        decoder: the model.
        index: original index of the block.
        hidden: S streams.
        calls: from ``record_packed``.
        packing: the row.
        trunk: keys and values of the units before; those of this row's trunk units are added.
    """
    here = packing.on(decoder.block_device(index))
    return _run(decoder, index, hidden, calls, Pass(here, here.everyone, trunk))


@torch.no_grad()
def run_packed_reads(
    decoder: Decoder, index: int, hidden: torch.Tensor, calls: Calls, packing: Packing, trunk: Trunk
) -> torch.Tensor:
    """``[S, R, D]`` outputs of a block at the read tokens alone.

    The block is begun for all tokens and left as soon as their keys and values are known, then run
    for the read ones, so the rest of its work is done for those only.
    """
    if len(packing.reads) == packing.tokens.shape[1]:  # in the order of the tokens
        return run_packed(decoder, index, hidden, calls, packing, trunk)
    here = packing.on(decoder.block_device(index))
    try:
        _run(decoder, index, hidden, calls, Pass(here, here.everyone, trunk, begin=True))
    except KeysKnown as found:
        keys = found.args
    else:
        raise NotPackable("a block does not attend")
    if not len(packing.reads):
        return hidden[:, :0]
    readers = Pass(here, here.readers, trunk, keys)
    return _run(decoder, index, hidden[:, packing.reads], _at_reads(calls, index, packing), readers)


def _at_reads(calls: Calls, index: int, packing: Packing) -> Calls:
    """The arguments of a block's call for the read tokens alone."""
    length = packing.tokens.shape[1]

    def chosen(value):
        if isinstance(value, torch.Tensor) and value.shape[:2] == (1, length):
            return value[:, packing.reads]
        return value

    return Calls(calls.embedded, {index: pytree.tree_map(chosen, calls.arguments[index])})


def _run(
    decoder: Decoder, index: int, hidden: torch.Tensor, calls: Calls, state: Pass
) -> torch.Tensor:
    with our_attention(decoder, state):
        return run_block(decoder, index, hidden, calls)
