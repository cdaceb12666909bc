"""Halves of blocks in a checkpoint: their weights are zeros there, so that they add nothing.

A plain checkpoint has no way to say that a block lacks its attention. All weights of the module
that makes the addition are zeros, in place and in shape: that loads everywhere, is exact, and
stays so in training without biases, as no gradient passes through zeros on both sides. It saves
nothing by itself; what a runtime that skips such halves would save is measured here.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.items import Item, block_of_item, lone_halves, whole_blocks
from phaseprune.decoder.names import changes_on_loading, possible_names
from phaseprune.decoder.sublayers import Halves, part_of, skipped_items
from phaseprune.decoder.tensors import LazyTensor
from phaseprune.errors import UserError

PROMPT_TOKENS, REPEATS = 128, 5


@dataclass(frozen=True)
class Zeroed:
    """Halves that are zeros in a checkpoint.

    Attributes:
        items: which, as ``7.attention``.
        parameters: of the zeros, and ``bytes`` that they take in the files.
        times_as_fast: a prompt where they are skipped against where they are run (a median of
            neighbouring turns), of ``prompt_tokens`` tokens, on this machine as it was; with the
            lowest and the highest of ``repeats`` turns.
    """

    items: list[str]
    parameters: int
    bytes: int
    times_as_fast: float
    fastness_range: list[float]
    prompt_tokens: int
    repeats: int


def zeroed_tensors(
    decoder: Decoder, halves: Halves, items: Sequence[str], stored: Iterable[str]
) -> set[str]:
    """The stored names of the tensors that are zeros where these halves are removed.

    Raises:
        UserError: a half has none.
    """
    prefixes = {
        item: f"{decoder.blocks_path}.{block_of_item(item)}.{part_of(halves, item).path}."
        for item in items
    }
    renamings, _ = changes_on_loading(decoder.model)
    names, found = set(), set()
    for name in stored:
        called = possible_names(name, decoder.model.base_model_prefix, renamings)
        for item, prefix in prefixes.items():
            if any(each.startswith(prefix) for each in called):
                names.add(name)
                found.add(item)
    lacking = [item for item in items if item not in found]
    if lacking:
        raise UserError(
            f"the weights of {lacking[0]} were not found under a name like {prefixes[lacking[0]]} "
            "in the checkpoint, so it cannot be exported without them"
        )
    return names


def with_zeros(tensors: dict[str, LazyTensor], names: Collection[str]) -> dict[str, LazyTensor]:
    """The tensors, of which some are zeros."""

    def zeros(tensor: LazyTensor) -> LazyTensor:
        return replace(tensor, read=lambda: torch.zeros(tensor.shape, dtype=tensor.dtype))

    return {name: zeros(t) if name in names else t for name, t in tensors.items()}


@torch.no_grad()
def measure_zeroed(decoder: Decoder, halves: Halves, remove: Sequence[Item], bytes_: int) -> Zeroed:
    """What a runtime would save that skips the zeroed halves of a model.

    Args:
        decoder: the full model.
        halves: from ``find_halves``.
        remove: all that is removed; only the halves whose block stays are zeroed.
        bytes_: of the zeros in the checkpoint.
    """
    items = lone_halves(remove)
    parts = [
        decoder.blocks[block_of_item(item)].get_submodule(part_of(halves, item).path)
        for item in items
    ]
    parameters = sum(p.numel() for part in parts for p in part.parameters())
    length = min(PROMPT_TOKENS, decoder.max_length or PROMPT_TOKENS)
    tokens = torch.zeros(1, length, dtype=torch.long, device=decoder.device)
    run, skip = whole_blocks(remove), remove
    ratios = []
    for turn in range(REPEATS + 1):
        taken = [_seconds(decoder, halves, each, tokens) for each in (run, skip)]
        ratios += [taken[0] / taken[1]] if turn else []
    middle, bounds = statistics.median(ratios), [min(ratios), max(ratios)]
    return Zeroed(items, parameters, bytes_, middle, bounds, length, REPEATS)


def _seconds(
    decoder: Decoder, halves: Halves, items: Sequence[Item], tokens: torch.Tensor
) -> float:
    with skipped_items(decoder, halves, items):
        began = time.perf_counter()
        decoder.model(input_ids=tokens, use_cache=False).logits[0, -1, 0].item()  # waits for it
        return time.perf_counter() - began
