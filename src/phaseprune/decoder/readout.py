"""The readout (logit lens): the model's own final norm and head on a middle hidden state.

The model's own forward does it, with the given hidden state put in at the first block and all
blocks the identity. So whatever a family does there (logit scale, soft cap, bias) is done.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from phaseprune.decoder.blocks import replaced_blocks, split_call
from phaseprune.decoder.decoder import Decoder


@torch.no_grad()
def read_logits(
    decoder: Decoder, hidden: torch.Tensor, vocabulary_rows: torch.Tensor | slice | None = None
) -> torch.Tensor:
    """``differentiable_logits`` for where no gradient is wanted."""
    return differentiable_logits(decoder, hidden, vocabulary_rows)


def differentiable_logits(
    decoder: Decoder, hidden: torch.Tensor, vocabulary_rows: torch.Tensor | slice | None = None
) -> torch.Tensor:
    """Logits that the model would give if the blocks ended with this hidden state.

    Args:
        decoder: the model.
        hidden: ``[N, D]`` hidden states at the positions that are read.
        vocabulary_rows: ``[W]`` token ids, or a slice of them; by default the whole vocabulary.

    Returns:
        ``[N, V]`` or ``[N, W]`` float32 logits.
    """

    def stand_in(index: int) -> Callable:
        def first(*args, **kwargs):
            return decoder.block_output(hidden[:, None])

        def identity(*args, **kwargs):
            return decoder.block_output(split_call(decoder, args, kwargs)[0])

        return first if index == 0 else identity

    dummy = torch.zeros(len(hidden), 1, dtype=torch.long, device=hidden.device)
    with replaced_blocks(decoder, stand_in), _head_rows(decoder, vocabulary_rows):
        logits = decoder.model(input_ids=dummy, use_cache=False).logits[:, 0]
    if vocabulary_rows is not None and not isinstance(decoder.head, nn.Linear):
        logits = logits[:, vocabulary_rows]
    return logits.float()


@torch.no_grad()
def head_inputs(decoder: Decoder, hidden: torch.Tensor) -> torch.Tensor:
    """What the model would give its output head if the blocks ended with this hidden state.

    It is the last hidden state as transformers gives it: behind the final norm.

    Args:
        decoder: the model.
        hidden: ``[N, D]`` hidden states.

    Returns:
        ``[N, D]`` float32.
    """
    given: list[torch.Tensor] = []
    hook = decoder.head.register_forward_pre_hook(lambda head, args: given.append(args[0]))
    try:
        read_logits(decoder, hidden, slice(0, 1))
    finally:
        hook.remove()
    return given[0][:, 0].float()


class _head_rows:  # noqa: N801 - a context manager
    """Restrict a linear head to some rows of its vocabulary while the context lasts."""

    def __init__(self, decoder: Decoder, rows: torch.Tensor | slice | None):
        self.head, self.placement, self.rows = decoder.head, decoder.placement, rows
        self.active = rows is not None and isinstance(self.head, nn.Linear)

    def __enter__(self) -> None:
        if not self.active:
            return
        with self.placement.fetched(self.head):  # the forward that would do it is replaced
            own, rows = self.head.weight, self.rows
            rows = rows.to(own.device) if isinstance(rows, torch.Tensor) else rows
            weight = own[rows]
            bias = None if self.head.bias is None else self.head.bias[rows]
        self.forward = self.head.__dict__.get("forward")
        self.head.forward = lambda hidden: functional.linear(hidden.to(weight.device), weight, bias)

    def __exit__(self, *error) -> None:
        if self.active and self.forward is None:
            del self.head.forward
        elif self.active:
            self.head.forward = self.forward
