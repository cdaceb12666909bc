"""Reloading an exported checkpoint as the full model was loaded: streamed or spread if that is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from phaseprune.decoder.budget import LEAST_TOKENS, in_words, working_bytes
from phaseprune.decoder.decoder import Decoder
from phaseprune.decoder.device_map import load_mapped, pruned_map
from phaseprune.decoder.load_streamed import load_streamed
from phaseprune.decoder.source import Source
from phaseprune.errors import UserError

#: Tokens that a streamed model is let generate: each reads all blocks from disk.
FEW_TOKENS = 2


def reload(
    decoder: Decoder, removed: Sequence[int], checkpoint: Path, trust_remote_code: bool
) -> tuple[nn.Module, dict[str, Any]]:
    """The model that a checkpoint holds, and transformers' report on loading it.

    Args:
        decoder: the full model, whose device (map), dtype and budget are taken over.
        removed: the blocks that the checkpoint lacks.
        checkpoint: the directory.
        trust_remote_code: let the checkpoint's own code run.
    """
    if decoder.stream is not None:
        source = Source(str(checkpoint), checkpoint)
        return load_streamed(
            source, str(decoder.device), decoder.dtype, trust_remote_code,
            lambda model: decoder.blocks_path, decoder.max_memory,
        )[:2]  # fmt: skip
    if decoder.device_map is not None:
        kept = [block for block in range(len(decoder.blocks)) if block not in set(removed)]
        left = decoder.max_memory and max(0, decoder.max_memory - decoder.weight_bytes)
        return load_mapped(
            checkpoint, pruned_map(decoder.device_map, decoder.blocks_path, kept), decoder.dtype,
            trust_remote_code, lambda model: decoder.blocks_path, left,
        )  # fmt: skip
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(
        checkpoint,
        dtype=decoder.dtype,
        output_loading_info=True,
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
    )
    return model.to(decoder.device).eval(), report


def new_tokens(decoder: Decoder, usual: int) -> int:
    """How many tokens to generate."""
    return usual if decoder.stream is None else FEW_TOKENS


def refuse_comparing(decoder: Decoder) -> None:
    """Refuse a budget in which an export cannot be held against the model.

    What stands outside the blocks is in memory twice meanwhile.

    Raises:
        UserError: says the least that would do.
    """
    if decoder.stream is None or decoder.max_memory is None:
        return
    working = working_bytes(decoder.blocks, LEAST_TOKENS, decoder.dtype.itemsize)
    least = decoder.weight_bytes + decoder.stream.outside_bytes + working
    if least > decoder.max_memory:
        raise UserError(
            f"{decoder.name}: comparing an export with the model takes {in_words(least)}, more "
            f"than --max-memory {in_words(decoder.max_memory)}; give at least that much"
        )
