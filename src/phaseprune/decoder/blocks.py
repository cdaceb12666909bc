"""Running single blocks of a decoder the way the model itself would call them.

What a block is called with besides the hidden state (masks, rotary embeddings, per-layer inputs)
is recorded from one forward of the model's own code in which every block is the identity, and
replayed whenever the block runs. No family needs code of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from phaseprune.decoder.decoder import Decoder


@dataclass(frozen=True)
class Calls:
    """Everything needed to run the blocks over one batch of token rows.

    Attributes:
        embedded: ``[R, T, D]`` hidden state at readout 0, the input of the first block.
        arguments: per block, the positional and keyword arguments beside the hidden state.
    """

    embedded: torch.Tensor
    arguments: tuple[tuple[tuple, dict[str, Any]], ...]


class _AllBlocksRecorded(Exception):
    """Ends the recording forward before its norm and head run."""


@contextmanager
def replaced_blocks(
    decoder: Decoder, replacement: Callable[[int], Callable | None]
) -> Iterator[None]:
    """Let ``replacement(i)`` stand in for the forward of block i (None: leave it), then undo it."""
    found = [(block, replacement(index)) for index, block in enumerate(decoder.blocks)]
    with replaced_forwards((block, forward) for block, forward in found if forward is not None):
        yield


@contextmanager
def replaced_forwards(replacements: Iterable[tuple[nn.Module, Callable]]) -> Iterator[None]:
    """Let functions stand in for the forwards of modules, then undo it."""
    saved = []
    try:
        for module, forward in replacements:
            saved.append((module, module.__dict__.get("forward")))
            module.forward = forward
        yield
    finally:
        for module, forward in saved:
            if forward is None:
                del module.forward
            else:
                module.forward = forward


@contextmanager
def skipped_blocks(decoder: Decoder, removed: Collection[int]) -> Iterator[None]:
    """Make the given blocks the identity while the context lasts.

    Every block keeps its index, its attention type and its configuration entries, which is why
    skipping and not deleting is what a search must do.
    """

    def identity(*args, **kwargs):
        return decoder.block_output(split_call(decoder, args, kwargs)[0])

    with replaced_blocks(decoder, lambda index: identity if index in removed else None):
        yield


@contextmanager
def bypassed_blocks(decoder: Decoder, removed: Collection[int]) -> Iterator[None]:
    """Let the given blocks run, for what they write to a cache, and pass on what they were given.

    To all others they are gone, as by ``skipped_blocks``.
    """

    def bypassed(index: int) -> Callable | None:
        forward = decoder.blocks[index].forward

        def run(*args, **kwargs):
            said = forward(*args, **kwargs)
            given = split_call(decoder, args, kwargs)[0]
            return (given, *said[1:]) if isinstance(said, tuple | list) else given

        return run if index in removed else None

    with replaced_blocks(decoder, bypassed):
        yield


@torch.no_grad()
def record_calls(decoder: Decoder, input_ids: torch.Tensor, **inputs: torch.Tensor) -> Calls:
    """Record how the model calls its blocks for some token rows, at the cost of no block.

    Args:
        decoder: the model.
        input_ids: ``[R, T]`` tokens.
        **inputs: what else the model's forward is given.
    """
    arguments: list[tuple[tuple, dict[str, Any]]] = []
    embedded: list[torch.Tensor] = []
    last = len(decoder.blocks) - 1

    def recorder(index: int) -> Callable:
        def forward(*args, **kwargs):
            hidden, rest, named = split_call(decoder, args, kwargs)
            embedded.append(hidden)
            arguments.append((rest, named))
            if index == last:
                raise _AllBlocksRecorded
            return decoder.block_output(hidden)

        return forward

    with replaced_blocks(decoder, recorder):
        try:
            decoder.model(input_ids=input_ids, use_cache=False, **inputs)
        except _AllBlocksRecorded:
            return Calls(embedded[0].to(input_ids.device), tuple(arguments))
    raise AssertionError("the model's forward did not call all of its blocks")


@torch.no_grad()
def run_block(decoder: Decoder, index: int, hidden: torch.Tensor, calls: Calls) -> torch.Tensor:
    """Block ``index`` on a ``[R, T, D]`` hidden state; R and T as in the recording.

    The output is where the hidden state is, wherever the block runs.
    """
    rest, named = calls.arguments[index]
    output = decoder.blocks[index](hidden, *rest, **named)
    output = output[0] if isinstance(output, tuple | list) else output
    return output.to(hidden.device)


def split_call(
    decoder: Decoder, args: tuple, kwargs: dict[str, Any]
) -> tuple[torch.Tensor, tuple, dict[str, Any]]:
    """The hidden state, and the arguments beside it, of a call of a block."""
    if args:
        return args[0], args[1:], kwargs
    kwargs = dict(kwargs)
    return kwargs.pop(decoder.input_name), (), kwargs
