"""A loaded causal language model and where its parts are."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import nn

from phaseprune.decoder.context import context_limit
from phaseprune.decoder.device_map import DeviceMap, fetched, held_bytes, runs_on
from phaseprune.decoder.source import Source
from phaseprune.decoder.streaming import BlockStream

if TYPE_CHECKING:
    from phaseprune.decoder.own_pipeline import Pipeline


@dataclass
class Decoder:
    """A loaded causal language model and where its parts are.

    Attributes:
        name: what the user called it.
        model: the transformers model, in eval mode.
        tokenizer: its tokenizer.
        source: its files.
        blocks: the decoder layers; the position is the original 0-based index.
        blocks_path: their module path, as ``model.layers``.
        norm_path: the final norm's, for display; the readout runs the model's own code.
        head: the output head.
        input_name: what a block calls the hidden state that it is given.
        output_length: 0 where blocks return a tensor, else the length of the tuple they return.
        packed_length: the most tokens of a sequence that the model runs exactly in a packed row
            (``decoder.packed``); 0 where it runs none, None where that was not tried out yet.
        reads_alone: whether a block of a packed row can be run for its read tokens alone.
        readout_difference: max |readout at L - the model's logits|, measured at load.
        max_memory: bytes that a run may take, weights included; None for what is free.
        stream: reads blocks when they run; None where all weights are in memory.
        trained: whether the weights in memory are no longer those of the files.
        device_map: what was asked for; None where the model is on one device.
        pipeline: what running real prompts through the checkpoint's own pipeline showed at load.
        position_limit: rows of the model's table of positions; None where it has none.
        block_names: what ``blocks`` are in words where they are none (``sublayers.halved``).
    """

    name: str
    model: nn.Module = field(repr=False)
    tokenizer: object = field(repr=False)
    source: Source
    blocks: nn.ModuleList = field(repr=False)
    blocks_path: str
    norm_path: str | None
    head: nn.Module = field(repr=False)
    input_name: str = "hidden_states"
    output_length: int = 0
    packed_length: int | None = None
    reads_alone: bool = False
    readout_difference: float = float("nan")
    max_memory: int | None = None
    stream: BlockStream | None = field(default=None, repr=False)
    trained: bool = False
    device_map: DeviceMap | None = None
    block_names: Sequence[str] | None = field(default=None, repr=False)
    pipeline: Pipeline | None = field(default=None, repr=False)
    position_limit: int | None = None

    @property
    def config(self):
        """The transformers configuration."""
        return self.model.config

    @cached_property
    def configs(self) -> list:
        """The configurations that the model's modules look at, each once."""
        found = {id(m.config): m.config for m in self.model.modules() if hasattr(m, "config")}
        return [c for c in found.values() if hasattr(c, "_attn_implementation_internal")]

    @property
    def family(self) -> str:
        """The configuration's ``model_type``, for display only."""
        return self.config.model_type

    @property
    def device(self) -> torch.device:
        """Where tokens, states and logits are; blocks may run elsewhere."""
        spread = runs_on(self.model)
        return spread or next(p for p in self.model.parameters() if not p.is_meta).device

    @property
    def dtype(self) -> torch.dtype:
        """What hidden states are in; quantised weights (integers, 8-bit floats) do not tell."""
        computed = (
            parameter.dtype
            for parameter in self.blocks.parameters()
            if parameter.is_floating_point() and parameter.dtype.itemsize > 1
        )
        return next(computed, self.model.dtype)

    @property
    def width(self) -> int:
        """D, the values of a token's hidden state."""
        return self.model.get_input_embeddings().weight.shape[1]

    @property
    def weight_bytes(self) -> int:
        """Of the weights in memory, at most."""
        if self.stream is not None:
            return self.stream.held_bytes
        if self.device_map is not None:
            parts = [*self.blocks, self.head, self.model.get_input_embeddings()]
            return held_bytes(self.model, parts, self.device)
        return sum(parameter.nbytes for parameter in self.model.parameters())

    @property
    def stated_length(self) -> int:
        """Tokens that the model takes by its configuration or tokenizer, as lm-eval finds them."""
        return context_limit(self.config, self.tokenizer)

    @property
    def max_length(self) -> int:
        """Tokens that the model is given at most."""
        return min(self.stated_length, self.position_limit or self.stated_length)

    def called(self, block: int) -> str:
        """What a block is called in messages."""
        return self.block_names[block] if self.block_names else f"block {block}"

    def resident(self, block: int, then: int | None = None) -> AbstractContextManager[None]:
        """Have a block's weights where it runs while the context lasts.

        Args:
            block: which.
            then: the block that will be asked for next, to be read meanwhile.
        """
        if self.stream is not None:
            return self.stream.resident(block, then)
        return nullcontext() if self.device_map is None else fetched(self.blocks[block])

    def head_resident(self) -> AbstractContextManager[None]:
        """The same of the head, which a vocabulary read in parts needs again and again."""
        return nullcontext() if self.device_map is None else fetched(self.head)

    def block_device(self, block: int) -> torch.device:
        """Where a block runs."""
        return runs_on(self.blocks[block]) or self.device

    def block_output(self, hidden: torch.Tensor):
        """A hidden state in the form in which this model's blocks return it (tensor or tuple)."""
        if self.output_length == 0:
            return hidden
        return (hidden, *[None] * (self.output_length - 1))
