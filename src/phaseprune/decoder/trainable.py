"""Training a decoder: which weights move, logits that gradients flow through, LoRA and its merging.

Dropout stays off (the model stays in eval mode): a step is then a function of its batch alone, and
a run that was killed goes on to the same bytes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec

import torch
from torch import nn

from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.packed import Packing, Trunk, forward_packed
from phaseprune.errors import UserError

METHODS = ("lora", "full")


def check_method(method: str) -> None:
    """Refuse a method before anything is loaded.

    Raises:
        UserError: an unknown one, or LoRA without peft.
    """
    if method not in METHODS:
        raise UserError(f"--method is {method!r} and must be one of {', '.join(METHODS)}")
    if method == "lora" and find_spec("peft") is None:
        raise UserError(
            "--method=lora needs the package peft; install it with pip install "
            "'phaseprune[heal]', or give --method=full"
        )


@contextmanager
def trainable(decoder: Decoder, method: str, rank: int, seed: int) -> Iterator[None]:
    """Make a decoder trainable in place; at the end LoRA is merged into the weights.

    Args:
        decoder: a model that fits in memory.
        method: ``lora`` puts an adapter on every linear layer but the output head; ``full`` trains
            all weights, in float32 while the context lasts: in 16 bits small steps would be lost.
        rank: of the adapters; their scale is 2 (alpha = 2 rank).
        seed: of the adapters' beginning.

    Raises:
        UserError: a model without linear layers that peft knows.
    """
    adapted = None
    kept = {p: p.dtype for p in decoder.model.parameters() if p.is_floating_point()}
    if method == "lora":
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(seed)
        wanted = LoraConfig(
            r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear"
        )
        try:
            with warnings.catch_warnings():  # of transformers' own deprecations
                warnings.simplefilter("ignore", FutureWarning)
                adapted = get_peft_model(decoder.model, wanted)
        except ValueError as error:
            raise UserError(
                f"{decoder.name}: LoRA finds nothing to adapt ({error}); give --method=full"
            ) from None
    else:
        for parameter in kept:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
    decoder.model.eval()
    try:
        yield
    finally:
        if adapted is not None:
            adapted.merge_and_unload()
        decoder.model.requires_grad_(False)
        for parameter, dtype in kept.items():
            parameter.data = parameter.data.to(dtype)
        decoder.trained = True


def trained_weights(decoder: Decoder) -> dict[str, nn.Parameter]:
    """The weights that training moves, by name, each once."""
    return {n: p for n, p in decoder.model.named_parameters() if p.requires_grad}


def logits_at(
    decoder: Decoder,
    input_ids: torch.Tensor,
    reads: torch.Tensor,
    packing: Packing | None = None,
    trunk: Trunk | None = None,
) -> torch.Tensor:
    """The model's own logits at some positions; gradients flow through them.

    Args:
        decoder: the model.
        input_ids: ``[R, T]`` tokens, padded on the right.
        reads: ``[N]`` places counted through all rows. The head runs at these alone, which a
            vocabulary of 100,000 makes the difference between fitting and not.
        packing: the packed row that the tokens are; None for plain rows.
        trunk: of a packed row, what the rows before it have left for it; its own is added.

    Returns:
        ``[N, V]`` float32.
    """
    head = decoder.head
    plain = head.forward

    def at_reads(hidden: torch.Tensor) -> torch.Tensor:
        return plain(hidden.flatten(0, -2)[reads][None])

    head.forward = at_reads
    try:
        if packing is None:
            found = decoder.model(input_ids=input_ids, use_cache=False)
        else:
            found = forward_packed(decoder, packing, trunk)
        return found.logits[0].float()
    finally:
        del head.forward


def autocast(decoder: Decoder, dtype: torch.dtype):
    """Run in a smaller dtype than the weights are kept in, where the two differ."""
    if decoder.dtype == dtype:
        return nullcontext()
    return torch.autocast(decoder.device.type, dtype=dtype)


@contextmanager
def repeatable(decoder: Decoder) -> Iterator[None]:
    """Only algorithms that give the same bits each time, on the CPU."""
    settings = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    if decoder.device.type == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
        settings.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        settings.fill_uninitialized_memory = before[1]
